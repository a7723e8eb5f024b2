import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { container, documents, network } from '../e2e/world.js';
import { Cluster, type Place, type Pod, perPacket, service, slice } from './cluster.js';

/** A backend in two networks, whose clients are in the second one only: it would answer by its other interface. */

const [V4, V6] = ['10.96.70.1', 'fd00:96::70:1'];
const BOTH = [
  { name: 't', port: 80 },
  { name: 'u', port: 80, protocol: 'UDP' },
];

let cluster: Cluster;
let alone: Pod;
/** In one namespace: one container in both networks; two containers, as CNI has them. */
const together = { netns: '', ipv4: '10.80.0.201', ipv6: 'fd80::201' };
const apart = { netns: '', ipv4: '10.80.0.202', ipv6: 'fd80::202' };
const client = { netns: '' };

beforeAll(async () => {
  cluster = new Cluster('slnet', 1);
  await cluster.start();
  const { agent, group } = cluster.node(0);
  for (const [place, role] of [
    [together, 'tog'],
    [apart, 'apa'],
    [client, 'cli'],
  ] as const)
    place.netns = cluster.scratch.netns(role);
  const first = ({ ipv4, ipv6 }: typeof together) => ({ name: 'pods', ipv4, ipv6 });
  await agent.apply(
    documents(
      network('back', 74),
      container({
        name: 'together',
        netns: together.netns,
        networks: [first(together), 'back'],
        hostPorts: [{ hostPort: 8070, containerPort: 80 }],
      }),
      container({ name: 'apart', netns: apart.netns, networks: [first(apart)] }),
      container({ name: 'client', netns: client.netns, networks: ['back'] }),
    ),
  );
  await agent.apply(
    documents(
      container({ name: 'apart-2', netns: apart.netns, networks: [{ name: 'back', device: 'eth1' }] }),
    ),
  );
  // The routes that a runtime gives it: the first network has the default.
  for (const route of [
    'route replace default via 10.80.0.1 dev eth0 src 10.80.0.202 onlink',
    '-6 route del default',
    '-6 route add default via fd80::1 dev eth0 src fd80::202 onlink',
    'route add 10.74.0.0/24 via 10.74.0.1 dev eth1 onlink',
    '-6 route add fd74::/64 via fd74::1 dev eth1 onlink',
  ])
    inside(apart.netns, `ip ${route}`);
  if (group !== undefined) Object.assign(client, { group });
  await cluster.serve(together, 'together', [80]);
  await cluster.serve(apart, 'apart', [80]);
  alone = await cluster.pod(cluster.node(0), 'alone');
});
afterAll(() => cluster.close());

const backend = ({ ipv4, ipv6 }: { readonly ipv4: string; readonly ipv6: string }) =>
  cluster.apply(
    service('x', { clusterIPs: [V4, V6], ipFamilyPolicy: 'RequireDualStack', ports: BOTH }),
    ...([4, 6] as const).map((family) =>
      slice('x', [{ pod: { ipv4, ipv6, node: 'node0' } }], { family, ports: BOTH }),
    ),
  );
const answers = (place: Place, addresses: readonly string[] = [V4, V6], port = 80) =>
  [place, perPacket(place)].flatMap((from) =>
    addresses.flatMap((address) =>
      (['tcp', 'udp'] as const).map((kind) => cluster.who(from, kind, address, port)),
    ),
  );

describe('a backend in two networks', () => {
  it.each([
    ['together', together],
    ['apart', apart],
  ] as const)('answers clients that are in its second network: containers %s', async (name, place) => {
    await backend(place);
    expect(answers(client)).toEqual(Array(8).fill(name));
    expect(answers({ netns: place.netns })).toEqual(Array(8).fill(name));
    const { agent } = cluster.node(0);
    await agent.kill();
    await agent.start(cluster.scratch);
    expect(answers(client)).toEqual(Array(8).fill(name));
  });

  it('answers them by a port of the host', () => {
    const node = cluster.node(0);
    expect(cluster.who(client, 'tcp', node.ipv4, 8070)).toBe('together');
    expect(cluster.who(client, 'tcp', node.ipv6, 8070)).toBe('together');
  });

  it('sees the address of who is in its first network, or in none of its own', async () => {
    await backend(together);
    for (const from of [alone, perPacket(alone)])
      expect(cluster.ask(from, 'tcp', V4, 80)).toMatchObject([{ who: 'together', seen: alone.ipv4 }]);
    await backend(alone);
    const [{ seen } = { seen: '' }] = cluster.ask(perPacket(client), 'tcp', V4, 80);
    expect(seen).toMatch(/^10\.74\.0\./);
  });

  it('sees it again when it has left the other network', async () => {
    await backend(apart);
    await cluster
      .node(0)
      .agent.delete(documents(container({ name: 'apart-2', netns: apart.netns, networks: ['back'] })));
    const [{ who, seen } = { who: '', seen: '' }] = cluster.ask(perPacket(client), 'tcp', V4, 80);
    expect(who).toBe('apart');
    expect(seen).toMatch(/^10\.74\.0\./);
  });
});
