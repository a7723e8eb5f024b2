import { SluiceError } from '../../policy/errors.js';
import type { ErrorLine } from '../engine.js';

/** An error as it travels over the API. */
export function errorLine(error: SluiceError): ErrorLine {
  const { code, message, file, line, field } = error;
  return {
    code,
    message,
    ...(file === undefined ? {} : { file }),
    ...(line === undefined ? {} : { line }),
    ...(field === undefined ? {} : { field }),
  };
}

/** Problems of the engine and of the parts beside it, each once. */
export function together(engine: readonly ErrorLine[], more: readonly ErrorLine[]): readonly ErrorLine[] {
  if (more.length === 0) return engine;
  const known = new Set(engine.map((problem) => JSON.stringify(problem)));
  return [...engine, ...more.filter((problem) => !known.has(JSON.stringify(problem)))];
}

/** A failure of the kernel or the disk in words for people; nothing is in force of the change that caused it. */
export function internalError(error: unknown): SluiceError {
  if (error instanceof SluiceError) return error;
  return SluiceError.of('SLU2506', { reason: error instanceof Error ? error.message : String(error) });
}
