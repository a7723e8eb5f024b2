/**
 * This host among those that share an etcd: what is there is in force here, and this host's containers are known to the
 * others. No host is in charge; each one watches, claims its blocks and writes what is its own.
 */
import { SluiceError } from '../../policy/errors.js';
import { ANNOTATIONS } from '../../policy/model/annotations.js';
import type { PodResource, Resource } from '../../policy/model/resources.js';
import type { ServiceResource } from '../../policy/model/service.js';
import type { EtcdConfig } from '../config.js';
import type { ClusterFeed } from '../kubernetes/feed.js';
import type { Logger } from '../log.js';
import type { OwnChange, OwnContainers } from '../nodes/own-containers.js';
import { keyOf, type ResourceKey } from '../state/keys.js';
import { Blocks } from './blocks.js';
import { EtcdClient, MAX_OPERATIONS } from './client.js';
import { networkWithBlocks, readDocument, slicesOf } from './documents.js';
import { Keys } from './keys.js';
import { Mirror } from './mirror.js';
import { Publisher } from './publisher.js';

/** When what could not be had (a block) is asked for again. */
const RETRY_MS = 5000;

interface Parts {
  readonly settings: EtcdConfig;
  /** Name of this host. */
  readonly node: string;
  readonly log: Logger;
}

/** What the member needs of the agent. */
export interface Host {
  readonly feed: ClusterFeed;
  readonly containers: OwnContainers;
  /** Addresses by which other hosts reach this one. */
  readonly addresses: () => readonly string[];
  /** The key that they encrypt for this one with; absent: nothing is encrypted. */
  readonly publicKey?: string | undefined;
}

export class Member {
  readonly client: EtcdClient;
  readonly mirror: Mirror;
  readonly keys: Keys;
  readonly #parts: Parts;
  readonly #blocks: Blocks;
  readonly #publisher: Publisher;
  readonly #end = new AbortController();
  /** What a key of the store stands for here, and what follows from services. */
  readonly #byKey = new Map<string, Resource>();
  readonly #slices = new Map<ResourceKey, { readonly of: string; readonly resource: Resource }>();
  readonly #problems = new Map<string, SluiceError>();
  readonly #refused = new Map<ResourceKey, SluiceError>();
  /** Keys of the store that changed and are not in force yet. */
  #changed = new Set<string>();
  #published = new Map<string, readonly string[]>();
  #running: Promise<void> | undefined;
  #host: Host | undefined;
  #idle: (() => void)[] = [];

