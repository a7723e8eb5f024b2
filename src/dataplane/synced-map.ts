import type { Codec } from '../../loader/abi/codec.js';

/** So many entries are as fast one by one. */
const FEW = 8;

/** What the tables need of a BPF map (loader/map.ts has more). */
export interface KernelMap<K, V> {
  readonly name: string;
  readonly maxEntries: number;
  set(key: K, value: V): void;
  setBatch?(entries: readonly (readonly [K, V])[]): void;
  delete(key: K): boolean;
  entries(): Iterable<readonly [K, V]>;
}

/**
 * A kernel map with the agent's copy of it: writing what is there already costs nothing, and after a
 * restart the old entries stay until `sweep`, when everything wanted has been written. For maps of
 * which the agent writes every entry itself. The copy is the bytes of keys and values, one character each: there may be
 * very many of them, and objects would take ten times the room.
 */
export class SyncedMap<K, V> {
  readonly #map: KernelMap<K, V>;
  readonly #keyCodec: Codec<K>;
  readonly #valueCodec: Codec<V>;
  readonly #keyBuffer: Buffer;
  readonly #valueBuffer: Buffer;
  readonly #held = new Map<string, string>();
  readonly #stale = new Set<string>();
  /** Entries that `together` collects. */
  #collected: (readonly [K, V])[] | undefined;

  constructor(map: KernelMap<K, V>, codecs: { readonly key: Codec<K>; readonly value: Codec<V> }) {
    this.#map = map;
    this.#keyCodec = codecs.key;
    this.#valueCodec = codecs.value;
    this.#keyBuffer = Buffer.alloc(codecs.key.size);
    this.#valueBuffer = Buffer.alloc(codecs.value.size);
  }

  get name(): string {
    return this.#map.name;
  }

  get size(): number {
    return this.#held.size;
  }

  get capacity(): number {
    return this.#map.maxEntries;
  }

  /** Reads what an earlier agent left in the kernel; all of it counts as stale until it is set again. */
  load(): void {
    for (const [key, value] of this.#map.entries()) {
      const id = this.#keyText(key);
      this.#held.set(id, this.#valueText(value));
      this.#stale.add(id);
    }
  }

  get(key: K): V | undefined {
    const bytes = this.#held.get(this.#keyText(key));
    return bytes === undefined ? undefined : this.#valueOf(bytes);
  }

  has(key: K): boolean {
    const id = this.#keyText(key);
    return this.#held.has(id) && !this.#stale.has(id);
  }

  /** Entries that are wanted (not left over). */
  *values(): IterableIterator<readonly [K, V]> {
    for (const [id, bytes] of this.#held)
      if (!this.#stale.has(id)) yield [this.#keyOf(id), this.#valueOf(bytes)];
  }

  /** What an earlier agent left and nobody has set again. */
  *leftOver(): IterableIterator<V> {
    for (const id of this.#stale) {
      const bytes = this.#held.get(id);
      if (bytes !== undefined) yield this.#valueOf(bytes);
    }
  }

  /** Writes the entry unless it is there. Returns what takes it back. Throws the kernel's error. */
  set(key: K, value: V): () => void {
    const id = this.#keyText(key);
    const bytes = this.#valueText(value);
    const before = this.#held.get(id);
    const wasStale = this.#stale.delete(id);
    if (before === bytes) return () => void (wasStale && this.#stale.add(id));
    try {
      if (this.#collected === undefined) this.#map.set(key, value);
      else this.#collected.push([key, value]);
    } catch (error) {
      if (wasStale) this.#stale.add(id);
      throw error;
    }
    this.#held.set(id, bytes);
    return () => {
      if (wasStale) this.#stale.add(id);
      this.#restore(id, key, before);
    };
  }

  /**
   * What `work` sets is written when it is done, many entries with one system call: each key is set or deleted once at
   * most. If that fails, what `set` returned takes back entries that were not written too. Throws the
   * kernel's error.
   */
  together(work: () => void): void {
    const map = this.#map;
    if (map.setBatch === undefined || this.#collected !== undefined) {
      work();
      return;
    }
    const collected: (readonly [K, V])[] = [];
    this.#collected = collected;
    try {
      work();
    } finally {
      this.#collected = undefined;
    }
    if (collected.length > FEW) map.setBatch(collected);
    else for (const [key, value] of collected) map.set(key, value);
  }

  /**
   * Removes the entry if it is there. Returns what takes it back. What an earlier agent left stays until `sweep`: who does
   * not want it may only not know everything yet, and packets need it meanwhile.
   */
  delete(key: K): () => void {
    const id = this.#keyText(key);
    const before = this.#held.get(id);
    if (before === undefined || this.#stale.has(id)) return () => undefined;
    this.#map.delete(key);
    this.#held.delete(id);
    return () => this.#restore(id, key, before);
  }

  /** Removes what was left over and not set again; returns how many entries that were. */
  sweep(): number {
    for (const id of this.#stale) {
      if (this.#held.delete(id)) this.#map.delete(this.#keyOf(id));
    }
    const count = this.#stale.size;
    this.#stale.clear();
    return count;
  }

  #restore(id: string, key: K, before: string | undefined): void {
    if (before === undefined) {
      this.#map.delete(key);
      this.#held.delete(id);
    } else {
      this.#map.set(key, this.#valueOf(before));
      this.#held.set(id, before);
    }
  }

  #keyOf(id: string): K {
    return this.#keyCodec.decode(Buffer.from(id, 'latin1'), 0);
  }

  #valueOf(bytes: string): V {
    return this.#valueCodec.decode(Buffer.from(bytes, 'latin1'), 0);
  }

  #keyText(key: K): string {
    this.#keyCodec.encode(key, this.#keyBuffer, 0);
    return this.#keyBuffer.toString('latin1');
  }

  #valueText(value: V): string {
    this.#valueCodec.encode(value, this.#valueBuffer, 0);
    return this.#valueBuffer.toString('latin1');
  }
}
