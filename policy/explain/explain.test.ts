import { describe, expect, it } from 'vitest';
import type {
  ClusterNetworkPolicyResource,
  LabelSelector,
  NetworkPolicyResource,
  PolicyPeer,
  PolicyPort,
} from '../model/resources.js';
import { appliedPolicies, type Connection, type Party } from './explain.js';

const origin = { file: 'p.yaml', line: 1 };
const everyone: LabelSelector = { requirements: [] };
const has = (key: string, ...values: string[]): LabelSelector => ({
  requirements: [{ key, operator: 'In', values }],
});

function pod(namespace: string, name: string, team?: string): Party {
  const namespaceLabels = {
    'kubernetes.io/metadata.name': namespace,
    ...(team === undefined ? {} : { team }),
  };
  const ports = [{ name: 'web', protocol: 'TCP' as const, port: 8080 }];
  return {
    address: '10.1.0.9',
    endpoint: { namespace, name, labels: { app: name }, namespaceLabels, ports },
  };
}

function policy(peers: readonly PolicyPeer[], ports: readonly PolicyPort[] = []): NetworkPolicyResource {
  return {
    kind: 'NetworkPolicy',
    namespace: 'shop',
    name: 'db',
    origin,
    source: {},
    podSelector: has('app', 'db'),
    ingress: [{ index: 0, origin, peers, ports }],
  };
}

const connection = (source: Party, more: Partial<Connection> = {}): Connection => ({
  source,
  destination: pod('shop', 'db'),
  protocol: 'TCP',
  port: 80,
  ...more,
});

function missing(
  peers: readonly PolicyPeer[],
  ports: readonly PolicyPort[],
  asked: Connection,
): readonly string[] {
  const [applied] = appliedPolicies([policy(peers, ports)], 'ingress', asked);
  const [rule] = applied?.rules ?? [];
  expect(rule?.matches).toBe(rule?.missing.length === 0);
  return rule?.missing ?? ['the policy does not apply'];
}

describe('policies that apply', () => {
  it('are those that select the subject and have the direction, by name', () => {
    const policies = [
      { ...policy([]), name: 'z' },
      { ...policy([]), name: 'a' },
      { ...policy([]), podSelector: has('app', 'web') },
      { ...policy([]), namespace: 'other' },
    ];
    const asked = connection(pod('shop', 'web'));
    expect(appliedPolicies(policies, 'ingress', asked).map(({ name }) => name)).toEqual(['a', 'z']);
    expect(appliedPolicies(policies, 'egress', asked)).toEqual([]);
    expect(
      appliedPolicies(policies, 'ingress', { ...asked, destination: { address: '203.0.113.1' } }),
    ).toEqual([]);
  });
});

describe('ClusterNetworkPolicies', () => {
  const cluster = (
    name: string,
    tier: 'Admin' | 'Baseline',
    priority: number,
  ): ClusterNetworkPolicyResource => ({
    kind: 'ClusterNetworkPolicy',
    name,
    tier,
    priority,
    origin,
    source: {},
    subject: { namespaceSelector: has('team', 'blue'), podSelector: everyone },
    ingress: [
      {
        index: 0,
        origin,
        name: 'nodes',
        action: 'Deny',
        peers: [{ type: 'nodes', nodeSelector: everyone }],
        ports: [],
      },
      {
        index: 1,
        origin,
        action: 'Pass',
        peers: [{ type: 'pods', namespaceSelector: everyone, podSelector: everyone }],
        ports: [],
      },
    ],
    egress: [],
  });
  const asked = connection(pod('lab', 'web'), { destination: pod('shop', 'db', 'blue') });

  it('come by tier and priority, and Baseline only where no NetworkPolicy isolates', () => {
    const all = [cluster('base', 'Baseline', 0), cluster('late', 'Admin', 9), cluster('early', 'Admin', 1)];
    const names = (...more: NetworkPolicyResource[]) =>
      appliedPolicies([...more, ...all], 'ingress', asked).map(({ name }) => name);
    expect(names()).toEqual(['early', 'late', 'base']);
    expect(names(policy([]))).toEqual(['early', 'late', 'db']);
    expect(appliedPolicies(all, 'egress', asked)).toEqual([]);
    const other = { ...asked, destination: pod('shop', 'db', 'red') };
    expect(appliedPolicies(all, 'ingress', other)).toEqual([]);
  });

  it('say what each rule does and is missing', () => {
    const [applied] = appliedPolicies([cluster('early', 'Admin', 1)], 'ingress', asked);
    expect(applied).toMatchObject({ tier: 'Admin', priority: 1 });
    expect(applied?.rules).toMatchObject([
      { name: 'nodes', action: 'Deny', matches: false, missing: ['peer 10.1.0.9: must be a node'] },
      { action: 'Pass', matches: true, missing: [] },
    ]);
  });
});

