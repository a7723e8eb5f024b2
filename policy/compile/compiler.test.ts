import { describe, expect, it } from 'vitest';
import type {
  ContainerPort,
  LabelSelector,
  Labels,
  NamespaceResource,
  NetworkPolicyResource,
  PolicyPeer,
  PolicyPort,
} from '../model/resources.js';
import {
  type CompileDelta,
  type CompilerInput,
  type CompilerKey,
  type EndpointInput,
  PolicyCompiler,
} from './compiler.js';
import { VERDICT } from './types.js';

const selector = (labels: Labels): LabelSelector => ({
  requirements: Object.entries(labels).map(([key, value]) => ({ key, operator: 'In', values: [value] })),
});
const block = (cidr: string, ...except: string[]): PolicyPeer => ({ type: 'ipBlock', cidr, except });
const pods = (labels: Labels): PolicyPeer => ({ type: 'pods', podSelector: selector(labels) });
const podsOf = (namespace: Labels, labels: Labels = {}): PolicyPeer => ({
  type: 'pods',
  namespaceSelector: selector(namespace),
  podSelector: selector(labels),
});

interface Rule {
  readonly peers?: readonly PolicyPeer[];
  readonly ports?: readonly PolicyPort[];
}

function policy(
  name: string,
  subject: Labels,
  rules: { readonly ingress?: readonly Rule[]; readonly egress?: readonly Rule[] },
  line = 1,
): NetworkPolicyResource {
  const lower = (list: readonly Rule[]) =>
    list.map(({ peers = [], ports = [] }, index) => ({
      index,
      origin: { file: 'p.yaml', line: line + index + 1 },
      peers,
      ports,
    }));
  return {
    kind: 'NetworkPolicy',
    name,
    namespace: 'shop',
    origin: { file: 'p.yaml', line },
    source: {},
    podSelector: selector(subject),
    ...(rules.ingress === undefined ? {} : { ingress: lower(rules.ingress) }),
    ...(rules.egress === undefined ? {} : { egress: lower(rules.egress) }),
  };
}

function pod(
  id: string,
  labels: Labels,
  ipv4: string,
  more: {
    readonly namespace?: string;
    readonly ipv6?: string;
    readonly ports?: readonly ContainerPort[];
  } = {},
): EndpointInput {
  const { namespace = 'shop', ipv6, ports = [] } = more;
  return {
    kind: 'Endpoint',
    id,
    name: id,
    namespace,
    labels,
    ports,
    ipv4,
    ...(ipv6 === undefined ? {} : { ipv6 }),
  };
}

const namespace = (name: string, labels: Labels): NamespaceResource => ({
  kind: 'Namespace',
  name,
  labels,
  origin: { file: 'n.yaml', line: 1 },
  source: {},
});

const change = (
  compiler: PolicyCompiler,
  upsert: readonly CompilerInput[],
  remove: readonly CompilerKey[] = [],
): CompileDelta => compiler.update({ upsert, remove });
/** Number of the class that the address's identity is in. */
function classOf(compiler: PolicyCompiler, address: string): number | undefined {
  const identity = compiler.identityOf(address);
  return compiler.fullState().classes.find(([number]) => number === identity)?.[1];
}

const EMPTY = {
  addresses: { set: [], delete: [] },
  cidrs: { set: [], delete: [] },
  classes: { set: [], delete: [] },
  peers: { set: [], delete: [], transient: [] },
  ports: { set: [], delete: [] },
  endpoints: [],
  mustReevaluate: false,
};

