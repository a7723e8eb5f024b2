import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { DENY, hostPolicy, tcp, udp } from '../host/policies.js';
import { Cluster, haveCgroup, type NodeOfCluster, type Pod, perPacket, service, slice } from './cluster.js';

/** Behaviours of what is reached from outside: node ports, load balancers, external addresses; and host processes. */

let cluster: Cluster;
let a: Pod;
let b: Pod;
let client: Pod;
let remote: Pod;
const VIP = '203.0.113.77';

beforeAll(async () => {
  // The second one has its programs where kernels before 6.6 have them.
  cluster = new Cluster('slnp', 2, [{}, { hooks: 'clsact' }]);
  await cluster.start();
  a = await cluster.pod(cluster.node(0), 'a', [80]);
  b = await cluster.pod(cluster.node(1), 'b', [80]);
  client = await cluster.pod(cluster.node(0), 'client', []);
  remote = await cluster.pod(cluster.node(1), 'remote', []);
  inside(cluster.outside.netns, `ip route add ${VIP}/32 via ${cluster.node(0).ipv4}`);
});
afterAll(() => cluster.close());

const BOTH = [
  { name: 't', port: 80 },
  { name: 'u', port: 80, protocol: 'UDP' },
];
const nodePorts = (number: number) => [
  { name: 't', port: 80, nodePort: number },
  { name: 'u', port: 80, protocol: 'UDP', nodePort: number },
];

async function slices(
  name: string,
  pods: Parameters<typeof slice>[1],
  families: readonly (4 | 6)[] = [4],
): Promise<void> {
  for (const family of families) await cluster.apply(slice(name, pods, { ports: BOTH, family }));
}

/** Status of the health check port, or `closed`. */
const status = (node: number, port: number): string => {
  const address = cluster.node(node).ipv4;
  try {
    return inside(
      cluster.outside.netns,
      `curl -s -o /dev/null -m 2 -w %{http_code} http://${address}:${port}/healthz`,
    );
  } catch {
    return 'closed';
  }
};

