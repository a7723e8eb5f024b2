import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { MetricsSnapshot } from '../engine.js';

/** A finished change, as the engine or a source reports it. */
export interface AppliedChange {
  readonly ok: boolean;
  readonly seconds: number;
  readonly source: 'api' | 'folder' | 'runtime' | 'kubernetes';
}

const SERVICE_LABELS = ['namespace', 'service', 'port', 'protocol'];
const SOURCES = ['api', 'folder'] as const;

/**
 * The agent's metrics. What the kernel counts is read once per scrape; what the agent itself
 * observes (changes) is counted as it happens.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #snapshot: () => MetricsSnapshot | undefined;

  readonly #forwardedPackets = this.#counter('sluice_forwarded_packets_total', 'Packets forwarded.', [
    'direction',
  ]);
  readonly #forwardedBytes = this.#counter('sluice_forwarded_bytes_total', 'IP bytes forwarded.', [
    'direction',
  ]);
  readonly #droppedPackets = this.#counter('sluice_dropped_packets_total', 'Packets dropped.', [
    'direction',
    'reason',
  ]);
  readonly #droppedBytes = this.#counter('sluice_dropped_bytes_total', 'IP bytes dropped.', [
    'direction',
    'reason',
  ]);
  readonly #flowEntries = this.#gauge(
    'sluice_flow_table_entries',
    'Entries in the flow table (two for each flow).',
  );
  readonly #flowCapacity = this.#gauge(
    'sluice_flow_table_capacity',
    'Entries that the flow table has room for.',
  );
  readonly #flowFailures = this.#counter(
    'sluice_flow_insert_failures_total',
    'Flows that found no room in the flow table.',
  );
  readonly #mapEntries = this.#gauge('sluice_map_entries', 'Entries in a BPF map.', ['map']);
  readonly #mapCapacity = this.#gauge('sluice_map_capacity', 'Entries that a BPF map has room for.', ['map']);
  readonly #mapPressure = this.#gauge(
    'sluice_map_pressure_ratio',
    'Entries of a BPF map divided by its capacity.',
    ['map'],
  );
  readonly #mapMemory = this.#gauge('sluice_map_memory_bytes', 'Kernel memory of a BPF map.', ['map']);
  readonly #endpoints = this.#gauge('sluice_endpoints', 'Container interfaces in force.');
  readonly #policySets = this.#gauge('sluice_policy_sets', 'Distinct policy sets in force.');
  readonly #identities = this.#gauge(
    'sluice_identities',
    'Identities (sets of labels or of addresses) in use.',
  );
  readonly #epoch = this.#gauge(
    'sluice_policy_epoch',
    'Epoch of the decisions in force; grows with each change of policy.',
  );
  readonly #lostEvents = this.#counter(
    'sluice_events_lost_total',
    'Kernel events lost because their buffer was full.',
  );

  readonly #problems = this.#gauge('sluice_problems', 'Problems that `sluice status` says, by their codes.', [
    'code',
  ]);
  readonly #services = this.#gauge('sluice_services', 'Services in force.');
  readonly #serviceConnections = this.#counter(
    'sluice_service_connections_total',
    'Connections (UDP: flows and sockets) to a service that were given a backend on this node.',
    SERVICE_LABELS,
  );
  readonly #serviceRefused = this.#counter(
    'sluice_service_refused_total',
    'Connections to a service that were refused: no backend, or a source that is not allowed.',
    SERVICE_LABELS,
  );
  readonly #servicePackets = this.#counter(
    'sluice_service_packets_total',
    'Packets of connections to a service that have ended, both directions.',
    SERVICE_LABELS,
  );
  readonly #serviceBytes = this.#counter(
    'sluice_service_bytes_total',
    'Bytes of connections to a service that have ended, both directions: of IP packets, or what sockets carried.',
    SERVICE_LABELS,
  );
  readonly #serviceBackends = this.#gauge('sluice_service_backends', 'Backends of a service, by state.', [
    ...SERVICE_LABELS,
    'state',
  ]);

  readonly #applyDuration = new Histogram({
    name: 'sluice_apply_duration_seconds',
    help: 'Time from the receipt of a change to its effect in the kernel.',
    labelNames: ['source'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [this.#registry],
  });
  readonly #applies = this.#counter(
    'sluice_apply_total',
    'Changes, by where they came from and how they ended.',
    ['source', 'result'],
  );
  readonly #applyFailures = this.#counter('sluice_apply_failures_total', 'Changes that were refused.', [
    'source',
  ]);
  readonly #lastApply = this.#gauge(
    'sluice_last_apply_success',
    '1 if the latest change is in force, 0 if it was refused and the last good state stays in force.',
  );

  /** `snapshot` is called once per scrape and answers undefined while there is no engine yet. */
  constructor(snapshot: () => MetricsSnapshot | undefined, version: string) {
    this.#snapshot = snapshot;
    collectDefaultMetrics({ register: this.#registry });
    this.#gauge('sluice_build_info', 'Always 1; the version is in the label.', [
      'version',
      'node_version',
    ]).set({ version, node_version: process.version }, 1);
    for (const source of SOURCES) {
      this.#applyFailures.inc({ source }, 0);
      for (const result of ['success', 'failure']) this.#applies.inc({ source, result }, 0);
    }
    this.#lastApply.set(1);
  }

  /** For metrics of parts that are not always there. */
  get registry(): Registry {
    return this.#registry;
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Records a finished change. */
  applied(change: AppliedChange): void {
    this.#applies.inc({ source: change.source, result: change.ok ? 'success' : 'failure' });
    if (change.ok) this.#applyDuration.observe({ source: change.source }, change.seconds);
    else this.#applyFailures.inc({ source: change.source });
    this.#lastApply.set(change.ok ? 1 : 0);
  }

  /** The text of one scrape. */
  async scrape(): Promise<string> {
    const snapshot = this.#snapshot();
    if (snapshot !== undefined) this.#read(snapshot);
    return this.#registry.metrics();
  }

  #read(snapshot: MetricsSnapshot): void {
    for (const metric of [
      this.#forwardedPackets,
      this.#forwardedBytes,
      this.#droppedPackets,
      this.#droppedBytes,
    ]) {
      metric.reset();
    }
    for (const { direction, reason, packets, bytes } of snapshot.packets) {
      if (reason === 'forwarded') {
        this.#forwardedPackets.inc({ direction }, packets);
        this.#forwardedBytes.inc({ direction }, bytes);
      } else {
        this.#droppedPackets.inc({ direction, reason }, packets);
        this.#droppedBytes.inc({ direction, reason }, bytes);
      }
    }
    this.#flowEntries.set(snapshot.flowEntries);
    this.#flowCapacity.set(snapshot.flowCapacity);
    setCounter(this.#flowFailures, snapshot.flowInsertFailures);
    for (const metric of [this.#mapEntries, this.#mapCapacity, this.#mapPressure, this.#mapMemory])
      metric.reset();
    for (const { name, entries, capacity, bytes } of snapshot.maps) {
      const map = { map: name };
      this.#mapEntries.set(map, entries);
      this.#mapCapacity.set(map, capacity);
      this.#mapPressure.set(map, capacity === 0 ? 0 : entries / capacity);
      this.#mapMemory.set(map, bytes);
    }
    this.#endpoints.set(snapshot.endpoints);
    this.#policySets.set(snapshot.policySets);
    this.#identities.set(snapshot.identities);
    this.#epoch.set(snapshot.epoch);
    setCounter(this.#lostEvents, snapshot.lostEvents);
    this.#problems.reset();
    for (const { code } of snapshot.problems) this.#problems.inc({ code });
    this.#services.set(snapshot.services);
    for (const metric of [
      this.#serviceConnections,
      this.#serviceRefused,
      this.#servicePackets,
      this.#serviceBytes,
      this.#serviceBackends,
    ])
      metric.reset();
    for (const { namespace, service, port, protocol, ...figures } of snapshot.servicePorts) {
      const labels = { namespace, service, port, protocol };
      this.#serviceConnections.inc(labels, figures.connections);
      this.#serviceRefused.inc(labels, figures.refused);
      this.#servicePackets.inc(labels, figures.packets);
      this.#serviceBytes.inc(labels, figures.bytes);
      this.#serviceBackends.set({ ...labels, state: 'ready' }, figures.ready);
      this.#serviceBackends.set({ ...labels, state: 'terminating' }, figures.terminating);
    }
  }

  #counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  #gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name, help, labelNames, registers: [this.#registry] });
  }
}

/** Counters whose value is kept elsewhere: the total replaces what was there. */
function setCounter(counter: Counter, total: number): void {
  counter.reset();
  counter.inc(total);
}
