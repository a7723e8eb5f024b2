/** This node in the cluster: the ranges of its pods, and the condition that says that its network works. */
import { SluiceError } from '../../policy/errors.js';
import { ANNOTATIONS } from '../../policy/model/annotations.js';
import type { NetworkResource } from '../../policy/model/resources.js';
import type { Logger } from '../log.js';
import { Backoff, pause } from './backoff.js';
import { type ApiClient, ApiError } from './client.js';
import { type ApiObject, FROM, readObject } from './objects.js';

/** `reason` of the condition while the network of pods is in force. */
export const UP_REASON = 'SluiceIsUp';

/** Two writes of the condition are this far apart at least: somebody else may insist on another value. */
const CALM_MS = 10_000;

interface Condition {
  readonly type?: string;
  readonly status?: string;
  readonly reason?: string;
}

/** The ranges that a Node object gives to its pods; none: it has none (yet). */
export function podRangesOf({ metadata, spec }: ApiObject): readonly string[] {
  const { podCIDR, podCIDRs } = (spec ?? {}) as { podCIDR?: string; podCIDRs?: readonly string[] };
  if (podCIDRs !== undefined && podCIDRs.length > 0) return podCIDRs;
  if (podCIDR !== undefined && podCIDR !== '') return [podCIDR];
  return metadata?.annotations?.[ANNOTATIONS.podRanges]?.split(',') ?? [];
}

/** The network of this node's pods. Throws SLU6210 if the ranges are none. */
export function podNetwork(
  name: string,
  ranges: readonly string[],
  settings: { readonly mtu?: number },
): NetworkResource {
  const ipv4 = ranges.find((range) => !range.includes(':'));
  const ipv6 = ranges.find((range) => range.includes(':'));
  const object = {
    metadata: { name },
    spec: {
      mode: 'routed',
      ...(ipv4 === undefined ? {} : { ipv4: { cidr: ipv4 } }),
      ...(ipv6 === undefined ? {} : { ipv6: { cidr: ipv6 } }),
      ...(settings.mtu === undefined ? {} : { mtu: settings.mtu }),
    },
  };
  const network = readObject(object, 'sluice.dev/v1alpha1', 'Network');
  if (network.kind !== 'Network') throw new TypeError('not a Network');
  return { ...network, origin: { file: FROM, line: 1 } };
}

interface Parts {
  readonly client: Pick<ApiClient, 'json'>;
  readonly log: Logger;
  readonly node: string;
  readonly now?: () => Date;
}

/**
 * Keeps the condition NetworkUnavailable of this node at False from the time that its network is in force, and its public
 * key in an annotation. One request does both: a node's status takes annotations too.
 */
export class NetworkCondition {
  readonly #parts: Parts;
  readonly #end = new AbortController();
  #up = false;
  #seen: Condition | undefined;
  #seenKey: string | undefined;
  /** Undefined: nothing is encrypted, and others must not believe so. */
  publicKey: string | undefined;
  #running: Promise<void> | undefined;
  #written = Number.NEGATIVE_INFINITY;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** This node as the API has it now. */
  observe({ metadata, status }: ApiObject): void {
    this.#seenKey = metadata?.annotations?.[ANNOTATIONS.publicKey];
    const conditions = (status?.conditions ?? []) as readonly Condition[];
    this.#seen = conditions.find(({ type }) => type === 'NetworkUnavailable');
    this.#kick();
  }

  /** The network of pods is in force. */
  up(): void {
    this.#up = true;
    this.#kick();
  }

  /** Whether the API is known to have the condition and the key. */
  get isSet(): boolean {
    return (
      this.#seenKey === this.publicKey && this.#seen?.status === 'False' && this.#seen.reason === UP_REASON
    );
  }

  async close(): Promise<void> {
    this.#end.abort();
    await this.#running;
  }

  #kick(): void {
    if (!this.#up || this.isSet || this.#running !== undefined || this.#end.signal.aborted) return;
    this.#running = this.#write().finally(() => {
      this.#running = undefined;
    });
  }

  async #write(): Promise<void> {
    const { client, node, log, now = () => new Date() } = this.#parts;
    const { signal } = this.#end;
    const backoff = new Backoff(500, 60_000);
    await pause(Math.max(0, this.#written + CALM_MS - performance.now()), signal);
    while (!signal.aborted && !this.isSet) {
      const time = `${now().toISOString().slice(0, 19)}Z`;
      const condition = {
        type: 'NetworkUnavailable',
        status: 'False',
        reason: UP_REASON,
        message: 'the network of pods is in force',
        lastHeartbeatTime: time,
        lastTransitionTime: time,
      };
      // null takes it away.
      const annotations = { [ANNOTATIONS.publicKey]: this.publicKey ?? null };
      try {
        const object = await client.json<ApiObject>({
          method: 'PATCH',
          path: `/api/v1/nodes/${encodeURIComponent(node)}/status`,
          contentType: 'application/strategic-merge-patch+json',
          body: {
            ...(this.#seenKey === this.publicKey ? {} : { metadata: { annotations } }),
            status: { conditions: [condition] },
          },
          signal,
        });
        this.#written = performance.now();
        this.observe(object);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const wait = backoff.next();
        log.warn({ wait: Math.round(wait) }, lineOf(error));
        await pause(wait, signal);
      }
    }
  }
}

/** One line for an error of the API. */
export function lineOf(error: unknown): string {
  if (error instanceof ApiError) return error.toSluiceError().toLine();
  if (error instanceof SluiceError) return error.toLine();
  return error instanceof Error ? error.message : String(error);
}
