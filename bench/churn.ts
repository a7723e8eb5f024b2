/**
 * The backends of a service, 100 on average, are added, removed and replaced at random while connections are opened
 * through it: whether one to a backend that is still there breaks, and how long one that is gone is still chosen.
 *
 * Settings from the environment: BENCH_SECONDS (120), BENCH_RATE (200 connections each second, half of them per
 * packet), BENCH_CHANGES (10 each second).
 */
import { broken, churn, late } from './lib/churn.js';
import { Scratch } from './lib/netns.js';
import { report } from './lib/report.js';
import { median } from './lib/stats.js';

const SECONDS = Number(process.env.BENCH_SECONDS ?? 120);
const RATE = Number(process.env.BENCH_RATE ?? 200);
const CHANGES = Number(process.env.BENCH_CHANGES ?? 10);
/** After the event no connection is opened to a backend that it removed. */
const GRACE_MS = 50;

const scratch = new Scratch('slchn');
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    scratch.close();
    process.exit(130);
  });
}
try {
  const result = await churn(scratch, { seconds: SECONDS, rate: RATE, changes: CHANGES });
  const { connections, changes } = result;
  const failed = broken(result);
  const statuses: Record<string, number> = {};
  for (const { status } of connections) statuses[status] = (statuses[status] ?? 0) + 1;
  const latest = Math.max(0, ...late(result, 'told').map((ns) => Number(ns) / 1e6));
  const inForce = changes.map(({ told, inForce: done }) => Number(done - told) / 1e6);
  report(
    'churn',
    [
      {
        name: `connections to backends that stay, during ${changes.length} changes: not broken`,
        unit: '',
        ours: connections.length - failed.length,
        peers: { opened: connections.length },
        better: 'higher',
        target: { op: '>=', value: 1 },
      },
      {
        name: 'last connection to a removed backend, after the event',
        unit: 'ms',
        ours: latest,
        peers: { limit: GRACE_MS },
        better: 'lower',
        target: { op: '<=', value: 1 },
      },
      {
        name: 'a change, from the event until it is in force, median',
        unit: 'ms',
        ours: median(inForce),
        peers: {},
        better: 'lower',
      },
    ],
    {
      statuses,
      failed: failed.map((one) => ({ ...one, opened: String(one.opened), ended: String(one.ended) })),
      late: late(result, 'told')
        .map((ns) => Number(ns) / 1e6)
        .filter((ms) => ms > GRACE_MS),
      lateInForce: late(result, 'inForce').map((ns) => Number(ns) / 1e6),
      slowest: inForce.toSorted((a, b) => b - a).slice(0, 10),
    },
  );
} catch (error) {
  console.error(`bench/churn: ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  for (const failure of scratch.close()) console.error(`bench/churn: left behind: ${failure}`);
}
