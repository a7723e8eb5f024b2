const MIN_SLOTS = 16;
/** No key: keys are not negative. */
const EMPTY = -1;

/**
 * A map from whole numbers (0 to 2^53 - 1) to whole numbers from 1 to 2^32 - 1, of which a JavaScript map would make an object for each
 * key: open addressing in two typed arrays, at most half full.
 */
export class NumberMap {
  #keys = new Float64Array(MIN_SLOTS).fill(EMPTY);
  #values = new Uint32Array(MIN_SLOTS);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** 0: the key is not there. */
  get(key: number): number {
    const slot = this.#find(key);
    return this.#keys[slot] === EMPTY ? 0 : (this.#values[slot] ?? 0);
  }

  /** `value` 0 removes the key. */
  set(key: number, value: number): void {
    if (value === 0) {
      this.#delete(key);
      return;
    }
    let slot = this.#find(key);
    if (this.#keys[slot] === EMPTY) {
      if (this.#size * 2 >= this.#keys.length) {
        this.#resize(this.#keys.length * 2);
        slot = this.#find(key);
      }
      this.#keys[slot] = key;
      this.#size++;
    }
    this.#values[slot] = value;
  }

  /** The keys that there are; the map must not change meanwhile. */
  *keys(): IterableIterator<number> {
    for (const key of this.#keys) if (key !== EMPTY) yield key;
  }

  /** Room for this many keys, so that they are not moved while they come. */
  reserve(size: number): void {
    let slots = this.#keys.length;
    while (slots < size * 2) slots *= 2;
    if (slots > this.#keys.length) this.#resize(slots);
  }

  /** The slot that has the key, or that is free for it. */
  #find(key: number): number {
    const keys = this.#keys;
    const mask = keys.length - 1;
    let slot = hash(key) & mask;
    for (;;) {
      const found = keys[slot];
      if (found === key || found === EMPTY) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #delete(key: number): void {
    const keys = this.#keys;
    const mask = keys.length - 1;
    let hole = this.#find(key);
    if (keys[hole] === EMPTY) return;
    this.#size--;
    // Keys that had to go further because of this one move up, so that none is behind a hole.
    for (let slot = (hole + 1) & mask; ; slot = (slot + 1) & mask) {
      const other = keys[slot] ?? EMPTY;
      if (other === EMPTY) break;
      const home = hash(other) & mask;
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue;
      keys[hole] = other;
      this.#values[hole] = this.#values[slot] ?? 0;
      hole = slot;
    }
    keys[hole] = EMPTY;
  }

  #resize(slots: number): void {
    const [keys, values] = [this.#keys, this.#values];
    this.#keys = new Float64Array(slots).fill(EMPTY);
    this.#values = new Uint32Array(slots);
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] ?? EMPTY;
      if (key === EMPTY) continue;
      const slot = this.#find(key);
      this.#keys[slot] = key;
      this.#values[slot] = values[i] ?? 0;
    }
  }
}

function hash(key: number): number {
  let h = key ^ Math.imul(Math.floor(key / 2 ** 32), 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}
