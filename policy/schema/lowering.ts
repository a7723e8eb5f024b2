/** What the lowering of every kind gets to know about the document. */
import type { Origin } from '../model/resources.js';
import type { FieldPath } from './yaml.js';

export interface Lowering {
  /** The document as plain data. */
  readonly source: unknown;
  /** Position of the document, with the lines of those fields (such as `spec.networks[0].ipv4`) that exist. */
  origin(fields?: readonly string[]): Origin;
  /** Position of a part of the document. */
  at(path: FieldPath): Origin;
  /** The document as JSON text, if it was read from that. */
  text?(): string | undefined;
}

/** `spec.networks[0].ipv4` -> ['spec', 'networks', 0, 'ipv4']; for plain field names only. */
export function splitFieldPath(text: string): FieldPath {
  return [...text.matchAll(/([^.[\]]+)|\[(\d+)\]/g)].map((match) =>
    match[2] === undefined ? (match[1] ?? '') : Number(match[2]),
  );
}

/** Returns the list of the call before when the new one is the same. */
export function repeats<T>(same: (a: T, b: T) => boolean): (list: readonly T[]) => readonly T[] {
  let latest: readonly T[] = [];
  return (list) => {
    if (list.length !== latest.length || !list.every((item, i) => same(item, latest[i] as T))) latest = list;
    return latest;
  };
}
