/** The connection of an agent to its cluster: watches in, the engine and the CNI plugin out. */
import { SluiceError } from '../../policy/errors.js';
import type { TestResource } from '../../policy/model/resources.js';
import type { Logger } from '../log.js';
import type { Check } from '../metrics/health.js';
import type { Runtime } from '../runtime/runtime.js';
import { keyText, type ResourceKey } from '../state/keys.js';
import type { ApiClient } from './client.js';
import { localPods, remotePods, WATCHED_KINDS } from './collections.js';
import type { ClusterFeed } from './feed.js';
import { LabelInterner } from './labels.js';
import { LocalPods } from './local-pods.js';
import type { ClusterFigures } from './metrics.js';
import type { ApiObject, PodFacts } from './objects.js';
import { NetworkCondition, podNetwork, podRangesOf, UP_REASON } from './own-node.js';
import { type Collection, Reflector, type ReflectorSink } from './reflector.js';
import { Reports } from './reports.js';
import { ClusterView } from './view.js';

export interface ClusterOptions {
  readonly client: ApiClient;
  readonly log: Logger;
  /** Name of this node in the cluster. */
  readonly node: string;
  /** Name of the network that the pods of this node are in. */
  readonly network: string;
  readonly mtu?: number;
  readonly pageSize?: number;
  readonly stallMs?: number;
  /** A batch is in force. */
  readonly onBatch?: (seconds: number) => void;
  /** The network of this node's pods is in force: runtimes can be told. */
  readonly onNetwork?: () => void;
}

export class Cluster {
  readonly #options: ClusterOptions;
  readonly #interner = new LabelInterner();
  readonly #view: ClusterView;
  readonly #local: LocalPods;
  readonly #condition: NetworkCondition;
  readonly #reports: Reports;
  readonly #reflectors: Reflector[] = [];
  readonly #pods: Reflector[] = [];
  /** Nodes with an agent of ours. */
  readonly #agents = new Set<string>();
  #ranges: readonly string[] = [];
  #known = false;
  #problem: SluiceError | undefined;
  #attached = false;

