import type { Readable, Writable } from 'node:stream';
import { SluiceError } from '../../policy/errors.js';
import type { ErrorLine } from '../engine.js';
import { formatErrorLine, toErrorLine } from '../http/api.js';

/** Exit status of every command. */
export const EXIT = { ok: 0, failed: 1, usage: 2, crash: 70 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** What a command sees of the process that it runs in. */
export interface Io {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** A wrong command line: one line and exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Errors that were already given to the user as lines, or are to be: exit status 1. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
  readonly errors: readonly ErrorLine[];

  constructor(errors: readonly (ErrorLine | SluiceError)[]) {
    super('refused');
    this.errors = errors.map((error) => (error instanceof SluiceError ? toErrorLine(error) : error));
  }
}

/** Writes lines; a stream whose reader is gone (EPIPE) swallows them. */
export function print(stream: Writable, ...lines: readonly string[]): void {
  if (lines.length > 0) stream.write(`${lines.join('\n')}\n`);
}

/** Writes errors, one line each: `file:line: field: message (CODE)`, without a file `sluice: message (CODE)`. */
export function printErrors(stream: Writable, errors: readonly ErrorLine[]): void {
  print(
    stream,
    ...errors.map((error) => `${error.file === undefined ? 'sluice: ' : ''}${formatErrorLine(error)}`),
  );
}
