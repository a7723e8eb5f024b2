import {
  type Cidr,
  cidrContains,
  parseAddress,
  tryParseAddress,
  tryParseCidr,
} from '../../policy/address.js';
import type { FlowRecord } from './record.js';

/** What to show. */
export interface FlowQuery {
  /** Seconds back from now. */
  readonly since?: number;
  /** Only what was denied, or would have been. */
  readonly denied?: boolean;
  /** Who opens, who gets it: NAMESPACE/NAME, NAME, an address, a CIDR, `host` or `world`. */
  readonly from?: string;
  readonly to?: string;
}

/** A party as one end is compared with it. */
export function partyMatcher(text: string | undefined): (name: string, address: string) => boolean {
  if (text === undefined) return () => true;
  const address = tryParseAddress(text);
  const cidr: Cidr | undefined = address === undefined ? tryParseCidr(text) : undefined;
  if (cidr !== undefined) return (_, other) => cidrContains(cidr, parseAddress(other));
  const full = text === 'host' || text === 'world' || text.includes('/') ? text : `default/${text}`;
  return (name, other) => name === full || other === text;
}

/** Whether a record is asked for. */
export function matcher(query: FlowQuery, now: number): (record: FlowRecord) => boolean {
  const from = partyMatcher(query.from);
  const to = partyMatcher(query.to);
  const after = query.since === undefined ? 0 : now - query.since * 1000;
  return (record) =>
    record.last >= after &&
    (query.denied !== true || record.verdict !== 'allow') &&
    from(record.from, record.source) &&
    to(record.to, record.destination);
}
