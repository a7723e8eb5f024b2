/**
 * What a packet costs in the program of a container's device, by BPF_PROG_TEST_RUN, beside the empty program.
 *
 * Settings from the environment: BENCH_ROUNDS (15).
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import {
  bareLookup,
  CLIENT,
  DatapathBed,
  loadSingle,
  MAC,
  makeDevices,
  OUTSIDE,
  SERVER,
  varying,
} from './lib/datapath-bed.js';
import { checksumsHold, TCP, tcpFrame } from './lib/packet.js';
import { type Measurement, report } from './lib/report.js';
import { interleave, median } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 15);
/** Runs of one measurement of an established flow. */
const MANY = 200_000;
/** A masqueraded packet loses one of its TTL of 255 at each run. */
const SHORT = 200;
/** First packets of one measurement: fewer than the half-open table holds. */
const FLOWS = 8000;
const FEW_RULES = 10;
const MANY_RULES = 1000;

async function main(): Promise<void> {
  makeDevices();
  const empty = loadSingle('bench_empty.bpf.o', 'bench_empty');
  const bed = new DatapathBed(FEW_RULES);
  const large = new DatapathBed(MANY_RULES);

  const bare = bareLookup(40_000);
  const local = bed.establish('server', 40_000);
  const outward = bed.establish('outside', 40_001);
  const translated = bed.pass(bed.fromContainer, CLIENT.ifindex, outward);
  if (!checksumsHold(translated)) throw new Error('the masqueraded packet has a wrong checksum');
  bed.mirrorMasquerade(outward);
  const syn = tcpFrame({
    sourceMac: MAC,
    destinationMac: MAC,
    source: CLIENT.address,
    destination: SERVER.address,
    sourcePort: 1024,
    destinationPort: SERVER.port,
    flags: TCP.syn,
  });
  const first = varying(bed.fromContainer);
  const firstOfLarge = varying(large.fromContainer);
  const shortRuns = (program: typeof empty): number =>
    median(Array.from({ length: 100 }, () => bed.time(program, outward, SHORT)));

  const subjects = {
    empty: () => bed.time(empty, local, MANY),
    emptyShort: () => shortRuns(empty),
    bare: () => bed.time(bare, local, MANY),
    local: () => bed.time(bed.fromContainer, local, MANY),
    masqueraded: () => shortRuns(bed.fromContainer),
    first: () => {
      bed.clearHalfOpen();
      return bed.time(first, syn, FLOWS);
    },
    firstOfLarge: () => {
      large.clearHalfOpen();
      return large.time(firstOfLarge, syn, FLOWS);
    },
  };
  type Subject = keyof typeof subjects;
  const names = Object.keys(subjects) as Subject[];
  for (const name of names) subjects[name](); // warm
  const results = await interleave(ROUNDS, names, (name) => subjects[name]());
  const at = (name: Subject): number => median(results.get(name) ?? []);

  // What a test run costs by itself differs between machines (10 ns on one, 34 ns on another, with the same lookup
  // cost): the second row of each pair is without it.
  const row = { unit: 'ns', better: 'lower' } as const;
  const rows = (
    name: string,
    ours: Subject,
    peer: Subject,
    timesEmpty: number,
    timesLookup: number,
  ): Measurement[] => [
    {
      ...row,
      name,
      ours: at(ours),
      peers: { empty: at(peer) },
      target: { op: '<=', value: timesEmpty },
    },
    {
      ...row,
      name: '  net of the empty program',
      ours: at(ours) - at(peer),
      peers: { 'bare lookup': at('bare') - at('empty') },
      target: { op: '<=', value: timesLookup },
    },
  ];
  const measurements: Measurement[] = [
    ...rows('established, container to container', 'local', 'empty', 3, 1.55),
    ...rows('established, masqueraded', 'masqueraded', 'emptyShort', 4.5, 2.7),
    ...rows(`first SYN, ${FEW_RULES} rules`, 'first', 'empty', 18, 13.1),
    {
      ...row,
      name: `first SYN, ${MANY_RULES.toLocaleString('en-US')} rules`,
      ours: at('firstOfLarge'),
      peers: { [`${FEW_RULES} rules`]: at('first') },
      target: { op: '<=', value: 1.25 },
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
