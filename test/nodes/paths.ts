/** The same questions for every way between nodes: who reaches whom, with which address, and under which policy. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AgentSettings } from '../../bench/lib/agent.js';
import { run } from '../../bench/lib/command.js';
import { netnsPath } from '../../bench/lib/netns.js';
import { documents } from '../e2e/world.js';
import { Cluster, haveCgroup, type Pod, perPacket, service, slice } from '../services/cluster.js';
import { egressPolicy, ingressPolicy, podObject, populated } from './world.js';

export interface Paths {
  readonly prefix: string;
  readonly nodes: number;
  readonly settings: AgentSettings;
  readonly mtu?: number;
}

const NODE_ADDRESSES = { ipv4: '198.51.100.', ipv6: '2001:db8:100::' } as const;
const FAMILIES = ['ipv4', 'ipv6'] as const;

/** Messages of all sizes between the first two pods, each way; UDP above the MTU comes in fragments. `outer`: the only family of the nodes. */
function expectLarge(cluster: Cluster, pods: readonly Pod[], mtu: number, outer?: 'ipv4' | 'ipv6'): void {
  const [a, b] = pods as [Pod, Pod];
  for (const family of FAMILIES) {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      for (const [how, bytes] of [
        ['tcp', 65000],
        ['udp', 1000],
        ['udp', mtu - 60],
        ['udp', 20_000],
      ] as const)
        expect(
          cluster.call(from, 'large', how, to[family], '9000', String(bytes)),
          `${from.name} ${how} ${bytes} ${family}`,
        ).toEqual([expect.stringContaining(` ${bytes}`)]);
    }
    if (outer === undefined || outer === family)
      expect(cluster.call(cluster.node(0), 'large', 'tcp', b[family], '9000', '65000')).toEqual([
        expect.stringContaining(' 65000'),
      ]);
  }
}

/** Declares tests of nodes that know each other by one family only, and of containers with an MTU of their own. */
export function describeReach(
  title: string,
  options: Paths & { readonly outer?: 'ipv4' | 'ipv6'; readonly podMtu?: number },
): void {
  const { prefix, nodes, settings, mtu = 1500, outer, podMtu } = options;
  it(title, async () => {
    const own = (index: number): AgentSettings =>
      outer === undefined ? {} : { nodeAddresses: [NODE_ADDRESSES[outer] + String(index + 1)] };
    const cluster = new Cluster(
      prefix,
      nodes,
      Array.from({ length: nodes }, (_, index) => ({ ...settings, ...own(index) })),
      {
        fabric: false,
        mtu,
        ...(podMtu === undefined ? {} : { network: { mtu: podMtu } }),
      },
    );
    try {
      const pods = await populated(cluster, (node) =>
        outer === undefined ? node : { ...node, ipv4: '', ipv6: '', [outer]: node[outer] },
      );
      for (const family of FAMILIES)
        for (const from of pods)
          for (const to of pods)
            if (from !== to)
              expect(cluster.ask(from, 'tcp', to[family], 80), `${from.name} ${to[family]}`).toMatchObject([
                { who: to.name, seen: from[family] },
              ]);
      if (podMtu === undefined) expectLarge(cluster, pods, mtu, outer);
      else expectDiscovery(cluster, pods, podMtu);
    } finally {
      cluster.close();
    }
  });
}

/** What is too large for the way is answered: TCP takes smaller segments, a datagram is lost once and said to be. */
function expectDiscovery(cluster: Cluster, pods: readonly Pod[], podMtu: number): void {
  const [a, b] = pods as [Pod, Pod];
  for (const family of FAMILIES) {
    expect(cluster.call(a, 'large', 'tcp', b[family], '9000', '65000')).toEqual([
      expect.stringContaining(' 65000'),
    ]);
    const size = String(podMtu - 48);
    cluster.call(b, 'large', 'udp', a[family], '9000', size);
    expect(cluster.call(b, 'large', 'udp', a[family], '9000', size)).toEqual([
      expect.stringContaining(` ${size}`),
    ]);
  }
}

