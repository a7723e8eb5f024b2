/** `sluice policy test` as its users run it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { must, needBuild, run, SLUICE } from './process.js';

const EXAMPLE = fileURLToPath(new URL('../../examples/policy-test/shop.yaml', import.meta.url));
const KEYS = [
  'file',
  'test',
  'step',
  'from',
  'to',
  'port',
  'protocol',
  'family',
  'expect',
  'verdict',
  'reason',
  'rule',
];
const PODS = `apiVersion: v1
kind: Pod
metadata: {namespace: x, name: a}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {namespace: x, name: b, labels: {app: b}}
status: {podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: x, name: closed}
spec: {podSelector: {matchLabels: {app: b}}}
`;
const test = (name: string, probes: string): string =>
  `apiVersion: sluice.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: ${name}}\nspec:\n  files: [policies]\n  probes: [${probes}]\n`;
const DENIED = '{from: x/a, to: x/b, port: 80, expect: deny}';
const DIFFERS = '{from: x/a, to: x/b, protocol: ICMP, expect: allow}';

let folder: string;
beforeAll(() => {
  needBuild();
  folder = mkdtempSync(join(tmpdir(), 'sluice-ptest-'));
  must('chmod', '755', folder);
  mkdirSync(join(folder, 'policies'));
  writeFileSync(join(folder, 'policies', 'x.yaml'), PODS);
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const policyTest = (...args: string[]) => run([SLUICE, 'policy', 'test', ...args]);
const linesOf = (text: string): string[] => text.split('\n').filter((line) => line !== '');

describe('sluice policy test', () => {
  it('runs the example', () => {
    const { code, out, err } = policyTest(EXAMPLE);
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const lines = linesOf(out);
    expect(lines[1]).toMatch(/^ +STEP +FROM +TO +PORT +FAMILY +EXPECT +VERDICT +REASON +RULE$/);
    expect(lines.slice(2, -1).every((line) => line.startsWith('ok '))).toBe(true);
    expect(lines.at(-1)).toBe('17 probes, all as expected.');
  });

  it('prints a line of JSON a probe, in order, and says with its status whether one differs', () => {
    const one = file('one.yaml', test('first', `${DENIED}, ${DIFFERS}`) + `---\n${test('second', DENIED)}`);
    const two = file(
      'two.json',
      JSON.stringify({
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'PolicyTest',
        spec: {
          files: ['policies'],
          probes: [],
          steps: [
            { probes: [{ from: '2001:db8::1', to: 'x/b', port: 53, protocol: 'UDP', expect: 'deny' }] },
          ],
        },
      }),
    );
    const { code, out, err } = policyTest('-o', 'jsonl', one, two);
    expect({ code, err }).toEqual({ code: 1, err: '' });
    const results = linesOf(out).map((line) => JSON.parse(line) as Record<string, unknown>);
    for (const result of results) expect(Object.keys(result)).toEqual(KEYS);
    const rule = 'NetworkPolicy x/closed (default deny ingress)';
    const common = { from: 'x/a', to: 'x/b', verdict: 'deny', reason: 'policy_ingress', rule, step: 0 };
    const tcp = { ...common, file: one, port: 80, protocol: 'TCP', family: 'ipv4', expect: 'deny' };
    expect(results).toEqual([
      { ...tcp, test: 'first' },
      { ...tcp, test: 'first', port: null, protocol: 'ICMP', expect: 'allow' },
      { ...tcp, test: 'second' },
      {
        ...tcp,
        file: two,
        test: '',
        step: 1,
        from: '2001:db8::1',
        port: 53,
        protocol: 'UDP',
        family: 'ipv6',
      },
    ]);
    const failed = policyTest('--failed', one, two);
    expect(failed.code).toBe(1);
    expect(linesOf(failed.out).filter((line) => line.startsWith('DIFFERS'))).toHaveLength(1);
    expect(linesOf(failed.out).at(-1)).toBe('4 probes, 1 differs.');
  });

  it('reads standard input', () => {
    const input = `apiVersion: sluice.dev/v1alpha1\nkind: PolicyTest\nspec: {probes: [{from: 10.0.0.1, to: 10.0.0.2, port: 1, expect: allow}]}\n`;
    expect(run([SLUICE, 'policy', 'test', '-'], { input })).toMatchObject({ code: 0, err: '' });
  });

  it.each([
    ['no such file', () => join(folder, 'none.yaml'), /none\.yaml: cannot read: /],
    [
      'no such definitions',
      () => file('files.yaml', test('t', DENIED).replace('[policies]', '[policy]')),
      /files\.yaml:5: spec\.files\[0\]: cannot read \S+policy: it does not exist \(SLU1610\)$/,
    ],
    [
      'an unknown pod',
      () => file('pod.yaml', test('t', '{from: x/a, to: x/c, port: 1, expect: deny}')),
      /pod\.yaml:6: spec\.probes\[0\]\.to: "x\/c" is neither .* \(SLU1607\)$/,
    ],
    ['a folder without tests', () => join(folder, 'policies'), /x\.yaml:2: kind: must be PolicyTest/],
  ])('with %s ends with status 2 and says where', (_, path, line) => {
    const { code, out, err } = policyTest(path());
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(linesOf(err)[0]).toMatch(line);
  });

  it('runs nothing when one of several files is wrong', () => {
    const { code, out, err } = policyTest(EXAMPLE, file('wrong.yaml', 'kind: PolicyTest\n'));
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(linesOf(err)).toHaveLength(1);
  });

  it('needs root', () => {
    const user = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all'];
    const path = file('user.yaml', test('t', DENIED));
    const { code, out, err } = run([...user, SLUICE, 'policy', 'test', path], { env: { HOME: '/' } });
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toMatch(/^sluice: not enough rights: [^\n]+ \(SLU2101\)\n$/);
  });

  it('says what a wrong command line should be', () => {
    for (const args of [
      ['policy'],
      ['policy', 'tset'],
      ['policy', 'test'],
      ['policy', 'test', '-o', 'xml', 'f'],
    ]) {
      const { code, out, err } = run([SLUICE, ...args]);
      expect({ args, code, out }).toEqual({ args, code: 2, out: '' });
      expect(linesOf(err)).toHaveLength(1);
    }
  });
});
