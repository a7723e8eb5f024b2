/**
 * What a new connection costs with ten and with ten thousand rules of policy in force: the program alone
 * (BPF_PROG_TEST_RUN) and TCP connections over real namespaces, beside iptables and nftables with the same rules.
 *
 * Settings from the environment: BENCH_ROUNDS (15), BENCH_SECONDS (0.2, of each measurement), BENCH_CPU (last),
 * BENCH_ATTEMPTS (4, for a measurement that other load disturbed), BENCH_RULES (10000).
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './lib/command.js';
import { CLIENT, DatapathBed, MAC, makeDevices, RANGE, SERVER } from './lib/datapath-bed.js';
import { buildNetbench, widenPorts } from './lib/netbench.js';
import { netnsPath, type Scratch } from './lib/netns.js';
import { TCP, tcpFrame } from './lib/packet.js';
import type { Path } from './lib/paths.js';
import { isDisturbed, undisturbed } from './lib/quiet.js';
import { type Measurement, report } from './lib/report.js';
import { iptablesRules, nftablesRules, nftablesSet, OPEN_PORTS, sluiceRules } from './lib/rule-paths.js';
import { withScratch } from './lib/scratch-run.js';
import { interleave, median } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 15);
const SECONDS = Number(process.env.BENCH_SECONDS ?? 0.2);
const CPU = Number(process.env.BENCH_CPU ?? cpus().length - 1);
const ATTEMPTS = Number(process.env.BENCH_ATTEMPTS ?? 4);
const FEW = 10;
const MANY = Number(process.env.BENCH_RULES ?? 10_000);
/** A new flow with many rules may cost so many times one with few. */
const GROWTH = 1.25;

/** First packets of one program in a round; fewer than the half-open table holds. */
const SINGLES = 2000;
const FIRST_PORT = 20_000;

/**
 * What differs from one connection to the next. With the destination port each is looked up in the policy; with the
 * source port the program may repeat its latest decision, as it does for the connections over real namespaces.
 */
const VARIANTS = {
  'another destination port': { offset: 36, first: RANGE.first },
  'another source port': { offset: 34, first: FIRST_PORT },
} as const;
type Variant = keyof typeof VARIANTS;
const VARIANT_NAMES = Object.keys(VARIANTS) as Variant[];

/** Medians of each round, ns. */
type FirstPackets = Readonly<Record<Variant, { readonly few: number[]; readonly many: number[] }>>;

/** What the first packet of a connection takes, by the number of rules. */
async function firstPackets(): Promise<FirstPackets> {
  makeDevices();
  const syn = tcpFrame({
    sourceMac: MAC,
    destinationMac: MAC,
    source: CLIENT.address,
    destination: SERVER.address,
    sourcePort: FIRST_PORT,
    destinationPort: SERVER.port,
    flags: TCP.syn,
  });
  const beds = { few: new DatapathBed(FEW), many: new DatapathBed(MANY) };
  const time = ({ name, rules }: { name: Variant; rules: keyof typeof beds }): number => {
    const { offset, first } = VARIANTS[name];
    const bed = beds[rules];
    bed.clearHalfOpen();
    const packet = Buffer.from(syn);
    const times = Array.from({ length: SINGLES }, (_, i) => {
      packet.writeUInt16BE(first + i, offset);
      return bed.time(bed.fromContainer, packet, 1);
    });
    return median(times);
  };
  const subjects = VARIANT_NAMES.flatMap((name) =>
    (['few', 'many'] as const).map((rules) => ({ name, rules })),
  );
  for (const subject of subjects) time(subject); // warm
  const results = await interleave(ROUNDS, subjects, time);
  const of = (name: Variant, rules: keyof typeof beds): number[] =>
    [...results].find(([subject]) => subject.name === name && subject.rules === rules)?.[1] ?? [];
  return Object.fromEntries(
    VARIANT_NAMES.map((name) => [name, { few: of(name, 'few'), many: of(name, 'many') }]),
  ) as FirstPackets;
}

