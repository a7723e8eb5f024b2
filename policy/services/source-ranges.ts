/** Which sources may use a port of a service, as rows of service_ranges. */
import { parseCidr } from '../address.js';
import type { Draft } from './draft.js';
import type { PortState } from './state.js';
import type { RangeKey } from './types.js';

export class SourceRanges {
  #size = 0;
  #settledSize = 0;

  /** Rows in force. */
  get size(): number {
    return this.#size;
  }

  /** From here on `rollback` takes back. */
  settle(): void {
    this.#settledSize = this.#size;
  }

  /** Takes back what was counted since `settle`; the states of the ports are the caller's. */
  rollback(): void {
    this.#size = this.#settledSize;
  }

  /** Sets the ranges of a port; of `ranges` (CIDRs), those of its family count. */
  put(state: PortState, ranges: readonly string[], draft: Draft): void {
    if (ranges.length === 0 && state.ranges === undefined) return;
    const wanted = new Map<string, RangeKey>();
    for (const text of ranges) {
      const cidr = parseCidr(text);
      if (cidr.family === state.family)
        wanted.set(text, { service: state.number, addr: cidr.address, prefixLength: cidr.prefixLength });
    }
    const held = state.ranges ?? new Map<string, RangeKey>();
    state.ranges = held;
    for (const [text, range] of wanted) {
      if (held.has(text)) continue;
      held.set(text, range);
      this.#size++;
      draft.range(range);
    }
    for (const text of [...held.keys()]) if (!wanted.has(text)) this.#drop(held, text, draft);
  }

  dropAll({ ranges }: PortState, draft: Draft): void {
    if (ranges !== undefined) for (const text of [...ranges.keys()]) this.#drop(ranges, text, draft);
  }

  #drop(held: Map<string, RangeKey>, text: string, draft: Draft): void {
    const range = held.get(text);
    if (range === undefined) return;
    held.delete(text);
    this.#size--;
    draft.rangeGone(range);
  }
}
