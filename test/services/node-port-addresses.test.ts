import { afterAll, beforeAll, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { Cluster, haveCgroup, type Pod, perPacket, service, slice } from './cluster.js';

/** Node ports on some of the addresses of a host (setting `nodePortAddresses`). */

const SECOND = '198.51.101.1';
const PORT = 30_700;
const HEALTH = 30_701;
let cluster: Cluster;
let a: Pod;
let client: Pod;

beforeAll(async () => {
  cluster = new Cluster('slnpa', 2, [
    { nodePortAddresses: ['198.51.101.0/24', '2001:db8:100::/64'] },
    { nodePortAddresses: ['127.0.0.0/8'] },
  ]);
  inside(cluster.node(0).netns, `ip address add ${SECOND}/24 dev eth0`);
  inside(cluster.outside.netns, 'ip address add 198.51.101.9/24 dev eth0');
  await cluster.start();
  a = await cluster.pod(cluster.node(0), 'a', [80]);
  client = await cluster.pod(cluster.node(0), 'client', []);
  const ports = [
    { name: 't', port: 80 },
    { name: 'u', port: 80, protocol: 'UDP' },
  ];
  await cluster.apply(
    service('np', {
      type: 'LoadBalancer',
      clusterIPs: ['10.96.70.1', 'fd00:96::70:1'],
      ipFamilyPolicy: 'RequireDualStack',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: HEALTH,
      ports: ports.map((port) => ({ ...port, nodePort: PORT })),
    }),
    slice('np', [{ pod: a }], { ports }),
    slice('np', [{ pod: a }], { ports, family: 6 }),
  );
});
afterAll(() => cluster.close());

it('are served there, and nowhere else', () => {
  const node = cluster.node(0);
  const places = [cluster.outside, client, perPacket(client), ...(haveCgroup ? [node] : [])];
  for (const [address, who] of [
    [SECOND, 'a'],
    [node.ipv6, 'a'],
    [node.ipv4, 'refused'],
  ] as const) {
    for (const kind of ['tcp', 'udp'] as const)
      expect(
        places.map((from) => cluster.who(from, kind, address, PORT)),
        `${kind} ${address}`,
      ).toEqual(places.map(() => who));
  }
});

it.runIf(haveCgroup)(
  'are found on loopback addresses by processes of the host where these are among them',
  () => {
    const asked = (index: number) =>
      ['127.0.0.1', '127.0.0.5', '0.0.0.0', '::ffff:127.0.0.1', '::1', '::'].map((address) =>
        cluster.who(cluster.node(index), 'tcp', address, PORT),
      );
    expect(asked(0)).toEqual(Array(6).fill('refused'));
    expect(asked(1)).toEqual(['a', 'a', 'a', 'a', 'refused', 'refused']);
    expect(cluster.who(cluster.node(1), 'udp', '127.0.0.1', PORT)).toBe('a');
  },
);

it('have their health checks there too', () => {
  const status = (address: string): string => {
    try {
      const what = `curl -s -o /dev/null -m 2 -w %{http_code} http://${address}:${HEALTH}/`;
      return inside(cluster.outside.netns, what);
    } catch {
      return 'closed';
    }
  };
  const { ipv4, ipv6 } = cluster.node(0);
  expect([SECOND, `[${ipv6}]`, ipv4].map(status)).toEqual(['200', '200', 'closed']);
});
