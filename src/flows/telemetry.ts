import type { RingReader } from '../../loader/ring.js';
import type { PolicyCompiler } from '../../policy/compile/compiler.js';
import { SluiceError } from '../../policy/errors.js';
import type { Kernel } from '../dataplane/kernel.js';
import { openRing } from '../dataplane/ring.js';
import type { DropEvent, MetricsSnapshot } from '../engine.js';
import type { ObjectSet } from '../state/objects.js';
import { FlowCollector } from './collector.js';
import { DropLog, type EventContext } from './events.js';
import { MapGauges, readCounters } from './metrics.js';
import { Pace } from './pace.js';

const RING_POLL_MS = 100;
const RING_RECORDS = 4096;
const GC_MS = 1000;
/** From this share of the table's room on, expiry waits for nobody. */
const PRESSING = 0.5;

/** What the kernel says about packets: counters, drops, the flow table's fill; and the table's expiry. */
export class Telemetry {
  readonly #kernel: Kernel;
  readonly #compiler: PolicyCompiler;
  readonly #ring: RingReader;
  readonly #drops: DropLog;
  readonly #collector: FlowCollector;
  readonly #gauges: MapGauges;
  /** Dropped packets that were counted before this process could see their events. */
  readonly #dropsBefore: number;

  constructor(kernel: Kernel, objects: ObjectSet, compiler: PolicyCompiler, context: EventContext) {
    const { maps, programs } = kernel.loaded;
    const gc = programs.get('sluice_gc');
    if (gc === undefined) throw SluiceError.of('SLU3303', { reason: 'the object has no program sluice_gc' });
    this.#kernel = kernel;
    this.#compiler = compiler;
    this.#drops = new DropLog(context);
    this.#collector = new FlowCollector(gc, maps.flows.maxEntries, (count) => {
      kernel.node.halfOpen = count;
    });
    this.#gauges = new MapGauges(maps, {
      flows: () => this.#collector.entries,
      endpoints: () => kernel.attachments.size,
      networks: () => objects.count('Network'),
      uplinks: () => kernel.uplinks.devices.length,
      addrs: () => kernel.addresses.size,
      cidrs: () => kernel.cidrs.size,
      identity_class: () => kernel.classes.size,
      policy_peers: () => kernel.policy.peerEntries,
      policy_ports: () => kernel.policy.portEntries,
      hostports: () => kernel.hostports.size,
    });
    this.#dropsBefore = sumDrops(readCounters(maps));
    this.#ring = openRing(kernel.pins);
  }

  /**
   * Starts reading events and expiring flows; the timers are the caller's to clear. `asked`: performance.now() of the last
   * request of a container runtime, which expiry would hold up by some milliseconds.
   */
  start(onError: (error: unknown) => void, asked: () => number): NodeJS.Timeout[] {
    const pace = new Pace(asked);
    const { maxEntries } = this.#kernel.loaded.maps.flows;
    const expire = (): void => {
      const pressing = this.#collector.entries > PRESSING * maxEntries;
      if (pace.isDue(performance.now(), pressing)) this.#collector.turn();
    };
    const every = (ms: number, work: () => void): NodeJS.Timeout =>
      setInterval(() => {
        try {
          work();
        } catch (error) {
          onError(error);
        }
      }, ms).unref();
    return [every(RING_POLL_MS, () => this.#poll()), every(GC_MS, expire)];
  }

  /** Entries of the flow table. */
  get flows(): number {
    return this.#collector.entries;
  }

  /** Jiffies of the kernel, low 32 bits; at most some seconds old. */
  get jiffies(): number {
    return this.#collector.jiffies;
  }

  drops(limit: number): readonly DropEvent[] {
    this.#poll();
    return this.#drops.latest(limit);
  }

  onDrop(listener: (event: DropEvent) => void): () => void {
    return this.#drops.onEvent(listener);
  }

  snapshot(): Omit<MetricsSnapshot, 'problems' | 'services' | 'servicePorts'> {
    const kernel = this.#kernel;
    const packets = readCounters(kernel.loaded.maps);
    const full = packets.filter((counter) => counter.reason === 'flow_table_full');
    return {
      packets,
      flowEntries: this.#collector.entries,
      flowCapacity: kernel.loaded.maps.flows.maxEntries,
      flowInsertFailures: full.reduce((sum, counter) => sum + counter.packets, 0),
      maps: this.#gauges.read(),
      endpoints: kernel.attachments.size,
      policySets: this.#compiler.sets().length,
      identities: this.#compiler.identities().length,
      epoch: kernel.node.epoch,
      lostEvents: Math.max(0, sumDrops(packets) - this.#dropsBefore - this.#drops.drops),
    };
  }

  close(): void {
    this.#ring.close();
  }

  #poll(): void {
    this.#ring.poll((record) => this.#drops.take(record), RING_RECORDS);
  }
}

function sumDrops(packets: MetricsSnapshot['packets']): number {
  return packets.reduce((sum, counter) => (counter.reason === 'forwarded' ? sum : sum + counter.packets), 0);
}
