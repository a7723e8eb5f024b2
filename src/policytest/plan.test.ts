import { describe, expect, it } from 'vitest';
import { formatAddress } from '../../policy/address.js';
import { parsePolicyTests } from '../../policy/schema/policy-test.js';
import { planTest } from './plan.js';

const pod = (name: string, ips: string, more = ''): string =>
  `{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: ${name}}, spec: {${more}}, status: {podIPs: [${ips
    .split(' ')
    .filter((ip) => ip !== '')
    .map((ip) => `{ip: "${ip}"}`)
    .join(', ')}]}}`;
const network = (name: string, four: string): string =>
  `{apiVersion: sluice.dev/v1alpha1, kind: Network, metadata: {name: ${name}}, spec: {mode: routed, ipv4: {cidr: ${four}}}}`;
const container = (name: string, networks: string): string =>
  `{apiVersion: sluice.dev/v1alpha1, kind: Container, metadata: {namespace: x, name: ${name}}, spec: {netns: ${name}, networks: [${networks}]}}`;

function plan(spec: string) {
  const text = `apiVersion: sluice.dev/v1alpha1\nkind: PolicyTest\nspec:\n${spec}\n`;
  const { tests, errors } = parsePolicyTests({ file: 't.yaml', text });
  expect(errors.map((error) => error.toLine())).toEqual([]);
  const [test] = tests;
  if (test === undefined) throw new Error('no test');
  return planTest(test, []);
}

/** `from > to` addresses of every probe of a step. */
function ends(planned: ReturnType<typeof plan>, step = 0): string[] {
  expect(planned.errors.map((error) => error.toLine())).toEqual([]);
  return (planned.plan?.steps[step]?.probes ?? []).map(
    ({ from, to }) => `${formatAddress(from.address)} > ${formatAddress(to.address)}`,
  );
}

const probe = (from: string, to: string, more = ''): string =>
  `  - {from: "${from}", to: "${to}", port: 1, expect: allow${more}}`;

