/**
 * The prefixes of all peers, each with its class: the peers that contain it, themselves or by a wider prefix. So the
 * longest prefix that contains an address says all about it. The cost of a change follows its size, unless it is a
 * prefix with others inside, which are looked for among all.
 */
import { Combinations } from './combinations.js';
import { distinct } from './distinct.js';
import { PackedMap } from './packed-map.js';
import { byFamily, lengthOf, type PrefixKey, widen } from './prefix.js';
import { TextMap } from './text-map.js';

/** What joins and leaves a peer. */
export interface PeerChange {
  readonly peer: number;
  readonly added: readonly PrefixKey[];
  readonly removed: readonly PrefixKey[];
}

/** Prefixes whose class differs now, in arrays of equal length; class 0: the prefix is not there. */
export class ClassChanges<K extends PrefixKey> {
  readonly keys: K[] = [];
  readonly before: number[] = [];
  readonly now: number[] = [];

  add(key: K, before: number, now: number): void {
    this.keys.push(key);
    this.before.push(before);
    this.now.push(now);
  }
}

/** What a change of peers did, by family. */
export interface TableChange {
  readonly v4: ClassChanges<number>;
  readonly v6: ClassChanges<string>;
}

/** Numbers above 0 by prefix; 0: the prefix is not there. */
interface Numbers<K> {
  readonly size: number;
  get(key: K): number;
  set(key: K, value: number): void;
  keys(): IterableIterator<K>;
  reserve(size: number): void;
  fill(keys: ArrayLike<K>, values: Uint32Array<ArrayBuffer>): void;
  isListed(key: K): boolean;
  listed(low: K, high: K): Iterable<K>;
}

/** Below this many changed prefixes, others are held against each of them instead of widened. */
const FEW = 8;

/** Where more than one in so many prefixes is touched, all are looked at. */
const PART = 4;

const LENGTHS = 129;

/** Prefixes at least this long are also found by their first bits. */
const INDEXED = { 4: 16, 6: 32 } as const;

function isIndexed(key: PrefixKey): boolean {
  return lengthOf(key) >= (typeof key === 'number' ? INDEXED[4] : INDEXED[6]);
}

/** Keys of IPv4 with the same first 16 bits. */
const FIRST_BITS = 2 ** 22;

/** The first bits of a key: 16 of IPv4, 32 of IPv6. */
function firstBits(key: PrefixKey): PrefixKey {
  return typeof key === 'number' ? Math.floor(key / FIRST_BITS) : key.slice(0, 4);
}

class FamilyTable<K extends PrefixKey> {
  readonly #combinations: Combinations;
  /** Peers that have exactly this prefix. */
  #own: Numbers<K>;
  #classes: Numbers<K>;
  readonly #make: () => Numbers<K>;
  readonly #lengths = new Uint32Array(LENGTHS);
  /** By their first bits, the prefixes that are not found by their order. */
  readonly #index = new Map<PrefixKey, K[]>();

  constructor(combinations: Combinations, make: () => Numbers<K>) {
    this.#combinations = combinations;
    this.#make = make;
    this.#own = make();
    this.#classes = make();
  }

  get size(): number {
    return this.#classes.size;
  }

