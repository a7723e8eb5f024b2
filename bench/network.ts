/**
 * Container to container: request/response, connections, UDP packets and TCP throughput through Sluice, beside a
 * bare veth pair (the limit), Docker's bridge and rules, and the reference CNI plugins.
 *
 * Figures are medians of all rounds; a ratio is the median of the ratios of the single rounds, in which all paths are
 * measured one after the other: the speed of a shared machine changes in the course of a run. Requests and connections
 * have rounds of short turns, UDP and streams of longer ones.
 *
 * Settings from the environment: BENCH_TURNS (100), BENCH_TURN_SECONDS (0.02), BENCH_ROUNDS (21), BENCH_SECONDS (0.2, of
 * each measurement of UDP and streams), BENCH_CPU (last), BENCH_ATTEMPTS (4, for a measurement that other load disturbed),
 * BENCH_PEERS_ONLY=1 (without Sluice: the figures of the peers).
 */
import { type Figure as PathFigure, pathTraffic } from './lib/netbench.js';
import type { Scratch } from './lib/netns.js';
import { barePath, cniBridgePath, cniPtpPath, dockerPath, type Path, redirectPath } from './lib/paths.js';
import { type Measurement, report, type Target } from './lib/report.js';
import { withScratch } from './lib/scratch-run.js';
import { sluicePath } from './lib/sluice-path.js';
import { median, medianRatio } from './lib/stats.js';

const PEERS_ONLY = process.env.BENCH_PEERS_ONLY === '1';

interface Figure extends PathFigure {
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

async function main(scratch: Scratch): Promise<void> {
  const bare = barePath(scratch);
  const redirect = redirectPath(scratch);
  const peers = [dockerPath(scratch), cniBridgePath(scratch), cniPtpPath(scratch)];
  const ours = PEERS_ONLY ? undefined : await sluicePath(scratch);
  const paths = [...(ours === undefined ? [] : [ours]), bare, redirect, ...peers];
  const traffic = await pathTraffic(paths, FIGURES, { rounds: 21 });

  const measurements = FIGURES.flatMap((figure): Measurement[] => {
    const { name, unit, better, limit } = figure;
    const subject = median(traffic.values(ours ?? bare, figure));
    const medians = (of: readonly Path[]): Record<string, number> =>
      Object.fromEntries(of.map((path) => [path.name, median(traffic.values(path, figure))]));
    const against = (of: readonly Path[]): Pick<Measurement, 'peers' | 'ratio'> => {
      const ratios = of.map((path) =>
        medianRatio(traffic.values(ours ?? bare, figure), traffic.values(path, figure)),
      );
      return { peers: medians(of), ratio: better === 'higher' ? Math.min(...ratios) : Math.max(...ratios) };
    };
    const tolerance = traffic.tolerance(figure);
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
        ...against([bare]),
        ...(limit === undefined || ours === undefined ? {} : { target: { op: '>=', value: limit } }),
      },
      { ...row, name: `${name}, of a bare redirect`, ...against([redirect]) },
      {
        ...row,
        name: `${name}, of the best peer`,
        ...against(peers),
        ...(ours === undefined ? {} : { target: ahead }),
      },
    ];
  });
  const { disturbed, rounds } = traffic;
  console.log('ratio: median of the ratios of the rounds');
  report(PEERS_ONLY ? 'network-peers' : 'network', measurements, { disturbed, rounds });
}

await withScratch('network', 'slbn', main);
