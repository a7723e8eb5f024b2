import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster, type Pod, perPacket, service, slice } from './cluster.js';

/**
 * Behaviours of cluster addresses (shared/conformance/services/behaviours.json, by id) with real sockets, two nodes.
 * Each is seen by sockets in the cgroup, which are translated when they connect, and per packet.
 */

let cluster: Cluster;
let a: Pod;
let b: Pod;
let client: Pod;
let remote: Pod;

beforeAll(async () => {
  cluster = new Cluster('slcip', 2);
  await cluster.start();
  a = await cluster.pod(cluster.node(0), 'a', [80, 81]);
  b = await cluster.pod(cluster.node(1), 'b', [80, 82]);
  client = await cluster.pod(cluster.node(0), 'client', []);
  remote = await cluster.pod(cluster.node(1), 'remote', []);
});
afterAll(() => cluster.close());

describe.each(['socket', 'packet'])('cluster addresses, translated per %s', (how) => {
  const via = (pod: Pod) => (how === 'socket' ? pod : perPacket(pod));
  const net = how === 'socket' ? 1 : 2;
  const clients = () => [client, remote].map(via);

  it('CIP-1 NOEP-1 serves exactly the ready endpoints, and refuses when there are none', async () => {
    const ip = `10.96.1.${net}`;
    await cluster.apply(service('one', { clusterIP: ip, ports: [{ port: 80 }] }));
    for (const from of clients()) expect(cluster.who(from, 'tcp', ip, 80)).toBe('refused');
    await cluster.apply(slice('one', [{ pod: a }]));
    for (const from of clients()) expect(cluster.who(from, 'tcp', ip, 80, { count: 8 })).toBe('a');
    await cluster.apply(slice('one', [{ pod: a }, { pod: b }]));
    for (const from of clients()) expect(cluster.who(from, 'tcp', ip, 80, { count: 40 })).toBe('a b');
    await cluster.apply(slice('one', [{ pod: a, ready: false }, { pod: b }]));
    for (const from of clients()) expect(cluster.who(from, 'tcp', ip, 80, { count: 20 })).toBe('b');
    await cluster.apply(slice('one', []));
    for (const from of clients()) expect(cluster.who(from, 'tcp', ip, 80)).toBe('refused');
    await cluster.drop({ services: ['one'], slices: ['one-4'] });
  });

  it('CIP-2 EPS-1 EPS-2 keeps the ports of a service apart and merges all of its slices', async () => {
    const ip = `10.96.2.${net}`;
    await cluster.apply(
      service('two', {
        clusterIP: ip,
        ports: [
          { name: 'x', port: 1000, targetPort: 81 },
          { name: 'y', port: 2000, targetPort: 82 },
        ],
      }),
      slice('two', [{ pod: a }], { name: 'two-a', ports: [{ name: 'x', port: 81 }] }),
      slice('two', [{ pod: b }], { name: 'two-b', ports: [{ name: 'y', port: 82 }] }),
      slice('two', [{ pod: b }], { name: 'two-c', ports: [{ name: 'y', port: 82 }] }),
    );
    for (const from of clients()) {
      expect(cluster.who(from, 'tcp', ip, 1000, { count: 6 })).toBe('a');
      expect(cluster.who(from, 'tcp', ip, 2000, { count: 6 })).toBe('b');
    }
    await cluster.drop({ slices: ['two-c'] });
    expect(cluster.who(via(client), 'tcp', ip, 2000)).toBe('b');
    await cluster.drop({ slices: ['two-b'] });
    expect(cluster.who(via(client), 'tcp', ip, 2000)).toBe('refused');
    await cluster.drop({ services: ['two'], slices: ['two-a'] });
  });

  it('CIP-3 SNAT-1 DS-1 keeps the source address of a pod, on its node and across nodes', async () => {
    const ip = `10.96.3.${net}`;
    await cluster.apply(
      service('three', { clusterIP: ip, ports: [{ port: 80 }] }),
      slice('three', [{ pod: a }]),
    );
    for (const from of [client, remote]) {
      expect(cluster.ask(via(from), 'tcp', ip, 80)[0]?.seen).toBe(from.ipv4);
      expect(cluster.ask(via(from), 'tcp', a.ipv4, 80)[0]?.seen).toBe(from.ipv4);
      expect(cluster.ask(via(from), 'tcp', a.ipv6, 80)[0]?.seen).toBe(from.ipv6);
    }
    await cluster.drop({ services: ['three'], slices: ['three-4'] });
  });

  it('CIP-4 PATH-6 PATH-7 DS-9 lets an endpoint reach itself and the others through its service', async () => {
    const [ip, ip6] = [`10.96.4.${net}`, `fd00:96::4:${net}`];
    await cluster.apply(
      service('four', {
        clusterIPs: [ip, ip6],
        ipFamilyPolicy: 'RequireDualStack',
        ports: [
          { name: 't', port: 80 },
          { name: 'u', port: 80, protocol: 'UDP' },
        ],
      }),
    );
    const ports = [
      { name: 't', port: 80 },
      { name: 'u', port: 80, protocol: 'UDP' },
    ];
    const both = async (pods: Pod[]) => {
      for (const family of [4, 6] as const)
        await cluster.apply(
          slice(
            'four',
            pods.map((pod) => ({ pod })),
            { family, ports },
          ),
        );
    };
    await both([a]);
    for (const address of [ip, ip6]) {
      for (const kind of ['tcp', 'udp', 'send'] as const)
        expect(cluster.who(via(a), kind, address, 80, { count: 3 })).toBe('a');
    }
    await both([a, b]);
    for (const address of [ip, ip6]) {
      for (const kind of ['tcp', 'udp'] as const)
        expect(cluster.who(via(a), kind, address, 80, { count: 30 })).toBe('a b');
    }
    await cluster.drop({ services: ['four'], slices: ['four-4', 'four-6'] });
  });

  it('CIP-5 PATH-8 HEAD-1 HEAD-2 EPS-3 TYPE-4 TYPE-6 serves what is defined now, and only that', async () => {
    const [one, two] = [`10.96.5.${net}`, `10.96.6.${net}`];
    const define = (name: string, ip: string, labels: Record<string, string> = {}) =>
      cluster.apply(
        service(name, { clusterIP: ip, ports: [{ port: 80 }] }, { labels }),
        slice(name, [{ pod: a }]),
      );
    await define('five', one);
    await define('six', two);
    expect(cluster.who(via(client), 'tcp', one, 80)).toBe('a');
    await cluster.drop({ services: ['five'] });
    expect(cluster.who(via(client), 'tcp', one, 80)).not.toBe('a');
    expect(cluster.who(via(client), 'tcp', two, 80)).toBe('a');
    for (const label of ['service.kubernetes.io/headless', 'service.kubernetes.io/service-proxy-name']) {
      await define('six', two, { [label]: 'x' });
      expect(cluster.who(via(client), 'tcp', two, 80)).not.toBe('a');
      await define('six', two);
      expect(cluster.who(via(client), 'tcp', two, 80)).toBe('a');
    }
    await cluster.apply(service('six', { type: 'ExternalName', externalName: 'example.org', ports: [] }));
    expect(cluster.who(via(client), 'tcp', two, 80)).not.toBe('a');
    await define('six', two);
    expect(cluster.who(via(client), 'tcp', two, 80)).toBe('a');
    await cluster.drop({ services: ['six'], slices: ['five-4', 'six-4'] });
  });

  it('RDY-1 TERM-1 uses terminating endpoints that serve, when none is ready', async () => {
    const ip = `10.96.7.${net}`;
    await cluster.apply(service('seven', { clusterIP: ip, ports: [{ port: 80 }] }));
    const set = (part: object) => cluster.apply(slice('seven', [{ pod: a, ...part }]));
    await set({ ready: false, serving: true, terminating: true });
    for (const from of clients()) expect(cluster.who(from, 'tcp', ip, 80)).toBe('a');
    await set({ ready: false, serving: false, terminating: true });
    for (const from of clients()) expect(cluster.who(from, 'tcp', ip, 80)).toBe('refused');
    // What publishes addresses that are not ready has `ready` in its slice.
    await set({ ready: true, serving: false, terminating: true });
    for (const from of clients()) expect(cluster.who(from, 'tcp', ip, 80)).toBe('a');
    await cluster.drop({ services: ['seven'], slices: ['seven-4'] });
  });

  it('ITP-1 TERM-2 obeys internalTrafficPolicy Local', async () => {
    const ip = `10.96.8.${net}`;
    await cluster.apply(
      service('eight', { clusterIP: ip, internalTrafficPolicy: 'Local', ports: [{ port: 80 }] }),
    );
    for (const part of [{}, { ready: false, serving: true, terminating: true }]) {
      await cluster.apply(slice('eight', [{ pod: a, ...part }]));
      expect(cluster.who(via(client), 'tcp', ip, 80, { count: 5 })).toBe('a');
      expect(cluster.who(via(remote), 'tcp', ip, 80, { count: 3 })).toBe('refused');
    }
    await cluster.drop({ services: ['eight'], slices: ['eight-4'] });
  });

  it('AFF-1 AFF-2 AFF-3 AFF-7 keeps a client at its backend, for as long as it was told', async () => {
    const ip = `10.96.9.${net}`;
    const ports = [
      { name: 't', port: 80 },
      { name: 'u', port: 80, protocol: 'UDP' },
    ];
    const define = (spec: object) => cluster.apply(service('nine', { clusterIP: ip, ports, ...spec }));
    const sticky = {
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 1 } },
    };
    await define(sticky);
    await cluster.apply(slice('nine', [{ pod: a }, { pod: b }], { ports }));
    for (const kind of ['tcp', 'udp', 'send'] as const)
      expect(['a', 'b']).toContain(cluster.who(via(client), kind, ip, 80, { count: 20 }));
    await define({});
    expect(cluster.who(via(client), 'tcp', ip, 80, { count: 40 })).toBe('a b');
    await define(sticky);
    expect(['a', 'b']).toContain(cluster.who(via(client), 'tcp', ip, 80, { count: 20 }));
    // After a pause that is longer than the time, the choice is free again: some round finds the other one.
    const found = new Set<string>();
    for (let round = 0; round < 12 && found.size < 2; round++) {
      found.add(cluster.who(via(client), 'tcp', ip, 80, { count: 3 }));
      await new Promise((resolve) => setTimeout(resolve, 1300));
    }
    expect([...found].sort()).toEqual(['a', 'b']);
    await cluster.drop({ services: ['nine'], slices: ['nine-4'] });
  });

  it('PATH-1 PATH-2 PATH-9 PATH-10 DS-7 DS-10 reaches every endpoint, and none that is gone', async () => {
    const [ip, ip6] = [`10.96.10.${net}`, `fd00:96::10:${net}`];
    const ports = [
      { name: 't', port: 80 },
      { name: 'u', port: 80, protocol: 'UDP' },
    ];
    await cluster.apply(service('ten', { clusterIPs: [ip, ip6], ipFamilyPolicy: 'PreferDualStack', ports }));
    const both = async (...pods: Pod[]) => {
      for (const family of [4, 6] as const)
        await cluster.apply(
          slice(
            'ten',
            pods.map((pod) => ({ pod })),
            { family, ports },
          ),
        );
    };
    await both(a, b);
    for (const address of [ip, ip6]) {
      for (const kind of ['tcp', 'udp'] as const)
        expect(cluster.who(via(client), kind, address, 80, { count: 40 })).toBe('a b');
    }
    await both(b);
    for (const address of [ip, ip6]) {
      for (const kind of ['tcp', 'udp', 'send'] as const)
        expect(cluster.who(via(client), kind, address, 80, { count: 10 })).toBe('b');
    }
    await cluster.drop({ services: ['ten'], slices: ['ten-4', 'ten-6'] });
  });

  it.runIf(how === 'packet')(
    'keeps two connections of one source port apart, through the service and to its backend on another node',
    async () => {
      const ip = '10.96.12.1';
      await cluster.server(b, 'keep', 'b', '90');
      await cluster.apply(
        service('twelve', { clusterIP: ip, ports: [{ port: 90 }] }),
        slice('twelve', [{ pod: b }], { ports: [{ port: 90 }] }),
      );
      for (const [i, ways] of [
        [ip, b.ipv4],
        [b.ipv4, ip],
      ].entries()) {
        const open: ReturnType<Cluster['begin']>[] = [];
        for (const to of ways) {
          const words = ['hold', to, '90', to === ways[0] ? '5000' : '10', '5', String(20_500 + i)];
          const connection = cluster.begin(via(client), ...words);
          open.push(connection);
          while (connection.lines.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        }
        await open[1]?.done;
        const before = open[0]?.lines.length ?? 0;
        for (let n = 0; n < 400 && (open[0]?.lines.length ?? 0) < before + 5; n++)
          await new Promise((resolve) => setTimeout(resolve, 5));
        open[0]?.stop();
        expect(open[1]?.lines).toEqual(Array.from({ length: 10 }, () => 'b'));
        expect(open[0]?.lines.length).toBeGreaterThanOrEqual(before + 5);
        expect(new Set(open[0]?.lines)).toEqual(new Set(['b']));
      }
      await cluster.drop({ services: ['twelve'], slices: ['twelve-4'] });
    },
  );

  it('CT-2 CT-4 DS-11 moves a client that never stops sending from one port', async () => {
    const ip = `10.96.11.${net}`;
    const ports = [{ port: 80, protocol: 'UDP' }];
    await cluster.apply(service('eleven', { clusterIP: ip, ports }));
    const { lines, stop, done } = cluster.begin(
      via(client),
      'stream',
      ip,
      '80',
      '3000',
      '20',
      String(20000 + net),
    );
    const until = async (name: string) => {
      for (let i = 0; i < 500 && !lines.at(-1)?.startsWith(name); i++)
        await new Promise((resolve) => setTimeout(resolve, 20));
      return lines.at(-1)?.split(' ')[0];
    };
    await cluster.apply(slice('eleven', [{ pod: a, ready: false }], { ports }));
    expect(await until('refused')).toBe('refused');
    await cluster.apply(slice('eleven', [{ pod: a }], { ports }));
    expect(await until('a')).toBe('a');
    await cluster.apply(slice('eleven', [{ pod: b }], { ports }));
    expect(await until('b')).toBe('b');
    stop();
    await done;
    await cluster.drop({ services: ['eleven'], slices: ['eleven-4'] });
  });

  it('PATH-13 PATH-14 DS-12 carries what is larger than a packet', async () => {
    const [ip, ip6] = [`10.96.12.${net}`, `fd00:96::12:${net}`];
    const ports = [
      { name: 't', port: 80 },
      { name: 'u', port: 80, protocol: 'UDP' },
    ];
    await cluster.apply(
      service('twelve', { clusterIPs: [ip, ip6], ipFamilyPolicy: 'RequireDualStack', ports }),
      slice('twelve', [{ pod: b }], { ports }),
      slice('twelve', [{ pod: b }], { ports, family: 6 }),
    );
    for (const address of [ip, ip6]) {
      expect(cluster.call(via(client), 'large', 'tcp', address, '80', '60000')[0]).toMatch(/^b .* 60000$/);
      expect(cluster.call(via(client), 'large', 'udp', address, '80', '4000')[0]).toMatch(/^b .* 4000$/);
    }
    await cluster.drop({ services: ['twelve'], slices: ['twelve-4', 'twelve-6'] });
  });

  it('tells a socket the address that it asked for', async () => {
    const ip = `10.96.13.${net}`;
    const ports = [
      { name: 't', port: 99, targetPort: 80 },
      { name: 'u', port: 99, targetPort: 80, protocol: 'UDP' },
    ];
    const targets = [
      { name: 't', port: 80 },
      { name: 'u', port: 80, protocol: 'UDP' },
    ];
    await cluster.apply(
      service('thirteen', { clusterIP: ip, ports }),
      slice('thirteen', [{ pod: a }], { ports: targets }),
    );
    for (const kind of ['tcp', 'udp', 'send'] as const) {
      expect(cluster.ask(via(client), kind, ip, 99)).toEqual([
        { who: 'a', seen: client.ipv4, peer: `${ip} 99` },
      ]);
      // The same service through a mapped address.
      expect(cluster.ask(via(client), kind, `::ffff:${ip}`, 99)[0]?.peer).toBe(`${ip} 99`);
    }
    await cluster.drop({ services: ['thirteen'], slices: ['thirteen-4'] });
  });
});
