/** Waiting times between attempts: they double up to a limit, and are spread so that nodes don't come all at once. */
export class Backoff {
  readonly #first: number;
  readonly #limit: number;
  readonly #random: () => number;
  #next: number;

  /** `first` and `limit` in milliseconds. */
  constructor(first = 200, limit = 30_000, random: () => number = Math.random) {
    this.#first = first;
    this.#limit = limit;
    this.#random = random;
    this.#next = first;
  }

  /** Milliseconds to wait now: between half of the current step and all of it. */
  next(): number {
    const step = this.#next;
    this.#next = Math.min(step * 2, this.#limit);
    return step / 2 + (this.#random() * step) / 2;
  }

  reset(): void {
    this.#next = this.#first;
  }
}

/** Resolves after `ms` or as soon as `signal` is aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener('abort', finish);
  });
}