describe('identities and sets', () => {
  it('are shared by endpoints that policies cannot tell apart', () => {
    const compiler = new PolicyCompiler();
    const delta = change(compiler, [
      policy('web', { app: 'web' }, { ingress: [{ peers: [pods({ app: 'lb' })] }] }),
      pod('w1', { app: 'web' }, '10.0.0.1', { ipv6: 'fd00::1' }),
      pod('w2', { app: 'web' }, '10.0.0.2'),
      pod('lb', { app: 'lb' }, '10.0.0.3'),
    ]);
    const [w1, w2, lb] = delta.endpoints;
    expect(w1).toMatchObject({
      id: 'w1',
      setEgress: 0,
      identity4: w2?.identity4,
      identity6: w1?.identity4,
      setIngress: w2?.setIngress,
    });
    expect(lb).toMatchObject({ setEgress: 0, setIngress: 0 });
    expect(w1?.identity4).toBeGreaterThanOrEqual(256);
    expect(delta.mustReevaluate).toBe(false);
    const set = w1?.setIngress ?? 0;
    expect(delta.peers.set).toEqual([
      [set, 0, { verdict: VERDICT.Deny, profile: 0, rule: expect.any(Number) }],
      [set, lb?.identity4, { verdict: VERDICT.Allow, profile: 0, rule: expect.any(Number) }],
    ]);
    expect(compiler.sets()).toEqual([
      { number: set, direction: 'ingress', policies: ['shop/web'], endpoints: 2, entries: 2 },
    ]);
    expect(compiler.identityOf('fd00::1')).toBe(w1?.identity4);
  });

  it('cost one address for one more endpoint of a kind', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [
      policy('web', { app: 'web' }, { ingress: [{ peers: [pods({ app: 'web' })] }] }),
      pod('w1', { app: 'web' }, '10.0.0.1'),
    ]);
    const delta = change(compiler, [pod('w2', { app: 'web' }, '10.0.0.2')]);
    expect(delta).toEqual({
      ...EMPTY,
      addresses: { set: [['10.0.0.2', expect.any(Number)]], delete: [] },
      endpoints: [expect.objectContaining({ id: 'w2' })],
    });
    expect(change(compiler, [pod('w2', { app: 'web' }, '10.0.0.2')])).toEqual(EMPTY);
  });

  it('begin at the numbers that they are told', () => {
    const compiler = new PolicyCompiler({
      firstIdentity: 1000,
      firstSet: 50,
      firstProfile: 60,
      firstRule: 70,
    });
    const { endpoints, peers, ports } = change(compiler, [
      policy('web', {}, { ingress: [{ ports: [{ protocol: 'TCP', port: 80 }] }] }),
      pod('w1', {}, '10.0.0.1'),
    ]);
    expect(endpoints).toEqual([{ id: 'w1', setEgress: 0, setIngress: 50, identity4: 1000, identity6: 0 }]);
    expect(peers.set).toEqual([[50, 0, { verdict: VERDICT.Ports, profile: 60, rule: 71 }]]);
    expect(ports.set).toEqual([
      [
        { profile: 60, protocol: 6, port: 80, prefixLength: 64 },
        { verdict: VERDICT.Allow, rule: 70 },
      ],
    ]);
  });
});

describe('endpoints on other nodes', () => {
  const isolate = policy('web', { app: 'web' }, { ingress: [{ peers: [pods({ app: 'web' })] }] });

  it('are peers and need no sets of their own', () => {
    const compiler = new PolicyCompiler();
    const far = { ...pod('far', { app: 'web' }, '10.0.1.1'), remote: true };
    expect(change(compiler, [isolate, far])).toMatchObject({ endpoints: [], peers: { set: [] } });
    expect(compiler.counts.sets).toBe(0);
    const near = change(compiler, [pod('near', { app: 'web' }, '10.0.0.1')]);
    expect(near.endpoints).toMatchObject([
      { id: 'near', setIngress: 1, identity4: compiler.identityOf('10.0.1.1') },
    ]);
    expect(compiler.sets()).toMatchObject([{ endpoints: 1 }]);
    const gone = change(compiler, [], [{ kind: 'Endpoint', id: 'near' }]);
    expect(gone.peers.delete).not.toEqual([]);
    expect([compiler.counts.sets, compiler.fullState().endpoints]).toEqual([0, []]);
  });

  it('make what is open be judged again, come or go', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [isolate, pod('near', { app: 'web' }, '10.0.0.1')]);
    const come = change(compiler, [{ ...pod('far', { app: 'lb' }, '10.0.1.1'), remote: true }]);
    const go = change(compiler, [], [{ kind: 'Endpoint', id: 'far' }]);
    expect([come.mustReevaluate, go.mustReevaluate]).toEqual([true, true]);
    expect(go.addresses.delete).toEqual(['10.0.1.1']);
  });
});

