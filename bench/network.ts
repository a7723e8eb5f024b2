/**
 * Container to container: request/response, connections, UDP packets and TCP throughput through Sluice, beside a
 * bare veth pair (the limit), Docker's bridge and rules, and the reference CNI plugins.
 *
 * Settings from the environment: BENCH_ROUNDS (21), BENCH_SECONDS (0.2, of each measurement), BENCH_CPU (last),
 * BENCH_ATTEMPTS (4, for a measurement that other load disturbed),
 * BENCH_PEERS_ONLY=1 (without Sluice: the figures of the peers).
 */
import { mkdirSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { run } from './lib/command.js';
import { netnsPath, Scratch } from './lib/netns.js';
import { barePath, cniBridgePath, cniPtpPath, dockerPath, type Path, redirectPath } from './lib/paths.js';
import { isDisturbed, undisturbed } from './lib/quiet.js';
import { type Measurement, report, type Target } from './lib/report.js';
import { sluicePath } from './lib/sluice-path.js';
import { interleave, median, noise } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 21);
const SECONDS = Number(process.env.BENCH_SECONDS ?? 0.2);
const CPU = Number(process.env.BENCH_CPU ?? cpus().length - 1);
const ATTEMPTS = Number(process.env.BENCH_ATTEMPTS ?? 4);
const PEERS_ONLY = process.env.BENCH_PEERS_ONLY === '1';

/** Differences in TCP throughput below this were noise on every machine so far; more is not forgiven. */
const MOST_NOISE = 0.25;

/** What netbench prints for each of its modes, by name. */
type Figures = Readonly<Record<string, number>>;

interface Figure {
  readonly mode: 'rr' | 'crr' | 'udp' | 'stream';
  readonly key: string;
  readonly name: string;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
  /** Ratio to the bare veth pair that must be reached. */
  readonly limit?: number;
}

const FIGURES: readonly Figure[] = [
  { mode: 'rr', key: 'per_second', name: 'request/response', unit: '1/s', better: 'higher', limit: 0.97 },
  { mode: 'rr', key: 'p50_us', name: 'request/response p50', unit: 'us', better: 'lower' },
  { mode: 'rr', key: 'p99_us', name: 'request/response p99', unit: 'us', better: 'lower' },
  { mode: 'crr', key: 'per_second', name: 'connections', unit: '1/s', better: 'higher', limit: 0.93 },
  { mode: 'udp', key: 'per_second', name: 'UDP 64 B', unit: 'packets/s', better: 'higher', limit: 0.8 },
  { mode: 'stream', key: 'mbit_per_second', name: 'TCP throughput', unit: 'Mbit/s', better: 'higher' },
];

/** Each run has a port of its own: connections of earlier runs are still in TIME_WAIT. */
let port = 10_000;

function netbench(tool: string, mode: Figure['mode'], path: Path): Figures {
  port += 1;
  const args = [mode, netnsPath(path.client), netnsPath(path.server), path.serverAddress, port, CPU, SECONDS];
  return JSON.parse(run(tool, args.map(String))) as Figures;
}

function buildTool(): string {
  mkdirSync('build/bench', { recursive: true });
  const tool = join('build', 'bench', 'netbench');
  run('gcc', ['-O2', '-Wall', '-Wextra', '-pthread', '-o', tool, 'bench/tools/netbench.c']);
  return tool;
}

async function main(scratch: Scratch): Promise<void> {
  const tool = buildTool();
  const bare = barePath(scratch);
  const redirect = redirectPath(scratch);
  const peers = [dockerPath(scratch), cniBridgePath(scratch), cniPtpPath(scratch)];
  const ours = PEERS_ONLY ? undefined : await sluicePath(scratch);
  const paths = [...(ours === undefined ? [] : [ours]), bare, redirect, ...peers];
  for (const { client } of paths) {
    // With the default range, the search for a free port is what a second of new connections measures.
    const range = 'net.ipv4.ip_local_port_range=1024 65535';
    run('nsenter', [`--net=${netnsPath(client)}`, '--', 'sysctl', '-qw', range]);
  }
  const modes = [...new Set(FIGURES.map(({ mode }) => mode))];
  console.log(
    `${paths.map(({ name }) => name).join(', ')}: ${ROUNDS} rounds, ${modes.join(', ')} for ${SECONDS} s each`,
  );

  const runs = paths
    .flatMap((path) => modes.map((mode) => ({ path, mode })))
    .sort((a, b) => modes.indexOf(a.mode) - modes.indexOf(b.mode));
  let disturbed = 0;
  const results = await interleave(ROUNDS, runs, ({ path, mode }) => {
    const { result, disturbance } = undisturbed(CPU, ATTEMPTS, () => netbench(tool, mode, path));
    if (isDisturbed(disturbance)) disturbed += 1;
    return result;
  });
  if (disturbed > 0)
    console.log(`something else was running during ${disturbed} of ${runs.length * ROUNDS} measurements`);
  const values = (path: Path, { mode, key }: Figure): number[] =>
    [...results].flatMap(([of, all]) =>
      of.path === path && of.mode === mode ? all.map((figures) => figures[key] ?? Number.NaN) : [],
    );

  const measurements = FIGURES.flatMap((figure): Measurement[] => {
    const { name, unit, better, limit } = figure;
    const subject = median(values(ours ?? bare, figure));
    const medians = (of: readonly Path[]): Record<string, number> =>
      Object.fromEntries(of.map((path) => [path.name, median(values(path, figure))]));
    // One stream fills the sender's CPU on every path: only a difference beyond the run's noise counts.
    const tolerance =
      figure.mode === 'stream'
        ? Math.min(MOST_NOISE, Math.max(...paths.map((path) => noise(values(path, figure)))))
        : 0;
    const ahead: Target =
      better === 'lower'
        ? { op: '<', value: 1 }
        : tolerance > 0
          ? { op: '>=', value: 1 - tolerance }
          : { op: '>', value: 1 };
    const row = { unit, better, ours: subject };
    return [
      {
        ...row,
        name: `${name}, of the limit`,
        peers: medians([bare]),
        ...(limit === undefined || ours === undefined ? {} : { target: { op: '>=', value: limit } }),
      },
      { ...row, name: `${name}, of a bare redirect`, peers: medians([redirect]) },
      {
        ...row,
        name: `${name}, of the best peer`,
        peers: medians(peers),
        ...(ours === undefined ? {} : { target: ahead }),
      },
    ];
  });
  const rounds = [...results].map(([{ path, mode }, figures]) => ({ path: path.name, mode, figures }));
  report(PEERS_ONLY ? 'network-peers' : 'network', measurements, { disturbed, rounds });
}

const scratch = new Scratch('slbn');
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    scratch.close();
    process.exit(130);
  });
}
try {
  await main(scratch);
} catch (error) {
  console.error(`bench/network: ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  for (const failure of scratch.close()) console.error(`bench/network: left behind: ${failure}`);
}
