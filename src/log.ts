import pino from 'pino';
import type { AgentConfig } from './config.js';

/**
 * The agent's log. Conventions: `log.info({ container: 'shop/web' }, 'network ready')`, messages in
 * lower case without a full stop, errors under the key `err`. One record is one line.
 */
export type Logger = pino.Logger;

export type LogLevel = AgentConfig['logLevel'];

/** Where records go: `fd` is written synchronously, so the last words before an exit are not lost. */
export interface LogDestination {
  readonly fd: number;
  readonly isTTY: boolean;
}

/**
 * JSON lines when the destination is a file or a pipe, short plain lines when it is a terminal.
 * Stacks of errors are written at level debug and below only.
 */
export function createLogger(
  level: LogLevel,
  to: LogDestination = { fd: 2, isTTY: process.stderr.isTTY === true },
): Logger {
  const sink = pino.destination({ fd: to.fd, sync: true });
  const verbose = level === 'debug' || level === 'trace';
  const options: pino.LoggerOptions = {
    level,
    base: { pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: (error: unknown) => describeError(error, verbose) },
  };
  if (!to.isTTY) return pino(options, sink);
  return pino(options, { write: (line: string) => void sink.write(formatRecord(line)) });
}

/** What the log keeps of an error: message, code and, if asked for, the stack. */
export function describeError(error: unknown, withStack: boolean): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) };
  const code = (error as { code?: unknown }).code;
  return {
    type: error.name,
    message: error.message,
    ...(code === undefined ? {} : { code }),
    ...(withStack && error.stack !== undefined ? { stack: error.stack } : {}),
  };
}

/** Turns one JSON record into `15:04:05.123 INFO  message key=value`. */
export function formatRecord(line: string): string {
  const { level, time, pid: _pid, msg, err, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const clock = typeof time === 'string' ? time.slice(11, 23) : '';
  const fields = Object.entries(rest).map(([key, value]) => `${key}=${formatValue(value)}`);
  let tail = '';
  if (typeof err === 'object' && err !== null) {
    const { message, stack } = err as { message?: unknown; stack?: unknown };
    fields.push(`err=${formatValue(message)}`);
    if (typeof stack === 'string') tail = `${stack}\n`;
  }
  const name = String(level).toUpperCase().padEnd(5);
  return `${[clock, name, typeof msg === 'string' ? msg : '', ...fields].join(' ')}\n${tail}`;
}

function formatValue(value: unknown): string {
  if (typeof value !== 'string') return JSON.stringify(value) ?? String(value);
  return /^[^\s"=]+$/u.test(value) ? value : JSON.stringify(value);
}
