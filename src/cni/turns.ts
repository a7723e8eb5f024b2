/** Lets work on one thing wait for the work on it before; work on different things does not wait. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();
  readonly #groups = new Map<string, Set<Promise<unknown>>>();
  readonly #gates = new Map<string, Promise<unknown>>();

  /** Runs work on `key`, which is part of `group`, after what came before it, and not while a whole group is worked on. */
  async one<T>(group: string, key: string, work: () => Promise<T>): Promise<T> {
    const before = Promise.all([this.#last.get(key), this.#gates.get(group)].map(settled));
    const run = before.then(work);
    const active = this.#groups.get(group) ?? new Set();
    this.#groups.set(group, active.add(run));
    this.#last.set(key, run);
    try {
      return await run;
    } finally {
      active.delete(run);
      if (active.size === 0 && this.#groups.get(group) === active) this.#groups.delete(group);
      if (this.#last.get(key) === run) this.#last.delete(key);
    }
  }

  /** Runs work on a whole group: after all that is under way in it, and before all that comes later. */
  async whole<T>(group: string, work: () => Promise<T>): Promise<T> {
    const before = Promise.all([...(this.#groups.get(group) ?? []), this.#gates.get(group)].map(settled));
    const run = before.then(work);
    this.#gates.set(group, run);
    try {
      return await run;
    } finally {
      if (this.#gates.get(group) === run) this.#gates.delete(group);
    }
  }
}

async function settled(promise: Promise<unknown> | undefined): Promise<void> {
  await promise?.catch(() => undefined);
}
