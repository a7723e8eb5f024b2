/** The cluster as this node knows it: objects in from the watches, batches of differences out to the engine. */
import { SluiceError } from '../../policy/errors.js';
import type { LabelSelector, TestResource } from '../../policy/model/resources.js';
import type { Logger } from '../log.js';
import { keyText, type ResourceKey } from '../state/keys.js';
import type { WatchedKind } from './collections.js';
import type { ClusterFeed } from './feed.js';
import type { LabelInterner } from './labels.js';
import { type ApiObject, nameOf, type PodFacts, readObject, readPod, WatchedPod } from './objects.js';
import type { ReflectorSink } from './reflector.js';

/** Objects of one batch at most: what else has to be done between two of them waits no longer than for one. */
const MAX_BATCH = 1000;
/**
 * Between the beginnings of two batches at least. A change costs the engine the same for one object as for several, so
 * in a busy cluster they wait for each other; what comes alone does not wait.
 */
const CALM_MS = 50;
/** When objects that did not fit are tried again. */
const RETRY_MS = 60_000;

/** An object of the API that is not in force, and why. */
export interface Refusal {
  readonly object: ObjectReference;
  readonly error: SluiceError;
}

export interface ObjectReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string;
  readonly name: string;
  readonly uid: string;
  readonly generation: number;
}

interface ViewParts {
  readonly log: Logger;
  readonly interner: LabelInterner;
  /** Policies ask for labels that were not kept: pods have to be listed again. */
  readonly onLabelsWanted: () => void;
  /** An object of a kind other than Pod, as the API has it; undefined: it is gone. */
  readonly onObject?: (kind: string, name: string, object: ApiObject | undefined) => void;
  /** What became of an object with a status: in force (no error) or refused. */
  readonly onOutcome?: (object: ObjectReference, error: SluiceError | undefined) => void;
  readonly onBatch?: (batch: { readonly objects: number; readonly seconds: number }) => void;
}

export class ClusterView {
  readonly #parts: ViewParts;
  readonly #objects = new Map<ResourceKey, TestResource>();
  readonly #references = new Map<ResourceKey, ObjectReference>();
  readonly #refused = new Map<ResourceKey, Refusal>();
  #pending = new Map<ResourceKey, TestResource | undefined>();
  #feed: ClusterFeed | undefined;
  #running = false;
  #closed = false;
  #retry: NodeJS.Timeout | undefined;
  /** When the oldest object that waits came in. */
  #since = 0;
  /** When the last batch began. */
  #began = Number.NEGATIVE_INFINITY;
  #wait: NodeJS.Timeout | undefined;
  #idle: (() => void)[] = [];

  constructor(parts: ViewParts) {
    this.#parts = parts;
  }

  get refusals(): IterableIterator<Refusal> {
    return this.#refused.values();
  }

  /** Objects that are not in force yet. */
  get waiting(): number {
    return this.#pending.size;
  }

  get size(): number {
    return this.#objects.size;
  }

