import { Agent } from './agent.js';
import { inside, type Scratch, veth } from './netns.js';
import type { Path } from './paths.js';

const SERVER = '10.93.0.3';

/** Two containers of a routed network. The policy isolates both, and allows the client to reach the server. */
function definitions(client: string, server: string): string {
  const container = (name: string, netns: string, address: string): unknown => ({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Container',
    metadata: { name, namespace: 'bench', labels: { app: name } },
    spec: { netns: { name: netns }, networks: [{ name: 'bench', ipv4: address }] },
  });
  const policy = (name: string, direction: 'ingress' | 'egress', peer: string): unknown => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace: 'bench' },
    spec: {
      podSelector: { matchLabels: { app: name } },
      policyTypes: ['Ingress', 'Egress'],
      [direction]: [
        {
          [direction === 'ingress' ? 'from' : 'to']: [{ podSelector: { matchLabels: { app: peer } } }],
          ports: ['TCP', 'UDP'].map((protocol) => ({ protocol, port: 10_000, endPort: 20_000 })),
        },
      ],
    },
  });
  return [
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Network',
      metadata: { name: 'bench' },
      spec: { mode: 'routed', ipv4: { cidr: '10.93.0.0/24' } },
    },
    container('client', client, '10.93.0.2'),
    container('server', server, SERVER),
    policy('client', 'egress', 'server'),
    policy('server', 'ingress', 'client'),
  ]
    .map((document) => JSON.stringify(document))
    .join('\n---\n');
}

/** Sluice: a real agent in a host namespace, two containers, policies in force on both sides. */
export async function sluicePath(scratch: Scratch): Promise<Path> {
  const host = scratch.netns('slu-h');
  const client = scratch.netns('slu-c');
  const server = scratch.netns('slu-s');
  const outside = scratch.netns('slu-o');
  veth(host, 'uplink0', outside, 'eth0');
  inside(host, 'ip address add 198.51.100.1/24 dev uplink0');
  inside(outside, 'ip address add 198.51.100.2/24 dev eth0');
  inside(host, 'ip route add default via 198.51.100.2');
  const agent = new Agent(scratch, host);
  await agent.start(scratch);
  await agent.apply(definitions(client, server));
  return { name: 'sluice', client, server, serverAddress: SERVER };
}