describe('changes', () => {
  it('of a label move the endpoint and cut what it had', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [
      policy('web', { app: 'web' }, { ingress: [{ peers: [pods({ app: 'lb' })] }] }),
      pod('w', { app: 'web' }, '10.0.0.1'),
      pod('lb', { app: 'lb' }, '10.0.0.2'),
    ]);
    const delta = change(compiler, [pod('lb', { app: 'x' }, '10.0.0.2')]);
    expect(delta.mustReevaluate).toBe(true);
    expect(delta.addresses.set).toEqual([['10.0.0.2', expect.any(Number)]]);
    expect(delta.peers).toEqual({ set: [], delete: [[1, expect.any(Number)]], transient: [] });
  });

  it('of a namespace change entries in place and ask for a new look', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [
      policy('web', { app: 'web' }, { ingress: [{ peers: [podsOf({ team: 'a' })] }] }),
      pod('w', { app: 'web' }, '10.0.0.1'),
      pod('c', {}, '10.0.0.2', { namespace: 'other' }),
    ]);
    const on = change(compiler, [namespace('other', { team: 'a' })]);
    expect(on).toMatchObject({
      mustReevaluate: true,
      addresses: { set: [] },
      endpoints: [],
      peers: { set: [[1, classOf(compiler, '10.0.0.2'), { verdict: VERDICT.Allow }]] },
    });
    const selected = classOf(compiler, '10.0.0.2');
    const off = change(compiler, [], [{ kind: 'Namespace', name: 'other' }]);
    expect(off).toMatchObject({
      mustReevaluate: true,
      classes: { set: [[compiler.identityOf('10.0.0.2'), classOf(compiler, '10.0.0.1')]] },
      peers: { set: [], delete: [[1, selected]], transient: [] },
    });
    expect(change(compiler, [namespace('empty', { team: 'a' })])).toEqual(EMPTY);
  });

  it('that pass a port table from one peer to another keep the table', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [
      policy(
        'web',
        { app: 'web' },
        { ingress: [{ peers: [pods({ team: 'a' })], ports: [{ protocol: 'TCP', port: 80 }] }] },
      ),
      pod('w', { app: 'web' }, '10.0.0.1'),
      pod('c', { n: 'c', team: 'a' }, '10.0.0.2'),
      pod('d', { n: 'd' }, '10.0.0.3'),
    ]);
    const before = compiler.identityOf('10.0.0.2');
    const delta = change(compiler, [
      pod('c', { n: 'c' }, '10.0.0.2'),
      pod('d', { n: 'd', team: 'a' }, '10.0.0.3'),
    ]);
    expect(delta.peers).toMatchObject({
      set: [[1, compiler.identityOf('10.0.0.3'), { profile: 1, verdict: VERDICT.Ports }]],
      delete: [[1, before]],
    });
    expect(delta.ports).toEqual({ set: [], delete: [] });
    expect(compiler.fullState().ports).toHaveLength(1);
  });

  it('of nothing but positions write nothing', () => {
    const compiler = new PolicyCompiler();
    const rules = { ingress: [{ peers: [pods({ app: 'lb' })] }] };
    const delta = change(compiler, [policy('web', {}, rules), pod('w', { app: 'lb' }, '10.0.0.1')]);
    const rule = delta.peers.set.find(([, identity]) => identity !== 0)?.[2].rule ?? 0;
    expect(compiler.describeRule(rule)).toEqual({
      kind: 'NetworkPolicy',
      namespace: 'shop',
      direction: 'ingress',
      policy: 'web',
      index: 0,
      action: 'Accept',
      file: 'p.yaml',
      line: 2,
    });
    expect(change(compiler, [policy('web', {}, rules, 40)])).toEqual(EMPTY);
    expect(compiler.describeRule(rule)).toMatchObject({ index: 0, line: 41 });
  });

  it('of one direction leave the set of the other', () => {
    const compiler = new PolicyCompiler();
    const first = change(compiler, [
      policy('web', {}, { ingress: [{}], egress: [{}] }),
      pod('w', {}, '10.0.0.1'),
    ]).endpoints[0];
    const second = change(compiler, [policy('web', {}, { ingress: [], egress: [{}] })]).endpoints[0];
    expect(second?.setEgress).toBe(first?.setEgress);
    expect(second?.setIngress).not.toBe(first?.setIngress);
  });

  it('of policies keep a description of what was removed until the next change', () => {
    const compiler = new PolicyCompiler();
    const delta = change(compiler, [
      policy('b', {}, { ingress: [] }),
      policy('a', {}, { ingress: [] }, 7),
      pod('w', {}, '10.0.0.1'),
    ]);
    const rule = delta.peers.set[0]?.[2].rule ?? 0;
    const text = { policy: 'a, b', index: 'default deny', file: 'p.yaml', line: 7 };
    expect(compiler.describeRule(rule)).toMatchObject(text);
    change(compiler, [], [{ kind: 'NetworkPolicy', namespace: 'shop', name: 'b' }]);
    expect(compiler.describeRule(rule)).toMatchObject(text);
    change(compiler, []);
    expect(compiler.describeRule(rule)).toBeUndefined();
  });

  it('of addresses: an endpoint that goes, a swap, a new one', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [pod('a', { n: 'a' }, '10.0.0.1'), pod('b', { n: 'b' }, '10.0.0.2')]);
    const [a, b] = [compiler.identityOf('10.0.0.1'), compiler.identityOf('10.0.0.2')];
    const swap = change(compiler, [pod('a', { n: 'a' }, '10.0.0.2'), pod('b', { n: 'b' }, '10.0.0.1')]);
    expect([...swap.addresses.set].sort()).toEqual([
      ['10.0.0.1', b],
      ['10.0.0.2', a],
    ]);
    expect(swap.addresses.delete).toEqual([]);
    expect(swap.mustReevaluate).toBe(true);
    const gone = change(compiler, [], [{ kind: 'Endpoint', id: 'a' }]);
    expect(gone).toMatchObject({ mustReevaluate: true, addresses: { set: [], delete: ['10.0.0.2'] } });
    expect(change(compiler, [pod('c', { n: 'b' }, '10.0.0.2')]).mustReevaluate).toBe(false);
    expect(() => change(compiler, [pod('d', {}, 'nonsense')])).toThrow('not an IPv4 or IPv6 address');
    expect(change(compiler, [], [{ kind: 'Endpoint', id: 'd' }])).toEqual(EMPTY);
  });

  it('let the later of two owners have an address, and the earlier one again afterwards', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [pod('a', { n: 'a' }, '10.0.0.1'), pod('x', { n: 'x' }, '10.0.0.9')]);
    const a = compiler.identityOf('10.0.0.1');
    change(compiler, [pod('b', { n: 'x' }, '10.0.0.1')]);
    expect(compiler.identityOf('10.0.0.1')).toBe(compiler.identityOf('10.0.0.9'));
    expect(change(compiler, [], [{ kind: 'Endpoint', id: 'b' }]).addresses).toEqual({
      set: [['10.0.0.1', a]],
      delete: [],
    });
  });
});

