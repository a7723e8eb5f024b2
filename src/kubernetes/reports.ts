/** What the cluster is told of objects: Events on those that can't be applied, conditions on policies. */
import { createHash } from 'node:crypto';
import type { SluiceError } from '../../policy/errors.js';
import type { Logger } from '../log.js';
import { type ApiClient, ApiError } from './client.js';
import { lineOf } from './own-node.js';
import type { ObjectReference } from './view.js';

/** Kinds with a status of ours: where it is written, and which condition says that they are in force. */
const STATUS: Readonly<Record<string, string>> = {
  ClusterNetworkPolicy: '/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies',
  Network: '/apis/sluice.dev/v1alpha1/networks',
  HostPolicy: '/apis/sluice.dev/v1alpha1/hostpolicies',
};

/** Requests a second at most, so that a thousand bad objects don't disturb the API server. */
const PER_SECOND = 5;
/** Reports that wait; beyond that the oldest are dropped (their object will be reported when it changes). */
const MAX_WAITING = 2000;

interface Report {
  readonly object: ObjectReference;
  readonly error: SluiceError | undefined;
}

interface Condition {
  readonly type?: string;
  readonly status?: string;
  readonly observedGeneration?: number;
  readonly message?: string;
}

interface Parts {
  readonly client: Pick<ApiClient, 'json'>;
  readonly log: Logger;
  readonly node: string;
  /**
   * Names of the nodes that run an agent. All of them judge a policy alike, so one of them writes its status: the one
   * whose name goes best with the policy's.
   */
  readonly nodes: () => Iterable<string>;
  readonly now?: () => Date;
}

export class Reports {
  readonly #parts: Parts;
  readonly #waiting = new Map<string, Report>();
  readonly #written = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;
  #busy = false;
  #closed = false;
  #events = 0;
  #failures = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  get counts(): { readonly events: number; readonly failures: number; readonly waiting: number } {
    return { events: this.#events, failures: this.#failures, waiting: this.#waiting.size };
  }

  /** An object is in force (no error), or can't be. Never throws, never waits. */
  outcome(object: ObjectReference, error: SluiceError | undefined): void {
    if (error === undefined && STATUS[object.kind] === undefined) return;
    const key = `${object.kind} ${object.namespace ?? ''}/${object.name}`;
    this.#waiting.delete(key);
    this.#waiting.set(key, { object, error });
    if (this.#waiting.size > MAX_WAITING) {
      const [oldest] = this.#waiting.keys();
      if (oldest !== undefined) this.#waiting.delete(oldest);
    }
    this.#timer ??= setInterval(() => void this.#work(), 1000 / PER_SECOND).unref();
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
  }

  async #work(): Promise<void> {
    const [first] = this.#waiting;
    if (first === undefined) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      return;
    }
    if (this.#busy || this.#closed) return;
    const [key, report] = first;
    this.#waiting.delete(key);
    this.#busy = true;
    try {
      if (report.error !== undefined) await this.#event(report.object, report.error);
      if (STATUS[report.object.kind] !== undefined && this.#isMine(key))
        await this.#status(key, report.object, report.error);
    } catch (error) {
      this.#failures++;
      this.#parts.log.debug({ object: key }, lineOf(error));
      // Without the API nothing is lost: it is told when it is there again.
      const temporary = !(error instanceof ApiError) || error.status >= 500 || error.status === 429;
      if (temporary && !this.#waiting.has(key) && !this.#closed) this.#waiting.set(key, report);
    } finally {
      this.#busy = false;
    }
  }

  /** One Event for an object, its version and the reason, whichever node comes first: the others find it there. */
  async #event(object: ObjectReference, error: SluiceError): Promise<void> {
    const { client, node, now = () => new Date() } = this.#parts;
    const namespace = object.namespace ?? 'default';
    const hash = createHash('sha256')
      .update(`${object.uid} ${object.generation} ${error.toLine()}`)
      .digest('hex');
    const time = `${now().toISOString().slice(0, 19)}Z`;
    const { apiVersion, kind, name, uid } = object;
    try {
      await client.json({
        method: 'POST',
        path: `/api/v1/namespaces/${encodeURIComponent(namespace)}/events`,
        body: {
          apiVersion: 'v1',
          kind: 'Event',
          metadata: { name: `${name.slice(0, 200)}.${hash.slice(0, 16)}`, namespace },
          involvedObject: {
            apiVersion,
            kind,
            name,
            uid,
            ...(object.namespace === undefined ? {} : { namespace }),
          },
          type: 'Warning',
          reason: 'NotApplied',
          message: `${error.message} (${error.code})`.slice(0, 1000),
          source: { component: 'sluice', host: node },
          reportingComponent: 'sluice.dev/agent',
          reportingInstance: node,
          firstTimestamp: time,
          lastTimestamp: time,
          count: 1,
        },
      });
      this.#events++;
    } catch (failure) {
      if (!(failure instanceof ApiError) || failure.reason !== 'AlreadyExists') throw failure;
    }
  }

  async #status(key: string, object: ObjectReference, error: SluiceError | undefined): Promise<void> {
    const { client, now = () => new Date() } = this.#parts;
    const message = error === undefined ? '' : `${error.message} (${error.code})`.slice(0, 1000);
    const text = `${object.uid} ${object.generation} ${message}`;
    if (this.#written.get(key) === text) return;
    const path = `${STATUS[object.kind] ?? ''}/${encodeURIComponent(object.name)}`;
    const present = await client.json<{
      readonly metadata?: { readonly resourceVersion?: string; readonly generation?: number };
      readonly status?: { readonly conditions?: readonly Condition[] };
    }>({ path });
    // Another version: its own outcome follows.
    if ((present.metadata?.generation ?? 0) !== object.generation) return;
    const others = (present.status?.conditions ?? []).filter(({ type }) => type !== 'Accepted');
    const before = (present.status?.conditions ?? []).find(({ type }) => type === 'Accepted');
    const status = error === undefined ? 'True' : 'False';
    if (
      before?.status !== status ||
      before.observedGeneration !== object.generation ||
      (before.message ?? '') !== message
    ) {
      const condition = {
        type: 'Accepted',
        status,
        observedGeneration: object.generation,
        lastTransitionTime: `${now().toISOString().slice(0, 19)}Z`,
        reason: error === undefined ? 'Accepted' : 'NotApplied',
        message,
      };
      await client.json({
        method: 'PATCH',
        path: `${path}/status`,
        contentType: 'application/merge-patch+json',
        // With the version that was read: who else writes conditions is not overwritten.
        body: {
          metadata: { resourceVersion: present.metadata?.resourceVersion },
          status: { conditions: [...others, condition] },
        },
      });
    }
    this.#written.set(key, text);
  }

  /** Rendezvous hashing: without anybody in charge, and few policies move when a node comes or goes. */
  #isMine(key: string): boolean {
    let best = '';
    let winner = '';
    for (const node of this.#parts.nodes()) {
      const weight = createHash('sha1').update(`${key} ${node}`).digest('hex');
      if (weight > best) [best, winner] = [weight, node];
    }
    return winner === '' || winner === this.#parts.node;
  }
}