/** Sends a datagram with somebody else's source from a namespace. */
function forge(netns: string, source: string, to: string, port: number): void {
  const program = [
    'import socket, struct',
    's = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)',
    `a = socket.inet_aton("${source}") + socket.inet_aton("${to}")`,
    `p = struct.pack("!BBHHHBBH", 69, 0, 29, 1, 0, 64, 17, 0) + a + struct.pack("!HHHH", 4000, ${port}, 9, 0) + b"?"`,
    `s.sendto(p, ("${to}", 0))`,
  ].join('; ');
  run('nsenter', [`--net=${netnsPath(netns)}`, 'python3', '-c', program]);
}

/** Declares the tests of one way between nodes. */
export function describePaths(title: string, { prefix, nodes, settings, mtu = 1500 }: Paths): void {
  describe(title, () => {
    let cluster: Cluster;
    let pods: Pod[];
    const pod = (index: number): Pod => pods[index] as Pod;

    beforeAll(async () => {
      cluster = new Cluster(prefix, nodes, Array<AgentSettings>(nodes).fill(settings), {
        fabric: false,
        mtu,
      });
      pods = await populated(cluster);
      for (const node of cluster.nodes) await cluster.serve(node, `host${node.index}`, [8080]);
    });

    afterAll(() => cluster.close());

    it('connects every pod with every pod and node, and every node with every pod, by their own addresses', () => {
      for (const family of FAMILIES) {
        for (const from of pods) {
          for (const to of pods)
            if (from !== to)
              for (const how of ['tcp', 'udp'] as const)
                expect(
                  cluster.ask(from, how, to[family], 80),
                  `${from.name} ${how} ${to[family]}`,
                ).toMatchObject([{ who: to.name, seen: from[family] }]);
          for (const node of cluster.nodes)
            expect(
              cluster.ask(from, 'tcp', node[family], 8080),
              `${from.name} to ${node.name}`,
            ).toMatchObject([{ who: `host${node.index}`, seen: from[family] }]);
        }
        for (const node of cluster.nodes)
          for (const to of pods)
            expect(cluster.who(node, 'tcp', to[family], 80), `${node.name} to ${to.name}`).toBe(to.name);
        const [from, other] = [cluster.node(0), pod(1)];
        expect(cluster.ask(from, 'tcp', other[family], 80)).toMatchObject([{ seen: from[family] }]);
      }
    });

    it('serves services and node ports with backends on another node', async () => {
      const backend = pod(1);
      await cluster.apply(
        service('web', {
          type: 'NodePort',
          ipFamilyPolicy: 'RequireDualStack',
          clusterIPs: ['10.96.0.80', 'fd00:96::80'],
          ports: [{ port: 80, nodePort: 30080 }],
        }),
        ...([4, 6] as const).map((family) => slice('web', [{ pod: backend }], { family })),
      );
      for (const [i, address] of ['10.96.0.80', 'fd00:96::80'].entries()) {
        const family = i === 0 ? 'ipv4' : 'ipv6';
        for (const from of pods) {
          const own = from === backend ? {} : { seen: from[family] };
          expect(cluster.ask(perPacket(from), 'tcp', address, 80), `${from.name}`).toMatchObject([
            { who: 'pod1', ...own },
          ]);
        }
        if (haveCgroup) {
          expect(cluster.who(pod(0), 'udp', address, 81)).not.toBe('pod1');
          expect(cluster.who(cluster.node(0), 'tcp', address, 80)).toBe('pod1');
        }
        for (const node of cluster.nodes) {
          expect(cluster.who(cluster.outside, 'tcp', node[family], 30080), `by ${node.name}`).toBe('pod1');
          for (const from of pods)
            expect(
              cluster.who(perPacket(from), 'tcp', node[family], 30080),
              `${from.name} by ${node.name}`,
            ).toBe('pod1');
        }
      }
      // A process of the node that was asked.
      const { ipv4, ipv6, name } = cluster.node(1);
      for (const family of [4, 6] as const)
        await cluster.apply(
          slice('web', [{ pod: { ipv4, ipv6, node: name } }], { family, ports: [{ port: 8080 }] }),
        );
      for (const family of FAMILIES)
        for (const from of [cluster.outside, ...pods.map((one) => perPacket(one))])
          expect(cluster.who(from, 'tcp', cluster.node(1)[family], 30080), from.netns).toBe('host1');
      await cluster.drop({ services: ['web'], slices: ['web-4', 'web-6'] });
    });

    it.runIf(settings['nodeRouting'] === 'overlay')(
      'sends answers straight to the client where a service asks for it',
      async () => {
        const here = cluster.node(0);
        const { ipv4, ipv6 } = cluster.outside;
        const define = async (targetPort: number, backends: readonly Pod[]): Promise<void> => {
          const both = [
            { name: 't', port: targetPort },
            { name: 'u', port: targetPort, protocol: 'UDP' },
          ];
          const parts = backends.map((one) => ({ pod: one }));
          await cluster.apply(
            service(
              'direct',
              {
                type: 'NodePort',
                ipFamilyPolicy: 'RequireDualStack',
                ports: both.map((one) => ({ ...one, port: 80, nodePort: 30081 })),
              },
              { annotations: { 'sluice.dev/external-mode': 'dsr' } },
            ),
            ...([4, 6] as const).map((family) => slice('direct', parts, { family, ports: both })),
          );
        };
        await define(80, [pod(1)]);
        for (const family of FAMILIES) {
          const seen = family === 'ipv4' ? ipv4 : ipv6;
          for (const node of cluster.nodes)
            for (const how of ['tcp', 'udp'] as const)
              expect(
                cluster.ask(cluster.outside, how, node[family], 30081, { count: 3 }),
                `${how} by ${node.name} ${family}`,
              ).toMatchObject(Array(3).fill({ who: 'pod1', seen }));
          for (const from of [...pods, cluster.node(2)])
            expect(cluster.who(perPacket(from), 'tcp', here[family], 30081), from.netns).toBe('pod1');
        }
        // With a policy of the backend that knows the client.
        const block = (cidr: string) => ingressPolicy('in', 'web1', [{ from: [{ ipBlock: { cidr } }] }]);
        await cluster.apply(block(`${ipv4}/32`));
        expect(cluster.who(cluster.outside, 'tcp', here.ipv4, 30081)).toBe('pod1');
        const closed = block('192.0.2.0/24');
        await cluster.apply(closed);
        expect(cluster.who(cluster.outside, 'tcp', here.ipv4, 30081)).toBe('timeout');
        await Promise.all(cluster.nodes.map((node) => node.agent.delete(documents(closed))));
        // A node can send on what is for such a service, and nothing else.
        forge(cluster.node(2).netns, ipv4, pod(1).ipv4, 8080);
        const refused = async () =>
          (await cluster.node(1).agent.drops(1000)).some(({ reason }) => reason === 'tunnel_source');
        for (let i = 0; i < 100 && !(await refused()); i++)
          await new Promise((resolve) => setTimeout(resolve, 20));
        expect(await refused()).toBe(true);
        await define(9000, [pod(1)]);
        for (const family of FAMILIES) {
          for (const [how, bytes] of [
            ['tcp', 65_000],
            ['udp', 8000],
          ] as const)
            expect(
              cluster.call(cluster.outside, 'large', how, here[family], '30081', String(bytes)),
              `${how} ${family}`,
            ).toEqual([expect.stringContaining(` ${bytes}`)]);
        }
        await define(81, [pod(1)]);
        for (const family of FAMILIES)
          for (const how of ['tcp', 'udp'] as const)
            expect(
              cluster.who(cluster.outside, how, here[family], 30081, { timeoutMs: 2000 }),
              `${how} ${family}`,
            ).toBe('refused');
        // An open connection stays where it is when others come, and when the service is gone.
        const server = await cluster.server(pod(1), 'keep', 'kept', '8090');
        await define(8090, [pod(1)]);
        const { lines, done } = cluster.begin(cluster.outside, 'hold', here.ipv4, '30081', '30', '10');
        await until(() => lines.length >= 2);
        await define(80, pods);
        expect(cluster.who(cluster.outside, 'udp', here.ipv4, 30081, { count: 40 })).toBe('pod0 pod1 pod2');
        const before = lines.length;
        await until(() => lines.length > before || lines.length === 30);
        await cluster.drop({ services: ['direct'], slices: ['direct-4', 'direct-6'] });
        await done;
        expect(lines).toEqual(Array(30).fill('kept'));
        await server.stop();
      },
    );

    it('enforces policies of both ends, also on open connections', async () => {
      const [a, b] = [pod(0), pod(1)];
      await cluster.apply(
        ingressPolicy('in', 'web1', [{ from: [{ podSelector: { matchLabels: { app: 'web0' } } }] }]),
      );
      for (const family of FAMILIES) {
        expect(cluster.who(a, 'tcp', b[family], 80)).toBe('pod1');
        expect(cluster.who(cluster.node(0), 'tcp', b[family], 80)).toBe('timeout');
        expect(cluster.who(cluster.node(1), 'tcp', b[family], 80)).toBe('pod1');
      }
      const stream = cluster.begin(a, 'stream', b.ipv4, '80', '60', '20', '4711');
      await until(() => stream.lines.length >= 5);
      await cluster.apply(podObject(a, { app: 'other' }));
      await until(() => stream.lines.at(-1)?.startsWith('pod1') === false);
      await cluster.apply(podObject(a, { app: 'web0' }), egressPolicy('out', 'web0', ['web1']));
      expect(cluster.who(a, 'tcp', b.ipv6, 80)).toBe('pod1');
      expect(cluster.who(a, 'tcp', cluster.node(1).ipv4, 8080)).toBe('timeout');
      expect(cluster.who(a, 'tcp', cluster.node(0).ipv4, 8080)).toBe('host0');
      stream.stop();
      cluster.remove(['netpol', 'in'], ['netpol', 'out']);
    });

    it('carries large messages of both protocols, each way', () => expectLarge(cluster, pods, mtu));

    it('says in errors from another node what happened there', () => {
      for (const family of FAMILIES) {
        expect(cluster.who(pod(0), 'tcp', pod(1)[family], 81)).toBe('refused');
        expect(cluster.who(pod(0), 'udp', pod(1)[family], 81)).toBe('refused');
      }
    });

    it('keeps connections over a restart of an agent and takes new ones all the time; a killed one changes nothing', async () => {
      const stream = cluster.begin(pod(0), 'stream', pod(1).ipv4, '80', '200', '10', '4712', '2000');
      // Each of its messages opens a flow of its own.
      const fresh = cluster.begin(pod(0), 'stream', pod(1).ipv6, '80', '100000', '1', '0', '2000');
      const { agent } = cluster.node(1);
      await until(() => stream.lines.length >= 5 && fresh.lines.length >= 5);
      await agent.kill();
      const before = stream.lines.length;
      await until(() => stream.lines.length >= before + 10);
      await agent.start(cluster.scratch);
      const after = stream.lines.length;
      await until(() => stream.lines.length >= Math.min(200, after + 10));
      const opened = fresh.lines.length;
      await until(() => fresh.lines.length > opened);
      for (const { stop, lines } of [stream, fresh]) {
        stop();
        expect(lines.filter((line) => !line.startsWith('pod1'))).toEqual(['ready']);
      }
      expect(cluster.who(pod(1), 'tcp', pod(0).ipv6, 80)).toBe('pod0');
    });
  });
}

/** Waits for something that is about to happen. */
export async function until(condition: () => boolean, timeoutMs = 5000): Promise<void> {
  for (const deadline = Date.now() + timeoutMs; !condition(); ) {
    if (Date.now() > deadline) throw new Error('it did not happen');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
