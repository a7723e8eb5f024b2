/** Numbers that are given out, and again only after `settle`. */
export class NumberPool {
  readonly #capacity: number;
  /** Numbers in an earlier agent's rows that nobody has taken over yet. */
  readonly #reserved: Set<number>;
  readonly #met: ReadonlySet<number>;
  readonly #free: number[] = [];
  #leaving: number[] = [];
  /** Since `settle`; of them, those that were an earlier agent's. */
  #taken: number[] = [];
  #inherited: number[] = [];
  #next: number;

  /** Numbers from `first` to `capacity` - 1. */
  constructor(capacity: number, first = 0, reserved: Iterable<number> = []) {
    this.#capacity = capacity;
    this.#met = new Set(reserved);
    this.#reserved = new Set(this.#met);
    this.#next = first;
  }

  /**
   * A number that nobody has. `again`: somebody may have had it before. `hint`: the number that an earlier agent gave,
   * for the same. undefined: there are no more numbers.
   */
  take(hint?: number): { readonly number: number; readonly again: boolean } | undefined {
    const inherited = hint !== undefined && this.#reserved.delete(hint) ? hint : undefined;
    const again = inherited === undefined && (this.#free.length > 0 || this.#met.size > 0);
    const number = inherited ?? this.#free.pop() ?? this.#count();
    if (number === undefined) return undefined;
    (inherited === undefined ? this.#taken : this.#inherited).push(number);
    return { number, again };
  }

  give(number: number): void {
    this.#leaving.push(number);
  }

  /** From now on numbers that were given back before can be given to others. */
  settle(): void {
    for (const number of this.#leaving) this.#free.push(number);
    this.#leaving = [];
    this.#taken = [];
    this.#inherited = [];
  }

  /** Takes back what was taken and given since `settle`. */
  rollback(): void {
    for (const number of this.#taken) this.#free.push(number);
    for (const number of this.#inherited) this.#reserved.add(number);
    this.#leaving = [];
    this.#taken = [];
    this.#inherited = [];
  }

  /** Numbers of an earlier agent that nobody took over are given back. */
  release(): void {
    for (const number of this.#reserved) this.#leaving.push(number);
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

/** Numbers for texts, shared by all who use one: stable while somebody does. */
export class SharedNumbers {
  readonly #pool: NumberPool;
  readonly #numbers = new Map<string, number>();
  /** By number. */
  readonly #texts: string[] = [];
  readonly #uses: number[] = [];
  /** Since `settle`: a number that was taken, or -1 - a number that was dropped. */
  #log: number[] = [];
  readonly #hints: ReadonlyMap<string, number>;

  /** `hints`: the numbers that an earlier agent gave. */
  constructor(capacity: number, hints: ReadonlyMap<string, number>) {
    this.#pool = new NumberPool(capacity, 0, hints.values());
    this.#hints = hints;
  }

  get size(): number {
    return this.#numbers.size;
  }

  get(text: string): number | undefined {
    return this.#numbers.get(text);
  }

  /** What the number stands for, or stood for last. */
  text(number: number): string {
    return this.#texts[number] ?? '';
  }

  /** The text's number, one use more; `fresh`: nobody used it. undefined: there are no more numbers. */
  take(
    text: string,
  ): { readonly number: number; readonly fresh: boolean; readonly again: boolean } | undefined {
    const known = this.#numbers.get(text);
    if (known !== undefined) {
      this.#uses[known] = (this.#uses[known] ?? 0) + 1;
      this.#log.push(known);
      return { number: known, fresh: false, again: false };
    }
    const taken = this.#pool.take(this.#hints.size === 0 ? undefined : this.#hints.get(text));
    if (taken === undefined) return undefined;
    this.#numbers.set(text, taken.number);
    this.#texts[taken.number] = text;
    this.#uses[taken.number] = 1;
    this.#log.push(taken.number);
    return { number: taken.number, fresh: true, again: taken.again };
  }

  /** One use less. */
  drop(number: number): void {
    this.#log.push(-1 - number);
    if (this.#use(number, -1) === 0) this.#pool.give(number);
  }

  settle(): void {
    this.#pool.settle();
    this.#log = [];
  }

  /** Takes back what was taken and dropped since `settle`. */
  rollback(): void {
    for (const entry of this.#log.reverse()) {
      if (entry >= 0) this.#use(entry, -1);
      else if (this.#use(-1 - entry, 1) === 1) this.#numbers.set(this.text(-1 - entry), -1 - entry);
    }
    this.#log = [];
    this.#pool.rollback();
  }

  release(): void {
    this.#pool.release();
  }

  /** Uses there are after this one more or less; a number without any has no text that leads to it. */
  #use(number: number, change: 1 | -1): number {
    const uses = (this.#uses[number] ?? 0) + change;
    this.#uses[number] = uses;
    if (uses === 0) this.#numbers.delete(this.text(number));
    return uses;
  }
}