  /** Everything that there is now; what comes later goes to the feed. */
  snapshot(): TestResource[] {
    this.#pending.clear();
    return [...this.#objects.values()];
  }

  /** `refused`: what of the snapshot could not be brought into force. */
  attach(feed: ClusterFeed, refused: ReadonlyMap<ResourceKey, SluiceError>): void {
    this.#feed = feed;
    for (const key of this.#references.keys()) {
      if (!this.#pending.has(key) && !this.#refused.has(key)) this.#outcome(key, refused.get(key));
    }
    for (const [key, error] of refused) this.#refuse(key, error);
    this.#kick();
  }

  /** Resolves when all that has come in is in force or refused. */
  settled(): Promise<void> {
    if (!this.#running && this.#pending.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    clearTimeout(this.#wait);
  }

  /** For an object of our own making, such as the network of this node's pods; undefined removes it. */
  set(key: ResourceKey, value: TestResource | undefined): void {
    if (value === undefined) this.#drop(key);
    else this.#keep(key, value);
  }

  /** A sink for pods of other nodes. */
  pods(): ReflectorSink {
    return this.#sink('Pod', (object, key) => {
      const facts = this.#readPod(object);
      return facts === undefined ? undefined : podResource(facts, key);
    });
  }

  /** A sink for objects of a kind. */
  kind({ apiVersion, kind }: WatchedKind): ReflectorSink {
    return this.#sink(kind, (object, key) => {
      const name = nameOf(object);
      const { namespace, uid = '', generation = 0, name: own = '' } = object.metadata ?? {};
      this.#references.set(key, {
        apiVersion,
        kind,
        ...(namespace === undefined || namespace === '' ? {} : { namespace }),
        name: own,
        uid,
        generation,
      });
      this.#parts.onObject?.(kind, name, object);
      try {
        const value = readObject(object, apiVersion, kind);
        this.#wantLabels(value);
        return value;
      } catch (error) {
        if (!(error instanceof SluiceError)) throw error;
        return error;
      }
    });
  }

  #readPod(object: ApiObject): PodFacts | undefined {
    try {
      return readPod(object, this.#parts.interner);
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      this.#parts.log.warn(error.toLine());
      return undefined;
    }
  }

  /** `read` returns nothing for objects that are none of ours, and an error for those that can't be. */
  #sink(
    kind: string,
    read: (object: ApiObject, key: ResourceKey) => TestResource | SluiceError | undefined,
  ): ReflectorSink {
    const keys = new Set<ResourceKey>();
    const forget = (key: ResourceKey): void => {
      keys.delete(key);
      this.#drop(key);
      if (kind !== 'Pod') this.#parts.onObject?.(kind, key.slice(kind.length + 1), undefined);
    };
    const seen = new Set<ResourceKey>();
    let inList = false;
    return {
      listing: () => {
        inList = true;
        seen.clear();
      },
      put: (given) => {
        const object = given as ApiObject;
        const key = keyText(kind, nameOf(object));
        const value = read(object, key);
        if (value === undefined) {
          if (keys.has(key)) forget(key);
          return;
        }
        keys.add(key);
        if (inList) seen.add(key);
        if (value instanceof SluiceError) this.#refuse(key, value);
        else this.#keep(key, value);
      },
      remove: (given) => {
        const key = keyText(kind, nameOf(given as ApiObject));
        if (keys.has(key)) forget(key);
      },
      listed: () => {
        inList = false;
        for (const key of [...keys]) if (!seen.has(key)) forget(key);
        seen.clear();
      },
    };
  }

  #keep(key: ResourceKey, value: TestResource): void {
    const before = this.#objects.get(key);
    if (before !== undefined && sameObject(before, value)) {
      const refusal = this.#refused.get(key);
      // It reads again as what is in force: the version in between could not be read.
      if (refusal !== undefined && this.#feed !== undefined && refusal.error.code === 'SLU6210')
        this.#outcome(key, undefined);
      return;
    }
    this.#objects.set(key, value);
    this.#queue(key, value);
  }

  #drop(key: ResourceKey): void {
    this.#refused.delete(key);
    this.#references.delete(key);
    if (this.#objects.delete(key)) this.#queue(key, undefined);
  }

  #queue(key: ResourceKey, value: TestResource | undefined): void {
    if (this.#pending.size === 0) this.#since = performance.now();
    this.#pending.delete(key);
    this.#pending.set(key, value);
    this.#kick();
  }

  #kick(): void {
    if (this.#feed === undefined || this.#running || this.#closed || this.#pending.size === 0) return;
    this.#running = true;
    const wait = this.#began + CALM_MS - performance.now();
    // What is in the same piece of the stream goes together in any case.
    if (wait <= 0) setImmediate(() => void this.#flush());
    else this.#wait = setTimeout(() => void this.#flush(), wait);
  }

  async #flush(): Promise<void> {
    try {
      do {
        if (this.#closed || this.#feed === undefined) return;
        const began = this.#since;
        this.#began = performance.now();
        const batch = this.#take();
        const set = [...batch.values()].filter((value) => value !== undefined);
        const remove = [...batch].flatMap(([key, value]) => (value === undefined ? [key] : []));
        const refused = await this.#feed.change({ set, remove });
        for (const [key, value] of batch) {
          if (value !== undefined && !refused.has(key)) this.#outcome(key, undefined);
        }
        for (const [key, error] of refused) this.#refuse(key, error);
        this.#parts.onBatch?.({ objects: batch.size, seconds: (performance.now() - began) / 1000 });
      } while (this.#pending.size >= MAX_BATCH);
    } catch (err) {
      if (!this.#closed)
        this.#parts.log.error({ err }, 'objects of the cluster could not be brought into force');
    } finally {
      this.#running = false;
      if (this.#pending.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
      else this.#kick();
    }
  }

  #take(): Map<ResourceKey, TestResource | undefined> {
    if (this.#pending.size <= MAX_BATCH) {
      const all = this.#pending;
      this.#pending = new Map();
      return all;
    }
    const batch = new Map<ResourceKey, TestResource | undefined>();
    for (const [key, value] of this.#pending) {
      if (batch.size >= MAX_BATCH) break;
      batch.set(key, value);
      this.#pending.delete(key);
    }
    return batch;
  }

  #refuse(key: ResourceKey, error: SluiceError): void {
    const before = this.#refused.get(key);
    const object = this.#references.get(key);
    if (object === undefined) {
      if (this.#objects.has(key)) this.#parts.log.warn({ object: key }, error.toLine());
    } else {
      this.#refused.set(key, { object, error });
      if (before?.error.message !== error.message || before.object.generation !== object.generation) {
        this.#parts.log.warn({ object: key }, error.toLine());
        this.#parts.onOutcome?.(object, error);
      }
    }
    this.#retry ??= setTimeout(() => this.#again(), RETRY_MS).unref();
  }

  /** There may be room now. */
  #again(): void {
    this.#retry = undefined;
    for (const [key, { error }] of this.#refused) {
      const kept = this.#objects.get(key);
      if (kept !== undefined && error.code !== 'SLU6210' && !this.#pending.has(key)) this.#queue(key, kept);
    }
  }

  #outcome(key: ResourceKey, error: SluiceError | undefined): void {
    if (error === undefined) this.#refused.delete(key);
    const object = this.#references.get(key);
    if (object !== undefined) this.#parts.onOutcome?.(object, error);
  }

  #wantLabels(value: TestResource): void {
    if (value.kind !== 'NetworkPolicy' && value.kind !== 'ClusterNetworkPolicy') return;
    const names = new Set<string>();
    const add = (selector: LabelSelector): void => {
      for (const { key } of selector.requirements) names.add(key);
    };
    add(value.kind === 'NetworkPolicy' ? value.podSelector : value.subject.podSelector);
    for (const rule of [...(value.ingress ?? []), ...(value.egress ?? [])])
      for (const peer of rule.peers) if (peer.type === 'pods') add(peer.podSelector);
    if (this.#parts.interner.want(names)) this.#parts.onLabelsWanted();
  }
}

/** The pod for policies; undefined: it has no address of its own (any more). */
export function podResource(facts: PodFacts, key?: ResourceKey): WatchedPod | undefined {
  const { ipv4, ipv6, hostNetwork, ended, nodeName } = facts;
  if (hostNetwork || ended || nodeName === '' || (ipv4 === undefined && ipv6 === undefined)) return undefined;
  return new WatchedPod(facts, nodeName, key);
}

/** Whether two versions mean the same. */
function sameObject(a: TestResource, b: TestResource): boolean {
  if (a instanceof WatchedPod && b instanceof WatchedPod) return a.equals(b);
  return meaning(a) === meaning(b);
}

function meaning(resource: TestResource): string {
  const { source: _s, origin: _o, ...rest } = resource;
  return JSON.stringify(rest);
}
