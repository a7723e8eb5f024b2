// @ts-check
/**
 * Prints the test files under test/ that failed in Vitest's JSON report, one a line; nothing if others failed too, or
 * more than three. Usage: failed-files.js RESULTS.json
 */
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

const MOST = 3;
/** @type {{ testResults: { name: string, status: string }[] }} */
let report = { testResults: [] };
try {
  report = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8'));
} catch {
  // No report: nothing to run again.
}
const files = report.testResults
  .filter(({ status }) => status === 'failed')
  .map(({ name }) => relative('.', name));
if (files.length <= MOST && files.every((file) => file.startsWith('test/'))) {
  for (const file of files) console.log(file);
}
