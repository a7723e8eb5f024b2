import type { Listing } from '../engine.js';
import type { FlowRecord } from './record.js';

/** Lines of one answer. */
const MAX_LINES = 10_000;

const COLUMNS = [
  'LAST',
  'VERDICT',
  'REASON',
  'PROTO',
  'SOURCE',
  'DESTINATION',
  'FROM',
  'TO',
  'FLOWS',
  'PACKETS',
  'BYTES',
  'RULE',
] as const;

/** The flow log as `sluice get flows` shows it. */
export function flowLogListing(records: readonly FlowRecord[]): Listing {
  const shown = records.slice(0, MAX_LINES);
  return {
    columns: COLUMNS,
    rows: shown.map((record) => [
      new Date(record.last).toISOString(),
      record.verdict,
      record.verdict === 'allow' ? '' : record.reason,
      record.protocol,
      record.sampled ? `${record.source} and others` : record.source,
      withPort(record.destination, record.port),
      ended(record, 'egress', record.from),
      ended(record, 'ingress', record.to),
      String(record.flows),
      `${record.packets}/${record.replyPackets}`,
      `${record.bytes}/${record.replyBytes}`,
      [record.ruleEgress, record.ruleIngress].filter((rule) => rule !== undefined).join('; '),
    ]),
    objects: shown.map(({ first, last, ...record }) => ({
      first: new Date(first).toISOString(),
      last: new Date(last).toISOString(),
      ...record,
    })),
  };
}

/** Who is at an end; of the host, the processes if their policy judged it. */
function ended({ subject, direction }: FlowRecord, side: FlowRecord['direction'], name: string): string {
  return subject === undefined || direction !== side ? name : `${name} (${subject})`;
}

function withPort(address: string, port: number): string {
  if (port === 0) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
