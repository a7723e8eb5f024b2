/** Metrics of the connection to a cluster; read at each scrape. */
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { ReflectorStatus } from './reflector.js';

/** What there is to be read. */
export interface ClusterFigures {
  readonly collections: readonly ReflectorStatus[];
  readonly objects: number;
  readonly waiting: number;
  readonly refused: number;
  readonly events: number;
  readonly reportFailures: number;
}

export class ClusterMetrics {
  readonly #applied: Histogram;

  constructor(registry: Registry, read: () => ClusterFigures) {
    const registers = [registry];
    const labelNames = ['collection'] as const;
    const gauge = (name: string, help: string, pick: (figures: ClusterFigures) => number): Gauge =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(pick(read()));
        },
      });
    gauge(
      'sluice_kubernetes_objects',
      'Objects of the cluster that this node knows.',
      ({ objects }) => objects,
    );
    gauge(
      'sluice_kubernetes_waiting_objects',
      'Objects that are not in force yet.',
      ({ waiting }) => waiting,
    );
    gauge(
      'sluice_kubernetes_refused_objects',
      'Objects that could not be applied; each has an Event.',
      ({ refused }) => refused,
    );
    const each = (
      name: string,
      help: string,
      pick: (status: ReflectorStatus) => number,
      kind: 'gauge' | 'counter' = 'counter',
    ): void => {
      if (kind === 'gauge') {
        const metric = new Gauge({
          name,
          help,
          labelNames,
          registers,
          collect() {
            for (const status of read().collections) this.set({ collection: status.name }, pick(status));
          },
        });
        void metric;
        return;
      }
      const metric: Counter<'collection'> = new Counter({
        name,
        help,
        labelNames,
        registers,
        collect() {
          this.reset();
          for (const status of read().collections) this.inc({ collection: status.name }, pick(status));
        },
      });
      void metric;
    };
    each(
      'sluice_kubernetes_synced',
      '1 when a complete list is known.',
      ({ synced }) => (synced ? 1 : 0),
      'gauge',
    );
    each(
      'sluice_kubernetes_silence_seconds',
      'Time since something was heard of the API server.',
      ({ heardAt }) => (performance.now() - heardAt) / 1000,
      'gauge',
    );
    each('sluice_kubernetes_lists_total', 'Lists that were begun.', ({ lists }) => lists);
    each('sluice_kubernetes_watches_total', 'Watches that were begun.', ({ watches }) => watches);
    each('sluice_kubernetes_events_total', 'Events of watches.', ({ events }) => events);
    each('sluice_kubernetes_errors_total', 'Failed lists and watches.', ({ errors }) => errors);
    this.#applied = new Histogram({
      name: 'sluice_kubernetes_apply_duration_seconds',
      help: 'Time from the receipt of an event to its effect in the kernel.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers,
    });
  }

  /** A batch is in force; `seconds` since its oldest event came. */
  applied(seconds: number): void {
    this.#applied.observe(seconds);
  }
}