describe('classes', () => {
  const many = (count: number): CompilerInput[] =>
    Array.from({ length: count }, (_, i) => [
      namespace(`n${i}`, { team: 'a' }),
      pod(`p${i}`, { app: `app${i}` }, `10.1.0.${i}`, { namespace: `n${i}` }),
    ]).flat();

  it('have the entries that rules for several namespaces make', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [
      policy('web', { app: 'web' }, { ingress: [{ peers: [podsOf({ team: 'a' })] }] }),
      pod('w', { app: 'web' }, '10.0.0.1'),
      pod('c', {}, '10.0.0.2', { namespace: 'other' }),
      ...many(20),
    ]);
    const { peers, classes } = compiler.fullState();
    expect(peers).toHaveLength(2); // for the team, and for any peer
    expect(classes).toHaveLength(22);
    expect(classOf(compiler, '10.1.0.3')).toBe(classOf(compiler, '10.1.0.4'));
    expect(classOf(compiler, '10.0.0.2')).not.toBe(classOf(compiler, '10.1.0.4'));
  });

  it('leave an identity the entries that rules of its own namespace make', () => {
    const compiler = new PolicyCompiler();
    const ports = [{ protocol: 'TCP', port: 80 }] as const;
    change(compiler, [
      policy(
        'web',
        { app: 'web' },
        { ingress: [{ peers: [podsOf({ team: 'a' })], ports }, { peers: [pods({ app: 'lb' })] }] },
        1,
      ),
      namespace('shop', { team: 'a' }),
      pod('w', { app: 'web' }, '10.0.0.1'),
      pod('lb', { app: 'lb' }, '10.0.0.2'),
    ]);
    const { peers } = compiler.fullState();
    expect(peers).toEqual(
      expect.arrayContaining([
        [1, classOf(compiler, '10.0.0.1'), expect.objectContaining({ verdict: VERDICT.Ports })],
        [1, compiler.identityOf('10.0.0.2'), expect.objectContaining({ verdict: VERDICT.Ports })],
      ]),
    );
    expect(peers).toHaveLength(3);
  });

  it('keep their number when all of their identities change alike', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [pod('w', { app: 'web' }, '10.0.0.1'), ...many(5)]);
    const before = classOf(compiler, '10.1.0.1');
    const delta = change(compiler, [policy('web', { app: 'web' }, { ingress: [{ peers: [podsOf({})] }] })]);
    expect(delta.classes).toEqual({ set: [], delete: [] });
    expect(classOf(compiler, '10.1.0.1')).toBe(before);
  });

  it('part for a selector, and join again when it is settled', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [pod('w', { app: 'web' }, '10.0.0.1'), ...many(3)]);
    const web = policy(
      'web',
      { app: 'web' },
      { ingress: [{ peers: [podsOf({ team: 'a' }, { app: 'app1' })] }] },
    );
    expect(change(compiler, [web]).classes.set).toHaveLength(1);
    expect(classOf(compiler, '10.1.0.1')).not.toBe(classOf(compiler, '10.1.0.2'));
    const gone = change(compiler, [], [{ kind: 'NetworkPolicy', namespace: 'shop', name: 'web' }]);
    expect(gone.classes).toEqual({ set: [], delete: [] });
    expect(compiler.unsettled).toBe(true);
    expect(compiler.settle().classes.set).toHaveLength(1);
    expect(classOf(compiler, '10.1.0.1')).toBe(classOf(compiler, '10.1.0.2'));
  });
});

