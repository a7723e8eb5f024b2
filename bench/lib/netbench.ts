/** bench/tools/netbench.c: what two namespaces see of the path between them. */
import { mkdirSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { run } from './command.js';
import { netnsPath } from './netns.js';
import type { Path } from './paths.js';
import { isDisturbed, undisturbed } from './quiet.js';
import { interleave, noise } from './stats.js';

/** What netbench prints for each of its modes, by name. */
export type Figures = Readonly<Record<string, number>>;

export interface Figure {
  readonly mode: 'rr' | 'crr' | 'udp' | 'stream';
  readonly key: string;
  readonly name: string;
  readonly unit: string;
  readonly better: 'higher' | 'lower';
}

export interface PathTraffic {
  /** Of each round. */
  readonly values: (path: Path, figure: Figure) => readonly number[];
  /** By how much a figure may be behind: one stream fills the sender's CPU on every path, so there the run's noise. */
  readonly tolerance: (figure: Figure) => number;
  /** Of all measurements, those that other load disturbed. */
  readonly disturbed: number;
  readonly rounds: readonly unknown[];
}

const CPU = Number(process.env.BENCH_CPU ?? cpus().length - 1);
const ATTEMPTS = Number(process.env.BENCH_ATTEMPTS ?? 4);
/** Differences in TCP throughput below this were noise on every machine so far; more is not forgiven. */
const MOST_NOISE = 0.25;

/** Of one path in one mode, by round. */
interface Measured {
  readonly path: Path;
  readonly mode: Figure['mode'];
  readonly found: readonly Figures[];
}

function isInTurns(mode: Figure['mode']): mode is 'rr' | 'crr' {
  return mode === 'rr' || mode === 'crr';
}

/** Compiles netbench and returns its path. */
export function buildNetbench(): string {
  const folder = join(process.cwd(), 'build', 'bench');
  mkdirSync(folder, { recursive: true });
  const tool = join(folder, 'netbench');
  run('gcc', ['-O2', '-Wall', '-Wextra', '-pthread', '-o', tool, 'bench/tools/netbench.c']);
  return tool;
}

/** One path of several that are measured in turns. */
export interface TurnSubject {
  readonly client: string;
  readonly server: string;
  /** Where the client goes; undefined: directly to one of the server's, chosen at random for each connection. */
  readonly target?: { readonly address: string; readonly port: number };
  /** Where the server listens, on `count` ports from `port` on. */
  readonly listen: { readonly address: string; readonly port: number; readonly count: number };
  /** cgroup of the client; undefined: the caller's. */
  readonly group?: string;
}

/** What one turn of a path gave. */
export interface TurnFigures {
  readonly per_second: number;
  /** Microseconds; of `crr` that of connect() alone. */
  readonly p50_us: number;
  readonly p99_us: number;
}

/** Measures paths in `turns` turns of `seconds`, one path after the other in each. A list for each path, in their order. */
function inTurns(
  tool: string,
  mode: 'rr' | 'crr',
  subjects: readonly TurnSubject[],
  options: { readonly cpu: number; readonly seconds: number; readonly turns: number },
): TurnFigures[][] {
  const texts = subjects.map(({ client, server, target, listen, group }) =>
    [
      netnsPath(client),
      netnsPath(server),
      target?.address ?? '-',
      target?.port ?? 0,
      listen.address,
      listen.port,
      listen.count,
      group ?? '-',
    ].join(','),
  );
  const args = ['turns', mode, options.cpu, options.seconds, options.turns, ...texts].map(String);
  return JSON.parse(run(tool, args)) as TurnFigures[][];
}

export interface QuietTurns {
  /** By subject. */
  readonly figures: readonly (readonly TurnFigures[])[];
  /** Measurements, and those that other load disturbed. */
  readonly runs: number;
  readonly disturbed: number;
}

/** Rounds between two looks at whether something else was running. */
const TOGETHER = 10;

/**
 * Measures paths in turns, again and again while something else is running. `subjects`: of the next ten rounds. Settings
 * from the environment: BENCH_TURNS (100), BENCH_TURN_SECONDS (0.02), BENCH_CPU (last), BENCH_ATTEMPTS (4).
 */
export function quietTurns(
  tool: string,
  mode: 'rr' | 'crr',
  subjects: () => readonly TurnSubject[],
): QuietTurns {
  const turns = Number(process.env.BENCH_TURNS ?? 100);
  const seconds = Number(process.env.BENCH_TURN_SECONDS ?? 0.02);
  const figures: TurnFigures[][] = [];
  let disturbed = 0;
  let runs = 0;
  for (let left = turns; left > 0; left -= TOGETHER, runs++) {
    const options = { cpu: CPU, seconds, turns: Math.min(left, TOGETHER) };
    const { result, disturbance } = undisturbed(CPU, ATTEMPTS, () =>
      inTurns(tool, mode, subjects(), options),
    );
    if (isDisturbed(disturbance)) disturbed += 1;
    for (const [i, found] of result.entries()) figures[i] = [...(figures[i] ?? []), ...found];
  }
  return { figures, runs, disturbed };
}

/** With the default range, the search for a free port is what a second of new connections measures. */
export function widenPorts(netns: string): void {
  const range = 'net.ipv4.ip_local_port_range=1024 65535';
  run('nsenter', [`--net=${netnsPath(netns)}`, '--', 'sysctl', '-qw', range]);
}

/** Each run has a port of its own: connections of earlier runs are still in TIME_WAIT. */
let port = 10_000;

/**
 * All modes of the figures over all paths: requests and connections in turns (see `quietTurns`), the others interleaved.
 * Settings from the environment: BENCH_ROUNDS (of the others; default: `rounds`), BENCH_SECONDS (0.2, of each of their
 * measurements).
 */
export async function pathTraffic(
  paths: readonly Path[],
  figures: readonly Figure[],
  defaults: { readonly rounds: number },
): Promise<PathTraffic> {
  const times = Number(process.env.BENCH_ROUNDS ?? defaults.rounds);
  const seconds = Number(process.env.BENCH_SECONDS ?? 0.2);
  const tool = buildNetbench();
  for (const { client } of paths) widenPorts(client);
  const modes = [...new Set(figures.map(({ mode }) => mode))];
  const results: Measured[] = [];
  let disturbed = 0;
  let measurements = 0;
  const subjects = (): TurnSubject[] => {
    port += 1;
    return paths.map(({ client, server, serverAddress: address }) => ({
      client,
      server,
      listen: { address, port, count: 1 },
    }));
  };
  for (const mode of modes.filter(isInTurns)) {
    const turns = quietTurns(tool, mode, subjects);
    for (const [i, path] of paths.entries())
      results.push({ path, mode, found: (turns.figures[i] ?? []).map((one) => ({ ...one })) });
    disturbed += turns.disturbed;
    measurements += turns.runs;
  }
  const measure = (mode: string, { client, server, serverAddress }: Path): Figures => {
    port += 1;
    const args = [mode, netnsPath(client), netnsPath(server), serverAddress, port, CPU, seconds];
    return JSON.parse(run(tool, args.map(String))) as Figures;
  };
  const runs = modes
    .filter((mode) => !isInTurns(mode))
    .flatMap((mode) => paths.map((path) => ({ path, mode })));
  const rest = await interleave(times, runs, ({ path, mode }) => {
    const { result, disturbance } = undisturbed(CPU, ATTEMPTS, () => measure(mode, path));
    if (isDisturbed(disturbance)) disturbed += 1;
    return result;
  });
  for (const [{ path, mode }, found] of rest) results.push({ path, mode, found });
  measurements += runs.length * times;
  if (disturbed > 0)
    console.log(`something else was running during ${disturbed} of ${measurements} measurements`);
  const values: PathTraffic['values'] = (path, { mode, key }) =>
    results.flatMap((of) =>
      of.path === path && of.mode === mode ? of.found.map((figures) => figures[key] ?? Number.NaN) : [],
    );
  return {
    values,
    tolerance: (figure) =>
      figure.mode === 'stream'
        ? Math.min(MOST_NOISE, Math.max(...paths.map((path) => noise(values(path, figure)))))
        : 0,
    disturbed,
    rounds: results.map(({ path, mode, found }) => ({ path: path.name, mode, figures: found })),
  };
}