  constructor(options: ClusterOptions) {
    const { client, log, node } = options;
    this.#options = options;
    this.#local = new LocalPods({ client, interner: this.#interner, log });
    this.#condition = new NetworkCondition({ client, log, node });
    this.#reports = new Reports({ client, log, node, nodes: () => this.#agents });
    this.#view = new ClusterView({
      log,
      interner: this.#interner,
      onLabelsWanted: () => {
        for (const reflector of this.#pods) reflector.refresh();
      },
      onObject: (kind, name, object) => {
        if (kind === 'Node') this.#onNode(name, object);
      },
      onOutcome: (object, error) => this.#reports.outcome(object, error),
      onBatch: ({ seconds }) => {
        options.onBatch?.(seconds);
        this.#checkNetwork();
      },
    });
  }

  /**
   * Resolves with everything that the cluster has, when all of it is known; undefined: `signal` was aborted before. The
   * API may be away for long: until then what is in the kernel stays as it is. `onKinds`: all but the pods is known.
   */
  async synced(
    signal: AbortSignal,
    onKinds: () => void = () => undefined,
  ): Promise<readonly TestResource[] | undefined> {
    const { node } = this.#options;
    // Policies first: they say which labels of pods are kept.
    await this.#start(
      WATCHED_KINDS.map((kind) => [kind, this.#view.kind(kind)] as const),
      this.#reflectors,
      signal,
    );
    if (signal.aborted) return undefined;
    if (!this.#known) this.#problem = SluiceError.of('SLU6211', { node });
    onKinds();
    await this.#start(
      [
        [localPods(node), this.#local.sink()],
        [remotePods(node), this.#view.pods()],
      ],
      this.#pods,
      signal,
    );
    return signal.aborted ? undefined : this.#view.snapshot();
  }

  /** The engine has taken the snapshot; from now on it gets what changes. `publicKey`: what other nodes encrypt with. */
  attach(
    feed: ClusterFeed,
    runtime: Runtime,
    refused: ReadonlyMap<ResourceKey, SluiceError>,
    publicKey?: string,
  ): void {
    this.#attached = true;
    this.#condition.publicKey = publicKey;
    this.#view.attach(feed, refused);
    this.#local.attach(runtime);
    this.#checkNetwork(refused);
  }

  /** For the CNI plugin: what the cluster says of a pod of this node. Throws SluiceError. */
  readonly factsFor = (namespace: string, name: string, uid: string): Promise<PodFacts> =>
    this.#local.factsFor(namespace, name, uid);

  /** Ranges of this node's pods. */
  get ranges(): readonly string[] {
    return this.#ranges;
  }

  /** Resolves when everything that has come in is in force or refused. */
  settled(): Promise<void> {
    return this.#view.settled();
  }

  /** What the operator has to know. */
  problems(): readonly SluiceError[] {
    return [
      ...(this.#problem === undefined ? [] : [this.#problem]),
      ...[...this.#view.refusals].map(({ error }) => error),
    ];
  }

  /** Whether this node does what the cluster says. That the API is away for a while makes no node unready. */
  checks(): Check[] {
    const behind = [...this.#reflectors, ...this.#pods].filter(({ status }) => !status.synced);
    return [
      behind.length === 0 && this.#pods.length > 0
        ? { name: 'synced', ok: true }
        : { name: 'synced', ok: false, reason: behind.map(({ status }) => describeState(status)).join(', ') },
      this.#problem === undefined
        ? { name: 'pod network', ok: this.#attached && this.#ranges.length > 0 }
        : { name: 'pod network', ok: false, reason: this.#problem.toLine() },
    ];
  }

  figures(): ClusterFigures {
    const { events, failures } = this.#reports.counts;
    return {
      collections: [...this.#reflectors, ...this.#pods].map(({ status }) => status),
      objects: this.#view.size,
      waiting: this.#view.waiting,
      refused: [...this.#view.refusals].length,
      events,
      reportFailures: failures,
    };
  }

  /** The network of pods works and runtimes know it. */
  networkUp(): void {
    this.#condition.up();
  }

  async close(): Promise<void> {
    this.#view.close();
    this.#reports.close();
    await Promise.all([...this.#reflectors, ...this.#pods].map((reflector) => reflector.close()));
    await this.#condition.close();
    this.#options.client.close();
  }

  async #start(
    collections: readonly (readonly [Collection, ReflectorSink])[],
    into: Reflector[],
    signal: AbortSignal,
  ): Promise<void> {
    const { client, log, pageSize, stallMs } = this.#options;
    const aborted = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    const synced = collections.map(
      ([collection, sink]) =>
        new Promise<void>((resolve) => {
          const reflector = new Reflector({
            client,
            collection,
            sink,
            log,
            onSynced: resolve,
            ...(pageSize === undefined ? {} : { pageSize }),
            ...(stallMs === undefined ? {} : { stallMs }),
          });
          into.push(reflector);
          reflector.start();
        }),
    );
    await Promise.race([Promise.all(synced), aborted]);
  }

  #onNode(name: string, object: ApiObject | undefined): void {
    const conditions = (object?.status?.conditions ?? []) as readonly { type?: string; reason?: string }[];
    if (conditions.some(({ type, reason }) => type === 'NetworkUnavailable' && reason === UP_REASON))
      this.#agents.add(name);
    else this.#agents.delete(name);
    if (name !== this.#options.node || object === undefined) return;
    this.#known = true;
    this.#condition.observe(object);
    this.#setRanges(podRangesOf(object));
  }

  #setRanges(ranges: readonly string[]): void {
    const { node, network, mtu, log } = this.#options;
    if (ranges.length === 0) {
      this.#problem = SluiceError.of('SLU6212', { node });
      return;
    }
    try {
      const resource = podNetwork(network, ranges, mtu === undefined ? {} : { mtu });
      this.#problem = undefined;
      this.#ranges = ranges;
      this.#view.set(keyText('Network', network), resource);
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      if (this.#problem?.message !== error.message) log.error(error.toLine());
      this.#problem = error;
    }
  }

  #checkNetwork(refused: ReadonlyMap<ResourceKey, SluiceError> = new Map()): void {
    if (!this.#attached || this.#ranges.length === 0) return;
    const error = refused.get(keyText('Network', this.#options.network));
    if (error === undefined) this.#options.onNetwork?.();
    else this.#problem = error;
  }
}

function describeState({ name, state, problem }: { name: string; state: string; problem?: string }): string {
  return `${name}: ${state}${problem === undefined ? '' : ` (${problem})`}`;
}
