/**
 * Numbers given out round robin: the lowest free one after the last one given. Used for device
 * indexes (a number that was just released may still stand in old flow entries) and for networks.
 */
export class IndexPool {
  readonly #used = new Set<number>();
  readonly #first: number;
  readonly #last: number;
  #next: number;

  /** Both limits included. */
  constructor(first: number, last: number) {
    this.#first = first;
    this.#last = last;
    this.#next = first;
  }

  get last(): number {
    return this.#last;
  }

  get used(): number {
    return this.#used.size;
  }

  get capacity(): number {
    return Math.max(0, this.#last - this.#first + 1);
  }

  /** The next free number, or undefined when there is none. */
  take(): number | undefined {
    for (let tried = 0; tried < this.capacity; tried++) {
      if (this.#next > this.#last) this.#next = this.#first;
      const number = this.#next++;
      if (!this.#used.has(number)) {
        this.#used.add(number);
        return number;
      }
    }
    return undefined;
  }

  /** False if it is taken already. */
  claim(number: number): boolean {
    if (this.#used.has(number)) return false;
    this.#used.add(number);
    return true;
  }

  /** The next `take` starts after this number. */
  resumeAfter(number: number): void {
    if (number >= this.#first) this.#next = number + 1;
  }

  release(number: number): void {
    this.#used.delete(number);
  }
}
