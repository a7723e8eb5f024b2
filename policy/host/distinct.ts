/** Keys once each and ascending, and how often each was there. */
export interface Distinct<K> {
  readonly keys: ArrayLike<K>;
  readonly counts: Uint32Array<ArrayBuffer>;
}

/** Of long lists; one that is in order already is not copied. Prefixes: by address, then by length. */
export function distinct<K extends number | string>(keys: readonly K[]): Distinct<K> {
  if (isAscending(keys)) return { keys, counts: new Uint32Array(keys.length).fill(1) };
  const sorted = sort(keys);
  const counts = new Uint32Array(sorted.length);
  let last = -1;
  for (let i = 0; i < sorted.length; i++) {
    const key = sorted[i] as K;
    if (last < 0 || key !== sorted[last]) sorted[++last] = key;
    counts[last] = (counts[last] ?? 0) + 1;
  }
  return { keys: sorted.slice(0, last + 1), counts: counts.slice(0, last + 1) };
}

function isAscending(keys: ArrayLike<number | string>): boolean {
  for (let i = 1; i < keys.length; i++) if (!((keys[i - 1] ?? 0) < (keys[i] ?? 0))) return false;
  return true;
}

/** A copy; numbers are sorted in a typed array, which needs no comparison by JavaScript. */
function sort<K extends number | string>(
  keys: readonly K[],
): { [index: number]: K; slice: K[]['slice'] } & ArrayLike<K> {
  if (keys.every((key) => typeof key === 'number'))
    return new Float64Array(keys as readonly number[]).sort() as unknown as K[];
  return [...keys].sort();
}
