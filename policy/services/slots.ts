/**
 * Ranges of one array of numbers. Sizes are rounded up to a power of two; what is freed can be used again after
 * `settle`, when no program can be reading it any more.
 */
export class SlotSpace {
  readonly #capacity: number;
  readonly #free: number[][] = [];
  #leaving: { readonly first: number; readonly size: number }[] = [];
  /** Since `settle`. */
  #taken: { readonly first: number; readonly order: number }[] = [];
  #top = 0;
  #used = 0;

  /** `reserved`: ranges that an earlier agent's rows still refer to, until `release` of them. */
  constructor(
    capacity: number,
    reserved: readonly { readonly first: number; readonly count: number }[] = [],
  ) {
    this.#capacity = capacity;
    for (const { first, count } of reserved) this.#top = Math.max(this.#top, first + count);
    // Beyond half of the space: use what is free below as well.
    if (this.#top > 0) this.#reclaim(reserved);
  }

  /** Entries that are taken. */
  get used(): number {
    return this.#used;
  }

  /** A range of at least `count` entries; undefined: there is no room. */
  take(count: number): number | undefined {
    const order = orderOf(count);
    const found = this.#find(order);
    if (found === undefined) return undefined;
    this.#used += 1 << order;
    this.#taken.push({ first: found, order });
    return found;
  }

  /** Gives a range of `count` entries back. */
  free(first: number, count: number): void {
    const size = 1 << orderOf(count);
    this.#used -= size;
    this.#leaving.push({ first, size });
  }

  /** From now on ranges that were freed before are given out again. */
  settle(): void {
    for (const { first, size } of this.#leaving) this.#put(first, orderOf(size));
    this.#leaving = [];
    this.#taken = [];
  }

  /** Takes back what was taken and freed since `settle`. */
  rollback(): void {
    for (const { first, order } of this.#taken) {
      this.#put(first, order);
      this.#used -= 1 << order;
    }
    for (const { size } of this.#leaving) this.#used += size;
    this.#leaving = [];
    this.#taken = [];
  }

  #find(order: number): number | undefined {
    const own = this.#free[order]?.pop();
    if (own !== undefined) return own;
    const size = 1 << order;
    if (this.#top + size <= this.#capacity) {
      const first = this.#top;
      this.#top += size;
      return first;
    }
    for (let larger = order + 1; larger < this.#free.length; larger++) {
      const first = this.#free[larger]?.pop();
      if (first === undefined) continue;
      for (let rest = larger - 1; rest >= order; rest--) this.#put(first + (1 << rest), rest);
      return first;
    }
    return undefined;
  }

  #put(first: number, order: number): void {
    const list = this.#free[order];
    if (list === undefined) this.#free[order] = [first];
    else list.push(first);
  }

  /** Makes the gaps between reserved ranges usable. */
  #reclaim(reserved: readonly { readonly first: number; readonly count: number }[]): void {
    const sorted = [...reserved].sort((a, b) => a.first - b.first);
    let at = 0;
    for (const { first, count } of sorted) {
      while (at < first) {
        const order = Math.min(31 - Math.clz32(first - at), at === 0 ? 31 : Math.log2(at & -at));
        this.#put(at, order);
        at += 1 << order;
      }
      at = Math.max(at, first + (1 << orderOf(Math.max(count, 1))));
    }
    this.#top = Math.max(this.#top, at);
  }
}

function orderOf(count: number): number {
  return count <= 1 ? 0 : 32 - Math.clz32(count - 1);
}
