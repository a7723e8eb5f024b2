import { describe, expect, it } from 'vitest';
import { parsePolicyTests } from './policy-test.js';

const HEAD = 'apiVersion: sluice.dev/v1alpha1\nkind: PolicyTest\n';
const lines = (text: string): string[] =>
  parsePolicyTests({ file: 't.yaml', text }).errors.map((error) => error.toLine());

describe('PolicyTest', () => {
  it('is read with its resources, probes and steps', () => {
    const { tests, errors } = parsePolicyTests({
      file: 't.yaml',
      text: `${HEAD}metadata: {name: shop}
spec:
  files: [../policies]
  resources:
  - {apiVersion: v1, kind: Namespace, metadata: {name: x}}
  probes:
  - {from: x/a, to: y/b, port: 80, protocol: TCP, expect: allow}
  - {from: "2001:db8::7", to: y/b, protocol: ICMP, family: ipv6, expect: deny}
  - {from: x/a, to: y/b, port: 53, expect: deny}
  steps:
  - apply:
    - {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}}
    delete: [{kind: Pod, namespace: y, name: b}, {kind: Node, name: n}]
    probes: [{from: x/a, to: 10.0.0.1, port: 1, protocol: SCTP, expect: allow}]
  -
---
${HEAD}spec: {probes: [{from: a/b, to: a/b, port: 1, expect: allow}]}
`,
    });
    expect(errors.map((error) => error.toLine())).toEqual([]);
    expect(tests).toMatchObject([
      {
        name: 'shop',
        files: ['../policies'],
        steps: [
          {
            apply: [{ kind: 'Namespace', name: 'x', origin: { line: 7 } }],
            delete: [],
            probes: [
              { from: 'x/a', to: 'y/b', port: 80, protocol: 'TCP', expect: 'allow' },
              { from: '2001:db8::7', protocol: 'ICMP', family: 6, expect: 'deny' },
              { port: 53, protocol: 'TCP' },
            ],
          },
          {
            apply: [{ kind: 'Pod', namespace: 'x', name: 'a' }],
            delete: [
              { kind: 'Pod', namespace: 'y', name: 'b' },
              { kind: 'Node', name: 'n' },
            ],
            probes: [{ protocol: 'SCTP', port: 1 }],
          },
          { apply: [], delete: [], probes: [] },
        ],
      },
      { name: '', steps: [{}] },
    ]);
    const step = tests[0]?.steps[1];
    expect(step?.probePlace(0, 'to')).toEqual({
      file: 't.yaml',
      line: 16,
      field: 'spec.steps[0].probes[0].to',
    });
    expect(step?.deletionPlace(1)).toMatchObject({ line: 15, field: 'spec.steps[0].delete[1]' });
  });

  it('is the same in JSON', () => {
    const probe = { from: 'x/a', to: 'y/b', port: 80, expect: 'allow' };
    const text = JSON.stringify({
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'PolicyTest',
      spec: { probes: [probe] },
    });
    const { tests, errors } = parsePolicyTests({ file: 't.json', text });
    expect(errors).toEqual([]);
    expect(tests[0]?.steps[0].probes).toEqual([{ ...probe, protocol: 'TCP' }]);
  });

  const probes = (text: string): string => `${HEAD}spec:\n  probes:\n  - ${text}\n`;
  it.each([
    ['nothing', '', 't.yaml:1: the file has no document of kind PolicyTest (SLU1601)'],
    [
      'another kind',
      'apiVersion: v1\nkind: Pod\n',
      't.yaml:2: kind: must be PolicyTest of apiVersion sluice.dev/v1alpha1, not "Pod" of "v1" (SLU1602)',
    ],
    [
      'another version',
      'apiVersion: v2\nkind: PolicyTest\n',
      't.yaml:1: apiVersion: must be PolicyTest of apiVersion sluice.dev/v1alpha1, not "PolicyTest" of "v2" (SLU1602)',
    ],
    ['no spec', HEAD, 't.yaml:1: spec: is required (a mapping) (SLU1104)'],
    [
      'no probes',
      `${HEAD}spec: {resources: []}\n`,
      't.yaml:3: spec.probes: the test has no probes: add some (SLU1603)',
    ],
    [
      'an unknown field',
      `${HEAD}spec: {probe: []}\n`,
      't.yaml:3: spec: unknown field "probe"; did you mean "probes"? (SLU1103)',
    ],
    ['a probe that is none', probes('x'), 't.yaml:5: spec.probes[0]: must be a mapping, not "x" (SLU1105)'],
    [
      'a probe without expectation',
      probes('{from: a/b, to: a/b, port: 1}'),
      't.yaml:5: spec.probes[0].expect: is required; one of allow, deny (SLU1104)',
    ],
    [
      'an expectation that is none',
      probes('{from: a/b, to: a/b, port: 1, expect: alow}'),
      't.yaml:5: spec.probes[0].expect: must be one of allow, deny, not "alow"; did you mean "allow"? (SLU1107)',
    ],
    [
      'a port missing',
      probes('{from: a/b, to: a/b, expect: deny}'),
      't.yaml:5: spec.probes[0].port: is required (a number from 1 to 65535) (SLU1106)',
    ],
    [
      'a port too high',
      probes('{from: a/b, to: a/b, port: 65536, expect: deny}'),
      't.yaml:5: spec.probes[0].port: must be a whole number from 0 to 65535, not 65536 (SLU1106)',
    ],
    [
      'port 0',
      probes('{from: a/b, to: a/b, port: 0, expect: deny}'),
      't.yaml:5: spec.probes[0].port: must be a whole number from 1 to 65535, not 0 (SLU1106)',
    ],
    [
      'a protocol in small letters',
      probes('{from: a/b, to: a/b, port: 1, protocol: tcp, expect: deny}'),
      't.yaml:5: spec.probes[0].protocol: must be one of TCP, UDP, SCTP, ICMP, not "tcp"; did you mean "TCP"? (SLU1107)',
    ],
    [
      'a family that is none',
      probes('{from: a/b, to: a/b, port: 1, family: 4, expect: deny}'),
      't.yaml:5: spec.probes[0].family: must be one of ipv4, ipv6, not 4 (SLU1107)',
    ],
    [
      'a field of a probe',
      probes('{from: a/b, to: a/b, port: 1, expects: deny, expect: deny}'),
      't.yaml:5: spec.probes[0]: unknown field "expects"; did you mean "expect"? (SLU1103)',
    ],
    [
      'a resource of no kind',
      `${HEAD}spec:\n  probes: [{from: a/b, to: a/b, port: 1, expect: deny}]\n  resources:\n  - {kind: Pod}\n`,
      't.yaml:6: apiVersion: is required; every definition has apiVersion and kind (SLU1104)',
    ],
    [
      'a deletion of a kind',
      `${HEAD}spec:\n  probes: [{from: a/b, to: a/b, port: 1, expect: deny}]\n  steps:\n  - delete: [{kind: Pods, name: a}]\n`,
      'must be one of',
    ],
    [
      'a deletion in a namespace',
      `${HEAD}spec:\n  probes: [{from: a/b, to: a/b, port: 1, expect: deny}]\n  steps:\n  - delete: [{kind: Node, namespace: x, name: a}]\n`,
      't.yaml:6: spec.steps[0].delete[0].namespace: must be left out: a Node belongs to no namespace (SLU1106)',
    ],
    [
      'a policy that is wrong',
      `${HEAD}spec:\n  probes: [{from: a/b, to: a/b, port: 1, expect: deny}]\n  resources:\n  - apiVersion: networking.k8s.io/v1\n    kind: NetworkPolicy\n    metadata: {name: p}\n    spec:\n      podSelector: {}\n      ingress:\n      - ports: [{port: 0}]\n`,
      't.yaml:12: spec.ingress[0].ports[0].port: must be a whole number from 1 to 65535, not 0 (SLU1106)',
    ],
    ['text that is no YAML', 'a: [\n', 't.yaml:2'],
  ])('says where it has %s', (_, text, line) => {
    const found = lines(text);
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(line);
  });
});
