import type { Journal } from '../ipam/journal.js';

export type AnswerRecord =
  | { readonly op: 'answered'; readonly key: string; readonly passed?: boolean }
  | { readonly op: 'gone'; readonly key: string };

/** Lines of the journal that are out of date before it is rewritten. */
const SLACK = 1024;

/**
 * Which ADDs the runtime knows the result of (`<stateDir>/cni/journal`). One that was made but whose result never
 * arrived (the agent or the plugin was killed in between) may be asked for again; a second ADD after an answer
 * is an error. Also keeps for which requests nothing was made, because another plugin of the chain had.
 */
export class Answers {
  readonly #journal: Journal<AnswerRecord>;
  readonly #keys = new Map<string, { readonly passed: boolean }>();

  constructor(opened: ReturnType<typeof Journal.open<AnswerRecord>>) {
    this.#journal = opened.journal;
    for (const record of opened.records) this.#apply(record);
    if (opened.damaged > 0) this.#compact();
  }

  has(key: string): boolean {
    return this.#keys.has(key);
  }

  /** Whether the request was only passed through. */
  passed(key: string): boolean {
    return this.#keys.get(key)?.passed === true;
  }

  keys(): IterableIterator<string> {
    return this.#keys.keys();
  }

  answered(key: string, passed = false): void {
    this.#write({ op: 'answered', key, ...(passed ? { passed } : {}) });
  }

  gone(key: string): void {
    if (this.#keys.has(key)) this.#write({ op: 'gone', key });
  }

  close(): void {
    this.#journal.close();
  }

  #write(record: AnswerRecord): void {
    this.#journal.append([record]);
    this.#apply(record);
    if (this.#journal.lines > 2 * this.#keys.size + SLACK) this.#compact();
  }

  #apply(record: AnswerRecord): void {
    if (record.op === 'gone') this.#keys.delete(record.key);
    else this.#keys.set(record.key, { passed: record.passed === true });
  }

  #compact(): void {
    this.#journal.compact(
      [...this.#keys].map(
        ([key, { passed }]): AnswerRecord => ({
          op: 'answered',
          key,
          ...(passed ? { passed } : {}),
        }),
      ),
    );
  }
}