  /** Lengths in use, longest first. */
  lengths(): number[] {
    const out: number[] = [];
    for (let length = LENGTHS - 1; length >= 0; length--) if (this.#lengths[length] !== 0) out.push(length);
    return out;
  }

  *entries(): IterableIterator<[K, number]> {
    for (const key of this.#classes.keys()) yield [key, this.#classes.get(key)];
  }

  classOf(key: K): number | undefined {
    const found = this.#classes.get(key);
    return found === 0 ? undefined : found;
  }

  /** Puts a change of peers in. Returns the prefixes that have other peers of their own now. */
  own(peer: number, added: readonly K[], removed: readonly K[]): readonly K[] {
    const touched: K[] = [];
    for (const key of removed) {
      const before = this.#own.get(key);
      if (before === 0) continue;
      const now = this.#combinations.without(before, peer);
      if (now === before) continue;
      this.#own.set(key, now);
      touched.push(key);
    }
    if (this.#own.size === 0) {
      const { keys } = distinct(added);
      this.#own.fill(keys, new Uint32Array(keys.length).fill(this.#combinations.with(0, peer)));
      return touched.length === 0 ? Array.from(keys) : [...touched, ...Array.from(keys)];
    }
    this.#own.reserve(this.#own.size + added.length);
    for (const key of added) {
      const before = this.#own.get(key);
      const now = this.#combinations.with(before, peer);
      if (now === before) continue;
      this.#own.set(key, now);
      touched.push(key);
    }
    return touched;
  }

  /** Finds the classes that differ now. A prefix may be in `touched` more than once. */
  settle(touched: readonly K[], changes: ClassChanges<K>): void {
    if (touched.length === 0) return;
    if (touched.length * PART > this.#classes.size) {
      this.#settleAll(touched, changes);
      return;
    }
    const lengths = new Set(this.lengths());
    for (const key of touched) lengths.add(lengthOf(key));
    const descending = [...lengths].sort((a, b) => b - a);
    this.#classes.reserve(this.#classes.size + touched.length);
    // Wide ones first: what is inside of them asks for their class.
    for (const list of byLength(touched, this.#inside(touched))) {
      for (const key of list) {
        const own = this.#own.get(key);
        const before = this.#classes.get(key);
        const now = own === 0 ? 0 : this.#combinations.union(own, this.#around(key, descending));
        if (now === before) continue;
        if (before === 0) this.#count(key, 1);
        if (now === 0) this.#count(key, -1);
        this.#classes.set(key, now);
        changes.add(key, before, now);
      }
    }
  }

  /** The same from nothing, when much is touched: in ascending order, what contains a prefix came before it. */
  #settleAll(touched: readonly K[], changes: ClassChanges<K>): void {
    const old = this.#classes;
    const { keys } = distinct(old.size === 0 ? touched : [...this.#own.keys()]);
    const own = new Uint32Array(keys.length);
    let isNested = false;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as K;
      own[i] = this.#own.get(key);
      if (own[i] === 0) {
        // Came and went in one change.
        this.#settleAll(
          touched.filter((one) => this.#own.get(one) !== 0),
          changes,
        );
        return;
      }
      // If a prefix contains any other, then the one after it.
      isNested ||= i > 0 && contains(keys[i - 1] as K, key);
    }
    const classes = own.slice();
    if (isNested) this.#inherit(keys, classes);
    this.#own = this.#make();
    this.#own.fill(keys, own);
    this.#classes = this.#make();
    this.#classes.fill(keys, classes);
    this.#lengths.fill(0);
    this.#index.clear();
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as K;
      const [before, now] = [old.size === 0 ? 0 : old.get(key), classes[i] ?? 0];
      this.#count(key, 1);
      if (before !== now) changes.add(key, before, now);
    }
    for (const key of old.keys()) if (this.#classes.get(key) === 0) changes.add(key, old.get(key), 0);
  }

  /** Adds to the class of each key that of the next wider one. */
  #inherit(keys: ArrayLike<K>, classes: Uint32Array): void {
    /** What contains the key, from the widest on: indices of keys. */
    const around: number[] = [];
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as K;
      while (around.length > 0 && !contains(keys[around.at(-1) ?? 0] as K, key)) around.pop();
      const wider = around.at(-1);
      if (wider !== undefined) classes[i] = this.#combinations.union(classes[i] ?? 0, classes[wider] ?? 0);
      around.push(i);
    }
  }

  #count(key: K, by: 1 | -1): void {
    const length = lengthOf(key);
    this.#lengths[length] = (this.#lengths[length] ?? 0) + by;
    if (!isIndexed(key)) return;
    if (this.#classes.isListed(key)) return;
    const bits = firstBits(key);
    const known = this.#index.get(bits);
    if (by > 0) {
      if (known === undefined) this.#index.set(bits, [key]);
      else known.push(key);
    } else if (known !== undefined) {
      const last = known.pop();
      const at = last === key ? -1 : known.indexOf(key);
      if (at >= 0 && last !== undefined) known[at] = last;
      if (known.length === 0) this.#index.delete(bits);
    }
  }

  /** Class of the next wider prefix. */
  #around(key: K, descending: readonly number[]): number {
    const own = lengthOf(key);
    for (const length of descending) {
      if (length >= own) continue;
      const found = this.#classes.get(widen(key, length));
      if (found !== 0) return found;
    }
    return 0;
  }

