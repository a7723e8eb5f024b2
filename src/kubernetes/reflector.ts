/** Keeps up with one collection of the API: a list in pages, then a watch from where the list ended. */
import { SluiceError } from '../../policy/errors.js';
import type { Logger } from '../log.js';
import { Backoff, pause } from './backoff.js';
import { type ApiClient, ApiError, statusError } from './client.js';
import { DecodeError, LineDecoder } from './decode.js';
import { readList } from './pages.js';

/** Gets the objects as the API has them. None of the methods may throw. */
export interface ReflectorSink {
  /** A list begins: all that is put until `listed` is everything that there is. */
  listing(): void;
  put(object: unknown): void;
  remove(object: unknown): void;
  /** The list is complete: what was not put again is gone. */
  listed(): void;
}

/** A collection. */
export interface Collection {
  /** For messages and metrics: `pods`. */
  readonly name: string;
  /** `/api/v1/pods`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** A kind that a cluster may not have: its absence is an empty list. */
  readonly optional?: boolean;
}

export type ReflectorState = 'starting' | 'listing' | 'watching' | 'waiting' | 'absent' | 'closed';

/** For metrics and readiness. Times are of `performance.now()`. */
export interface ReflectorStatus {
  readonly name: string;
  readonly state: ReflectorState;
  /** Whether a complete list has been handed over. */
  readonly synced: boolean;
  readonly objects: number;
  readonly lists: number;
  readonly watches: number;
  readonly events: number;
  readonly errors: number;
  /** When something was last heard of the server. */
  readonly heardAt: number;
  readonly problem?: string;
}

export interface ReflectorOptions {
  readonly client: ApiClient;
  readonly collection: Collection;
  readonly sink: ReflectorSink;
  readonly log: Logger;
  /** Called when the first list is complete. */
  readonly onSynced: () => void;
  readonly pageSize?: number;
  /** A watch without a byte for so long is given up and begun again where it was. */
  readonly stallMs?: number;
  readonly backoff?: Backoff;
  readonly random?: () => number;
}

const PAGE_SIZE = 500;
/** The API server sends bookmarks about once a minute. */
const STALL_MS = 150_000;
/** The server ends a watch after this time, spread, so that its load is (seconds). */
const WATCH_SECONDS = { min: 300, max: 600 };
/** How often a kind that is not there is looked for. */
const ABSENT_MS = 60_000;
/** The longest wait that a server can ask for. */
const MAX_RETRY_AFTER = 120_000;
/** Continuations that expire in a row before the list is asked for as a whole. */
const MAX_EXPIRED_PAGES = 3;
/** A watch that lived so long has shown that the server is well. */
const SOUND_WATCH_MS = 2000;
/**
 * Between attempts at last. Each of an agent's ten reflectors waits half of it to all of it, and the first that gets
 * through wakes those that could not reach the server: on average that is two seconds after its return.
 */
const LONGEST_WAIT_MS = 20_000;

/** No answer: another request may find out before it is our turn that the server is back. */
const UNREACHABLE: ReadonlySet<string> = new Set(['SLU6206', 'SLU6207']);

interface WatchEvent {
  readonly type?: string;
  readonly object?: { readonly metadata?: { readonly resourceVersion?: string } };
}

export class Reflector {
  readonly #options: ReflectorOptions;
  readonly #backoff: Backoff;
  readonly #random: () => number;
  readonly #end = new AbortController();
  /** Ends the watch in progress. */
  #turn = new AbortController();
  #done: Promise<void> = Promise.resolve();
  #state: ReflectorState = 'starting';
  #version: string | undefined;
  #synced = false;
  #expiredPages = 0;
  #objects = 0;
  #lists = 0;
  #watches = 0;
  #events = 0;
  #errors = 0;
  #heardAt = performance.now();
  #problem: string | undefined;

  constructor(options: ReflectorOptions) {
    this.#options = options;
    this.#backoff = options.backoff ?? new Backoff(200, LONGEST_WAIT_MS);
    this.#random = options.random ?? Math.random;
  }

