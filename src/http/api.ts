/**
 * The API between agent and CLI: HTTP with JSON over a Unix socket. What the server and the client
 * must agree on is here. Paths:
 *
 *   POST /v1/apply     ApplyRequest -> ApplyResult (status 422 when it is refused)
 *   POST /v1/delete    ApplyRequest -> ApplyResult
 *   POST /v1/rollback  {to, by} -> ApplyResult
 *   POST /v1/confirm   {by} -> {revision}
 *   GET  /v1/history?revision=N -> Revision; without N: History
 *   POST /v1/down      -> { ok: true }, then the agent exits
 *   GET  /v1/status    -> Status
 *   GET  /v1/list/NAME -> Listing
 *   GET  /v1/explain?from=&to=&protocol=TCP|UDP|SCTP|ICMP&port=&family=4|6 -> Explanation (422: no answer)
 *   GET  /v1/drops?limit=N&follow=1&from=&to=&reason=&flows=1   one DropRecord a line (application/x-ndjson)
 *   GET  /v1/flows?since=SECONDS&denied=1&from=&to= -> Listing of the flow log
 *   POST /v1/diff      ApplyRequest -> PolicyDiff (status 422 when the change is refused)
 *   GET  /v1/audit -> AuditState; POST /v1/audit {on, selector, namespace} -> AuditState
 *   GET  /v1/suggest?selector=&namespace=&since= -> Suggestion
 *
 * Every other answer is an ErrorResponse.
 */
import { SluiceError } from '../../policy/errors.js';
import type { DropEvent, ErrorLine, SourceText } from '../engine.js';

export interface ApplyRequest {
  readonly sources: readonly SourceText[];
  /** Who asks and what is done, for the history. */
  readonly by?: string;
  readonly what?: string;
  /** Seconds after which the change is taken back unless it is confirmed. */
  readonly confirmWithin?: number;
  /** For all hosts that share an etcd. */
  readonly shared?: boolean;
}

export interface ErrorResponse {
  readonly ok: false;
  readonly errors: readonly ErrorLine[];
}

/** A line of /v1/drops: an event, or how many events were left out because the reader is slow. */
export type DropRecord = DropEvent | { readonly lost: number };

/** Largest request body, bytes. */
export const MAX_BODY = 16 * 1024 * 1024;

/** `limit` of /v1/drops when it is not given, and its largest value. */
export const DEFAULT_DROPS = 100;
export const MAX_DROPS = 10_000;

/** An error as it travels in answers. */
export function toErrorLine(error: SluiceError): ErrorLine {
  return {
    code: error.code,
    message: error.message,
    ...(error.file === undefined ? {} : { file: error.file }),
    ...(error.line === undefined ? {} : { line: error.line }),
    ...(error.field === undefined ? {} : { field: error.field }),
  };
}

/** `file:line: field: message (CODE)`, the same text as SluiceError.toLine(). */
export function formatErrorLine(error: ErrorLine): string {
  const position =
    error.file === undefined ? '' : `${error.file}${error.line === undefined ? '' : `:${error.line}`}: `;
  const field = error.field === undefined || error.field === '' ? '' : `${error.field}: `;
  return `${position}${field}${error.message} (${error.code})`.replace(/[\r\n]+/g, ' ');
}

/** Any thrown value as an error for people; unknown ones become SLU2406. */
export function asSluiceError(error: unknown): SluiceError {
  if (error instanceof SluiceError) return error;
  return SluiceError.of('SLU2406', { reason: error instanceof Error ? error.message : String(error) });
}

/** The words of an errno for messages: `no such file or directory`. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const match = /^[A-Z0-9_]+: ([^,]+)/.exec(error.message);
  return match?.[1] ?? error.message;
}