  /** Prefixes that can be inside of these; undefined: of any. */
  #candidates(wide: readonly K[] | undefined): Iterable<K> {
    if (wide === undefined || !wide.every(isIndexed)) return this.#classes.keys();
    const bits = new Set(wide.map(firstBits));
    return [...bits].flatMap((first) => [
      ...(typeof first === 'number'
        ? this.#classes.listed((first * FIRST_BITS) as K, ((first + 1) * FIRST_BITS) as K)
        : []),
      ...(this.#index.get(first) ?? []),
    ]);
  }

  /** Prefixes inside of touched ones, which are not touched themselves. */
  #inside(touched: readonly K[]): K[] {
    let shortest = LENGTHS;
    for (const key of touched) shortest = Math.min(shortest, lengthOf(key));
    if (!this.lengths().some((length) => length > shortest)) return [];
    const all = new Set(touched);
    const lengths = [...new Set(touched.map(lengthOf))];
    const out: K[] = [];
    const few = touched.length <= FEW ? touched : undefined;
    for (const key of this.#candidates(few)) {
      const own = lengthOf(key);
      if (own <= shortest || all.has(key)) continue;
      const contained =
        few === undefined
          ? lengths.some((length) => length < own && all.has(widen(key, length)))
          : few.some((wide) => wide !== key && contains(wide, key));
      if (contained) out.push(key);
    }
    return out;
  }
}

function joined<K>(lists: readonly (readonly K[])[]): readonly K[] {
  const [first = []] = lists;
  return lists.length === 1 ? first : lists.flat();
}

function contains<K extends PrefixKey>(wide: K, key: K): boolean {
  return lengthOf(wide) <= lengthOf(key) && widen(key, lengthOf(wide)) === wide;
}

/** Lists of equal length, the shortest prefixes first. */
function byLength<K extends PrefixKey>(...groups: readonly (readonly K[])[]): K[][] {
  const lists: K[][] = [];
  for (const keys of groups) {
    for (const key of keys) {
      const length = lengthOf(key);
      const list = lists[length];
      if (list === undefined) lists[length] = [key];
      else list.push(key);
    }
  }
  return lists.filter((list) => list !== undefined);
}

export class PrefixTable {
  readonly combinations = new Combinations();
  readonly #v4 = new FamilyTable<number>(this.combinations, () => new PackedMap());
  readonly #v6 = new FamilyTable<string>(this.combinations, () => new TextMap());

  get size(): number {
    return this.#v4.size + this.#v6.size;
  }

  lengths(family: 4 | 6): number[] {
    return family === 4 ? this.#v4.lengths() : this.#v6.lengths();
  }

  classOf(key: PrefixKey): number | undefined {
    return typeof key === 'number' ? this.#v4.classOf(key) : this.#v6.classOf(key);
  }

  *entries(): IterableIterator<[PrefixKey, number]> {
    yield* this.#v4.entries();
    yield* this.#v6.entries();
  }

  /** Takes changes of peers in. Returns the prefixes whose class differs now, each once. */
  update(changes: Iterable<PeerChange>): TableChange {
    const touched4: (readonly number[])[] = [];
    const touched6: (readonly string[])[] = [];
    for (const { peer, added, removed } of changes) {
      const [new4, new6] = byFamily(added);
      const [old4, old6] = byFamily(removed);
      touched4.push(this.#v4.own(peer, new4, old4));
      touched6.push(this.#v6.own(peer, new6, old6));
    }
    const out = { v4: new ClassChanges<number>(), v6: new ClassChanges<string>() };
    this.#v4.settle(joined(touched4), out.v4);
    this.#v6.settle(joined(touched6), out.v6);
    return out;
  }
}