/** `firstPackets` in a process with a network namespace that is gone with it. */
function firstPacketsElsewhere(): FirstPackets {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-rules-'));
  try {
    const result = join(folder, 'figures.json');
    const { status } = spawnSync('unshare', ['--net', process.execPath, fileURLToPath(import.meta.url)], {
      stdio: 'inherit',
      env: { ...process.env, BENCH_FIGURES: result },
    });
    if (status !== 0) throw new Error(`measuring first packets ended with status ${status}`);
    return JSON.parse(readFileSync(result, 'utf8')) as FirstPackets;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Each run has a port of its own: connections of earlier runs are still in TIME_WAIT. */
let port: number = OPEN_PORTS.first;

/** Connections a second. */
function connections(tool: string, path: Path): number {
  port += 1;
  const args = [
    'crr',
    netnsPath(path.client),
    netnsPath(path.server),
    path.serverAddress,
    port,
    CPU,
    SECONDS,
  ];
  return (JSON.parse(run(tool, args.map(String))) as { per_second: number }).per_second;
}

interface Subject {
  readonly path: Path;
  readonly rules: number;
}

async function main(scratch: Scratch): Promise<void> {
  const tool = buildNetbench();
  const first = firstPacketsElsewhere();
  const subjects: Subject[] = [];
  for (const rules of [FEW, MANY]) {
    subjects.push({ path: await sluiceRules(scratch, rules), rules });
    for (const make of [iptablesRules, nftablesRules, nftablesSet])
      subjects.push({ path: make(scratch, rules), rules });
  }
  for (const { path } of subjects) {
    widenPorts(path.client);
    connections(tool, path); // warm
  }
  let disturbed = 0;
  const results = await interleave(ROUNDS, subjects, ({ path }) => {
    const { result, disturbance } = undisturbed(CPU, ATTEMPTS, () => connections(tool, path));
    if (isDisturbed(disturbance)) disturbed += 1;
    return result;
  });
  if (disturbed > 0)
    console.log(`something else was running during ${disturbed} of ${subjects.length * ROUNDS} measurements`);

  const perSecond = (name: string, rules: number): number => {
    const subject = subjects.find(({ path, rules: count }) => path.name === name && count === rules);
    return median((subject === undefined ? undefined : results.get(subject)) ?? []);
  };
  const names = [...new Set(subjects.map(({ path }) => path.name))].filter((name) => name !== 'sluice');
  const text = (rules: number): string => `${rules.toLocaleString('en-US')} rules`;
  const growth = (name: string): Measurement => ({
    name: `connections, ${text(MANY)}, ${name}`,
    unit: '1/s',
    better: 'higher',
    ours: perSecond(name, MANY),
    peers: { [text(FEW)]: perSecond(name, FEW) },
    ...(name === 'sluice' ? { target: { op: '>=', value: 1 / GROWTH } } : {}),
  });
  const measurements: Measurement[] = [
    ...VARIANT_NAMES.map(
      (name): Measurement => ({
        name: `first SYN, ${name}, ${text(MANY)}`,
        unit: 'ns',
        better: 'lower',
        ours: median(first[name].many),
        peers: { [text(FEW)]: median(first[name].few) },
        target: { op: '<=', value: GROWTH },
      }),
    ),
    growth('sluice'),
    ...names.map(growth),
    ...[FEW, MANY].map(
      (rules): Measurement => ({
        name: `connections, ${text(rules)}`,
        unit: '1/s',
        better: 'higher',
        ours: perSecond('sluice', rules),
        peers: Object.fromEntries(names.map((name) => [name, perSecond(name, rules)])),
        target: { op: '>', value: 1 },
      }),
    ),
  ];
  const rounds = [...results].map(([{ path, rules }, values]) => ({ path: path.name, rules, values }));
  report('policy-peers', measurements, { disturbed, firstPackets: first, rounds });
}

await withScratch('policy-peers', 'slrule', async (scratch) => {
  const result = process.env.BENCH_FIGURES;
  if (result === undefined) await main(scratch);
  else writeFileSync(result, JSON.stringify(await firstPackets()));
});
