// @ts-check
/**
 * Prints "N passed, N failed" from Vitest's JSON report and ends with 1 unless all passed.
 * Usage: count.js RESULTS.json [FAILED CHECKS [SECOND.json]]. A test file that could not be loaded, an error outside
 * any test, a missing report and a report without a single passed test count as failures. A file that is in the
 * second report counts as it ended there, and each test that failed first is named.
 */
import { existsSync, readFileSync } from 'node:fs';

/** @typedef {{ name: string, status: string, assertionResults: { status: string, fullName: string }[] }} FileResult */
/** @typedef {{ success: boolean, numPassedTests: number, numFailedTests: number, testResults: FileResult[] }} Report */

const [file = '', extra = '0', secondFile = ''] = process.argv.slice(2);
let passed = 0;
let failed = Number(extra);
/** @type {(of: string) => Report} */
const read = (of) => JSON.parse(readFileSync(of, 'utf8'));
/** @type {(result: FileResult, status: string) => number} */
const tests = (result, status) => result.assertionResults.filter((test) => test.status === status).length;
/** @type {(result: FileResult) => number} */
const unloadable = (result) => (result.status === 'failed' && tests(result, 'failed') === 0 ? 1 : 0);
try {
  const report = read(file);
  passed = report.numPassedTests;
  let { success } = report;
  let wrong = report.numFailedTests + report.testResults.reduce((sum, result) => sum + unloadable(result), 0);
  const explained = wrong > 0;
  if (secondFile !== '' && existsSync(secondFile)) {
    const second = read(secondFile);
    for (const result of report.testResults) {
      const again = second.testResults.find(({ name }) => name === result.name);
      if (again === undefined) continue;
      passed += tests(again, 'passed') - tests(result, 'passed');
      wrong += tests(again, 'failed') + unloadable(again) - tests(result, 'failed') - unloadable(result);
      for (const test of result.assertionResults)
        if (test.status === 'failed') console.log(`unsteady: failed at first: ${test.fullName}`);
    }
    success = second.success && explained && wrong === 0;
  }
  failed += wrong;
  if ((!success || passed === 0) && failed === 0) failed = 1;
} catch {
  failed += 1;
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
