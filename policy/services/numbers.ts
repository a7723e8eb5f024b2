/** Numbers for keys, counted by use: stable while a key is used, given to others only after `settle`. */
export class NumberPool {
  readonly #numbers = new Map<string, { readonly number: number; uses: number }>();
  readonly #capacity: number;
  /** Numbers in an earlier agent's rows that nobody has taken over yet. */
  readonly #reserved: Set<number>;
  readonly #met: ReadonlySet<number>;
  readonly #free: number[] = [];
  #leaving: number[] = [];
  #next: number;

  /** Numbers from `first` to `capacity` - 1. */
  constructor(capacity: number, first = 0, reserved: Iterable<number> = []) {
    this.#capacity = capacity;
    this.#met = new Set(reserved);
    this.#reserved = new Set(this.#met);
    this.#next = first;
  }

  get size(): number {
    return this.#numbers.size;
  }

  get(key: string): number | undefined {
    return this.#numbers.get(key)?.number;
  }

  /**
   * The key's number, one use more; `fresh`: nobody used the key; `again`: another key had the number before.
   * `hint`: the number that an earlier agent gave it. undefined: there are no more numbers.
   */
  take(
    key: string,
    hint?: number,
  ): { readonly number: number; readonly fresh: boolean; readonly again: boolean } | undefined {
    const known = this.#numbers.get(key);
    if (known !== undefined) {
      known.uses++;
      return { number: known.number, fresh: false, again: false };
    }
    const inherited = hint !== undefined && this.#reserved.delete(hint) ? hint : undefined;
    const again = inherited === undefined && this.#free.length > 0;
    const number = inherited ?? this.#free.pop() ?? this.#count();
    if (number === undefined) return undefined;
    this.#numbers.set(key, { number, uses: 1 });
    return { number, fresh: true, again };
  }

  /** One use less. Returns whether it was the last. */
  drop(key: string): boolean {
    const known = this.#numbers.get(key);
    if (known === undefined || --known.uses > 0) return false;
    this.#numbers.delete(key);
    this.#leaving.push(known.number);
    return true;
  }

  /** From now on numbers that were given up before can be given to other keys. */
  settle(): void {
    for (const number of this.#leaving) this.#free.push(number);
    this.#leaving = [];
  }

  /** Numbers of an earlier agent that nobody took over are given up. */
  release(): void {
    this.#leaving.push(...this.#reserved);
    this.#reserved.clear();
  }

  #count(): number | undefined {
    while (this.#next < this.#capacity) {
      const number = this.#next++;
      if (!this.#met.has(number)) return number;
    }
    return undefined;
  }
}