  get status(): ReflectorStatus {
    return {
      name: this.#options.collection.name,
      state: this.#state,
      synced: this.#synced,
      objects: this.#objects,
      lists: this.#lists,
      watches: this.#watches,
      events: this.#events,
      errors: this.#errors,
      heardAt: this.#heardAt,
      ...(this.#problem === undefined ? {} : { problem: this.#problem }),
    };
  }

  start(): void {
    this.#done = this.#run();
  }

  /** Lists again, because what is kept of the objects is something else now. */
  refresh(): void {
    this.#version = undefined;
    this.#turn.abort();
  }

  async close(): Promise<void> {
    this.#end.abort();
    this.#turn.abort();
    await this.#done;
    this.#state = 'closed';
  }

  async #run(): Promise<void> {
    const { signal } = this.#end;
    while (!signal.aborted) {
      let wait = 0;
      let lost = false;
      this.#turn = new AbortController();
      try {
        if (this.#version === undefined) await this.#list();
        const began = performance.now();
        const events = await this.#watch();
        if (events > 0 || performance.now() - began >= SOUND_WATCH_MS) this.#backoff.reset();
        // A server that ends each watch at once is not asked all the time.
        else wait = this.#backoff.next();
        this.#problem = undefined;
      } catch (error) {
        if (signal.aborted) return;
        wait = this.#turn.signal.aborted ? 0 : this.#failed(error);
        lost = error instanceof SluiceError && UNREACHABLE.has(error.code);
      }
      if (wait <= 0) continue;
      await (lost ? this.#options.client.outage.wait(wait, signal) : pause(wait, signal));
    }
  }

  /** Milliseconds until the next attempt. */
  #failed(error: unknown): number {
    const { collection, log } = this.#options;
    if (error instanceof ApiError && error.status === 404 && collection.optional === true) {
      this.#absent();
      return ABSENT_MS * (0.5 + this.#random());
    }
    if (error instanceof ApiError && error.expired && this.#state === 'watching') {
      // What happened meanwhile is not known any more: a new list says it.
      this.#version = undefined;
      log.info({ collection: collection.name }, 'the watch is too old for the API server: listing again');
      return this.#backoff.next();
    }
    this.#errors++;
    const watching = this.#state === 'watching';
    this.#state = 'waiting';
    if (error instanceof ApiError && error.expired) this.#expiredPages++;
    // What is not understood would come again from where the watch is.
    if (error instanceof DecodeError || (error instanceof ApiError && error.expired))
      this.#version = undefined;
    const reason = describe(error, collection);
    const wait = Math.max(
      error instanceof ApiError ? Math.min(error.retryAfter ?? 0, MAX_RETRY_AFTER) : 0,
      this.#backoff.next(),
    );
    const fields = { collection: collection.name, wait: Math.round(wait) };
    // Once is told; the same again and again is not.
    if (this.#problem === reason || (watching && !(error instanceof ApiError))) log.debug(fields, reason);
    else log.warn(fields, reason);
    this.#problem = reason;
    return wait;
  }

  #absent(): void {
    this.#state = 'absent';
    this.#version = undefined;
    this.#objects = 0;
    this.#options.sink.listing();
    this.#listed();
  }

  #listed(): void {
    this.#options.sink.listed();
    if (this.#synced) return;
    this.#synced = true;
    this.#options.onSynced();
  }

  async #list(): Promise<void> {
    const { collection, sink, client, pageSize = PAGE_SIZE } = this.#options;
    this.#state = 'listing';
    this.#lists++;
    sink.listing();
    let count = 0;
    const { path, query } = collection;
    const version = await readList({
      client,
      request: { path, ...(query === undefined ? {} : { query }) },
      signal: this.#turn.signal,
      // Continuations that expire again and again: the cache of the server has it all at once.
      ...(this.#expiredPages < MAX_EXPIRED_PAGES ? { pageSize } : {}),
      onItem: (item) => {
        count++;
        sink.put(item);
      },
      onData: () => {
        this.#heardAt = performance.now();
      },
    });
    if (this.#turn.signal.aborted) return;
    this.#version = version;
    this.#expiredPages = 0;
    this.#objects = count;
    this.#backoff.reset();
    this.#listed();
  }

  /** Returns how many events there were when the server has ended the watch. */
  async #watch(): Promise<number> {
    const { collection, sink, client, stallMs = STALL_MS } = this.#options;
    this.#state = 'watching';
    this.#watches++;
    const { min, max } = WATCH_SECONDS;
    const seconds = Math.round(min + this.#random() * (max - min));
    let events = 0;
    const what = `the watch of ${collection.name}`;
    const decoder = new LineDecoder((document) => {
      const { type, object } = document as WatchEvent;
      if (type === 'ERROR') throw statusError(what, object);
      const version = object?.metadata?.resourceVersion;
      if (version === undefined) throw new DecodeError(`an event ${type ?? ''} without a resourceVersion`);
      if (type === 'ADDED' || type === 'MODIFIED') sink.put(object);
      else if (type === 'DELETED') sink.remove(object);
      else if (type !== 'BOOKMARK') throw new DecodeError(`an event of unknown type ${type ?? ''}`);
      if (type === 'ADDED') this.#objects++;
      else if (type === 'DELETED') this.#objects--;
      if (type !== 'BOOKMARK') {
        events++;
        this.#events++;
      }
      if (!this.#turn.signal.aborted) this.#version = version;
    });
    await client.stream(
      {
        path: collection.path,
        query: {
          ...collection.query,
          watch: 'true',
          allowWatchBookmarks: 'true',
          resourceVersion: this.#version ?? '',
          timeoutSeconds: String(seconds),
        },
        signal: this.#turn.signal,
        idleMs: stallMs,
      },
      (chunk) => {
        this.#heardAt = performance.now();
        decoder.push(chunk);
      },
    );
    return events;
  }
}

function describe(error: unknown, { name, path }: Collection): string {
  if (error instanceof ApiError) {
    if (error.status === 403)
      return SluiceError.of('SLU6209', { verb: 'list and watch', resource: name }).toLine();
    return error.toSluiceError().toLine();
  }
  if (error instanceof SluiceError) return error.toLine();
  return SluiceError.of('SLU6208', {
    what: `GET ${path}`,
    reason: String((error as Error).message),
  }).toLine();
}