describe('node ports', () => {
  it('TYPE-1 PATH-4 PATH-5 DS-8 answer on every node, from outside, pods and host processes', async () => {
    await cluster.apply(
      service('np', {
        type: 'NodePort',
        clusterIP: '10.96.20.1',
        ipFamilyPolicy: 'PreferDualStack',
        ports: nodePorts(30080),
      }),
    );
    await slices('np', [{ pod: a }], [4, 6]);
    for (const node of cluster.nodes) {
      for (const address of [node.ipv4, node.ipv6]) {
        for (const kind of ['tcp', 'udp'] as const) {
          expect(
            `${address} ${kind} ${cluster.who(cluster.outside, kind, address, 30080, { count: 3 })}`,
          ).toBe(`${address} ${kind} a`);
        }
        for (const from of [client, remote, perPacket(client), perPacket(remote)])
          expect(cluster.who(from, 'tcp', address, 30080)).toBe('a');
      }
    }
    if (haveCgroup) {
      for (const node of cluster.nodes) {
        for (const address of ['127.0.0.1', '::1', node.ipv4, node.ipv6, '10.96.20.1']) {
          for (const kind of ['tcp', 'udp', 'send'] as const)
            expect(cluster.who(node, kind, address, address === '10.96.20.1' ? 80 : 30080)).toBe('a');
        }
      }
    }
  });

  it('TYPE-2 TYPE-3 TYPE-7 TYPE-9 PATH-11 PATH-12 stop answering when they change or go', async () => {
    const node = cluster.node(0);
    const outside = (port: number, kind: 'tcp' | 'udp' = 'tcp') =>
      cluster.who(cluster.outside, kind, node.ipv4, port);
    const define = (spec: Parameters<typeof service>[1]) =>
      cluster.apply(service('np', { clusterIP: '10.96.20.1', ...spec }));
    await slices('np', [{ pod: a }]);
    await define({ type: 'NodePort', ports: nodePorts(30081) });
    expect([outside(30080), outside(30081), outside(30081, 'udp')]).toEqual(['refused', 'a', 'a']);
    await define({ type: 'NodePort', ports: nodePorts(30081).slice(0, 1) });
    expect([outside(30081), outside(30081, 'udp')]).toEqual(['a', 'refused']);
    await define({ ports: BOTH });
    expect(outside(30081)).toBe('refused');
    expect(cluster.who(client, 'tcp', '10.96.20.1', 80)).toBe('a');
    await define({ type: 'NodePort', ports: nodePorts(30081) });
    await cluster.apply(service('np', { type: 'ExternalName', externalName: 'example.org', ports: [] }));
    expect([outside(30081), outside(30081, 'udp')]).toEqual(['refused', 'refused']);
    await define({ type: 'NodePort', ports: nodePorts(30081) });
    expect(outside(30081)).toBe('a');
    await cluster.drop({ services: ['np'], slices: ['np-4', 'np-6'] });
    expect([outside(30081), outside(30081, 'udp')]).toEqual(['refused', 'refused']);
    const server = await cluster.serve(node, 'host', [30081]);
    expect(outside(30081)).toBe('host');
    await server.stop();
  });

  it('TYPE-8 TYPE-10 are refused when they collide or are out of range', async () => {
    await cluster.apply(service('first', { type: 'NodePort', ports: nodePorts(30090) }));
    await expect(
      cluster.apply(service('second', { type: 'NodePort', ports: nodePorts(30090) })),
    ).rejects.toThrow(/30090 is already the one of service default\/first/);
    await expect(cluster.apply(service('second', { type: 'NodePort', ports: nodePorts(1) }))).rejects.toThrow(
      /1 is outside of 30000-32767/,
    );
    await cluster.drop({ services: ['first'] });
    await cluster.apply(service('second', { type: 'NodePort', ports: nodePorts(30090) }));
    await cluster.drop({ services: ['second'] });
  });

  it('are answered by the node that was asked where there is no overlay, and the status says so', async () => {
    const direct = { annotations: { 'sluice.dev/external-mode': 'dsr' } };
    await cluster.apply(
      service('np', { type: 'NodePort', clusterIP: '10.96.20.6', ports: nodePorts(30098) }, direct),
    );
    await slices('np', [{ pod: a }]);
    const codes = async () => (await cluster.node(1).agent.status()).problems.map(({ code }) => code);
    expect(await codes()).toEqual(['SLU1810']);
    expect(cluster.who(cluster.outside, 'tcp', cluster.node(1).ipv4, 30098)).toBe('a');
    await cluster.drop({ services: ['np'], slices: ['np-4'] });
    expect(await codes()).toEqual([]);
  });

  it('take no port from a process of the host', async () => {
    await cluster.apply(
      service('np', { type: 'NodePort', clusterIP: '10.96.20.2', ports: nodePorts(30099) }),
    );
    await slices('np', [{ pod: a }]);
    const node = cluster.node(0);
    const server = await cluster.serve(node, 'host', [30099]);
    const { problems } = await node.agent.status();
    expect(problems.map(({ code }) => code)).toEqual(['SLU1808', 'SLU1808']);
    for (const kind of ['tcp', 'udp'] as const) {
      expect(cluster.who(cluster.outside, kind, node.ipv4, 30099)).toBe('host');
      // A UDP server that is not bound to an address answers a container from another one.
      if (kind === 'tcp') expect(cluster.who(client, kind, node.ipv4, 30099)).toBe('host');
    }
    await server.stop();
    expect(cluster.who(cluster.outside, 'tcp', node.ipv4, 30099)).toBe('a');
    await cluster.drop({ services: ['np'], slices: ['np-4'] });
  });

  it('ETP-1 ETP-4 TERM-3 TERM-4 RDY-2 RDY-3 keep the source under the policy Local, and only then', async () => {
    const define = (externalTrafficPolicy: string) =>
      cluster.apply(
        service('np', {
          type: 'NodePort',
          clusterIP: '10.96.20.3',
          externalTrafficPolicy,
          ports: nodePorts(30100),
        }),
      );
    const ask = (node: number) => cluster.ask(cluster.outside, 'tcp', cluster.node(node).ipv4, 30100)[0];
    await define('Local');
    await slices('np', [{ pod: a }]);
    expect(ask(0)).toMatchObject({ who: 'a', seen: cluster.outside.ipv4 });
    expect(ask(1)?.who).toBe('timeout');
    // From inside, any endpoint will do; from a pod of another node it is outside.
    expect(cluster.who(client, 'tcp', cluster.node(0).ipv4, 30100)).toBe('a');
    expect(cluster.who(remote, 'tcp', cluster.node(1).ipv4, 30100)).toBe('a');
    expect(cluster.who(client, 'tcp', cluster.node(1).ipv4, 30100)).toBe('timeout');
    await slices('np', [{ pod: a, ready: false, serving: true, terminating: true }]);
    expect([ask(0)?.who, ask(1)?.who]).toEqual(['a', 'timeout']);
    await slices('np', [{ pod: a, ready: false, serving: false, terminating: true }]);
    expect([ask(0)?.who, ask(1)?.who]).toEqual(['refused', 'refused']);
    await slices('np', [{ pod: a, ready: true, serving: false, terminating: true }]);
    expect(ask(0)?.who).toBe('a');
    await define('Cluster');
    for (const node of [0, 1]) {
      const found = ask(node);
      expect(found?.who).toBe('a');
      expect(found?.seen).not.toBe(cluster.outside.ipv4);
    }
    await slices('np', [{ pod: a, ready: false, serving: true, terminating: true }]);
    expect([ask(0)?.who, ask(1)?.who]).toEqual(['a', 'a']);
    await slices('np', [{ pod: a, ready: false, serving: false, terminating: true }]);
    expect([ask(0)?.who, ask(1)?.who]).toEqual(['refused', 'refused']);
    await slices('np', [{ pod: a }]);
    await define('Local');
    expect(ask(0)).toMatchObject({ who: 'a', seen: cluster.outside.ipv4 });
    await cluster.drop({ services: ['np'], slices: ['np-4'] });
  });

  it('AFF-4 AFF-5 AFF-6 keep a client by its own address', async () => {
    const define = (spec: object) =>
      cluster.apply(
        service('np', { type: 'NodePort', clusterIP: '10.96.20.4', ports: nodePorts(30110), ...spec }),
      );
    const sticky = {
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 1 } },
    };
    const ask = (count: number) =>
      cluster.who(cluster.outside, 'tcp', cluster.node(0).ipv4, 30110, { count });
    await define(sticky);
    await slices('np', [{ pod: a }, { pod: b }]);
    expect(['a', 'b']).toContain(ask(20));
    await define({});
    expect(ask(60)).toBe('a b');
    await define(sticky);
    const found = new Set<string>();
    for (let round = 0; round < 12 && found.size < 2; round++) {
      found.add(ask(3));
      await new Promise((resolve) => setTimeout(resolve, 1300));
    }
    expect([...found].sort()).toEqual(['a', 'b']);
    await cluster.drop({ services: ['np'], slices: ['np-4'] });
  });

  it('CT-1 moves a client that never stops sending from one port', async () => {
    await cluster.apply(
      service('np', { type: 'NodePort', clusterIP: '10.96.20.5', ports: nodePorts(30120) }),
    );
    const { lines, stop, done } = cluster.begin(
      cluster.outside,
      'stream',
      cluster.node(0).ipv4,
      '30120',
      '3000',
      '20',
      '20500',
    );
    const until = async (name: string) => {
      for (let i = 0; i < 500 && !lines.at(-1)?.startsWith(name); i++)
        await new Promise((resolve) => setTimeout(resolve, 20));
      return lines.at(-1)?.split(' ')[0];
    };
    expect(await until('refused')).toBe('refused');
    await slices('np', [{ pod: a }]);
    expect(await until('a')).toBe('a');
    await slices('np', [{ pod: b }]);
    expect(await until('b')).toBe('b');
    stop();
    await done;
    await cluster.drop({ services: ['np'], slices: ['np-4'] });
  });
});