  constructor(parts: Parts) {
    this.#parts = parts;
    const { settings, node, log } = parts;
    this.client = new EtcdClient(settings);
    this.keys = new Keys(settings.prefix);
    this.mirror = new Mirror({
      client: this.client,
      prefix: this.keys.prefix,
      log,
      onChange: (keys) => this.#onChange(keys),
    });
    const { client, mirror, keys } = this;
    this.#blocks = new Blocks({ client, mirror, keys, node, settings });
    this.#publisher = new Publisher({
      client,
      log,
      leaseSeconds: settings.leaseSeconds,
      present: () => this.#ownKeys(),
      refresh: () => this.#announce(),
      onFailure: () => this.mirror.again(),
    });
  }

  /** What the operator has to know. */
  problems(): readonly SluiceError[] {
    const problem = this.mirror.problem ?? this.#publisher.problem;
    return [
      ...(problem === undefined ? [] : [problem]),
      ...this.#problems.values(),
      ...this.#refused.values(),
    ];
  }

  /** Resolves with everything that the hosts share, when it is known; undefined: `signal` was aborted before. */
  async synced(signal: AbortSignal): Promise<readonly Resource[] | undefined> {
    const aborted = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    this.mirror.start();
    await Promise.race([this.mirror.reached(0n), aborted]);
    if (signal.aborted) return undefined;
    const { set } = await this.#read(this.#take());
    return signal.aborted ? undefined : set;
  }

  /** The engine has what `synced` gave; from now on it gets what changes, and the others learn of this host. */
  attach(host: Host, refused: ReadonlyMap<ResourceKey, SluiceError>): void {
    this.#host = host;
    for (const [key, error] of refused) this.#refused.set(key, error);
    host.containers.listen((change) => this.#onOwn(change));
    this.#publisher.start();
    this.#kick();
  }

  /** Resolves when all that has come in is in force or refused. */
  settled(): Promise<void> {
    if (this.#changed.size === 0 && this.#running === undefined) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Leaves the store as it is: the lease of this host ends when no agent runs for so long. */
  async close(): Promise<void> {
    this.#end.abort();
    await this.#publisher.close();
    await this.mirror.close();
    await this.#running;
    this.client.close();
  }

  /** Takes this host out of the store, for good: its parts of networks are free. A store that is away is left as it is. */
  async leave(): Promise<void> {
    this.#end.abort();
    await this.#publisher.close();
    const keys = [...this.mirror.under(this.keys.prefix)].flatMap(([key, value]) => {
      const place = this.keys.place(key);
      if (place?.type === 'block') return value === this.#parts.node ? [key] : [];
      return place !== undefined && place.type !== 'object' && place.node === this.#parts.node ? [key] : [];
    });
    try {
      for (let i = 0; i < keys.length; i += MAX_OPERATIONS)
        await this.client.write(keys.slice(i, i + MAX_OPERATIONS).map((key) => ({ remove: key })));
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      this.#parts.log.warn(error.toLine());
    }
    await this.close();
  }

  #onChange(keys: readonly string[]): void {
    for (const key of keys) this.#changed.add(key);
    this.#kick();
  }

  #take(): Set<string> {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }

  #kick(): void {
    if (this.#host === undefined || this.#running !== undefined || this.#changed.size === 0) return;
    this.#running = this.#pump(this.#host).finally(() => {
      this.#running = undefined;
      if (this.#changed.size > 0 && !this.#end.signal.aborted) return this.#kick();
      for (const resolve of this.#idle.splice(0)) resolve();
    });
  }

  /** Never throws. */
  async #pump({ feed }: Host): Promise<void> {
    const { log } = this.#parts;
    try {
      const { set, remove } = await this.#read(this.#take());
      if (this.#end.signal.aborted || set.length + remove.length === 0) return;
      const started = performance.now();
      const refused = await feed.change({ set, remove });
      for (const key of [...set.map(keyOf), ...remove]) this.#refused.delete(key);
      for (const [key, error] of refused) {
        this.#refused.set(key, error);
        log.error({ object: key }, error.toLine());
      }
      const milliseconds = Math.round(performance.now() - started);
      log.debug({ set: set.length, removed: remove.length, milliseconds }, 'what hosts share is in force');
    } catch (error) {
      if (!this.#end.signal.aborted) log.error({ err: error }, 'a change of what hosts share failed');
    }
  }

  /** What follows from changed keys. */
  async #read(changed: ReadonlySet<string>): Promise<{ set: Resource[]; remove: ResourceKey[] }> {
    const set = new Map<ResourceKey, Resource>();
    const remove = new Set<ResourceKey>();
    let services = false;
    const networks = new Set<string>();
    for (const key of changed) {
      const place = this.keys.place(key);
      if (place === undefined) continue;
      if (place.type === 'block') {
        networks.add(this.keys.object('Network', undefined, place.network));
        continue;
      }
      if (place.type !== 'object' && place.node === this.#parts.node) continue;
      if (place.type === 'object' && place.kind === 'Network') networks.add(key);
      else services = this.#replace(key, this.#parse(key, this.mirror.get(key)), set, remove) || services;
    }
    for (const key of networks) this.#replace(key, await this.#network(key), set, remove);
    if (services) this.#replaceSlices(set, remove);
    if (networks.size > 0) this.#announce();
    for (const key of set.keys()) remove.delete(key);
    return { set: [...set.values()], remove: [...remove] };
  }

  #parse(key: string, text: string | undefined): Resource | undefined {
    this.#problems.delete(key);
    if (text === undefined) return undefined;
    try {
      return readDocument(key, text);
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      this.#problems.set(key, error);
      this.#parts.log.error(error.toLine());
      return this.#byKey.get(key);
    }
  }

  /** The network with this host's blocks; without one the host has no such network, and tries again. */
  async #network(key: string): Promise<Resource | undefined> {
    this.#problems.delete(key);
    const text = this.mirror.get(key);
    const shared = this.#parse(key, text);
    if (text === undefined || shared?.kind !== 'Network') return undefined;
    const blocks: Partial<Record<'ipv4' | 'ipv6', string>> = {};
    try {
      for (const family of ['ipv4', 'ipv6'] as const) {
        const range = shared[family]?.cidr;
        if (range !== undefined)
          blocks[family] = await this.#blocks.claim(shared.name, range, this.#end.signal);
      }
      return readDocument(key, networkWithBlocks(text, blocks));
    } catch (error) {
      if (this.#end.signal.aborted) return undefined;
      if (!(error instanceof SluiceError)) throw error;
      this.#problems.set(key, error);
      this.#parts.log.error(error.toLine());
      setTimeout(() => this.#onChange([key]), RETRY_MS).unref();
      return this.#byKey.get(key);
    }
  }

  /** Returns whether services may have other backends now. */
  #replace(
    key: string,
    after: Resource | undefined,
    set: Map<ResourceKey, Resource>,
    remove: Set<ResourceKey>,
  ): boolean {
    const before = this.#byKey.get(key);
    if (before !== undefined && (after === undefined || keyOf(after) !== keyOf(before)))
      remove.add(keyOf(before));
    if (after === undefined) this.#byKey.delete(key);
    else if (before === undefined || JSON.stringify(before.source) !== JSON.stringify(after.source)) {
      this.#byKey.set(key, after);
      set.set(keyOf(after), after);
    } else return false;
    return [before, after].some((one) => one?.kind === 'Service' || one?.kind === 'Pod');
  }

  /** Slices for services from containers of other hosts. */
  #replaceSlices(set: Map<ResourceKey, Resource>, remove: Set<ResourceKey>): void {
    const pods: PodResource[] = [];
    const services: ServiceResource[] = [];
    for (const one of this.#byKey.values()) {
      if (one.kind === 'Pod') pods.push(one);
      if (one.kind === 'Service') services.push(one);
    }
    const gone = new Set(this.#slices.keys());
    for (const service of services) {
      for (const [name, document] of slicesOf(service, pods)) {
        const resource = readDocument(`${service.namespace}/${name}`, JSON.stringify(document));
        const key = keyOf(resource);
        gone.delete(key);
        const before = this.#slices.get(key)?.resource;
        if (before !== undefined && JSON.stringify(before.source) === JSON.stringify(resource.source))
          continue;
        this.#slices.set(key, { of: service.name, resource });
        set.set(key, resource);
      }
    }
    for (const key of gone) {
      this.#slices.delete(key);
      remove.add(key);
    }
  }

  /** Containers of this host in shared networks. */
  #onOwn(change: OwnChange): void {
    const { node } = this.#parts;
    for (const [container, places] of change) {
      const shared = places.filter(
        ({ network }) => this.mirror.get(this.keys.object('Network', undefined, network)) !== undefined,
      );
      const keys = shared.map(({ pod }) => {
        const key = `${this.keys.containers(node)}${pod.metadata.namespace}/${pod.metadata.name}`;
        this.#publisher.set(key, JSON.stringify({ ...pod, spec: { nodeName: node, ...pod.spec } }));
        return key;
      });
      for (const key of this.#published.get(container) ?? [])
        if (!keys.includes(key)) this.#publisher.set(key, undefined);
      if (keys.length === 0) this.#published.delete(container);
      else this.#published.set(container, keys);
    }
  }

  /** This host, with its addresses and blocks as they are now. */
  #announce(): void {
    if (this.#host === undefined) return;
    const { node } = this.#parts;
    const { publicKey } = this.#host;
    const networks = [...this.#byKey.values()].filter((one) => one.kind === 'Network');
    const document = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: {
        name: node,
        ...(publicKey === undefined ? {} : { annotations: { [ANNOTATIONS.publicKey]: publicKey } }),
      },
      spec: {
        podCIDRs: networks
          .flatMap(({ ipv4, ipv6 }) => [ipv4?.cidr, ipv6?.cidr].filter((cidr) => cidr !== undefined))
          .sort(),
      },
      status: {
        addresses: this.#host.addresses().map((address) => ({ type: 'InternalIP', address })),
      },
    };
    this.#publisher.set(this.keys.node(node), JSON.stringify(document));
  }

  #ownKeys(): string[] {
    const { node } = this.#parts;
    const keys = [...this.mirror.under(this.keys.containers(node))].map(([key]) => key);
    const own = this.keys.node(node);
    return this.mirror.get(own) === undefined ? keys : [own, ...keys];
  }
}
