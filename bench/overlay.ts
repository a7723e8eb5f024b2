/**
 * From a container of one node to a container of another: through the overlay and directly, beside a bridge with a
 * VXLAN device (flannel's shape) and beside plain routing, in one run.
 *
 * Settings from the environment: BENCH_ROUNDS (11), BENCH_SECONDS (0.2, of each measurement), BENCH_CPU (last),
 * BENCH_ATTEMPTS (4, for a measurement that other load disturbed).
 */

import { type Figure, pathTraffic } from './lib/netbench.js';
import type { Scratch } from './lib/netns.js';
import { flannelPath, nodesPath, routedPath } from './lib/node-paths.js';
import type { Path } from './lib/paths.js';
import { type Measurement, report, type Target } from './lib/report.js';
import { withScratch } from './lib/scratch-run.js';
import { median } from './lib/stats.js';

/** Direct routing against routes alone. */
const DIRECT = 0.95;

const FIGURES: readonly Figure[] = [
  { mode: 'rr', key: 'per_second', name: 'request/response', unit: '1/s', better: 'higher' },
  { mode: 'rr', key: 'p99_us', name: 'request/response p99', unit: 'us', better: 'lower' },
  { mode: 'crr', key: 'per_second', name: 'connections', unit: '1/s', better: 'higher' },
  { mode: 'udp', key: 'per_second', name: 'UDP 64 B', unit: 'packets/s', better: 'higher' },
  { mode: 'stream', key: 'mbit_per_second', name: 'TCP throughput', unit: 'Mbit/s', better: 'higher' },
];
/** Figures that have targets; the others are shown. */
const JUDGED: ReadonlySet<string> = new Set(['request/response', 'connections', 'TCP throughput']);

async function main(scratch: Scratch): Promise<void> {
  const overlay = await nodesPath(scratch, 'overlay', 'overlay');
  const direct = await nodesPath(scratch, 'direct', 'direct');
  const flannel = flannelPath(scratch);
  const routing = routedPath(scratch);
  const traffic = await pathTraffic([overlay, direct, flannel, routing], FIGURES, { rounds: 11 });

  const measurements = FIGURES.flatMap((figure): Measurement[] => {
    const { name, unit, better } = figure;
    const row = (ours: Path, peer: Path, target: Target): Measurement => ({
      name: `${name}, ${ours.name}`,
      unit,
      better,
      ours: median(traffic.values(ours, figure)),
      peers: { [peer.name]: median(traffic.values(peer, figure)) },
      ...(JUDGED.has(name) ? { target } : {}),
    });
    const tolerance = traffic.tolerance(figure);
    const ahead: Target = tolerance > 0 ? { op: '>=', value: 1 - tolerance } : { op: '>', value: 1 };
    return [
      row(overlay, flannel, ahead),
      row(direct, flannel, ahead),
      row(direct, routing, { op: '>=', value: Math.min(DIRECT, 1 - tolerance) }),
    ];
  });
  report('overlay', measurements, { disturbed: traffic.disturbed, rounds: traffic.rounds });
}

await withScratch('overlay', 'slbo', main);
