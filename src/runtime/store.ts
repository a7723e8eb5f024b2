import type { Journal } from '../ipam/journal.js';
import { keyOf, type ResourceKey } from '../state/keys.js';
import type { RuntimeResource } from './runtime.js';

type RuntimeEntry =
  | { readonly op: 'set'; readonly object: RuntimeResource }
  | { readonly op: 'remove'; readonly key: ResourceKey };

/** One change. */
export type RuntimeRecord = readonly RuntimeEntry[];

/** Lines of the journal that are out of date before it is rewritten. */
const SLACK = 1024;

/**
 * The objects of container runtimes on disk: a journal (`<stateDir>/runtime/journal`), so that a container that
 * comes or goes costs one write. A change is one write and takes effect as a whole.
 */
export class RuntimeStore {
  /** Lines that were damaged when it was opened. */
  readonly damaged: number;
  readonly #journal: Journal<RuntimeRecord>;
  readonly #objects = new Map<ResourceKey, RuntimeResource>();

  constructor(opened: ReturnType<typeof Journal.open<RuntimeRecord>>) {
    this.#journal = opened.journal;
    this.damaged = opened.damaged;
    for (const entries of opened.records) this.#apply(entries);
    if (this.damaged > 0) this.#compact();
  }

  objects(): RuntimeResource[] {
    return [...this.#objects.values()];
  }

  /** Throws the file system's error; then nothing is changed. */
  save(change: {
    readonly set: readonly RuntimeResource[];
    readonly remove: readonly RuntimeResource[];
  }): void {
    const entries = [
      ...change.set.map((object): RuntimeEntry => ({ op: 'set', object })),
      ...change.remove.map((object): RuntimeEntry => ({ op: 'remove', key: keyOf(object) })),
    ];
    this.#journal.append([entries]);
    this.#apply(entries);
    if (this.#journal.lines > 2 * this.#objects.size + SLACK) this.#compact();
  }

  close(): void {
    this.#journal.close();
  }

  #apply(entries: RuntimeRecord): void {
    for (const entry of entries) {
      if (entry.op === 'set') this.#objects.set(keyOf(entry.object), entry.object);
      else this.#objects.delete(entry.key);
    }
  }

  #compact(): void {
    const entries = this.objects().map((object): RuntimeEntry => ({ op: 'set', object }));
    this.#journal.compact(entries.map((entry) => [entry]));
  }
}
