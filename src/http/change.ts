/** The part of the API for safe changes: history, confirmation, the flow log, diff, audit, suggestions. */
import type { IncomingMessage } from 'node:http';
import { SluiceError } from '../../policy/errors.js';
import type { AuditRequest } from '../audit/audit.js';
import type { SuggestRequest } from '../change/safe.js';
import type { SafeChange } from '../change/types.js';
import type { FlowQuery } from '../flowlog/filter.js';
import { readBody } from './body.js';

const MAX_SMALL = 4096;
const MAX_BY = 256;
const MAX_PARTY = 512;

/** GET /v1/history: the list, or with `revision` one of them. Throws SLU2404, SLU7201, SLU7202. */
export function answerHistory(safe: SafeChange, query: URLSearchParams): unknown {
  const number = query.get('revision');
  if (number === null) return safe.history();
  if (!/^\d{1,9}$/.test(number)) throw bad('revision must be a number');
  return safe.revision(Number(number));
}

/** The body of POST /v1/rollback. Throws SLU2404. */
export async function readRollback(request: IncomingMessage): Promise<{ to: number; by: string }> {
  const { to, by } = await smallBody(request);
  if (typeof to !== 'number' || !Number.isSafeInteger(to) || to < 0) throw bad('to must be a revision');
  return { to, by: readBy(by) };
}

/** The body of POST /v1/confirm. Throws SLU2404. */
export async function readConfirm(request: IncomingMessage): Promise<{ by: string }> {
  return { by: readBy((await smallBody(request)).by) };
}

/** The query of GET /v1/flows. Throws SLU2404. */
export function readFlowQuery(query: URLSearchParams): FlowQuery {
  const since = readSeconds(query);
  const [from, to] = [query.get('from'), query.get('to')];
  for (const text of [from, to])
    if (text !== null && (text === '' || text.length > MAX_PARTY))
      throw bad('from and to must be a container, an address, a CIDR, host or world');
  return {
    ...(since === undefined ? {} : { since }),
    ...(query.get('denied') === '1' ? { denied: true } : {}),
    ...(from === null ? {} : { from }),
    ...(to === null ? {} : { to }),
  };
}

/** The body of POST /v1/audit. Throws SLU2404. */
export async function readAudit(request: IncomingMessage): Promise<AuditRequest> {
  const { on, selector, namespace } = await smallBody(request);
  if (typeof on !== 'boolean') throw bad('on must be true or false');
  return { on, ...selection(selector, namespace) };
}

/** The query of GET /v1/suggest. Throws SLU2404. */
export function readSuggest(query: URLSearchParams): SuggestRequest {
  const since = readSeconds(query);
  return {
    ...selection(query.get('selector') ?? undefined, query.get('namespace') ?? undefined),
    ...(since === undefined ? {} : { since }),
  };
}

function selection(selector: unknown, namespace: unknown): { selector?: string; namespace?: string } {
  const text = (value: unknown): string | undefined => {
    if (value === undefined || (typeof value === 'string' && value.length <= MAX_PARTY)) return value;
    throw bad('selector and namespace must be short texts');
  };
  const [one, two] = [text(selector), text(namespace)];
  return {
    ...(one === undefined ? {} : { selector: one }),
    ...(two === undefined ? {} : { namespace: two }),
  };
}

function readSeconds(query: URLSearchParams): number | undefined {
  const since = query.get('since');
  if (since === null) return undefined;
  if (!/^\d{1,9}$/.test(since)) throw bad('since must be a number of seconds');
  return Number(since);
}

/** Who asks, as the command says. */
export function readBy(value: unknown): string {
  if (value === undefined) return 'unknown';
  if (typeof value !== 'string' || value.length > MAX_BY) throw bad('by must be a name');
  return value;
}

export async function smallBody(request: IncomingMessage): Promise<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse((await readBody(request, MAX_SMALL)).toString('utf8'));
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    throw bad('the body is not JSON');
  }
  if (typeof value !== 'object' || value === null) throw bad('the body must be an object');
  return value as Record<string, unknown>;
}

function bad(reason: string): SluiceError {
  return SluiceError.of('SLU2404', { reason });
}
