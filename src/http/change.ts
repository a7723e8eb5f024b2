/** The part of the API for `sluice history`, `rollback` and `confirm`. */
import type { IncomingMessage } from 'node:http';
import { SluiceError } from '../../policy/errors.js';
import type { SafeChange } from '../change/types.js';
import { readBody } from './body.js';

const MAX_SMALL = 4096;
const MAX_BY = 256;

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
