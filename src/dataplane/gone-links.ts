/** Nothing is forgotten before no device came or went for so long, ms, unless there are too many. */
const QUIET_MS = 50;
/** So many are kept at most: beyond that each that comes takes two others with it. */
const MOST = 256;
/** Forgotten in one turn of the event loop, and how long until the next one, ms. */
const SLICE = 4;
const PAUSE_MS = 1;

/**
 * The pinned links of devices that are gone. Nothing depends on them, and taking them away is 0.2 ms for each device in
 * which the agent answers nobody: it is done when nobody asks for anything, a few at a time.
 */
export class GoneLinks {
  readonly #forget: (ifindex: number) => void;
  readonly #indexes = new Set<number>();
  #timer: NodeJS.Timeout | undefined;

  /** `forget` takes the links of a device away, if they are still its. */
  constructor(forget: (ifindex: number) => void) {
    this.#forget = forget;
  }

  get size(): number {
    return this.#indexes.size;
  }

  /** The device of this index is gone. */
  add(ifindex: number): void {
    this.#indexes.add(ifindex);
    if (this.#indexes.size > MOST) this.#some(2);
    this.#wait(QUIET_MS);
  }

  /** A device is being made: what can wait does. */
  postpone(): void {
    if (this.#indexes.size > 0) this.#wait(QUIET_MS);
  }

  /** Forgets now what would be forgotten later. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#some(this.#indexes.size);
  }

  #wait(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#some(SLICE);
      if (this.#indexes.size > 0) this.#wait(PAUSE_MS);
    }, ms).unref();
  }

  /** The oldest ones. */
  #some(count: number): void {
    let left = count;
    for (const ifindex of this.#indexes) {
      if (left-- === 0) return;
      this.#indexes.delete(ifindex);
      this.#forget(ifindex);
    }
  }
}
