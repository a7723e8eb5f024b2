import type { ServerResponse } from 'node:http';
import { SluiceError } from '../../policy/errors.js';
import type { SafeEngine } from '../change/safe.js';
import type { DropEvent, Engine } from '../engine.js';
import { partyMatcher } from '../flowlog/filter.js';
import { DEFAULT_DROPS, type DropRecord, MAX_DROPS } from './api.js';

/** Bytes that may wait for a slow reader before events are left out. */
const MAX_BACKLOG = 1024 * 1024;

/**
 * Answers /v1/drops: the latest events and, with `follow=1`, those that come, until the client goes
 * away. A client that reads too slowly loses events and is told how many; nobody waits for it.
 */
export function streamDrops(
  engine: Pick<Engine, 'drops' | 'onDrop'>,
  response: ServerResponse,
  query: URLSearchParams,
  safe?: Pick<SafeEngine, 'watchFlows'>,
): void {
  const limit = readLimit(query.get('limit'));
  const wanted = readFilter(query);
  const flows = query.get('flows') === '1';
  const follow = query.get('follow') === '1' || query.get('follow') === 'true';
  response.writeHead(200, { 'content-type': 'application/x-ndjson' });
  response.flushHeaders();
  const write = (record: DropRecord): void => void response.write(`${JSON.stringify(record)}\n`);
  if (limit > 0) for (const event of engine.drops(MAX_DROPS).filter(wanted).slice(-limit)) write(event);
  if (!follow) {
    response.end();
    return;
  }
  let lost = 0;
  const reportLost = (): void => {
    if (lost === 0) return;
    write({ lost });
    lost = 0;
  };
  const endWatch = flows ? safe?.watchFlows() : undefined;
  const unsubscribe = engine.onDrop((event: DropEvent) => {
    if ((event.reason === 'forwarded' && !flows) || !wanted(event)) return;
    if (response.writableLength > MAX_BACKLOG) {
      lost++;
      return;
    }
    reportLost();
    write(event);
  });
  response.on('drain', reportLost);
  response.once('close', () => {
    unsubscribe();
    endWatch?.();
  });
}

/** `from`, `to` as for the flow log, `reason` such as policy_ingress. */
function readFilter(query: URLSearchParams): (event: DropEvent) => boolean {
  const from = partyMatcher(query.get('from') ?? undefined);
  const to = partyMatcher(query.get('to') ?? undefined);
  const reason = query.get('reason');
  return (event) =>
    from(event.from, event.source) &&
    to(event.to, event.destination) &&
    (reason === null || event.reason === reason);
}

function readLimit(text: string | null): number {
  if (text === null) return DEFAULT_DROPS;
  if (/^\d{1,6}$/.test(text) && Number(text) <= MAX_DROPS) return Number(text);
  throw SluiceError.of('SLU2404', { reason: `limit must be a whole number from 0 to ${MAX_DROPS}` });
}
