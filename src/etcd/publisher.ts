/** What the other hosts have to know of this one: the host and its containers, under a lease. */
import { SluiceError } from '../../policy/errors.js';
import { pause } from '../kubernetes/backoff.js';
import type { Logger } from '../log.js';
import { type EtcdClient, MAX_OPERATIONS, type Operation } from './client.js';
import { Waits } from './waits.js';

/** The lease is renewed at least so often: that is also how a dead connection is noticed. */
const MAX_SILENCE_MS = 10_000;

interface Parts {
  readonly client: Pick<EtcdClient, 'grant' | 'keepAlive' | 'write'>;
  readonly log: Logger;
  readonly leaseSeconds: number;
  /** Own keys that are in the store now. */
  readonly present: () => Iterable<string>;
  /** Called before each renewal of the lease: what is wanted may have changed without a word. */
  readonly refresh: () => void;
  /** The store did not take something. */
  readonly onFailure: () => void;
}

export class Publisher {
  readonly #parts: Parts;
  readonly #wanted = new Map<string, string>();
  /** What was written under the present lease. */
  readonly #written = new Map<string, string>();
  /** Keys that may differ between the two. */
  readonly #touched = new Set<string>();
  readonly #end = new AbortController();
  #wake: () => void = () => undefined;
  #problem: SluiceError | undefined;
  #lease: string | undefined;
  #running: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  get problem(): SluiceError | undefined {
    return this.#problem;
  }

  /** Number of keys that the store does not have as they are. */
  get waiting(): number {
    return this.#operations().length;
  }

  set(key: string, value: string | undefined): void {
    if (value === undefined) this.#wanted.delete(key);
    else this.#wanted.set(key, value);
    this.#touched.add(key);
    this.#wake();
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Leaves what is published as it is: without a process the host's network goes on. */
  async close(): Promise<void> {
    this.#end.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { log, leaseSeconds } = this.#parts;
    const { signal } = this.#end;
    const backoff = new Waits();
    while (!signal.aborted) {
      try {
        await this.#renew(signal);
        await this.#write(signal);
        this.#problem = undefined;
        backoff.reset();
        await this.#idle(Math.min((leaseSeconds * 1000) / 3, MAX_SILENCE_MS), signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#parts.onFailure();
        const wait = backoff.next();
        if (error instanceof SluiceError) {
          this.#problem = error;
          log.warn({ wait: Math.round(wait) }, error.toLine());
        } else log.error({ err: error }, 'telling other hosts of this one failed');
        await pause(wait, signal);
      }
    }
  }

  /** Keeps the lease, or takes a new one under which everything is written again. */
  async #renew(signal: AbortSignal): Promise<void> {
    const { client, leaseSeconds, present, refresh } = this.#parts;
    refresh();
    if (this.#lease !== undefined && (await client.keepAlive(this.#lease, signal))) return;
    this.#lease = await client.grant(leaseSeconds, signal);
    this.#written.clear();
    // Of an earlier agent: what is not wanted any more has to go.
    for (const key of present()) if (!this.#wanted.has(key)) this.#written.set(key, '');
    for (const keys of [this.#wanted, this.#written]) for (const key of keys.keys()) this.#touched.add(key);
  }

  async #write(signal: AbortSignal): Promise<void> {
    for (;;) {
      const operations = this.#operations().slice(0, MAX_OPERATIONS);
      if (operations.length === 0) return;
      // Without an answer it may have been written all the same: what is not wanted then has to be removed.
      for (const operation of operations)
        if ('put' in operation && !this.#written.has(operation.put.key))
          this.#written.set(operation.put.key, '');
      await this.#parts.client.write(operations, signal);
      for (const operation of operations) {
        if ('put' in operation) this.#written.set(operation.put.key, operation.put.value);
        else this.#written.delete(operation.remove);
      }
    }
  }

  #operations(): Operation[] {
    const operations: Operation[] = [];
    const lease = this.#lease === undefined ? {} : { lease: this.#lease };
    for (const key of this.#touched) {
      const value = this.#wanted.get(key);
      if (this.#written.get(key) === value) this.#touched.delete(key);
      else operations.push(value === undefined ? { remove: key } : { put: { key, value }, ...lease });
    }
    return operations;
  }

  /** Until something is to be written, or the lease to be renewed. */
  async #idle(milliseconds: number, signal: AbortSignal): Promise<void> {
    const until = performance.now() + milliseconds;
    for (;;) {
      if (this.#operations().length > 0) await this.#write(signal);
      const left = until - performance.now();
      if (left <= 0 || signal.aborted) return;
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      if (this.#operations().length > 0) continue;
      await pause(left, AbortSignal.any([signal, woken.signal]));
    }
  }
}
