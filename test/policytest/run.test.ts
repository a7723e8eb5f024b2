/** Policy tests through the real programs: nodes, hosts, networks of containers, steps. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parsePolicyTests } from '../../policy/schema/policy-test.js';
import { planTest } from '../../src/policytest/plan.js';
import { resultLine } from '../../src/policytest/report.js';
import { PolicyTestRunner, type ProbeResult } from '../../src/policytest/run.js';

let runner: PolicyTestRunner;
beforeAll(() => {
  runner = PolicyTestRunner.open(16);
});
afterAll(() => runner.close());

function results(spec: string): ProbeResult[] {
  const text = `apiVersion: sluice.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: t}\nspec:\n${spec}\n`;
  const { tests, errors } = parsePolicyTests({ file: 't.yaml', text });
  expect(errors.map((error) => error.toLine())).toEqual([]);
  const out: ProbeResult[] = [];
  for (const test of tests) {
    const { plan, errors: wrong } = planTest(test, []);
    expect(wrong.map((error) => error.toLine())).toEqual([]);
    if (plan !== undefined) runner.run(plan, (result) => out.push(result));
  }
  return out;
}

/** Probes whose verdict is not the expected one. */
function differences(spec: string): string[] {
  const all = results(spec);
  expect(all.length).toBeGreaterThan(0);
  return all
    .filter(({ verdict, probe }) => verdict !== probe.expect)
    .map((result) => JSON.stringify(resultLine(result)));
}

const pod = (name: string, ip: string, more = '', labels = ''): string =>
  `  - {apiVersion: v1, kind: Pod, metadata: {namespace: x, name: ${name}, labels: {${labels}}}, spec: {${more}}, status: {podIPs: [${ip
    .split(' ')
    .map((one) => `{ip: "${one}"}`)
    .join(', ')}]}}`;
const node = (name: string, ip: string): string =>
  `  - {apiVersion: v1, kind: Node, metadata: {name: ${name}, labels: {host: ${name}}}, status: {addresses: [{type: InternalIP, address: ${ip}}]}}`;
const policy = (name: string, spec: string): string =>
  `  - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: x, name: ${name}}, spec: {${spec}}}`;
const probe = (from: string, to: string, expect: string, more = 'port: 80'): string =>
  `  - {from: "${from}", to: "${to}", ${more}, expect: ${expect}}`;

const CLUSTER = [
  node('n1', '192.168.0.1'),
  node('n2', '192.168.0.2'),
  pod('a', '10.1.0.1 fd00:1::1', 'nodeName: n1', 'app: a'),
  pod('b', '10.1.0.2 fd00:1::2', 'nodeName: n1', 'app: b'),
  pod('c', '10.2.0.1 fd00:2::1', 'nodeName: n2', 'app: c'),
  pod('stray', '10.3.0.1', '', 'app: a'),
  pod('host1', '192.168.0.1', 'nodeName: n1, hostNetwork: true', 'app: a'),
  pod('host2', '192.168.0.2', 'nodeName: n2, hostNetwork: true', 'app: a'),
].join('\n');

describe('nodes', () => {
  it('decide egress where the sender is and ingress where the receiver is', () => {
    const policies = [
      policy(
        'from-a',
        'podSelector: {matchLabels: {app: c}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]',
      ),
      policy(
        'b-out',
        'podSelector: {matchLabels: {app: b}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: a}}}]}]',
      ),
    ];
    const probes = [
      probe('x/a', 'x/c', 'allow'),
      probe('x/a', 'x/c', 'allow', 'port: 80, family: ipv6'),
      probe('x/stray', 'x/c', 'allow'),
      probe('x/b', 'x/c', 'deny'),
      probe('x/b', 'x/a', 'allow'),
      probe('x/b', 'x/stray', 'allow'),
      probe('x/c', 'x/b', 'allow'),
      probe('x/c', 'x/c', 'allow'),
      probe('203.0.113.7', 'x/c', 'deny', 'protocol: ICMP'),
      probe('x/b', '203.0.113.7', 'deny', 'port: 53, protocol: UDP'),
    ];
    const all = results(
      `  resources:\n${[CLUSTER, ...policies].join('\n')}\n  probes:\n${probes.join('\n')}`,
    );
    expect(all.filter(({ verdict, probe: { expect: wanted } }) => verdict !== wanted)).toEqual([]);
    expect(all.map(({ reason }) => reason)).toEqual([
      ...Array<string>(3).fill('forwarded'),
      'policy_egress',
      ...Array<string>(4).fill('forwarded'),
      'policy_ingress',
      'policy_egress',
    ]);
    expect(all[0]?.rule).toBe('NetworkPolicy x/from-a, ingress rule 0 (t.yaml:14)');
    expect(all[3]?.rule).toBe('NetworkPolicy x/b-out (default deny egress)');
    expect(all[6]?.rule).toBeUndefined();
  });

  it('reach their own pods and are reached by them, and are peers like others for the rest', () => {
    const closed = policy('closed', 'podSelector: {}, policyTypes: [Ingress, Egress]');
    const probes = [
      probe('192.168.0.1', 'x/a', 'allow'),
      probe('x/host1', 'x/a', 'allow', 'protocol: ICMP'),
      probe('x/a', '192.168.0.1', 'allow'),
      probe('x/a', 'x/host1', 'allow'),
      probe('192.168.0.2', 'x/a', 'deny'),
      probe('x/host2', 'x/a', 'deny'),
      probe('x/a', 'x/host2', 'deny'),
      probe('192.168.0.1', 'x/c', 'deny'),
      probe('x/host1', 'x/host2', 'allow'),
      probe('203.0.113.7', 'x/host1', 'allow'),
      probe('x/host1', '203.0.113.7', 'allow'),
      probe('203.0.113.7', '203.0.113.8', 'allow'),
      probe('192.168.0.1', 'x/stray', 'deny'),
      probe('x/a', 'x/a', 'allow'),
      probe('x/a', 'x/b', 'deny'),
    ];
    expect(differences(`  resources:\n${CLUSTER}\n${closed}\n  probes:\n${probes.join('\n')}`)).toEqual([]);
  });

  it('are what ipBlocks and node peers say of their addresses', () => {
    const some = policy(
      'some',
      'podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 192.168.0.0/24, except: [192.168.0.2/32]}}]}]',
    );
    const cluster = `  - {apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {host: n2}}}]}]}}`;
    const probes = [
      probe('192.168.0.1', 'x/c', 'allow'),
      probe('192.168.0.2', 'x/a', 'deny'),
      probe('192.168.0.9', 'x/a', 'allow'),
      probe('x/a', 'x/host2', 'deny'),
      probe('x/c', 'x/host2', 'allow'),
      probe('x/a', 'x/host1', 'allow'),
      probe('x/c', 'x/host1', 'allow'),
    ];
    expect(
      differences(`  resources:\n${CLUSTER}\n${some}\n${cluster}\n  probes:\n${probes.join('\n')}`),
    ).toEqual([]);
  });
});

