/**
 * The host's policy against ipset and nftables sets, in one run: lists of 100,000 CIDRs (load, one entry changed, cost of
 * a look-up) and what a host still does while 200,000 packets a second from a denied peer arrive.
 *
 * The lists: IPv4 prefixes of six lengths; packets are from all of them, so what a look-up costs is that of tables which
 * no cache holds entirely. Load and change of ours are from the file to the kernel's map, without the
 * start of a process; of the peers the whole command, because that is what they have.
 *
 * The flood: its sender, the server and its client have one CPU together, and the sender runs when it wants, as the
 * interrupts of a network device do. So what a packet costs until it is dropped is missing from the requests, whatever
 * the scheduler does. Each filter has its turn in each round, and is held against the others of the same round; ours may
 * be behind by what rounds differ among themselves, at most MOST_NOISE. Settings from the environment: BENCH_SECONDS
 * (1.5, of each flood), BENCH_ROUNDS (7).
 */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ListFile } from '../src/host/list-file.js';
import { Agent } from './lib/agent.js';
import { run } from './lib/command.js';
import { HostBed } from './lib/host-bed.js';
import { inside, netnsPath, Scratch, veth } from './lib/netns.js';
import { TCP, tcpFrame } from './lib/packet.js';
import { cpuTimes } from './lib/quiet.js';
import { type Measurement, report } from './lib/report.js';
import { interleave, median, noise } from './lib/stats.js';
import { start } from './lib/traffic.js';

const SECONDS = Number(process.env.BENCH_SECONDS ?? 1.5);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);
const MOST_NOISE = 0.15;
const ENTRIES = 100_000;
const FLOOD_RATE = 200_000;
const LENGTHS = [24, 26, 28, 29, 30, 32];
const HOST = '198.51.100.1';
const FLOOD = { host: '203.0.113.1', sender: '203.0.113.2' } as const;
const TICKS_PER_SECOND = 100;
/** Of the flood, the client and the server. */
const CPU = cpus().length - 1;
/** Seconds of a flood before and after what is measured in it. */
const MARGIN = 0.2;
/** The agent is left alone for half of this time after its start, and for all of it if it is busy. */
const AFTER_START_MS = 6000;
const IDLE_MS = 500;

/** CIDRs that do not overlap, one in each /24 network from 16.0.0.0 on (as bpf/bench_host.bpf.c knows). */
function cidrs(count: number): string[] {
  return Array.from({ length: count }, (_, i) => {
    const length = LENGTHS[i % LENGTHS.length] ?? 32;
    return `${16 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}.0/${length}`;
  });
}

