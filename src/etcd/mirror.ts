/** A copy of all keys with a prefix that follows the store: one list, then a watch, again after every failure. */
import { SluiceError } from '../../policy/errors.js';
import { pause } from '../kubernetes/backoff.js';
import type { Logger } from '../log.js';
import type { EtcdClient, WatchEvents } from './client.js';
import { Waits } from './waits.js';

interface Parts {
  readonly client: Pick<EtcdClient, 'list' | 'watch'>;
  readonly prefix: string;
  readonly log: Logger;
  /** Keys that changed, all of one message of the store. */
  readonly onChange: (keys: readonly string[]) => void;
}

export class Mirror {
  readonly #parts: Parts;
  readonly #values = new Map<string, string>();
  readonly #end = new AbortController();
  #revision = 0n;
  #problem: SluiceError | undefined;
  #synced = false;
  #waiting: { readonly revision: bigint; readonly resolve: () => void }[] = [];
  #giveUp: () => void = () => undefined;
  #running: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Why the store is not being followed at this moment. */
  get problem(): SluiceError | undefined {
    return this.#problem;
  }

  /** Whether everything has been read once. */
  get synced(): boolean {
    return this.#synced;
  }

  get(key: string): string | undefined {
    return this.#values.get(key);
  }

  /** Keys that begin with the prefix, and their values. */
  *under(prefix: string): IterableIterator<readonly [key: string, value: string]> {
    for (const pair of this.#values) if (pair[0].startsWith(prefix)) yield pair;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** The store did not answer to something else: a watch that is silent may be dead, so it is made again. */
  again(): void {
    this.#giveUp();
  }

  /** Resolves when what the store had at the revision is here. */
  reached(revision: bigint): Promise<void> {
    if (this.#synced && this.#revision >= revision) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ revision, resolve }));
  }

  async close(): Promise<void> {
    this.#end.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { client, prefix, log } = this.#parts;
    const { signal } = this.#end;
    const backoff = new Waits();
    while (!signal.aborted) {
      try {
        const { values, revision } = await client.list(prefix, signal);
        this.#replace(new Map(values.map(({ key, value }) => [key, value])));
        this.#synced = true;
        this.#problem = undefined;
        // A store that was restored from a copy is behind where it was.
        this.#revision = revision;
        this.#at(revision);
        const watching = new AbortController();
        this.#giveUp = () => watching.abort();
        const either = AbortSignal.any([signal, watching.signal]);
        const onEvents = (message: WatchEvents): void => {
          backoff.reset();
          this.#change(message);
        };
        // Not from the next revision: compacting at it takes its deletions away, and etcd before 3.5.18 then shows the rest.
        await client.watch(prefix, revision, onEvents, either);
      } catch (error) {
        if (signal.aborted) return;
        const wait = backoff.next();
        if (error instanceof SluiceError) {
          this.#problem = error;
          log.warn({ wait: Math.round(wait) }, error.toLine());
        } else log.info({ wait: Math.round(wait) }, (error as Error).message);
        await pause(wait, signal);
      }
    }
  }

  #replace(values: ReadonlyMap<string, string>): void {
    const changed: string[] = [];
    for (const key of this.#values.keys()) if (!values.has(key)) changed.push(key);
    for (const key of changed) this.#values.delete(key);
    for (const [key, value] of values) {
      if (this.#values.get(key) === value) continue;
      this.#values.set(key, value);
      changed.push(key);
    }
    if (changed.length > 0) this.#parts.onChange(changed);
  }

  #change({ revision, events }: WatchEvents): void {
    const changed = new Set<string>();
    for (const { key, value } of events) {
      if (this.#values.get(key) === value) continue;
      if (value === undefined) this.#values.delete(key);
      else this.#values.set(key, value);
      changed.add(key);
    }
    if (changed.size > 0) this.#parts.onChange([...changed]);
    this.#at(revision);
  }

  #at(revision: bigint): void {
    if (revision > this.#revision) this.#revision = revision;
    const reached = this.#waiting.filter((one) => one.revision <= this.#revision);
    this.#waiting = this.#waiting.filter((one) => one.revision > this.#revision);
    for (const { resolve } of reached) resolve();
  }
}
