import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { populated } from '../nodes/world.js';
import { Cluster, haveCgroup, type NodeOfCluster, type Pod, perPacket, service, slice } from './cluster.js';

/** Errors about packets to a service come back to who sent them, and name the service; nodes are seen on the way. */

const [V4, V6, NODE_PORT] = ['10.96.90.1', 'fd00:96::90:1', 30_900];
const BOTH = [
  { name: 't', port: 80 },
  { name: 'u', port: 80, protocol: 'UDP' },
];
const KINDS = ['tcp', 'udp'] as const;

let cluster: Cluster;
let pods: Pod[];

beforeAll(async () => {
  cluster = new Cluster('sler', 2, Array(2).fill({ nodeRouting: 'overlay' }), { fabric: false });
  pods = await populated(cluster);
});
afterAll(() => cluster.close());

const node = (index: number): NodeOfCluster => cluster.node(index);
const pod = (index: number): Pod => pods[index] as Pod;

async function define(
  backend: { readonly ipv4: string; readonly ipv6: string; readonly node: string },
  port: number,
  mode = 'snat',
): Promise<void> {
  await cluster.apply(
    service(
      'x',
      {
        type: 'NodePort',
        clusterIPs: [V4, V6],
        ipFamilyPolicy: 'RequireDualStack',
        ports: BOTH.map((one) => ({ ...one, nodePort: NODE_PORT })),
      },
      { annotations: { 'sluice.dev/external-mode': mode } },
    ),
    ...([4, 6] as const).map((family) =>
      slice('x', [{ pod: backend }], { family, ports: BOTH.map((one) => ({ ...one, port })) }),
    ),
  );
}

it('a port that no process of a host listens on, as a backend, is refused to pods of that host', async () => {
  for (const { ipv4, ipv6, name } of cluster.nodes) {
    await define({ ipv4, ipv6, node: name }, 8099);
    for (const from of pods) {
      const places = haveCgroup ? [perPacket(from), from] : [from];
      for (const [address, port] of [
        [V4, 80],
        [V6, 80],
        [node(0).ipv4, NODE_PORT],
        [node(0).ipv6, NODE_PORT],
      ] as const)
        for (const place of places)
          for (const kind of KINDS)
            expect(
              cluster.who(place, kind, address, port, { timeoutMs: 2000 }),
              `${from.name} ${kind} ${address} on ${name}`,
            ).toBe('refused');
    }
  }
});

describe.each(['snat', 'dsr'])('a trace to a service with external mode %s', (mode) => {
  it('shows the nodes on the way, and the service at its end', async () => {
    await define(pod(1), 80, mode);
    const trace = (from: { readonly netns: string }, address: string, port: number, hops: number) =>
      cluster
        .call(perPacket(from), 'trace', address, String(port), String(hops), '2000')
        .map((line) => line.replace(/^(pod\d) .*/, '$1'));
    const late = (family: 'ipv4' | 'ipv6', ...indexes: number[]) =>
      indexes.map((index) => `late ${node(index)[family]}`);
    for (const family of ['ipv4', 'ipv6'] as const) {
      const gateway = family === 'ipv4' ? '10.80.0.1' : 'fd80::1';
      expect(trace(pod(0), family === 'ipv4' ? V4 : V6, 80, 3)).toEqual([
        `late ${gateway}`,
        ...late(family, 1),
        'pod1',
      ]);
      expect(trace(cluster.outside, node(0)[family], NODE_PORT, 3)).toEqual([...late(family, 0, 1), 'pod1']);
      expect(trace(cluster.outside, node(1)[family], NODE_PORT, 2)).toEqual([...late(family, 1), 'pod1']);
    }
  });
});

it('a node port without a backend is refused to pods of other nodes, through the overlay', async () => {
  await define(pod(1), 80);
  await cluster.apply(...([4, 6] as const).map((family) => slice('x', [], { family, ports: BOTH })));
  for (const address of [node(0).ipv4, node(0).ipv6])
    for (const kind of KINDS)
      expect(
        cluster.who(perPacket(pod(1)), kind, address, NODE_PORT, { timeoutMs: 2000 }),
        `${kind} ${address}`,
      ).toBe('refused');
});

it.each(['snat', 'dsr'])(
  'datagrams that fit the uplink and not the overlay arrive, external mode %s',
  async (mode) => {
    // They come out of the overlay with a checksum that the kernel has summed up itself.
    await define(pod(1), 80, mode);
    for (const [address, sizes] of [
      [node(0).ipv4, [1400, 1430, 1472]],
      [node(0).ipv6, [1400, 1410, 1452]],
    ] as const)
      for (const size of sizes) {
        const [line = ''] = cluster.call(
          cluster.outside,
          'large',
          'udp',
          address,
          String(NODE_PORT),
          String(size),
        );
        expect(line.split(' ').at(-1), `${address} ${size}`).toBe(String(size));
      }
  },
);