function timed(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

function policy(list: string): object {
  return {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'HostPolicy',
    metadata: { name: 'deny' },
    spec: { subject: { host: {} }, ingress: [{ action: 'Deny', from: [{ list }] }] },
  };
}

interface ListFigures {
  readonly load: number;
  readonly change: number;
  /** Nanoseconds of a packet in a stream in which each packet is from another peer of the list. */
  readonly stream: number;
  /** The same with each peer's packets one after the other. */
  readonly repeated: number;
  /** Single packets with other work of the process between, so that neither code nor data are in the caches. */
  readonly single: number;
}

/** A list of our own in force in maps of its own. */
class OurList {
  readonly #bed: HostBed;
  readonly #path: string;
  readonly #file: ListFile;
  readonly #lines: string[];
  readonly load: number;

  constructor(folder: string, count: number) {
    this.#bed = new HostBed(count);
    this.#path = join(folder, `list-${count}`);
    this.#lines = cidrs(count);
    this.#write();
    this.#bed.apply(JSON.stringify(policy(this.#path)));
    this.#file = new ListFile(this.#path, folder);
    this.load = timed(() => this.#bed.changeList(this.#path, this.#file.reload().added));
  }

  /** One entry becomes another one: from the file to the map. */
  change(turn: number): number {
    this.#lines[(turn * 4999) % this.#lines.length] = `100.64.${turn}.0/24`;
    this.#write();
    return timed(() => {
      const { added, removed } = this.#file.reload();
      this.#bed.changeList(this.#path, added, removed);
    });
  }

  /** Denied packets are looked up every time; what the change of their source costs is taken off. */
  stream(): number {
    const { ingressOfPeers, peersAlone } = this.#bed;
    const data = packetFrom(HOST, 1000);
    const all = ingressOfPeers.testRun({ data, repeat: ENTRIES }).durationNs;
    return all - peersAlone.testRun({ data, repeat: ENTRIES }).durationNs;
  }

  /** Median over peers of packets, `repeat` of each. */
  packets(peers: number, repeat: number): number {
    const times = Array.from({ length: peers }, (_, i) => {
      const data = packetFrom(this.#address((i * 7919) % this.#lines.length), 1000 + (i & 1023));
      return this.#bed.ingress.testRun({ data, repeat }).durationNs;
    });
    return median(times);
  }

  close(): void {
    this.#bed.close();
  }

  #address(entry: number): string {
    return (this.#lines[entry] ?? '').replace(/\/.*/, '');
  }

  #write(): void {
    writeFileSync(this.#path, `${this.#lines.join('\n')}\n`);
  }
}

function packetFrom(source: string, sourcePort: number): Buffer {
  const mac = Buffer.alloc(6); // that of the loopback
  return tcpFrame({
    sourceMac: mac,
    destinationMac: mac,
    source,
    destination: '127.0.0.1',
    sourcePort,
    destinationPort: 9,
    flags: TCP.syn,
  });
}

/** Lists of so many entries, measured in turn. */
async function ourLists(folder: string, ...counts: readonly number[]): Promise<ListFigures[]> {
  const lists = counts.map((count) => new OurList(folder, count));
  try {
    const streams = await interleave(25, lists, (list) => list.stream());
    const repeated = await interleave(5, lists, (list) => list.packets(200, 200));
    const single = await interleave(3, lists, (list) => list.packets(2000, 1));
    const changes = await interleave(20, lists, (list, turn) => list.change(turn));
    return lists.map((list) => ({
      load: list.load,
      change: median(changes.get(list) ?? []),
      stream: median(streams.get(list) ?? []),
      repeated: median(repeated.get(list) ?? []),
      single: median(single.get(list) ?? []),
    }));
  } finally {
    for (const list of lists) list.close();
  }
}

interface Contender {
  readonly name: string;
  /** Denies the list in the namespace; returns how long the load and the change of one entry took, milliseconds. */
  setUp(host: string, lines: readonly string[]): Promise<{ load: number; change: number } | undefined>;
  tearDown(host: string): Promise<void>;
}

const ipset: Contender = {
  name: 'ipset',
  async setUp(host, lines) {
    const text = `create deny hash:net maxelem 200000\n${lines.map((line) => `add deny ${line}`).join('\n')}\n`;
    const load = timed(() => inside(host, 'ipset restore', {}, text));
    const change = timed(() => inside(host, 'ipset add deny 100.64.0.0/24'));
    inside(host, 'iptables -A INPUT -m set --match-set deny src -j DROP');
    return { load, change };
  },
  async tearDown(host) {
    inside(host, 'iptables -F INPUT');
    inside(host, 'ipset destroy deny');
  },
};

const nftables: Contender = {
  name: 'nftables',
  async setUp(host, lines) {
    const text = `table inet bench {
  set deny { type ipv4_addr; flags interval; elements = { ${lines.join(', ')} } }
  chain input { type filter hook input priority 0; ip saddr @deny drop; }
}\n`;
    const load = timed(() => inside(host, 'nft -f -', {}, text));
    const change = timed(() =>
      run('nsenter', [`--net=${netnsPath(host)}`, 'nft', 'add element inet bench deny { 100.64.0.0/24 }']),
    );
    return { load, change };
  },
  async tearDown(host) {
    inside(host, 'nft delete table inet bench');
  },
};

interface FloodFigures {
  readonly requests: number;
  readonly cpu: number;
  readonly sent: number;
  readonly seconds: number;
}

/**
 * Requests a second of a client that is allowed, while packets of one that is denied arrive; then the CPUs that these
 * packets alone take.
 */
async function flood(client: string, flooder: string, rate: number): Promise<FloodFigures> {
  const started = performance.now();
  const packets = async (): Promise<number> => {
    if (rate === 0) return sleep(SECONDS * 1000, 0);
    const place = { netns: flooder, cpu: CPU, interrupts: true };
    const { done } = await start(place, 'udp-source', FLOOD.host, 9, rate, SECONDS);
    return (JSON.parse(await done) as { sent: number }).sent;
  };
  const length = SECONDS - 2 * MARGIN;
  const first = packets();
  await sleep(MARGIN * 1000);
  const clients = await start({ netns: client, cpu: CPU }, 'tcp-clients', HOST, 80, 1, 0, length);
  const { answers } = JSON.parse(await clients.done) as { answers: number };
  let sent = await first;
  const second = packets();
  await sleep(MARGIN * 1000);
  const [before, since] = [cpuTimes(), performance.now()];
  await sleep(length * 1000);
  const [after, until] = [cpuTimes(), performance.now()];
  sent += await second;
  const busy = after.reduce((sum, { busy: ticks }, i) => sum + ticks - (before[i]?.busy ?? 0), 0);
  return {
    requests: answers / length,
    cpu: (busy / TICKS_PER_SECOND / (until - since)) * 1000,
    sent,
    seconds: (performance.now() - started) / 1000,
  };
}

/** Ticks of CPU time that a process has used. */
function processTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** What an agent does in the seconds after its start is over. */
async function untilIdle(ticks: () => number): Promise<void> {
  for (const deadline = performance.now() + AFTER_START_MS; performance.now() < deadline; ) {
    const before = ticks();
    await sleep(IDLE_MS);
    if (performance.now() > deadline - AFTER_START_MS / 2 && ticks() - before <= 1) return;
  }
}

async function main(): Promise<void> {
  const scratch = new Scratch('slbh');
  process.once('exit', () => scratch.close());
  const folder = scratch.folder(mkdtempSync(join(tmpdir(), 'slbh-')));
  mkdirSync(join(folder, 'lists'));
  const measurements: Measurement[] = [];
  try {
    const [few, many] = (await ourLists(folder, 10, ENTRIES)) as [ListFigures, ListFigures];
    const host = scratch.netns('host');
    const client = scratch.netns('client');
    const flooder = scratch.netns('flood');
    veth(host, 'uplink0', client, 'eth0');
    veth(host, 'uplink1', flooder, 'eth0');
    inside(host, `ip address add ${HOST}/24 dev uplink0`);
    inside(client, 'ip address add 198.51.100.2/24 dev eth0');
    inside(host, `ip address add ${FLOOD.host}/24 dev uplink1`);
    inside(flooder, `ip address add ${FLOOD.sender}/24 dev eth0`);
    const server = await start({ netns: host, cpu: CPU }, 'tcp-server', '0.0.0.0', 80, 600);
    const sink = await start({ netns: host, cpu: CPU }, 'udp-sink', '0.0.0.0', 9, 600);
    scratch.onClose(() => {
      for (const { pid } of [server, sink]) process.kill(pid, 'SIGKILL');
    });

    const lines = [...cidrs(ENTRIES - 1), `${FLOOD.sender}/32`];
    const list = join(folder, 'deny.list');
    const agent = new Agent(scratch, host, {
      metricsAddress: '127.0.0.1:9644',
      uplinks: ['uplink0', 'uplink1'],
    });
    const agentShare: number[] = [];
    const applied: number[] = [];
    const exact: string[] = [];
    const sluice: Contender = {
      name: 'sluice',
      async setUp() {
        writeFileSync(list, `${lines.join('\n')}\n`);
        const started = performance.now();
        await agent.apply(JSON.stringify(policy(list)));
        applied.push(performance.now() - started);
        return undefined;
      },
      async tearDown() {
        await agent.delete(JSON.stringify(policy(list)));
      },
    };
    await agent.start(scratch);
    await untilIdle(() => processTicks(agent.pid ?? 0));
    const dropped = (): number =>
      Number(
        /sluice_dropped_packets_total\{[^}]*reason="host_policy"[^}]*\} (\d+)/.exec(
          inside(host, 'busybox wget -q -O - http://127.0.0.1:9644/metrics'),
        )?.[1] ?? 0,
      );

    const loads = new Map<string, { load: number; change: number }>();
    const quiet = await flood(client, flooder, 0);
    const results = await interleave(ROUNDS, [sluice, ipset, nftables], async (contender) => {
      const cost = await contender.setUp(host, lines);
      if (cost !== undefined) loads.set(contender.name, cost);
      const [countBefore, ticks] = [dropped(), processTicks(agent.pid ?? 0)];
      const result = await flood(client, flooder, FLOOD_RATE);
      if (contender === sluice) {
        agentShare.push((processTicks(agent.pid ?? 0) - ticks) / TICKS_PER_SECOND / result.seconds);
        exact.push(`${dropped() - countBefore} of ${result.sent}`);
      }
      await contender.tearDown(host);
      return result;
    });
    const figures = Object.fromEntries([...results].map(([{ name }, list]) => [name, list]));
    const open = await flood(client, flooder, FLOOD_RATE);

    const of = (name: string, what: (one: FloodFigures) => number): number =>
      median((figures[name] ?? []).map(what));
    const peers = (what: (one: FloodFigures) => number): Record<string, number> =>
      Object.fromEntries(['ipset', 'nftables'].map((name) => [name, of(name, what)]));
    const costs = (what: 'load' | 'change'): Record<string, number> =>
      Object.fromEntries([...loads].map(([name, cost]) => [name, cost[what]]));
    // Within a round, the machine is as fast for each.
    const beside = ['ipset', 'nftables'].map((name) =>
      (figures.sluice ?? []).map(({ requests }, round) => requests / (figures[name]?.[round]?.requests ?? 0)),
    );
    const limit = (name: string, unit: string, ours: number, most: number): Measurement => ({
      name,
      unit,
      ours,
      peers: { limit: most },
      better: 'lower',
      target: { op: '<=', value: 1 },
    });
    const entries = (name: string, of_: (one: ListFigures) => number, most?: number): Measurement => ({
      name,
      unit: 'ns',
      ours: of_(many),
      peers: { '10 entries': of_(few) },
      better: 'lower',
      ...(most === undefined ? {} : { target: { op: '<=', value: most } }),
    });
    measurements.push(
      limit('100,000 CIDRs from file to kernel', 'ms', many.load, 1000),
      { name: 'the same, whole command', unit: 'ms', ours: many.load, peers: costs('load'), better: 'lower' },
      limit('a running agent applies a policy with them', 'ms', Math.max(...applied), 1000),
      limit('one of them changed', 'ms', many.change, 5),
      {
        name: 'the same, whole command',
        unit: 'ms',
        ours: many.change,
        peers: costs('change'),
        better: 'lower',
      },
      entries('a packet with 100,000 entries, each from another peer', ({ stream }) => stream, 1.25),
      entries("the same, a peer's packets one after the other", ({ repeated }) => repeated, 1.25),
      entries('the same, single packets with nothing in the caches', ({ single }) => single),
      {
        name: `requests under ${FLOOD_RATE} packets/s`,
        unit: '1/s',
        ours: of('sluice', ({ requests }) => requests),
        peers: {
          ...peers(({ requests }) => requests),
          'no flood': quiet.requests,
          'no filter': open.requests,
        },
        better: 'higher',
      },
      {
        name: 'the same, as a part of the better set',
        unit: '',
        ours: Math.min(...beside.map(median)),
        peers: { 'no difference': 1 },
        better: 'higher',
        target: { op: '>=', value: 1 - Math.max(0.05, Math.min(MOST_NOISE, ...beside.map(noise))) },
      },
      {
        name: 'CPUs busy in the flood',
        unit: 'CPUs',
        ours: of('sluice', ({ cpu }) => cpu),
        peers: { ...peers(({ cpu }) => cpu), 'no filter': open.cpu },
        better: 'lower',
      },
      limit('agent in the flood', 'CPUs', Math.max(...agentShare), 0.1),
      limit(
        'drops not counted',
        'packets',
        Math.max(
          ...exact.map((text) => text.split(' of ').map(Number)).map(([a = 0, b = 0]) => Math.abs(a - b)),
        ),
        0.5,
      ),
    );
    report('host', measurements, {
      flood: { rate: FLOOD_RATE, seconds: SECONDS, dropsCounted: exact, figures, quiet, open },
      lists: { few, many, peers: Object.fromEntries(loads) },
    });
  } finally {
    scratch.close();
  }
}

await main();
