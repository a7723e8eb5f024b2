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

/** Requests that wait for a server that could not be reached: the first one that gets through to it wakes the others. */
export class Outage {
  readonly #waiting = new Set<() => void>();
  readonly #spreadMs: number;

  /** `spreadMs`: woken ones come within this time, not all at once. */
  constructor(spreadMs = 1000) {
    this.#spreadMs = spreadMs;
  }

  /** Resolves after `ms`, when `signal` is aborted, or soon after the server was heard. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    const woken = new AbortController();
    const wake = (): void => woken.abort();
    this.#waiting.add(wake);
    const began = performance.now();
    await pause(ms, AbortSignal.any([signal, woken.signal]));
    this.#waiting.delete(wake);
    const left = ms - (performance.now() - began);
    if (woken.signal.aborted && !signal.aborted && left > 0)
      await pause(Math.random() * Math.min(left, this.#spreadMs), signal);
  }

  /** The server has answered. */
  over(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
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
