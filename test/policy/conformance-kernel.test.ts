/** The public conformance suites, as policy tests: every probe decided by the BPF program. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parsePolicyTests } from '../../policy/schema/policy-test.js';
import { type PlannedTest, planTest } from '../../src/policytest/plan.js';
import { PolicyTestRunner } from '../../src/policytest/run.js';
import { type Case, policyTestOf, readSuite, suiteFolder, suiteNames } from './conformance-cases.js';

const GROUPS = ['netpol'] as const;

let runner: PolicyTestRunner;
beforeAll(() => {
  runner = PolicyTestRunner.open(64);
});
afterAll(() => runner.close());

function planOf(one: Case): PlannedTest {
  const { tests, errors } = parsePolicyTests({ file: one.name, text: JSON.stringify(policyTestOf(one)) });
  expect(errors.map((error) => error.toLine())).toEqual([]);
  const [test] = tests;
  if (test === undefined) throw new Error('no test');
  const planned = planTest(test, []);
  expect(planned.errors.map((error) => error.toLine())).toEqual([]);
  if (planned.plan === undefined) throw new Error('no plan');
  return planned.plan;
}

for (const group of GROUPS) {
  const folder = suiteFolder(group);
  if (folder === undefined) console.warn(`conformance suites ${group} are not here, skipped`);
  describe.skipIf(folder === undefined)(`${group} by the BPF program`, () => {
    it.each(suiteNames(folder))('%s', (name) => {
      let expected = 0;
      let probes = 0;
      const differences: string[] = [];
      for (const one of readSuite(folder ?? '', name)) {
        expected += one.probes?.length ?? 0;
        for (const step of one.steps ?? []) expected += step.probes.length;
        runner.run(planOf(one), ({ test, step, probe, verdict, reason, rule }) => {
          probes++;
          if (verdict !== probe.expect)
            differences.push(`${test.name} ${step} ${JSON.stringify(probe)}: ${verdict} ${reason} ${rule}`);
        });
      }
      expect(differences).toEqual([]);
      expect(probes).toBe(expected);
      expect(probes).toBeGreaterThan(0);
    });
  });
}
