import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createLogger, formatRecord, type LogLevel } from './log.js';

const folder = mkdtempSync(join(tmpdir(), 'sluice-log-'));
let count = 0;
afterAll(() => rmSync(folder, { recursive: true }));

function written(
  level: LogLevel,
  isTTY: boolean,
  write: (log: ReturnType<typeof createLogger>) => void,
): string {
  const file = join(folder, `${count++}.log`);
  const fd = openSync(file, 'w');
  write(createLogger(level, { fd, isTTY }));
  closeSync(fd);
  return readFileSync(file, 'utf8');
}

describe('createLogger', () => {
  it('writes one JSON object a line to what is not a terminal, at once, and keeps stacks back', () => {
    const text = written('info', false, (log) => {
      log.debug('hidden');
      log.info({ container: 'shop/web' }, 'network ready');
      log.error({ err: Object.assign(new Error('it broke'), { code: 'EIO' }) }, 'failed');
    });
    const [first, second, ...more] = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(more).toEqual([]);
    expect(first).toMatchObject({
      level: 'info',
      container: 'shop/web',
      msg: 'network ready',
      pid: process.pid,
    });
    expect(second).toMatchObject({ level: 'error', err: { message: 'it broke', code: 'EIO' } });
    expect(second?.err).not.toHaveProperty('stack');
  });

  it('writes stacks at level debug', () => {
    const text = written('debug', false, (log) => log.error({ err: new Error('it broke') }, 'failed'));
    expect(JSON.parse(text)).toMatchObject({ err: { stack: expect.stringContaining('log.test.ts') } });
  });

  it('writes plain lines to a terminal', () => {
    const text = written('info', true, (log) => log.warn({ path: '/a b', count: 3 }, 'folder is missing'));
    expect(text).toMatch(/^\d\d:\d\d:\d\d\.\d{3} WARN {2}folder is missing path="\/a b" count=3\n$/);
  });
});

describe('formatRecord', () => {
  it('shows the message of an error and its stack below', () => {
    const record = {
      level: 'error',
      time: '2026-01-02T03:04:05.678Z',
      pid: 1,
      msg: 'x',
      err: { message: 'no', stack: 'Error: no\n  at y' },
    };
    expect(formatRecord(JSON.stringify(record))).toBe('03:04:05.678 ERROR x err=no\nError: no\n  at y\n');
  });
});