describe('what a rule is missing', () => {
  const web = connection(pod('shop', 'web'));
  const outside = connection({ address: '203.0.113.7' });

  it('is nothing if it matches', () => {
    expect(missing([], [], outside)).toEqual([]);
    expect(missing([{ type: 'pods', podSelector: has('app', 'web') }], [{ port: 80 }], web)).toEqual([]);
    expect(missing([{ type: 'ipBlock', cidr: '203.0.113.0/24', except: [] }], [], outside)).toEqual([]);
    expect(missing([], [{ protocol: 'TCP', port: 'web' }], { ...web, port: 8080 })).toEqual([]);
    expect(missing([], [{ protocol: 'UDP', port: 70, endPort: 90 }], { ...web, protocol: 'UDP' })).toEqual(
      [],
    );
    expect(missing([], [{}], { ...web, protocol: 'ICMP', port: 0 })).toEqual([]);
  });

  it.each<[string, PolicyPeer, Connection, string[]]>([
    [
      'a label',
      { type: 'pods', podSelector: has('app', 'api', 'job') },
      web,
      ['peer shop/web: label app must be api or job, it is web'],
    ],
    [
      'a label that is not there',
      { type: 'pods', podSelector: { requirements: [{ key: 'tier', operator: 'Exists', values: [] }] } },
      web,
      ['peer shop/web: label tier must be there'],
    ],
    [
      'a label that must not be there',
      { type: 'pods', podSelector: { requirements: [{ key: 'app', operator: 'DoesNotExist', values: [] }] } },
      web,
      ['peer shop/web: label app must not be there, it is web'],
    ],
    [
      'one of many values',
      { type: 'pods', podSelector: has('app', 'a', 'b', 'c', 'd', 'e', 'f') },
      web,
      ['peer shop/web: label app must be a, b, c, d or one of 2 more, it is web'],
    ],
    [
      'the namespace',
      { type: 'pods', podSelector: everyone },
      connection(pod('lab', 'web')),
      ['peer lab/web: must be in namespace shop'],
    ],
    [
      'a label of the namespace',
      { type: 'pods', namespaceSelector: has('team', 'blue'), podSelector: everyone },
      connection(pod('lab', 'web', 'red')),
      ['namespace lab: label team must be blue, it is red'],
    ],
    [
      'a container',
      { type: 'pods', podSelector: everyone },
      outside,
      ['peer 203.0.113.7: must be a container'],
    ],
    [
      'the prefix',
      { type: 'ipBlock', cidr: 'fd00::/8', except: [] },
      outside,
      ['peer 203.0.113.7: must be inside fd00::/8'],
    ],
    [
      'the exception',
      { type: 'ipBlock', cidr: '203.0.0.0/16', except: ['203.0.113.0/24'] },
      outside,
      ['peer 203.0.113.7: is inside 203.0.113.0/24, an exception of 203.0.0.0/16'],
    ],
  ])('is %s', (_, peer, asked, expected) => {
    expect(missing([peer], [], asked)).toEqual(expected);
  });

  it('is the port', () => {
    expect(missing([], [{ port: 443 }, { port: 90, endPort: 99 }], web)).toEqual([
      'port 80/TCP: must be 443/TCP or 90-99/TCP',
    ]);
    expect(missing([], [{ protocol: 'UDP' }], web)).toEqual(['port 80/TCP: must be any port of UDP']);
    expect(missing([], [{ port: 'web' }, { port: 'sql' }], web)).toEqual([
      'port 80/TCP: must be web/TCP (there 8080) or sql/TCP (which the destination does not have)',
    ]);
    expect(missing([], [{ port: 443 }], { ...web, protocol: 'ICMP', port: 0 })).toEqual([
      'port ICMP: must be 443/TCP',
    ]);
  });

  it('is that of the nearest peer, and the port too', () => {
    const peers: PolicyPeer[] = [
      { type: 'pods', namespaceSelector: has('team', 'blue'), podSelector: has('app', 'api') },
      { type: 'pods', podSelector: has('app', 'api') },
    ];
    expect(missing(peers, [{ port: 443 }], web)).toEqual([
      'peer shop/web: label app must be api, it is web',
      'port 80/TCP: must be 443/TCP',
    ]);
  });
});
