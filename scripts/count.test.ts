import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const folder = mkdtempSync(join(tmpdir(), 'count-'));
afterAll(() => rmSync(folder, { recursive: true }));

function count(report: unknown, failedChecks = 0): string {
  const file = join(folder, 'report.json');
  rmSync(file, { force: true });
  if (report !== undefined) writeFileSync(file, JSON.stringify(report));
  const { status, stdout } = spawnSync('node', ['scripts/count.js', file, String(failedChecks)], {
    encoding: 'utf8',
  });
  return `${stdout.trim()}, status ${status}`;
}

const file = (status: string, ...tests: string[]): unknown => ({
  status,
  assertionResults: tests.map((result) => ({ status: result })),
});

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

  it('is a failure when something went wrong outside any test, when nothing ran, and without a report', () => {
    const passed = { numPassedTests: 3, numFailedTests: 0, testResults: [file('passed', 'passed')] };
    expect(count({ ...passed, success: false })).toBe('3 passed, 1 failed, status 1');
    expect(count({ success: true, numPassedTests: 0, numFailedTests: 0, testResults: [] })).toBe(
      '0 passed, 1 failed, status 1',
    );
    expect(count(undefined)).toBe('0 passed, 1 failed, status 1');
  });
});
