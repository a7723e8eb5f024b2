import { join } from 'node:path';
import { SluiceError } from '../../policy/errors.js';
import { readJson, writeJson } from '../state/files.js';
import { MAX_SUBJECTS } from './tables.js';

/**
 * Numbers of subjects, cgroups and users. They are part of the keys of flows, so they stay the same when the agent is
 * started again.
 */
export class SubjectNumbers {
  readonly #path: string;
  #numbers: Map<string, number>;
  /** By their numbers: the flow log asks for each of many flows. */
  #keys: ReadonlyMap<number, string>;

  constructor(folder: string) {
    this.#path = join(folder, 'subjects.json');
    this.#numbers = new Map(Object.entries(readJson<Record<string, number>>(this.#path) ?? {}));
    this.#keys = byNumber(this.#numbers);
  }

  keyOf(number: number): string | undefined {
    return this.#keys.get(number);
  }

  /** The numbers of exactly these; 1 and above. Throws SLU7008. */
  assign(keys: readonly string[]): ReadonlyMap<string, number> {
    if (keys.length > MAX_SUBJECTS) throw SluiceError.of('SLU7008', { limit: MAX_SUBJECTS });
    const taken = new Set<number>();
    const numbers = new Map<string, number>();
    for (const key of keys) {
      const known = this.#numbers.get(key);
      if (known === undefined || taken.has(known)) continue;
      numbers.set(key, known);
      taken.add(known);
    }
    let next = 1;
    for (const key of keys) {
      if (numbers.has(key)) continue;
      while (taken.has(next)) next++;
      numbers.set(key, next);
      taken.add(next);
    }
    const changed =
      numbers.size !== this.#numbers.size || keys.some((key) => this.#numbers.get(key) !== numbers.get(key));
    if (changed) writeJson(this.#path, Object.fromEntries(numbers));
    this.#numbers = numbers;
    this.#keys = byNumber(numbers);
    return numbers;
  }
}

function byNumber(numbers: ReadonlyMap<string, number>): ReadonlyMap<number, string> {
  return new Map([...numbers].map(([key, number]) => [number, key]));
}
