import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const folder = mkdtempSync(join(tmpdir(), 'count-'));
afterAll(() => rmSync(folder, { recursive: true }));

function count(report: unknown, failedChecks = 0, again?: unknown): string {
  const files = [join(folder, 'report.json'), join(folder, 'again.json')];
  for (const [i, content] of [report, again].entries()) {
    rmSync(files[i] ?? '', { force: true });
    if (content !== undefined) writeFileSync(files[i] ?? '', JSON.stringify(content));
  }
  const [first = '', second = ''] = files;
  const { status, stdout } = spawnSync('node', ['scripts/count.js', first, String(failedChecks), second], {
    encoding: 'utf8',
  });
  return `${stdout.trim()}, status ${status}`;
}

const named = (name: string, status: string, ...tests: string[]): unknown => ({
  name,
  status,
  assertionResults: tests.map((result, i) => ({ status: result, fullName: `${name} ${i}` })),
});
const file = (status: string, ...tests: string[]): unknown => named('a', status, ...tests);

describe('the count line', () => {
  it('counts what passed', () => {
    const report = {
      success: true,
      numPassedTests: 3,
      numFailedTests: 0,
      testResults: [file('passed', 'passed')],
    };
    expect(count(report)).toBe('3 passed, 0 failed, status 0');
    expect(count(report, 1)).toBe('3 passed, 1 failed, status 1');
  });

  it('counts what failed, and each file that could not be loaded', () => {
    const testResults = [file('failed', 'passed', 'failed'), file('failed')];
    expect(count({ success: false, numPassedTests: 1, numFailedTests: 1, testResults })).toBe(
      '1 passed, 2 failed, status 1',
    );
  });

  it('counts files that ran again as they ended then, and names what had failed', () => {
    const testResults = [named('a', 'passed', 'passed'), named('b', 'failed', 'passed', 'failed')];
    const first = { success: false, numPassedTests: 2, numFailedTests: 1, testResults };
    const second = (...tests: string[]) => ({
      success: !tests.includes('failed'),
      numPassedTests: 0,
      numFailedTests: 0,
      testResults: [named('b', tests.includes('failed') ? 'failed' : 'passed', ...tests)],
    });
    expect(count(first, 0, second('passed', 'passed'))).toBe(
      'unsteady: failed at first: b 1\n3 passed, 0 failed, status 0',
    );
    expect(count(first, 1, second('passed', 'passed'))).toContain('3 passed, 1 failed, status 1');
    expect(count(first, 0, second('failed', 'passed'))).toContain('2 passed, 1 failed, status 1');
  });

  it('is a failure when something went wrong outside any test, when nothing ran, and without a report', () => {
    const passed = { numPassedTests: 3, numFailedTests: 0, testResults: [file('passed', 'passed')] };
    expect(count({ ...passed, success: false })).toBe('3 passed, 1 failed, status 1');
    expect(count({ success: true, numPassedTests: 0, numFailedTests: 0, testResults: [] })).toBe(
      '0 passed, 1 failed, status 1',
    );
    expect(count(undefined)).toBe('0 passed, 1 failed, status 1');
  });
});
