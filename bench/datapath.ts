/**
 * What a packet costs in the program of a container's device, by BPF_PROG_TEST_RUN, beside the empty program.
 *
 * Each figure is the median of runs of one packet each, the programs in turn: between two packets the caches see other
 * work, as they do on a real host, and a first packet can only be run once. The last rows are means of long loops
 * over one packet, where nothing is ever cold, beside the least that a lookup can cost.
 *
 * Settings from the environment: BENCH_ROUNDS (15).
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { BpfProgram } from '../loader/program.js';
import {
  bareLookup,
  CLIENT,
  DatapathBed,
  loadSingle,
  MAC,
  makeDevices,
  OUTSIDE,
  SERVER,
} from './lib/datapath-bed.js';
import { checksumsHold, TCP, tcpFrame, tupleOf } from './lib/packet.js';
import { type Measurement, report } from './lib/report.js';
import { CLUSTER_SERVICE, loadServices } from './lib/service-bed.js';
import { interleave, median } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 15);
/** Single runs of one program in a round; of first packets, fewer than the half-open table holds. */
const SINGLES = 2000;
/** Runs of one packet in a loop. */
const LOOP = 200_000;
const FEW_RULES = 10;
const MANY_RULES = 1000;
const SERVICES = 10_000;
const FIRST_PORT = 20_000;
const SOURCE_PORT_OFFSET = 34;

async function main(): Promise<void> {
  makeDevices();
  const empty = loadSingle('bench_empty.bpf.o', 'bench_empty');
  const bed = new DatapathBed(FEW_RULES);
  const large = new DatapathBed(MANY_RULES);
  const served = new DatapathBed(FEW_RULES);
  loadServices(served, SERVICES, 0);

  const bare = bareLookup(40_000);
  const local = bed.establish('server', 40_000);
  const outward = bed.establish('outside', 40_001);
  const balanced = served.establish(CLUSTER_SERVICE, 40_002);
  const toService = served.pass(served.fromContainer, CLIENT.ifindex, balanced);
  if (tupleOf(toService).destination !== SERVER.address || !checksumsHold(toService))
    throw new Error('the packet to the service does not reach its backend as it should');
  const translated = bed.pass(bed.fromContainer, CLIENT.ifindex, outward);
  if (!checksumsHold(translated)) throw new Error('the masqueraded packet has a wrong checksum');
  bed.mirrorMasquerade(outward);
  const synTo = ({ address, port }: { readonly address: string; readonly port: number }): Buffer =>
    tcpFrame({
      sourceMac: MAC,
      destinationMac: MAC,
      source: CLIENT.address,
      destination: address,
      sourcePort: 1024,
      destinationPort: port,
      flags: TCP.syn,
    });
  const syn = synTo(SERVER);
  const serviceSyn = synTo(CLUSTER_SERVICE);
  const singles = (program: BpfProgram, frame: Buffer): number =>
    median(Array.from({ length: SINGLES }, () => bed.time(program, frame, 1)));
  const firstPackets = (on: DatapathBed, first: Buffer): number => {
    on.clearHalfOpen();
    const times = Array.from({ length: SINGLES }, (_, i) => {
      first.writeUInt16BE(FIRST_PORT + i, SOURCE_PORT_OFFSET);
      return on.time(on.fromContainer, first, 1);
    });
    return median(times);
  };

  const subjects = {
    empty: () => singles(empty, local),
    local: () => singles(bed.fromContainer, local),
    masqueraded: () => singles(bed.fromContainer, outward),
    service: () => singles(served.fromContainer, balanced),
    first: () => firstPackets(bed, syn),
    firstOfLarge: () => firstPackets(large, syn),
    firstOfService: () => firstPackets(served, serviceSyn),
    loopEmpty: () => bed.time(empty, local, LOOP),
    loopBare: () => bed.time(bare, local, LOOP),
    loopLocal: () => bed.time(bed.fromContainer, local, LOOP),
  };
  type Subject = keyof typeof subjects;
  const names = Object.keys(subjects) as Subject[];
  for (const name of names) subjects[name](); // warm
  const results = await interleave(ROUNDS, names, (name) => subjects[name]());
  const at = (name: Subject): number => median(results.get(name) ?? []);

  const row = { unit: 'ns', better: 'lower' } as const;
  const against = (name: string, ours: Subject, times: number): Measurement => ({
    ...row,
    name,
    ours: at(ours),
    peers: { empty: at('empty') },
    target: { op: '<=', value: times },
  });
  const measurements: Measurement[] = [
    against('established, container to container', 'local', 3),
    against('established, masqueraded', 'masqueraded', 4.5),
    against('established, through a ClusterIP', 'service', 5),
    against(`first SYN, ${FEW_RULES} rules`, 'first', 18),
    against(
      `first SYN through a ClusterIP, ${SERVICES.toLocaleString('en-US')} services`,
      'firstOfService',
      28,
    ),
    {
      ...row,
      name: `first SYN, ${MANY_RULES.toLocaleString('en-US')} rules`,
      ours: at('firstOfLarge'),
      peers: { [`${FEW_RULES} rules`]: at('first') },
      target: { op: '<=', value: 1.25 },
    },
    {
      ...row,
      name: 'established, in a loop',
      ours: at('loopLocal'),
      peers: { 'bare lookup': at('loopBare') },
    },
    {
      ...row,
      name: 'empty program, in a loop',
      ours: at('loopEmpty'),
      peers: { 'bare lookup': at('loopBare') },
    },
  ];
  report('datapath', measurements, { rounds: Object.fromEntries(results), destination: OUTSIDE.address });
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
    console.error(`bench/datapath: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
