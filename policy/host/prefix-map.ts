import { NumberMap } from './number-map.js';
import type { PrefixKey } from './prefix.js';

/** Numbers above 0 by prefix. */
export class PrefixMap<K extends PrefixKey = PrefixKey> {
  readonly #v4 = new NumberMap();
  readonly #v6 = new Map<string, number>();

  get size(): number {
    return this.#v4.size + this.#v6.size;
  }

  /** 0: the prefix is not there. */
  get(key: K): number {
    return typeof key === 'number' ? this.#v4.get(key) : (this.#v6.get(key) ?? 0);
  }

  /** `value` 0 removes the prefix. */
  set(key: K, value: number): void {
    if (typeof key === 'number') this.#v4.set(key, value);
    else if (value === 0) this.#v6.delete(key);
    else this.#v6.set(key, value);
  }

  /** Room for this many more IPv4 prefixes. */
  reserve(more: number): void {
    this.#v4.reserve(this.#v4.size + more);
  }

  /** The prefixes that there are; the map must not change meanwhile. */
  *keys(): IterableIterator<K> {
    yield* this.#v4.keys() as IterableIterator<K>;
    yield* this.#v6.keys() as IterableIterator<K>;
  }
}