describe('load balancers', () => {
  const balancer = (name: string, spec: object, mode = 'VIP') =>
    cluster.apply(
      service(
        name,
        { type: 'LoadBalancer', clusterIP: '10.96.21.1', ports: BOTH, ...spec },
        {},
        {
          loadBalancer: { ingress: [{ ip: VIP, ipMode: mode }] },
        },
      ),
    );

  it('ETP-2 ETP-3 TERM-5 say on the health check port where the endpoints are', async () => {
    await balancer('lb', { externalTrafficPolicy: 'Local', healthCheckNodePort: 30200 });
    await slices('lb', [{ pod: a }]);
    expect([status(0, 30200), status(1, 30200)]).toEqual(['200', '503']);
    await slices('lb', [{ pod: b }]);
    expect([status(0, 30200), status(1, 30200)]).toEqual(['503', '200']);
    // From inside the address of the load balancer leads to every endpoint, and the pod keeps its address.
    for (const from of [client, perPacket(client)])
      expect(cluster.ask(from, 'tcp', VIP, 80)[0]).toMatchObject({ who: 'b', seen: client.ipv4 });
    await slices('lb', [{ pod: a, ready: false, serving: true, terminating: true }]);
    expect(status(0, 30200)).toBe('503');
    expect(cluster.ask(cluster.outside, 'tcp', VIP, 80)[0]).toMatchObject({
      who: 'a',
      seen: cluster.outside.ipv4,
    });
    await balancer('lb', {});
    expect(status(0, 30200)).toBe('closed');
    await cluster.drop({ services: ['lb'], slices: ['lb-4'] });
  });

  it('ETP-5 take only the sources that they are told to', async () => {
    const ranges = (list: readonly string[]) => balancer('lb', { loadBalancerSourceRanges: list });
    await slices('lb', [{ pod: b }]);
    const can = () => [
      ...[client, perPacket(client), remote, perPacket(remote)].map((from) =>
        cluster.who(from, 'tcp', VIP, 80),
      ),
      cluster.who(cluster.outside, 'tcp', VIP, 80),
    ];
    await ranges([`${client.ipv4}/32`]);
    expect(can()).toEqual(['b', 'b', 'timeout', 'timeout', 'timeout']);
    await ranges([`${remote.ipv4}/32`, `${cluster.outside.ipv4}/32`]);
    expect(can()).toEqual(['timeout', 'timeout', 'b', 'b', 'b']);
    await ranges([]);
    expect(can()).toEqual(['b', 'b', 'b', 'b', 'b']);
    await cluster.drop({ services: ['lb'], slices: ['lb-4'] });
  });

  it('take nobody of a family for which they are told no sources', async () => {
    const vips = [VIP, '2001:db8:77::77'] as const;
    const ranges = (...list: readonly string[]) =>
      cluster.apply(
        service(
          'lb',
          {
            type: 'LoadBalancer',
            clusterIP: '10.96.24.2',
            ipFamilyPolicy: 'RequireDualStack',
            ports: BOTH,
            loadBalancerSourceRanges: list,
          },
          {},
          { loadBalancer: { ingress: vips.map((ip) => ({ ip })) } },
        ),
      );
    const can = () => vips.map((vip) => cluster.who(client, 'tcp', vip, 80));
    await slices('lb', [{ pod: b }], [4, 6]);
    await ranges('0.0.0.0/0');
    expect(can()).toEqual(['b', 'timeout']);
    await ranges('::/0');
    expect(can()).toEqual(['timeout', 'b']);
    await ranges();
    expect(can()).toEqual(['b', 'b']);
    await cluster.drop({ services: ['lb'], slices: ['lb-4', 'lb-6'] });
  });

  it('of mode Proxy get the traffic themselves; external addresses are served', async () => {
    await balancer('lb', { externalIPs: ['203.0.113.78'] }, 'Proxy');
    await slices('lb', [{ pod: b }]);
    expect(cluster.who(client, 'tcp', VIP, 80)).not.toBe('b');
    expect(cluster.who(client, 'tcp', '203.0.113.78', 80)).toBe('b');
    await cluster.drop({ services: ['lb'], slices: ['lb-4'] });
  });
});

