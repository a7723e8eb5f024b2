/**
 * Maglev consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
 * 2016, section 3.4), with weights: a backend of weight w takes w turns where one of weight 1 takes one.
 */

/** A backend in a table. `name` decides where it lies: equal on every node. */
export interface MaglevBackend {
  readonly name: string;
  readonly number: number;
  readonly weight: number;
}

const SIZES = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071] as const;
/** Entries of the table for the lightest backend: keeps shares within one percent. */
const ENTRIES_EACH = 100;
/** Steps between two breaks of a table that is built. */
const SLICE = 4096;

/**
 * Size of a table, a prime. `current`: that of the table which this one replaces; it is kept while it is good, because
 * another size would move nearly every flow.
 */
export function maglevSize(backends: readonly { readonly weight: number }[], current = 0): number {
  const lightest = Math.min(...backends.map(({ weight }) => weight));
  const shares = backends.reduce((sum, { weight }) => sum + weight, 0) / Math.max(lightest, 1);
  const least = shares * ENTRIES_EACH;
  if (current >= least && current <= Math.max(least * 16, SIZES[0])) return current;
  return SIZES.find((size) => size >= least * 1.5) ?? SIZES[SIZES.length - 1] ?? 0;
}

/** Builds a table in slices; the value that it returns at the end are numbers of backends. */
export function* maglevTable(
  backends: readonly MaglevBackend[],
  size: number,
): Generator<undefined, Uint32Array, undefined> {
  const table = new Uint32Array(size).fill(EMPTY);
  if (backends.length === 0) return table;
  const order = [...backends].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const offsets = order.map(({ name }) => hash(name, 0x811c9dc5) % size);
  const skips = order.map(({ name }) => (hash(name, 0x01234567) % (size - 1)) + 1);
  const next = offsets.slice();
  const heaviest = Math.max(...order.map(({ weight }) => weight));
  const credit = order.map(() => 0);
  let filled = 0;
  let steps = 0;
  for (;;) {
    for (let i = 0; i < order.length; i++) {
      // With equal weights everybody has a turn in each round.
      credit[i] = (credit[i] ?? 0) + (order[i]?.weight ?? 0);
      if ((credit[i] ?? 0) < heaviest) continue;
      credit[i] = (credit[i] ?? 0) - heaviest;
      let at = next[i] ?? 0;
      const skip = skips[i] ?? 1;
      while (table[at] !== EMPTY) {
        at += skip;
        if (at >= size) at -= size;
        steps++;
      }
      table[at] = order[i]?.number ?? 0;
      next[i] = (at + skip) % size;
      if (++filled === size) return table;
      if (++steps >= SLICE) {
        steps = 0;
        yield;
      }
    }
  }
}

/** The whole table at once. */
export function maglevTableNow(backends: readonly MaglevBackend[], size: number): Uint32Array {
  const builder = maglevTable(backends, size);
  for (;;) {
    const step = builder.next();
    if (step.done === true) return step.value;
  }
}

const EMPTY = 0xffffffff;

/** FNV-1a with a final mix (Murmur3's), 32 bits. */
function hash(text: string, seed: number): number {
  let h = seed;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