describe('containers', () => {
  const network = (name: string, mode: string, four: string): string =>
    `  - {apiVersion: sluice.dev/v1alpha1, kind: Network, metadata: {name: ${name}}, spec: {mode: ${mode}, ipv4: {cidr: ${four}}}}`;
  const container = (name: string, networks: string, labels = ''): string =>
    `  - {apiVersion: sluice.dev/v1alpha1, kind: Container, metadata: {namespace: x, name: ${name}, labels: {${labels}}}, spec: {netns: ${name}, networks: [${networks}]}}`;

  it('are in their networks as on an agent', () => {
    const resources = [
      network('one', 'routed', '10.1.0.0/24'),
      network('two', 'bridge', '10.2.0.0/24'),
      network('three', 'macvlan, parent: eth0', '10.3.0.0/24'),
      container('a', 'one', 'app: a'),
      container('b', 'one, two', 'app: b'),
      container('c', 'two', 'app: c'),
      container('d', 'three', 'app: d'),
      policy(
        'b-in',
        'podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: c}}}]}]',
      ),
      policy(
        'd-both',
        'podSelector: {matchLabels: {app: d}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]',
      ),
    ];
    const probes = [
      probe('x/c', 'x/b', 'allow'),
      probe('x/a', 'x/b', 'deny'),
      probe('x/a', 'x/c', 'deny'),
      probe('x/a', '10.1.0.200', 'deny'),
      probe('x/a', '10.1.0.1', 'allow'),
      probe('10.1.0.1', 'x/b', 'allow'),
      probe('x/a', 'x/d', 'allow'),
      probe('x/c', 'x/d', 'deny'),
      probe('x/d', 'x/a', 'deny'),
      probe('x/d', 'x/d', 'allow'),
    ];
    const all = results(`  resources:\n${resources.join('\n')}\n  probes:\n${probes.join('\n')}`);
    expect(all.filter(({ verdict, probe: { expect: wanted } }) => verdict !== wanted)).toEqual([]);
    expect(all.map(({ reason }) => reason)).toEqual([
      'forwarded',
      'policy_ingress',
      'network',
      'reserved',
      'forwarded',
      'forwarded',
      'forwarded',
      'policy_ingress',
      'policy_egress',
      'forwarded',
    ]);
  });
});

describe('steps', () => {
  it('change labels, addresses, nodes and policies', () => {
    const allow = policy(
      'p',
      'podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: web}]}]',
    );
    const b = (ip: string, port: number, labels = 'app: b'): string =>
      `{apiVersion: v1, kind: Pod, metadata: {namespace: x, name: b, labels: {${labels}}}, spec: {containers: [{ports: [{name: web, containerPort: ${port}}]}]}, status: {podIP: ${ip}}}`;
    const spec = `  resources:
${pod('a', '10.0.0.1', '', 'app: a')}
  - ${b('10.0.0.2', 80)}
${allow}
  probes:
${probe('x/a', 'x/b', 'allow')}
  steps:
  - apply: [${b('10.0.0.2', 8080)}]
    probes:
  ${probe('x/a', 'x/b', 'deny')}
  ${probe('x/a', 'x/b', 'allow', 'port: 8080')}
  - apply:
  ${pod('a', '10.0.0.2', 'nodeName: elsewhere', 'app: a')}
    - ${b('10.0.0.1', 80)}
    probes:
  ${probe('10.0.0.2', '10.0.0.1', 'allow')}
  ${probe('10.0.0.1', '10.0.0.2', 'allow')}
  - apply:
  ${pod('a', '10.0.0.1', '', 'app: a')}
    - ${b('10.0.0.2', 80)}
    probes:
  ${probe('10.0.0.1', '10.0.0.2', 'allow')}
  - delete: [{kind: Pod, namespace: x, name: a}]
    apply:
  ${pod('c', '10.0.0.1', '', 'app: c')}
    probes:
  ${probe('10.0.0.1', 'x/b', 'deny')}
  - delete: [{kind: NetworkPolicy, namespace: x, name: p}]
    probes:
  ${probe('x/c', 'x/b', 'allow')}`;
    expect(differences(spec)).toEqual([]);
    // The maps are as new: the same again.
    expect(differences(spec)).toEqual([]);
  });
});
