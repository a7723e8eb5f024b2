import { distinct } from './distinct.js';
import { PackedMap } from './packed-map.js';
import { byFamily, type PrefixKey } from './prefix.js';
import { TextMap } from './text-map.js';

/** Numbers above 0 by prefix, of both families. */
export class PrefixMap {
  readonly #v4 = new PackedMap();
  readonly #v6 = new TextMap();

  get size(): number {
    return this.#v4.size + this.#v6.size;
  }

  /** 0: the prefix is not there. */
  get(key: PrefixKey): number {
    return typeof key === 'number' ? this.#v4.get(key) : this.#v6.get(key);
  }

  /** `value` 0 removes the prefix. */
  set(key: PrefixKey, value: number): void {
    if (typeof key === 'number') this.#v4.set(key, value);
    else this.#v6.set(key, value);
  }

  /** Counts the keys into an empty map. Returns each once. */
  count(keys: readonly PrefixKey[]): PrefixKey[] {
    const [four, six] = byFamily(keys);
    const [v4, v6] = [distinct(four), distinct(six)];
    this.#v4.fill(v4.keys, v4.counts);
    this.#v6.fill(v6.keys, v6.counts);
    const out: PrefixKey[] = Array.from(v4.keys);
    for (let i = 0; i < v6.keys.length; i++) out.push(v6.keys[i] ?? '');
    return out;
  }

  /** Room for this many more IPv4 prefixes. */
  reserve(more: number): void {
    this.#v4.reserve(this.#v4.size + more);
  }

  /** The prefixes that there are; the map must not change meanwhile. */
  *keys(): IterableIterator<PrefixKey> {
    yield* this.#v4.keys();
    yield* this.#v6.keys();
  }
}
