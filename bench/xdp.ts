/**
 * What a packet of a node port costs in XDP, by BPF_PROG_TEST_RUN, beside the empty XDP program; the backends are on
 * other nodes, chosen by a Maglev table of 100, with 10,000 other services loaded.
 *
 * Each figure is the median of runs of one packet each, the programs in turn, as in bench/datapath: a first packet can
 * only be run once. A flow is "known" when its connection is open; XDP keeps what the busiest flows need in an array
 * (bpf/lib/xdp_hot.h), and the rows "not among the busiest" are of packets that are not there.
 *
 * Settings from the environment: BENCH_ROUNDS (15).
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { XdpMd } from '../loader/abi/gen/kernel.gen.js';
import { attachXdp } from '../loader/link.js';
import type { BpfProgram } from '../loader/program.js';
import { FLAG, frame, type PacketSpec, PROTO, parse } from '../test/lib/packet.js';
import { sh } from './lib/command.js';
import { DatapathBed, loadSingle, makeDevices, UPLINK } from './lib/datapath-bed.js';
import { type Measurement, report } from './lib/report.js';
import { loadServices, NODE_PORT } from './lib/service-bed.js';
import { interleave, median } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 15);
const SINGLES = 2000;
const SERVICES = 10_000;
const REMOTE = 100;
const XDP_TX = 3;
const XDP_PASS = 2;
const MAC = { here: '02:00:00:00:00:01', router: '02:00:00:00:00:02' } as const;
const FAMILIES = {
  4: { client: '203.0.113.9', node: UPLINK.address as string },
  6: { client: '2001:db8:9::9', node: NODE_PORT.address6 as string },
} as const;
type Family = keyof typeof FAMILIES;

async function main(): Promise<void> {
  makeDevices();
  sh('ip address add 2001:db8:1::1/64 dev uplink nodad');
  sh('ip -6 route add default via 2001:db8:1::2');
  sh(`ip neighbour add 2001:db8:1::2 lladdr ${MAC.router} dev uplink`);
  sh('sysctl -qw net.ipv6.conf.all.forwarding=1');
  const empty = loadSingle('bench_empty.bpf.o', 'bench_empty_xdp');
  // A test run needs a device whose queues XDP has been set up for.
  const link = attachXdp(empty, UPLINK.ifindex, 'native');
  const bed = new DatapathBed(1);
  loadServices(bed, SERVICES, REMOTE);
  const context = Buffer.alloc(XdpMd.size);
  context.writeUInt32LE(UPLINK.ifindex, XdpMd.ingressIfindex);
  const run = (program: BpfProgram, data: Buffer) => {
    context.writeUInt32LE(data.length, XdpMd.dataEnd);
    return program.testRun({ data, ctxIn: context });
  };
  const sent = (packet: Buffer) => {
    let { retval, dataOut } = run(bed.xdp, packet);
    // One packet in a second goes by the stack, for each way out.
    if (retval === XDP_PASS) ({ retval, dataOut } = run(bed.xdp, packet));
    if (retval !== XDP_TX) throw new Error(`the XDP program answers ${retval}, it does not send`);
    const out = parse(Buffer.from(dataOut));
    if (out.broken.length > 0)
      throw new Error(`a translated packet has wrong checksums: ${out.broken.join(' ')}`);
    return out;
  };
  const packet = (spec: Omit<PacketSpec, 'sourceMac' | 'destinationMac'>): Buffer =>
    frame({ sourceMac: MAC.router, destinationMac: MAC.here, ...spec });
  const request = (
    family: Family,
    sourcePort: number,
    rest: Pick<PacketSpec, 'proto'> & Partial<PacketSpec>,
  ) =>
    packet({
      source: FAMILIES[family].client,
      destination: FAMILIES[family].node,
      sourcePort,
      destinationPort: NODE_PORT.port,
      ...rest,
    });
  /** Opens a connection; data of the client and of the backend. */
  const establish = (family: Family, sourcePort: number): { forth: Buffer; back: Buffer } => {
    const payload = Buffer.alloc(64);
    const arrived = sent(request(family, sourcePort, { proto: PROTO.tcp, flags: FLAG.syn }));
    const answer = (flags: number, data = Buffer.alloc(0)): Buffer =>
      packet({
        source: arrived.destination,
        destination: arrived.source,
        sourcePort: arrived.destinationPort ?? 0,
        destinationPort: arrived.sourcePort ?? 0,
        proto: PROTO.tcp,
        flags,
        payload: data,
      });
    // Either of them may be the one in a second that goes by the stack: the connection is open all the same.
    run(bed.xdp, answer(FLAG.syn | FLAG.ack));
    run(bed.xdp, request(family, sourcePort, { proto: PROTO.tcp, flags: FLAG.ack }));
    return {
      forth: request(family, sourcePort, { proto: PROTO.tcp, flags: FLAG.ack | FLAG.psh, payload }),
      back: answer(FLAG.ack | FLAG.psh, payload),
    };
  };
  const flow4 = establish(4, 40_000);
  const flow6 = establish(6, 40_000);
  for (const data of [flow4.forth, flow4.back, flow6.forth, flow6.back]) sent(data);
  const singles = (program: BpfProgram, data: Buffer): number =>
    median(Array.from({ length: SINGLES }, () => run(program, data).durationNs));
  // More flows than there are places, in turn.
  const cold = Array.from({ length: SINGLES }, (_, i) => establish(4, 20_000 + i).forth);
  const many = (): number => median(cold.map((data) => run(bed.xdp, data).durationNs));
  const elsewhere = request(4, 40_000, { proto: PROTO.tcp, flags: FLAG.ack, destinationPort: 22 });
  if (run(bed.xdp, elsewhere).retval !== XDP_PASS) throw new Error('a packet for the host is not passed on');
  let round = 0;
  const first = (family: Family, proto: number): number => {
    bed.clearHalfOpen();
    const port = (round++ % 10) * SINGLES + 40_001;
    const times: number[] = [];
    let passed = 0;
    for (let i = 0; i < SINGLES; i++) {
      const source = family === 4 ? `192.0.2.${round % 250}` : `2001:db8:7::${round}`;
      const data = packet({
        source,
        destination: FAMILIES[family].node,
        sourcePort: (port + i) % 60_000,
        destinationPort: NODE_PORT.port,
        proto,
        flags: FLAG.syn,
      });
      const { retval, durationNs } = run(bed.xdp, data);
      // One in a second goes by the stack, for each backend.
      if (retval === XDP_TX) times.push(durationNs);
      else passed++;
    }
    if (passed > SINGLES / 4) throw new Error(`${passed} of ${SINGLES} new flows are not sent on`);
    return median(times);
  };
  const subjects = {
    empty: () => singles(empty, flow4.forth),
    forth: () => singles(bed.xdp, flow4.forth),
    back: () => singles(bed.xdp, flow4.back),
    forth6: () => singles(bed.xdp, flow6.forth),
    many,
    syn: () => first(4, PROTO.tcp),
    syn6: () => first(6, PROTO.tcp),
    udp: () => first(4, PROTO.udp),
    elsewhere: () => singles(bed.xdp, elsewhere),
  };
  type Subject = keyof typeof subjects;
  const names = Object.keys(subjects) as Subject[];
  for (const name of names) subjects[name](); // warm
  const results = await interleave(ROUNDS, names, (name) => subjects[name]());
  const at = (name: Subject): number => median(results.get(name) ?? []);
  const row = (name: string, ours: Subject, times?: number): Measurement => ({
    name,
    unit: 'ns',
    better: 'lower',
    ours: at(ours),
    peers: { empty: at('empty') },
    ...(times === undefined ? {} : { target: { op: '<=' as const, value: times } }),
  });
  report(
    'xdp',
    [
      row('flow known, to the backend', 'forth', 2.5),
      row('flow known, answers', 'back', 2.5),
      row('flow known, IPv6', 'forth6', 2.5),
      row('flow known, not among the busiest', 'many'),
      row('new flow with Maglev, SYN', 'syn', 8),
      row('new flow with Maglev, SYN, IPv6', 'syn6', 8),
      row('new flow with Maglev, UDP', 'udp'),
      row('for the host itself, passed on', 'elsewhere'),
    ],
    { rounds: Object.fromEntries(results), services: SERVICES, backends: REMOTE },
  );
  link.close();
}

if (process.env.BENCH_NETNS === undefined) {
  // In a network namespace of its own, which is gone with the process.
  const { status } = spawnSync('unshare', ['--net', process.execPath, fileURLToPath(import.meta.url)], {
    stdio: 'inherit',
    env: { ...process.env, BENCH_NETNS: '1' },
  });
  process.exitCode = status ?? 1;
} else {
  try {
    await main();
  } catch (error) {
    console.error(`bench/xdp: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
