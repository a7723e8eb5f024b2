import { NumberMap } from './number-map.js';

const NONE = new Float64Array(0);

/**
 * A NumberMap whose first content, a long list, stays in order: finding one of its keys takes some steps more, but
 * taking in the list takes no step for each, and no room for what might come.
 */
export class PackedMap {
  #keys: Float64Array = NONE;
  /** Of `keys`; 0: the key is not there any more. */
  #values = new Uint32Array(0);
  #present = 0;
  /** Where the last key was found: the next one is often asked for next. */
  #last = 0;
  readonly #others = new NumberMap();

  get size(): number {
    return this.#present + this.#others.size;
  }

  /** The first content of an empty map. `keys` ascending, each once; the arrays belong to the map then. */
  fill(keys: ArrayLike<number>, values: Uint32Array<ArrayBuffer>): void {
    if (this.size > 0) throw new RangeError('only an empty map is filled');
    this.#keys = keys instanceof Float64Array ? keys : new Float64Array(keys);
    this.#values = values;
    this.#present = keys.length;
    this.#last = 0;
  }

  /** 0: the key is not there. */
  get(key: number): number {
    const at = this.#find(key);
    return at < 0 ? this.#others.get(key) : (this.#values[at] ?? 0);
  }

  /** `value` 0 removes the key. */
  set(key: number, value: number): void {
    const at = this.#find(key);
    if (at < 0) {
      this.#others.set(key, value);
      return;
    }
    if (this.#values[at] === 0) this.#present++;
    if (value === 0) this.#present--;
    this.#values[at] = value;
    if (this.#present === 0) [this.#keys, this.#values] = [NONE, new Uint32Array(0)];
  }

  /** The keys that there are; the map must not change meanwhile. */
  *keys(): IterableIterator<number> {
    for (let i = 0; i < this.#keys.length; i++) if (this.#values[i] !== 0) yield this.#keys[i] ?? 0;
    yield* this.#others.keys();
  }

  /** Room for this many keys, so that they are not moved while they come. */
  reserve(size: number): void {
    this.#others.reserve(size - this.#present);
  }

  /** Whether the key is one of the first content, also if it is not there any more. */
  isListed(key: number): boolean {
    return this.#find(key) >= 0;
  }

  /** Of the first content, the keys from `low` to below `high` that are still there. */
  *listed(low: number, high: number): IterableIterator<number> {
    for (let i = this.#position(low); i < this.#keys.length; i++) {
      const key = this.#keys[i] ?? high;
      if (key >= high) return;
      if (this.#values[i] !== 0) yield key;
    }
  }

  /** Index of a key of the list, -1: it is none. */
  #find(key: number): number {
    const keys = this.#keys;
    if (keys[this.#last + 1] === key) return ++this.#last;
    const at = this.#position(key);
    if (keys[at] !== key) return -1;
    this.#last = at;
    return at;
  }

  /** Index of the first key of the list that is not below this one. */
  #position(key: number): number {
    const keys = this.#keys;
    let low = 0;
    let high = keys.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((keys[middle] ?? 0) < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
