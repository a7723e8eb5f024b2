import type { IncomingMessage } from 'node:http';
import { SluiceError } from '../../policy/errors.js';
import type { SourceText } from '../engine.js';
import { type ApplyRequest, MAX_BODY } from './api.js';

const MAX_SOURCES = 100_000;
const MAX_FILE_NAME = 4096;

/** Reads a whole request body. Throws SLU2403 as soon as it is larger than `limit` bytes. */
export async function readBody(request: IncomingMessage, limit: number = MAX_BODY): Promise<Buffer> {
  if (Number(request.headers['content-length'] ?? 0) > limit) throw SluiceError.of('SLU2403', { limit });
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw SluiceError.of('SLU2403', { limit });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/** Checks the body of /v1/apply and /v1/delete. Throws SLU2404. */
export function parseApplyRequest(body: Buffer): ApplyRequest {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw SluiceError.of('SLU2404', { reason: 'the body is not JSON in UTF-8' });
  }
  if (
    typeof value !== 'object' ||
    value === null ||
    !Array.isArray((value as { sources?: unknown }).sources)
  ) {
    throw SluiceError.of('SLU2404', { reason: 'the body must be {"sources": [{"file", "text"}, …]}' });
  }
  const sources = (value as { sources: unknown[] }).sources;
  if (sources.length > MAX_SOURCES)
    throw SluiceError.of('SLU2404', { reason: `more than ${MAX_SOURCES} sources` });
  const { by, what, confirmWithin, shared } = value as Record<string, unknown>;
  if (shared !== undefined && typeof shared !== 'boolean')
    throw SluiceError.of('SLU2404', { reason: 'shared must be true or false' });
  if (confirmWithin !== undefined && typeof confirmWithin !== 'number')
    throw SluiceError.of('SLU2404', { reason: 'confirmWithin must be a number of seconds' });
  return {
    sources: sources.map(checkSource),
    ...(by === undefined ? {} : { by: shortText(by, 'by') }),
    ...(what === undefined ? {} : { what: shortText(what, 'what') }),
    ...(confirmWithin === undefined ? {} : { confirmWithin }),
    ...(shared === undefined ? {} : { shared }),
  };
}

function shortText(value: unknown, field: string): string {
  if (typeof value === 'string' && value.length <= MAX_FILE_NAME) return value;
  throw SluiceError.of('SLU2404', { reason: `${field} must be a short text` });
}

function checkSource(value: unknown, index: number): SourceText {
  const { file, text } = (typeof value === 'object' && value !== null ? value : {}) as Record<
    string,
    unknown
  >;
  if (typeof file !== 'string' || file === '' || file.length > MAX_FILE_NAME) {
    throw SluiceError.of('SLU2404', { reason: `sources[${index}].file must be a file name` });
  }
  if (typeof text !== 'string')
    throw SluiceError.of('SLU2404', { reason: `sources[${index}].text must be a string` });
  return { file, text };
}