describe('host processes that are reached from outside on their own node', () => {
  const TARGET = 8083;
  const PORTS = BOTH.map((port) => ({ ...port, port: TARGET }));
  const KINDS = ['tcp', 'udp'] as const;
  const define = (number: number, spec: object = {}) =>
    cluster.apply(
      service(
        'hn',
        {
          type: 'LoadBalancer',
          clusterIP: '10.96.23.1',
          ipFamilyPolicy: 'PreferDualStack',
          ports: nodePorts(number),
          ...spec,
        },
        {},
        { loadBalancer: { ingress: [{ ip: VIP }] } },
      ),
    );
  const backends = async (...nodes: readonly NodeOfCluster[]) => {
    const parts = nodes.map(({ ipv4, ipv6, name }) => ({ pod: { ipv4, ipv6, node: name } }));
    for (const family of [4, 6] as const) await cluster.apply(slice('hn', parts, { ports: PORTS, family }));
  };
  const outside = (address: string, port: number, timeoutMs?: number) =>
    KINDS.map((kind) =>
      cluster.who(cluster.outside, kind, address, port, timeoutMs === undefined ? {} : { timeoutMs }),
    );

  it('answer with the address of the service, and see the client', async () => {
    await define(30310);
    for (const node of cluster.nodes) {
      await cluster.serve(node, `host${node.index}`, [TARGET]);
      await backends(node);
      for (const address of [node.ipv4, node.ipv6]) {
        for (const kind of KINDS) {
          const [found] = cluster.ask(cluster.outside, kind, address, 30310);
          const seen = address === node.ipv4 ? cluster.outside.ipv4 : cluster.outside.ipv6;
          expect(found, `${kind} ${address}`).toMatchObject({ who: `host${node.index}`, seen });
          // More than a frame holds, in segments and in fragments.
          const [large] = cluster.call(cluster.outside, 'large', kind, address, '30310', '8000');
          expect(large).toBe(`host${node.index} ${seen} 8000`);
        }
        for (const from of [client, perPacket(client), remote, perPacket(remote)])
          expect(cluster.who(from, 'tcp', address, 30310)).toBe(`host${node.index}`);
      }
      expect(outside(VIP, 80)).toEqual([`host${node.index}`, `host${node.index}`]);
    }
  });

  it('are reached under both policies for traffic from outside', async () => {
    const [here, there] = [cluster.node(0), cluster.node(1)];
    await backends(here, there);
    await define(30310, { externalTrafficPolicy: 'Local' });
    for (const node of cluster.nodes)
      expect(outside(node.ipv4, 30310)).toEqual([`host${node.index}`, `host${node.index}`]);
    await backends(there);
    expect(outside(here.ipv4, 30310, 100)).toEqual(['timeout', 'timeout']);
    await define(30310);
    expect(outside(here.ipv4, 30310)).toEqual(['host1', 'host1']);
  });

  it('refuse in the name of the service what nobody listens for', async () => {
    await define(30311);
    for (const node of cluster.nodes) {
      const parts = [{ pod: { ipv4: node.ipv4, ipv6: node.ipv6, node: node.name } }];
      const ports = BOTH.map((port) => ({ ...port, port: 8084 }));
      for (const family of [4, 6] as const) await cluster.apply(slice('hn', parts, { ports, family }));
      for (const address of [node.ipv4, node.ipv6])
        expect(outside(address, 30311, 2000), address).toEqual(['refused', 'refused']);
    }
  });

  it('stay connected over changes, and when they are no backends any more', async () => {
    await define(30312);
    for (const node of cluster.nodes) {
      const server = await cluster.server(node, 'keep', 'kept', '8085');
      const part = { pod: { ipv4: node.ipv4, ipv6: node.ipv6, node: node.name } };
      await cluster.apply(slice('hn', [part], { ports: [{ name: 't', port: 8085 }] }));
      const { lines, done } = cluster.begin(cluster.outside, 'hold', node.ipv4, '30312', '30', '10');
      const more = async (count: number) => {
        const wanted = lines.length + count;
        for (let i = 0; i < 500 && lines.length < wanted; i++)
          await new Promise((resolve) => setTimeout(resolve, 10));
      };
      await more(2);
      await cluster.apply(service('other', { clusterIP: '10.96.23.2' }));
      await more(2);
      await cluster.drop({ services: ['other'], slices: ['hn-4'] });
      await done;
      expect(lines).toEqual(Array(30).fill('kept'));
      await server.stop();
    }
  });

  it('have the policy of the host asked about their own port', async () => {
    await define(30313);
    await backends(...cluster.nodes);
    await define(30313, { externalTrafficPolicy: 'Local' });
    const policy = (number: number) =>
      hostPolicy('ports', {
        ingress: [{ action: 'Accept', protocols: [tcp(number), udp(number)] }, DENY],
        egress: [DENY],
      });
    await cluster.apply(policy(TARGET));
    for (const node of cluster.nodes)
      expect(outside(node.ipv4, 30313)).toEqual([`host${node.index}`, `host${node.index}`]);
    await cluster.apply(policy(30313));
    for (const node of cluster.nodes) expect(outside(node.ipv4, 30313, 100)).toEqual(['timeout', 'timeout']);
    cluster.remove(['hostpolicy', 'ports']);
    await cluster.drop({ services: ['hn'], slices: ['hn-4', 'hn-6'] });
  });
});

