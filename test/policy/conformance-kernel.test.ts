/** The public conformance suites, as policy tests: every probe decided by the BPF program. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parsePolicyTests } from '../../policy/schema/policy-test.js';
import { type PlannedTest, planTest } from '../../src/policytest/plan.js';
import { PolicyTestRunner } from '../../src/policytest/run.js';
import { type Case, conformanceSuites, policyTestOf, readSuite } from './conformance-cases.js';

const suites = conformanceSuites();

let runner: PolicyTestRunner | undefined;
beforeAll(() => {
  if (suites.length === 0) return;
  runner = PolicyTestRunner.open(64);
});
afterAll(() => runner?.close());

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

describe.skipIf(suites.length === 0)('policy conformance, by the BPF program', () => {
  it.each(suites)('%s', (path) => {
    let expected = 0;
    let probes = 0;
    const differences: string[] = [];
    for (const one of readSuite(path)) {
      expected += one.probes?.length ?? 0;
      for (const step of one.steps ?? []) expected += step.probes.length;
      runner?.run(planOf(one), ({ test, step, probe, verdict, reason, rule }) => {
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
