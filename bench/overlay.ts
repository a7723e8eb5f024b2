/**
 * From a container of one node to a container of another: through the overlay and directly, beside a bridge with a
 * VXLAN device (flannel's shape) and beside plain routing, in one run.
 *
 * Settings from the environment: BENCH_ROUNDS (11), BENCH_SECONDS (0.2, of each measurement), BENCH_CPU (last),
 * BENCH_ATTEMPTS (4, for a measurement that other load disturbed).
 */
import { mkdirSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { run } from './lib/command.js';
import { netnsPath, Scratch } from './lib/netns.js';
import { flannelPath, nodesPath, routedPath } from './lib/node-paths.js';
import type { Path } from './lib/paths.js';
import { isDisturbed, undisturbed } from './lib/quiet.js';
import { type Measurement, report, type Target } from './lib/report.js';
import { interleave, median, noise } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 11);
const SECONDS = Number(process.env.BENCH_SECONDS ?? 0.2);
const CPU = Number(process.env.BENCH_CPU ?? cpus().length - 1);
const ATTEMPTS = Number(process.env.BENCH_ATTEMPTS ?? 4);

/** One TCP stream fills the sender's CPU on every path: differences within the run's noise, at most this, do not count. */
const MOST_NOISE = 0.25;
/** Direct routing against routes alone. */
const DIRECT = 0.95;

type Figures = Readonly<Record<string, number>>;

interface Figure {
  readonly mode: 'rr' | 'crr' | 'udp' | 'stream';
  readonly key: string;
  readonly name: string;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
}

const FIGURES: readonly Figure[] = [
  { mode: 'rr', key: 'per_second', name: 'request/response', unit: '1/s', better: 'higher' },
  { mode: 'rr', key: 'p99_us', name: 'request/response p99', unit: 'us', better: 'lower' },
  { mode: 'crr', key: 'per_second', name: 'connections', unit: '1/s', better: 'higher' },
  { mode: 'udp', key: 'per_second', name: 'UDP 64 B', unit: 'packets/s', better: 'higher' },
  { mode: 'stream', key: 'mbit_per_second', name: 'TCP throughput', unit: 'Mbit/s', better: 'higher' },
];
/** Figures that have targets; the others are shown. */
const JUDGED: ReadonlySet<string> = new Set(['request/response', 'connections', 'TCP throughput']);

/** Each run has a port of its own: connections of earlier runs are still in TIME_WAIT. */
let port = 10_000;

function netbench(tool: string, mode: Figure['mode'], path: Path): Figures {
  port += 1;
  const args = [mode, netnsPath(path.client), netnsPath(path.server), path.serverAddress, port, CPU, SECONDS];
  return JSON.parse(run(tool, args.map(String))) as Figures;
}

async function main(scratch: Scratch): Promise<void> {
  mkdirSync('build/bench', { recursive: true });
  const tool = join('build', 'bench', 'netbench');
  run('gcc', ['-O2', '-Wall', '-Wextra', '-pthread', '-o', tool, 'bench/tools/netbench.c']);
  const overlay = await nodesPath(scratch, 'overlay', 'overlay');
  const direct = await nodesPath(scratch, 'direct', 'direct');
  const flannel = flannelPath(scratch);
  const routing = routedPath(scratch);
  const paths = [overlay, direct, flannel, routing];
  for (const { client } of paths) {
    // With the default range, the search for a free port is what a second of new connections measures.
    const wide = 'net.ipv4.ip_local_port_range=1024 65535';
    run('nsenter', [`--net=${netnsPath(client)}`, '--', 'sysctl', '-qw', wide]);
  }
  const modes = [...new Set(FIGURES.map(({ mode }) => mode))];
  console.log(`${paths.map(({ name }) => name).join(', ')}: ${ROUNDS} rounds of ${SECONDS} s each`);
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
    const { name, unit, better } = figure;
    const row = (ours: Path, peer: Path, target: Target): Measurement => ({
      name: `${name}, ${ours.name}`,
      unit,
      better,
      ours: median(values(ours, figure)),
      peers: { [peer.name]: median(values(peer, figure)) },
      ...(JUDGED.has(name) ? { target } : {}),
    });
    const tolerance =
      figure.mode === 'stream'
        ? Math.min(MOST_NOISE, Math.max(...paths.map((path) => noise(values(path, figure)))))
        : 0;
    const ahead: Target = tolerance > 0 ? { op: '>=', value: 1 - tolerance } : { op: '>', value: 1 };
    return [
      row(overlay, flannel, ahead),
      row(direct, flannel, ahead),
      row(direct, routing, { op: '>=', value: Math.min(DIRECT, 1 - tolerance) }),
    ];
  });
  const rounds = [...results].map(([{ path, mode }, figures]) => ({ path: path.name, mode, figures }));
  report('overlay', measurements, { disturbed, rounds });
}

const scratch = new Scratch('slbo');
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    scratch.close();
    process.exit(130);
  });
}
try {
  await main(scratch);
} catch (error) {
  console.error(`bench/overlay: ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  for (const failure of scratch.close()) console.error(`bench/overlay: left behind: ${failure}`);
}
