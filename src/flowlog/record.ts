import { DropReason } from '../../loader/abi/gen/types.gen.js';
import { reasonName } from '../flows/reasons.js';

/** One line of the flow log: all flows between two ends on one port that met the same rules. */
export interface FlowRecord {
  /** Milliseconds since 1970. */
  readonly first: number;
  last: number;
  /** `audit`: it would have been denied. */
  readonly verdict: 'allow' | 'deny' | 'audit';
  /** `forwarded`, or the drop reason. */
  readonly reason: string;
  /** Side that denied. */
  readonly direction: 'egress' | 'ingress';
  readonly protocol: string;
  /** Address of the opener. */
  readonly source: string;
  /** `source` is one of many that are not told apart. */
  readonly sampled: boolean;
  /** Address of the receiver, after translation. */
  readonly destination: string;
  /** 0: the protocol has none. */
  readonly port: number;
  /** Of the host's ICMP: type * 256 + code. */
  readonly icmp?: number;
  /** Processes of the host by whose policy it was judged, such as `cgroup /system.slice/x`; absent: by that of devices. */
  readonly subject?: string;
  /** Container `namespace/name`, `host` or `world`. */
  readonly from: string;
  readonly to: string;
  readonly fromIdentity: number;
  toIdentity: number;
  readonly ruleEgress?: string;
  readonly ruleIngress?: string;
  flows: number;
  /** What the opener sent; of what is allowed, of flows that have ended. */
  packets: number;
  bytes: number;
  replyPackets: number;
  replyBytes: number;
}

export const COUNTS = ['flows', 'packets', 'bytes', 'replyPackets', 'replyBytes'] as const;
export type Counts = Readonly<Record<(typeof COUNTS)[number], number>>;

/** Equal for what is one line. Names and rules are part of it, so that a line stays true when they change. */
export function recordKey(record: FlowRecord): string {
  const { verdict, reason, direction, protocol, source, sampled, destination, port, from, to } = record;
  const who = sampled ? `*${record.fromIdentity}` : source;
  const more = `${record.icmp ?? ''} ${record.subject ?? ''}`;
  const rules = `${record.ruleEgress ?? ''}|${record.ruleIngress ?? ''}`;
  return `${verdict} ${reason} ${direction} ${protocol} ${who} ${destination} ${port} ${from} ${to} ${more} ${rules}`;
}

/**
 * Whether somebody opened what the record is of. A TCP packet without a connection, as the last one may be of a
 * connection that has ended, opens nothing: a change of policies means nothing to it.
 */
export function isOpened({ reason }: Pick<FlowRecord, 'reason'>): boolean {
  return reason !== NO_CONNECTION;
}

const NO_CONNECTION = reasonName(DropReason.TcpNoFlow);

/** Adds the counts of one line to another. */
export function addCounts(to: FlowRecord, counts: Counts): void {
  for (const name of COUNTS) to[name] += counts[name];
}
