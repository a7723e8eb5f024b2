/** ClusterNetworkPolicies and classes of identities in compiled maps. */
import { describe, expect, it } from 'vitest';
import {
  type CompileDelta,
  type EndpointInput,
  type NodeInput,
  PolicyCompiler,
} from '../../policy/compile/compiler.js';
import type { Resource } from '../../policy/model/resources.js';
import { parseSources } from '../../policy/schema/parse.js';
import { Simulation } from './simulation.js';

type NoPolicy = 'Network' | 'Container' | 'HostPolicy' | 'Service' | 'EndpointSlice' | 'Node' | 'Pod';
const NO_POLICY: ReadonlySet<string> = new Set<NoPolicy>([
  'Network',
  'Container',
  'HostPolicy',
  'Service',
  'EndpointSlice',
  'Node',
  'Pod',
]);

const read = (text: string): Exclude<Resource, { kind: NoPolicy }>[] => {
  const { resources, errors } = parseSources([{ file: 'p.yaml', text }]);
  expect(errors.map((error) => error.toLine())).toEqual([]);
  return resources.filter(
    (resource): resource is Exclude<Resource, { kind: NoPolicy }> => !NO_POLICY.has(resource.kind),
  );
};

const cluster = (name: string, tier: string, priority: number, rules: string): string =>
  `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: ${name}}
spec: {tier: ${tier}, priority: ${priority}, subject: {namespaces: {}}, ${rules}}
---
`;
const deny = 'ingress: [{name: stop, action: Deny, from: [{namespaces: {}}]}]';
const accept = 'ingress: [{action: Accept, from: [{namespaces: {}}]}]';
const pass = 'ingress: [{action: Pass, from: [{namespaces: {}}]}]';
const isolate = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: isolate, namespace: shop}
spec: {podSelector: {}}
`;

const pod = (id: string, address: string, namespace = 'shop'): EndpointInput => ({
  kind: 'Endpoint',
  id,
  name: id,
  namespace,
  labels: { pod: id },
  ports: [],
  ipv4: address,
});
const A = pod('a', '10.0.0.1');
const B = pod('b', '10.0.0.2', 'bank');

interface Outcome {
  readonly allowed: boolean;
  readonly by: string;
}

/** What decides about a connection from `b` to `a`. */
function judge(text: string): Outcome {
  const compiler = new PolicyCompiler();
  const maps = new Simulation();
  maps.apply(compiler.update({ upsert: [...read(text), A, B], remove: [] }));
  const from = { id: 'b', address: B.ipv4 ?? '' };
  const { ingress } = maps.verdict(from, { id: 'a', address: A.ipv4 ?? '' }, 'TCP', 80);
  const rule = compiler.describeRule(ingress.rule);
  return { allowed: ingress.allowed, by: rule === undefined ? 'nothing' : rule.policy };
}

describe('tiers', () => {
  it.each([
    ['allow what nothing decides', '', true, 'nothing'],
    [
      'put the lower number first',
      cluster('x', 'Admin', 2, deny) + cluster('y', 'Admin', 1, accept),
      true,
      'y',
    ],
    [
      'put equal numbers in the order of names',
      cluster('y', 'Admin', 1, accept) + cluster('x', 'Admin', 1, deny),
      false,
      'x',
    ],
    ['put Admin before NetworkPolicy', cluster('x', 'Admin', 9, accept) + isolate, true, 'x'],
    [
      'leave what Admin passes to NetworkPolicy',
      cluster('x', 'Admin', 1, pass) + cluster('y', 'Admin', 2, accept) + isolate,
      false,
      'isolate',
    ],
    ['put NetworkPolicy before Baseline', cluster('x', 'Baseline', 1, accept) + isolate, false, 'isolate'],
    ['use Baseline where nothing isolates', cluster('x', 'Baseline', 1, deny), false, 'x'],
    [
      'go from Admin to Baseline',
      cluster('x', 'Admin', 1, pass) + cluster('y', 'Baseline', 1, deny),
      false,
      'y',
    ],
    [
      'allow what Baseline passes',
      cluster('x', 'Baseline', 1, pass) + cluster('y', 'Baseline', 2, deny),
      true,
      'nothing',
    ],
  ])('%s', (_, text, allowed, by) => {
    expect(judge(text)).toEqual({ allowed, by });
  });

  it('are found in the description of a rule', () => {
    const compiler = new PolicyCompiler();
    const { peers } = compiler.update({
      upsert: [...read(cluster('x', 'Baseline', 1, deny)), A, B],
      remove: [],
    });
    const rule = peers.set.find(([, , value]) => value.rule !== 0)?.[2].rule ?? 0;
    expect(compiler.describeRule(rule)).toEqual({
      kind: 'ClusterNetworkPolicy',
      tier: 'Baseline',
      direction: 'ingress',
      policy: 'x',
      index: 0,
      name: 'stop',
      action: 'Deny',
      file: 'p.yaml',
      line: 4,
    });
  });

  it('change with a priority alone', () => {
    const compiler = new PolicyCompiler();
    const maps = new Simulation();
    const verdict = (): boolean =>
      maps.verdict({ id: 'b', address: '10.0.0.2' }, { id: 'a', address: '10.0.0.1' }, 'TCP', 80).allowed;
    const both = cluster('x', 'Admin', 1, accept) + cluster('y', 'Admin', 5, deny);
    maps.apply(compiler.update({ upsert: [...read(both), A, B], remove: [] }));
    expect(verdict()).toBe(true);
    const delta = compiler.update({ upsert: read(cluster('x', 'Admin', 6, accept)), remove: [] });
    maps.apply(delta);
    expect(verdict()).toBe(false);
    expect(delta.mustReevaluate).toBe(true);
    maps.apply(compiler.update({ upsert: [], remove: [{ kind: 'ClusterNetworkPolicy', name: 'y' }] }));
    expect(verdict()).toBe(true);
  });
});

const writes = (delta: CompileDelta): number =>
  delta.peers.set.length + delta.peers.delete.length + delta.peers.transient.length;

describe('entries', () => {
  const many = Array.from({ length: 100 }, (_, i) => pod(`p${i}`, `10.0.1.${i}`, `n${i % 7}`));
  const setOf = (compiler: PolicyCompiler, direction: string): number =>
    compiler.sets().find((set) => set.direction === direction)?.entries ?? 0;

  it('of a rule for all pods do not grow with them', () => {
    const compiler = new PolicyCompiler();
    const text = isolate.replace(
      'podSelector: {}',
      'podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]',
    );
    compiler.update({ upsert: [...read(text), A, ...many], remove: [] });
    expect(setOf(compiler, 'ingress')).toBe(2);
    expect(writes(compiler.update({ upsert: [pod('late', '10.0.2.1', 'n1')], remove: [] }))).toBe(0);
    expect(writes(compiler.update({ upsert: [], remove: [{ kind: 'Endpoint', id: 'p1' }] }))).toBe(0);
  });

  it('of a rule for the internet do not grow with the CIDRs of other policies', () => {
    const compiler = new PolicyCompiler();
    const internet = isolate.replace(
      'podSelector: {}',
      'podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]',
    );
    const other = (count: number): string => {
      const blocks = Array.from({ length: count }, (_, i) => `{ipBlock: {cidr: 203.0.${i}.0/24}}`);
      return isolate
        .replace('isolate, namespace: shop', 'other, namespace: bank')
        .replace(
          'podSelector: {}',
          `podSelector: {}, policyTypes: [Egress], egress: [{to: [${blocks.join(', ')}]}]`,
        );
    };
    compiler.update({ upsert: [...read(internet), ...read(other(10)), A, B, ...many], remove: [] });
    // Any peer, any network, and the exception with what it contains: 10.0.0.0/8 is no internet.
    const before = setOf(compiler, 'egress');
    expect(before).toBe(3);
    compiler.update({ upsert: read(other(90)), remove: [] });
    expect(setOf(compiler, 'egress')).toBe(before);
  });

  it('for all addresses of both families are those for any peer', () => {
    const compiler = new PolicyCompiler();
    const text = cluster('x', 'Admin', 1, 'egress: [{action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}]');
    compiler.update({ upsert: [...read(text), A, ...many], remove: [] });
    expect(setOf(compiler, 'egress')).toBe(1);
    expect(compiler.fullState().cidrs).toEqual([]);
  });
});

it('nodes are selected by their labels, and by nothing else', () => {
  const compiler = new PolicyCompiler();
  const maps = new Simulation();
  const node = (labels: NodeInput['labels'], ...addresses: string[]): NodeInput => ({
    kind: 'Node',
    name: 'n1',
    labels,
    addresses,
  });
  const text = cluster(
    'x',
    'Admin',
    1,
    'egress: [{action: Accept, to: [{nodes: {matchLabels: {os: linux}}}]}, {action: Deny, to: [{networks: [172.18.0.0/16]}, {namespaces: {}}]}]',
  );
  maps.apply(
    compiler.update({ upsert: [...read(text), A, node({ os: 'linux' }, '172.18.0.2')], remove: [] }),
  );
  const reach = (address: string): boolean =>
    maps.verdict({ id: 'a', address: '10.0.0.1' }, { address }, 'TCP', 1).allowed;
  expect([reach('172.18.0.2'), reach('172.18.0.3')]).toEqual([true, false]);
  maps.apply(compiler.update({ upsert: [node({ os: 'linux' }, '172.18.0.3', 'fd00::3')], remove: [] }));
  expect([reach('172.18.0.2'), reach('172.18.0.3'), reach('fd00::3')]).toEqual([false, true, true]);
  const relabelled = compiler.update({ upsert: [node({ os: 'other' }, '172.18.0.3')], remove: [] });
  expect(relabelled.mustReevaluate).toBe(true);
  expect(relabelled.endpoints).toEqual([]);
  maps.apply(relabelled);
  expect(reach('172.18.0.3')).toBe(false);
  maps.apply(compiler.update({ upsert: [], remove: [{ kind: 'Node', name: 'n1' }] }));
  maps.apply(compiler.settle());
  maps.check(compiler.fullState(), ['a']);
  expect(compiler.identities().filter((identity) => identity.labels.os !== undefined)).toEqual([]);
});
