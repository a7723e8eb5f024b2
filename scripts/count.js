// @ts-check
/**
 * Prints "N passed, N failed" from Vitest's JSON report and ends with 1 unless all passed.
 * Usage: count.js RESULTS.json [FAILED CHECKS]. A test file that could not be loaded, an error outside
 * any test, a missing report and a report without a single passed test count as failures.
 */
import { readFileSync } from 'node:fs';

/** @typedef {{ success: boolean, numPassedTests: number, numFailedTests: number, testResults: { status: string, assertionResults: { status: string }[] }[] }} Report */

const [file = '', extra = '0'] = process.argv.slice(2);
let passed = 0;
let failed = Number(extra);
try {
  /** @type {Report} */
  const report = JSON.parse(readFileSync(file, 'utf8'));
  passed = report.numPassedTests;
  const unloadable = report.testResults.filter(
    (result) =>
      result.status === 'failed' && !result.assertionResults.some((test) => test.status === 'failed'),
  ).length;
  failed += report.numFailedTests + unloadable;
  if ((!report.success || passed === 0) && failed === 0) failed = 1;
} catch {
  failed += 1;
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
