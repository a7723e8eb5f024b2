import { Direction, DropReason } from '../../loader/abi/gen/types.gen.js';
import type { KernelMaps, MapName } from '../dataplane/kernel-maps.js';
import type { MetricsSnapshot } from '../engine.js';
import { reasonName } from './reasons.js';

/** Slots of each direction in `metrics` (METRIC_REASONS of bpf/include/types.h). */
const REASON_SLOTS = 128;
/** Counting an LRU map reads all of it, so the number is kept for this long. */
const COUNT_AGE_MS = 10_000;

type PacketCounter = MetricsSnapshot['packets'][number];

/** Reads the packet counters: one entry for each direction and reason that has counted something. */
export function readCounters(maps: Pick<KernelMaps, 'metrics' | 'hot_tables'>): PacketCounter[] {
  const counters: PacketCounter[] = [];
  for (const direction of ['egress', 'ingress'] as const) {
    const first = (direction === 'egress' ? Direction.Egress : Direction.Ingress) * REASON_SLOTS;
    for (let reason = 0; reason < DropReason.ReasonCount; reason++) {
      let [packets, bytes] = [0n, 0n];
      for (const counter of maps.metrics.getPerCpu(first + reason)) {
        packets += counter.packets;
        bytes += counter.bytes;
      }
      if (direction === 'egress' && reason === DropReason.None) {
        for (const [, hot] of maps.hot_tables.entries()) {
          packets += hot.packets;
          bytes += hot.bytes;
        }
      }
      if (reason !== DropReason.None && packets === 0n) continue;
      counters.push({
        direction,
        reason: reasonName(reason),
        packets: Number(packets),
        bytes: Number(bytes),
      });
    }
  }
  return counters;
}

/** Fill of every map. Entries that the agent knows are given; the others (LRU maps) are counted now and then. */
export class MapGauges {
  readonly #maps: KernelMaps;
  readonly #known: Partial<Record<MapName, () => number>>;
  readonly #counted = new Map<MapName, { readonly at: number; readonly entries: number }>();
  readonly #bytes = new Map<MapName, { readonly at: number; readonly bytes: number }>();

  constructor(maps: KernelMaps, known: Partial<Record<MapName, () => number>>) {
    this.#maps = maps;
    this.#known = known;
  }

  read(): MetricsSnapshot['maps'] {
    return (Object.keys(this.#maps) as MapName[])
      .filter((name) => name !== 'metrics' && name !== 'node_map' && name !== 'trace_map')
      .map((name) => ({
        name,
        entries: this.#known[name]?.() ?? this.#count(name),
        capacity: this.#maps[name].maxEntries,
        bytes: this.#memory(name),
      }));
  }

  #count(name: MapName): number {
    const kept = this.#counted.get(name);
    if (kept !== undefined && performance.now() - kept.at < COUNT_AGE_MS) return kept.entries;
    const entries = this.#maps[name].count();
    this.#counted.set(name, { at: performance.now(), entries });
    return entries;
  }

  #memory(name: MapName): number {
    const kept = this.#bytes.get(name);
    if (kept !== undefined && performance.now() - kept.at < COUNT_AGE_MS) return kept.bytes;
    const bytes = this.#maps[name].memoryBytes();
    this.#bytes.set(name, { at: performance.now(), bytes });
    return bytes;
  }
}