describe('a plan', () => {
  it('takes IPv4 if both have it, else IPv6, else what is asked for', () => {
    const resources = [pod('both', '10.0.0.1 fd00::1'), pod('four', '10.0.0.2'), pod('six', 'fd00::3')];
    const planned = plan(
      `  resources: [${resources.join(', ')}]\n  probes:\n${[
        probe('x/both', 'x/four'),
        probe('x/both', 'x/six'),
        probe('x/both', 'x/both', ', family: ipv6'),
        probe('x/both', '2001:db8::1'),
      ].join('\n')}`,
    );
    expect(ends(planned)).toEqual([
      '10.0.0.1 > 10.0.0.2',
      'fd00::1 > fd00::3',
      'fd00::1 > fd00::1',
      'fd00::1 > 2001:db8::1',
    ]);
  });

  it('gives containers the addresses that they would get, and takes the network that both are in', () => {
    const resources = [
      network('a', '10.1.0.0/24'),
      network('b', '10.2.0.0/24'),
      container('one', 'a, b'),
      container('two', '{name: b, ipv4: 10.2.0.2}'),
    ];
    const planned = plan(
      `  resources: [${resources.join(', ')}]\n  probes:\n${[probe('x/one', 'x/two'), probe('x/one', '192.0.2.1')].join('\n')}`,
    );
    expect(ends(planned)).toEqual(['10.2.0.3 > 10.2.0.2', '10.1.0.2 > 192.0.2.1']);
  });

  it('knows an address by whose it is, and a pod of the node by the address of its node', () => {
    const node =
      '{apiVersion: v1, kind: Node, metadata: {name: n}, status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}}';
    const resources = [
      node,
      pod('a', '10.0.0.1', 'nodeName: n'),
      pod('h', '', 'nodeName: n, hostNetwork: true'),
    ];
    const planned = plan(
      `  resources: [${resources.join(', ')}]\n  probes:\n${[probe('10.0.0.1', 'x/h'), probe('10.9.0.1', 'x/a')].join('\n')}`,
    );
    expect(ends(planned)).toEqual(['10.0.0.1 > 10.9.0.1', '10.9.0.1 > 10.0.0.1']);
    const [first, second] = planned.plan?.steps[0]?.probes ?? [];
    expect(first).toMatchObject({ from: { endpoint: { id: 'x/a' }, node: 'n' }, to: { node: 'n' } });
    expect(first?.to.endpoint).toBeUndefined();
    expect(second?.from).toMatchObject({ node: 'n' });
  });

  it('follows steps: an address goes from one pod to another, a namespace takes its pods along', () => {
    const planned = plan(
      `  resources: [${pod('a', '10.0.0.1')}, ${pod('b', '10.0.0.2')}, {apiVersion: v1, kind: Namespace, metadata: {name: x}}]
  probes:
${probe('x/a', 'x/b')}
  steps:
  - delete: [{kind: Pod, namespace: x, name: b}]
    apply: [${pod('c', '10.0.0.2')}]
    probes:
  ${probe('x/a', '10.0.0.2')}
  - delete: [{kind: Namespace, name: x}]
    apply: [${pod('d', '10.0.0.2')}]
    probes:
  ${probe('10.0.0.1', 'x/d')}`,
    );
    expect(ends(planned, 1)).toEqual(['10.0.0.1 > 10.0.0.2']);
    expect(planned.plan?.steps[1]?.probes[0]?.to.endpoint?.id).toBe('x/c');
    expect(planned.plan?.steps[2]?.change.endpoints.remove.map(({ id }) => id)).toEqual(['x/a', 'x/c']);
    expect(planned.plan?.steps[2]?.probes[0]?.from.endpoint).toBeUndefined();
    expect(planned.plan?.endpoints).toBe(2);
  });

  const a = pod('a', '10.0.0.1');
  it.each([
    [
      'a name that nobody has',
      [a],
      [probe('x/a', 'x/aa')],
      't.yaml:6: spec.probes[0].to: "x/aa" is neither an address nor namespace/name of a Pod or Container; did you mean "x/a"? (SLU1607)',
    ],
    [
      'an address that is none',
      [a],
      [probe('10.0.0.300', 'x/a')],
      't.yaml:6: spec.probes[0].from: "10.0.0.300" is neither an address nor namespace/name of a Pod or Container (SLU1607)',
    ],
    [
      'no address',
      [a, pod('b', '')],
      [probe('x/a', 'x/b')],
      't.yaml:6: spec.probes[0].to: x/b has no address: a Pod needs status.podIPs, a Container a network that gives it one (SLU1609)',
    ],
    [
      'two families',
      [a],
      [probe('x/a', 'fd00::1')],
      't.yaml:6: spec.probes[0]: x/a and fd00::1 do not both have an address of one family (SLU1608)',
    ],
    [
      'the wrong family',
      [a],
      [probe('x/a', 'x/a', ', family: ipv6')],
      't.yaml:6: spec.probes[0].family: x/a and x/a do not both have an IPv6 address (SLU1608)',
    ],
    [
      'two pods with one address',
      [a, pod('b', '10.0.0.1')],
      [probe('x/a', 'x/a')],
      't.yaml:4: 10.0.0.1 is already the address of x/a: an address belongs to one at a time (SLU1606)',
    ],
    [
      'an object twice',
      [a, a],
      [probe('x/a', 'x/a')],
      't.yaml:4: metadata.name: Pod x/a is defined twice (also in t.yaml:4): remove or rename one (SLU1301)',
    ],
    [
      'a pod and a container of one name',
      [network('n', '10.1.0.0/24'), container('a', 'n'), a],
      [probe('x/a', 'x/a')],
      't.yaml:4: x/a is a Pod and also a Container (t.yaml:4): a probe could not tell them apart, rename one (SLU1605)',
    ],
    [
      'a network that is not there',
      [container('b', 'n')],
      [probe('192.0.2.1', '192.0.2.2')],
      'network n is not defined',
    ],
    [
      'a deletion of nothing',
      [a],
      [probe('x/a', 'x/a'), '  steps:', '  - delete: [{kind: Pod, namespace: x, name: b}]'],
      't.yaml:8: spec.steps[0].delete[0]: Pod x/b is not there to be deleted; did you mean "x/a"? (SLU1604)',
    ],
  ])('says where there is %s', (_, resources, probes, line) => {
    const { plan: none, errors } = plan(
      `  resources: [${resources.join(', ')}]\n  probes:\n${probes.join('\n')}`,
    );
    expect(none).toBeUndefined();
    expect(errors.map((error) => error.toLine()).join('\n')).toContain(line);
    expect(errors).toHaveLength(1);
  });
});