describe('CIDRs', () => {
  const egress = (cidr: string, ...ports: PolicyPort[]): NetworkPolicyResource =>
    policy('out', { app: 'c' }, { egress: [{ peers: [block(cidr)], ports }] });

  it('stay until settled, because the old set still refers to them', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [egress('203.0.113.0/24'), pod('c', { app: 'c' }, '10.0.0.1')]);
    const delta = change(compiler, [egress('203.0.113.0/25')]);
    expect(delta.cidrs).toEqual({ set: [['203.0.113.0/25', expect.any(Number)]], delete: [] });
    expect(compiler.unsettled).toBe(true);
    const settled = compiler.settle();
    expect(settled).toEqual({
      ...EMPTY,
      cidrs: { set: [], delete: ['203.0.113.0/24'] },
      peers: { ...EMPTY.peers, delete: [] },
    });
    expect(compiler.unsettled).toBe(false);
    expect(compiler.settle()).toEqual(EMPTY);
  });

  it('that are new are in the old set while it is in force, port table included', () => {
    const compiler = new PolicyCompiler();
    change(compiler, [
      egress('203.0.113.0/24', { protocol: 'TCP', port: 80 }),
      pod('c', { app: 'c' }, '10.0.0.1'),
    ]);
    const oldSet = compiler.sets()[0]?.number ?? 0;
    const delta = change(compiler, [egress('203.0.113.0/25', { protocol: 'TCP', port: 80 })]);
    const identity = delta.cidrs.set[0]?.[1];
    expect(delta.peers.transient).toEqual([
      [oldSet, identity, { verdict: VERDICT.Ports, profile: 1, rule: expect.any(Number) }],
    ]);
    expect(delta.ports.delete).toEqual([expect.objectContaining({ profile: 1 })]);
  });

  it('bring a port table along that only the old set needs, for as long as it is in force', () => {
    const compiler = new PolicyCompiler();
    const both = (second: string): NetworkPolicyResource =>
      policy(
        'out',
        { app: 'c' },
        {
          egress: [
            { peers: [block('203.0.113.0/24')], ports: [{ protocol: 'TCP', port: 80 }] },
            { peers: [pods({ app: 'x' })], ports: [{ protocol: 'TCP', port: 81 }] },
            { peers: [block(second)], ports: [{ protocol: 'TCP', port: 82 }] },
          ],
        },
      );
    change(compiler, [both('198.51.100.0/24'), pod('c', { app: 'c' }, '10.0.0.1')]);
    // An endpoint inside the block that is also a selected pod: its table exists nowhere else.
    const delta = change(compiler, [
      pod('x', { app: 'x' }, '203.0.113.5'),
      policy('out', { app: 'c' }, { egress: [] }),
    ]);
    const [set, , value] = delta.peers.transient[0] ?? [];
    expect(set).toBe(1);
    const rows = delta.ports.set.filter(([key]) => key.profile === value?.profile);
    expect(rows.map(([key]) => key.port).sort()).toEqual([80, 81]);
    expect(delta.ports.delete.filter((key) => key.profile === value?.profile)).toHaveLength(2);
  });

  it('that wait to be settled are taken up again as they are', () => {
    const compiler = new PolicyCompiler();
    const first = change(compiler, [egress('203.0.113.0/24'), pod('c', { app: 'c' }, '10.0.0.1')]);
    change(compiler, [], [{ kind: 'NetworkPolicy', namespace: 'shop', name: 'out' }]);
    expect(change(compiler, []).cidrs).toEqual({ set: [], delete: [] });
    const again = change(compiler, [egress('203.0.113.0/24')]);
    expect(again.cidrs).toEqual({ set: [], delete: [] });
    expect(again.peers.set[1]?.[1]).toBe(first.cidrs.set[0]?.[1]);
    expect(compiler.unsettled).toBe(false);
  });

  it('split an identity so that the larger part keeps its number, and join it again', () => {
    const compiler = new PolicyCompiler();
    const members = ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.1.1', '10.0.1.2'].map((address) =>
      pod(address, { app: 'm' }, address),
    );
    change(compiler, [...members, pod('c', { app: 'c' }, '10.9.0.1')]);
    const before = compiler.identityOf('10.0.0.1');
    const delta = change(compiler, [egress('10.0.0.0/24')]);
    expect(delta.addresses.set.map(([text]) => text)).toEqual(['10.0.1.1', '10.0.1.2']);
    expect(compiler.identityOf('10.0.0.1')).toBe(before);
    change(compiler, [], [{ kind: 'NetworkPolicy', namespace: 'shop', name: 'out' }]);
    const joined = compiler.settle();
    expect(joined.addresses.set).toEqual([
      ['10.0.1.1', before],
      ['10.0.1.2', before],
    ]);
    expect(joined.mustReevaluate).toBe(false);
    expect(compiler.identities().filter((identity) => identity.labels.app === 'm')).toEqual([
      { number: before, namespace: 'shop', labels: { app: 'm' }, endpoints: 5 },
    ]);
    // A smaller part inside gets the new number.
    const minority = change(compiler, [egress('10.0.1.0/24')]);
    expect(minority.addresses.set.map(([text]) => text)).toEqual(['10.0.1.1', '10.0.1.2']);
    change(compiler, [], [{ kind: 'NetworkPolicy', namespace: 'shop', name: 'out' }]);
    compiler.settle();
    // The joined identity is the one that later endpoints get.
    change(compiler, [pod('late', { app: 'm' }, '10.0.2.1')]);
    expect(compiler.identityOf('10.0.2.1')).toBe(before);
  });

  it('of IPv6 that cover v4-mapped addresses leave IPv4 alone', () => {
    const compiler = new PolicyCompiler();
    const delta = change(compiler, [egress('::/0'), pod('c', { app: 'c' }, '10.0.0.1')]);
    expect(delta.cidrs.set).toEqual(
      expect.arrayContaining([
        ['0.0.0.0/0', 2],
        ['::/0', expect.any(Number)],
      ]),
    );
    const both = change(compiler, [
      policy('two', { app: 'c' }, { egress: [{ peers: [block('0.0.0.0/0')] }] }),
    ]);
    expect(both.cidrs.set).toEqual([['0.0.0.0/0', expect.any(Number)]]);
    expect(both.cidrs.set[0]?.[1]).not.toBe(2);
    change(compiler, [], [{ kind: 'NetworkPolicy', namespace: 'shop', name: 'two' }]);
    expect(compiler.settle().cidrs).toEqual({ set: [['0.0.0.0/0', 2]], delete: [] });
    change(compiler, [], [{ kind: 'NetworkPolicy', namespace: 'shop', name: 'out' }]);
    expect([...compiler.settle().cidrs.delete].sort()).toEqual(['0.0.0.0/0', '::/0']);
  });
});

describe('the cost of a change', () => {
  it('follows the change', () => {
    const compiler = new PolicyCompiler();
    const inputs: CompilerInput[] = [];
    for (let i = 0; i < 1000; i++) {
      const labels = { app: `app${i % 100}`, pod: `p${i % 500}` };
      inputs.push(pod(`e${i}`, labels, `10.0.${i >> 8}.${i & 255}`));
      if (i < 200)
        inputs.push(
          policy(
            `p${i}`,
            { app: `app${i % 100}` },
            {
              ingress: [
                { peers: [pods({ app: `app${(i * 7) % 100}` })], ports: [{ protocol: 'TCP', port: i + 1 }] },
              ],
            },
          ),
        );
    }
    change(compiler, inputs);
    const times: number[] = [];
    for (let i = 0; i < 50; i++) {
      const start = performance.now();
      const delta = change(compiler, [pod(`new${i}`, { app: `app${i}`, pod: `new${i}` }, `10.1.0.${i}`)]);
      times.push(performance.now() - start);
      expect(delta.addresses.set).toHaveLength(1);
      expect(delta.peers.set.length).toBeLessThan(10);
    }
    expect(times.sort((a, b) => a - b)[25]).toBeLessThan(5);
  });
});