describe.runIf(haveCgroup)('host processes', () => {
  it('ITP-2 ITP-3 obey internalTrafficPolicy, also towards a backend that is a host process', async () => {
    const node = cluster.node(0);
    const server = await cluster.serve(node, 'hostpod', [8081]);
    await cluster.apply(
      service('itp', {
        clusterIP: '10.96.22.1',
        internalTrafficPolicy: 'Local',
        ports: [{ port: 80, targetPort: 8081 }],
      }),
    );
    const set = (pod: { ipv4: string; ipv6: string; node: string }, port: number) =>
      cluster.apply(slice('itp', [{ pod }], { ports: [{ port }] }));
    await set({ ipv4: a.ipv4, ipv6: a.ipv6, node: 'node0' }, 80);
    expect(cluster.who(node, 'tcp', '10.96.22.1', 80)).toBe('a');
    expect(cluster.who(cluster.node(1), 'tcp', '10.96.22.1', 80)).toBe('refused');
    await set({ ipv4: node.ipv4, ipv6: node.ipv6, node: 'node0' }, 8081);
    for (const from of [node, client, perPacket(client)])
      expect(cluster.who(from, 'tcp', '10.96.22.1', 80)).toBe('hostpod');
    for (const from of [cluster.node(1), remote, perPacket(remote)])
      expect(cluster.who(from, 'tcp', '10.96.22.1', 80)).toBe('refused');
    await server.stop();
    await cluster.drop({ services: ['itp'], slices: ['itp-4'] });
  });

  it('PATH-16 SVC-1 are reached through a service as backends', async () => {
    const node = cluster.node(0);
    const server = await cluster.serve(node, 'hostpod', [8082]);
    await cluster.apply(
      service('hp', {
        type: 'NodePort',
        clusterIP: '10.96.22.2',
        ports: [
          { name: 't', port: 80, targetPort: 8082, nodePort: 30300 },
          { name: 'u', port: 80, targetPort: 8082, protocol: 'UDP', nodePort: 30300 },
        ],
      }),
      slice('hp', [{ pod: { ipv4: node.ipv4, ipv6: node.ipv6, node: 'node0' } }], {
        ports: [
          { name: 't', port: 8082 },
          { name: 'u', port: 8082, protocol: 'UDP' },
        ],
      }),
    );
    // A UDP server that is not bound to an address answers from the one that the host chooses: only TCP here.
    for (const from of [client, perPacket(client), remote, perPacket(remote)])
      expect(cluster.ask(from, 'tcp', '10.96.22.2', 80)[0]).toMatchObject({ who: 'hostpod' });
    expect(cluster.who(cluster.outside, 'tcp', cluster.node(1).ipv4, 30300)).toBe('hostpod');
    await server.stop();
    await cluster.drop({ services: ['hp'], slices: ['hp-4'] });
  });

  it('CT-3 leave a UDP backend that is gone', async () => {
    const ports = [{ port: 80, protocol: 'UDP' }];
    await cluster.apply(
      service('ct', { clusterIP: '10.96.22.3', ports }),
      slice('ct', [{ pod: a }], { ports }),
    );
    const { lines, stop, done } = cluster.begin(
      cluster.node(0),
      'stream',
      '10.96.22.3',
      '80',
      '3000',
      '20',
      '20600',
    );
    const until = async (name: string) => {
      for (let i = 0; i < 500 && !lines.at(-1)?.startsWith(name); i++)
        await new Promise((resolve) => setTimeout(resolve, 20));
      return lines.at(-1)?.split(' ')[0];
    };
    expect(await until('a')).toBe('a');
    await cluster.apply(slice('ct', [{ pod: b }], { ports }));
    expect(await until('b')).toBe('b');
    stop();
    await done;
    await cluster.drop({ services: ['ct'], slices: ['ct-4'] });
  });
});
