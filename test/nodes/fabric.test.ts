/** Nodes whose network knows the pods' ranges: nothing is routed by the agents, but policies know who is who. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Cluster, type Pod } from '../services/cluster.js';
import { egressPolicy, ingressPolicy, podObject, populated } from './world.js';

let cluster: Cluster;
let pods: Pod[];
const pod = (index: number): Pod => pods[index] as Pod;

beforeAll(async () => {
  cluster = new Cluster('slnf', 2);
  pods = await populated(cluster);
});

afterAll(() => cluster.close());

it('lets pods of two nodes see their own addresses, and knows labels and named ports of both', async () => {
  const [a, b] = [pod(0), pod(1)];
  for (const family of ['ipv4', 'ipv6'] as const)
    expect(cluster.ask(a, 'tcp', b[family], 80)).toMatchObject([{ who: 'pod1', seen: a[family] }]);
  await cluster.apply(
    ingressPolicy('in', 'web1', [
      { from: [{ podSelector: { matchLabels: { app: 'web0' } } }], ports: [{ port: 'web' }] },
    ]),
    egressPolicy('out', 'web0', ['web1']),
  );
  expect(cluster.who(a, 'tcp', b.ipv4, 80)).toBe('pod1');
  expect(cluster.who(b, 'tcp', a.ipv4, 80)).toBe('pod0');
  await cluster.apply(podObject(b, { app: 'other' }));
  expect(cluster.who(a, 'tcp', b.ipv4, 80)).toBe('timeout');
  await cluster.apply(podObject(b, { app: 'web1' }), podObject(a, { app: 'other' }));
  expect(cluster.who(a, 'tcp', b.ipv4, 80)).toBe('timeout');
  await cluster.apply(podObject(a, { app: 'web0' }));
  expect(cluster.who(a, 'tcp', b.ipv6, 80)).toBe('pod1');
  cluster.remove(['pod', 'pod0']);
  expect(cluster.who(a, 'tcp', b.ipv4, 80)).toBe('timeout');
  await cluster.apply(podObject(a, { app: 'web0' }));
  cluster.remove(['netpol', 'in'], ['netpol', 'out']);
});

it('selects nodes by their labels; a node always reaches its own pods', async () => {
  const [a, b] = cluster.nodes as [Cluster['nodes'][0], Cluster['nodes'][0]];
  const nodes = (rack: string): object => ({
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterNetworkPolicy',
    metadata: { name: 'nodes' },
    spec: {
      tier: 'Admin',
      priority: 1,
      subject: { pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: 'web1' } } } },
      egress: [
        { action: 'Accept', to: [{ nodes: { matchLabels: { rack } } }] },
        { action: 'Deny', to: [{ networks: ['0.0.0.0/0', '::/0'] }] },
      ],
    },
  });
  await cluster.serve(a, 'host0', [8080]);
  await cluster.serve(b, 'host1', [8080]);
  await cluster.apply(ingressPolicy('in', 'web1', []), nodes('r0'));
  expect(cluster.who(b, 'tcp', pod(1).ipv4, 80)).toBe('pod1');
  expect(cluster.who(a, 'tcp', pod(1).ipv4, 80)).toBe('timeout');
  expect(cluster.who(pod(1), 'tcp', b.ipv4, 8080)).toBe('host1');
  expect(cluster.ask(pod(1), 'tcp', a.ipv6, 8080)).toMatchObject([{ who: 'host0', seen: pod(1).ipv6 }]);
  await cluster.apply(nodes('none'));
  expect(cluster.who(pod(1), 'tcp', a.ipv4, 8080)).toBe('timeout');
  expect(cluster.who(pod(1), 'tcp', b.ipv4, 8080)).toBe('host1');
  cluster.remove(['netpol', 'in'], ['cnp', 'nodes']);
});

it('keeps all that over a restart of the agent', async () => {
  const { agent } = cluster.node(1);
  await cluster.apply(
    ingressPolicy('in', 'web1', [{ from: [{ podSelector: { matchLabels: { app: 'web0' } } }] }]),
  );
  await agent.kill();
  expect(cluster.who(pod(0), 'tcp', pod(1).ipv4, 80)).toBe('pod1');
  await agent.start(cluster.scratch);
  expect(cluster.who(pod(0), 'tcp', pod(1).ipv4, 80)).toBe('pod1');
  expect(cluster.who(cluster.node(0), 'tcp', pod(1).ipv4, 80)).toBe('timeout');
  cluster.remove(['netpol', 'in']);
});
