import { Direction, type Event, EventKind, eventCodec } from '../../loader/abi/gen/types.gen.js';
import { errnoName } from '../../loader/errors.js';
import { formatAddress } from '../../policy/address.js';
import type { RuleDescription } from '../../policy/compile/types.js';
import type { DropEvent } from '../engine.js';
import { protocolName } from './protocols.js';
import { reasonName } from './reasons.js';

/** What turning numbers into words needs. */
export interface EventContext {
  ownerOf(address: Uint8Array): string;
  describeRule(rule: number): RuleDescription | undefined;
}

/** Records kept for `sluice drops`. */
const KEPT = 10_000;

/** The latest events, and who wants to hear of new ones. */
export class DropLog {
  readonly #context: EventContext;
  readonly #events: DropEvent[] = [];
  readonly #listeners = new Set<(event: DropEvent) => void>();
  #next = 0;
  #drops = 0;

  constructor(context: EventContext) {
    this.#context = context;
  }

  /** Drops that were read from the ring buffer. */
  get drops(): number {
    return this.#drops;
  }

  /** Takes a record of the ring buffer. */
  take(record: Buffer): void {
    if (record.length < eventCodec.size) return;
    const event = eventCodec.decode(record, 0);
    if (event.kind === EventKind.Drop) this.#drops++;
    const described = describeEvent(event, this.#context);
    if (event.kind !== EventKind.NewFlow) this.#keep(described);
    for (const listener of this.#listeners) listener(described);
  }

  #keep(described: DropEvent): void {
    if (this.#events.length < KEPT) this.#events.push(described);
    else this.#events[this.#next++ % KEPT] = described;
  }

  /** The latest, newest last. */
  latest(limit: number): readonly DropEvent[] {
    const start = this.#next % KEPT;
    const ordered = [...this.#events.slice(start), ...this.#events.slice(0, start)];
    return limit <= 0 ? [] : ordered.slice(-limit);
  }

  onEvent(listener: (event: DropEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** A record in words. */
export function describeEvent(event: Event, context: EventContext): DropEvent {
  const { key } = event;
  const rule = event.rule === 0 ? undefined : context.describeRule(event.rule);
  return {
    time: new Date(wallTime(event.time)).toISOString(),
    reason: event.kind === EventKind.NewFlow ? 'forwarded' : reasonName(event.reason),
    source: formatAddress(key.saddr),
    destination: formatAddress(key.daddr),
    protocol: protocolName(key.proto),
    sourcePort: key.sport,
    destinationPort: key.dport,
    from: context.ownerOf(key.saddr),
    to: context.ownerOf(key.daddr),
    direction: event.direction === Direction.Ingress ? 'ingress' : 'egress',
    ...(rule === undefined ? {} : { rule: ruleText(rule) }),
    ...(event.kind === EventKind.Audit ? { audit: true } : {}),
    ...(event.error === 0 ? {} : { error: errnoName(-event.error) }),
  };
}

/**
 * `NetworkPolicy shop/api, ingress rule 0 (web.yaml:12)`, `NetworkPolicy shop/api (default deny ingress)`,
 * `ClusterNetworkPolicy no-egress, egress rule 2 "internet" (cluster.yaml:40)`.
 */
export function ruleText(rule: RuleDescription): string {
  const names = rule.policy
    .split(', ')
    .map((name) => (rule.namespace === undefined || name.includes('/') ? name : `${rule.namespace}/${name}`))
    .join(', ');
  if (rule.index === 'default deny') return `${rule.kind} ${names} (default deny ${rule.direction})`;
  const title = rule.name === undefined ? '' : ` "${rule.name}"`;
  return `${rule.kind} ${names}, ${rule.direction} rule ${rule.index}${title} (${rule.file}:${rule.line})`;
}

/** Milliseconds since 1970 of a reading of the monotonic clock. */
function wallTime(monotonic: bigint): number {
  return Date.now() - Number(process.hrtime.bigint() - monotonic) / 1e6;
}
