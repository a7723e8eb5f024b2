import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { documents } from '../e2e/world.js';
import { Cluster, haveCgroup, type Pod, type PortSpec, perPacket, service, slice } from './cluster.js';

/** What services share with each other and with the host, and what becomes of open flows when a backend leaves. */

let cluster: Cluster;
let a: Pod;
let b: Pod;
let client: Pod;
let remote: Pod;
const UDP = [{ port: 80, protocol: 'UDP' }];

beforeAll(async () => {
  cluster = new Cluster('sledg', 2);
  await cluster.start();
  a = await cluster.pod(cluster.node(0), 'a', [80]);
  b = await cluster.pod(cluster.node(1), 'b', [80]);
  client = await cluster.pod(cluster.node(0), 'client', []);
  remote = await cluster.pod(cluster.node(1), 'remote', []);
});
afterAll(() => cluster.close());

const outside = (address: string, port: number, kind: 'tcp' | 'udp' = 'tcp') =>
  cluster.who(cluster.outside, kind, address, port);

interface Listed {
  readonly metadata: { readonly name: string };
  readonly spec: { readonly ports: readonly { readonly nodePort?: number }[] };
}

/** Node ports of a service as the agent has completed it. */
async function listedPorts(name: string): Promise<(number | undefined)[]> {
  const all = JSON.parse(await cluster.node(0).agent.list('services')) as Listed[];
  return all.find(({ metadata }) => metadata.name === name)?.spec.ports.map(({ nodePort }) => nodePort) ?? [];
}

describe('health checks', () => {
  it('count each backend once for the family that is asked, and say how long the answer is', async () => {
    await cluster.apply(
      service('hc', {
        type: 'LoadBalancer',
        clusterIPs: ['10.96.60.1', 'fd00:96::60:1'],
        ipFamilyPolicy: 'RequireDualStack',
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 30600,
      }),
      slice('hc', [{ pod: a }, { pod: client }, { pod: b }]),
      slice('hc', [{ pod: a }], { family: 6 }),
    );
    const [here, there] = [cluster.node(0), cluster.node(1)];
    const check = (address: string) =>
      inside(cluster.outside.netns, `curl -s -i -m 2 http://${address}:30600/healthz`).trim().split('\r\n');
    const body = (count: number) =>
      `{"service":{"namespace":"default","name":"hc"},"localEndpoints":${count},"serviceProxyHealthy":true}`;
    for (const [address, count] of [
      [here.ipv4, 2],
      [`[${here.ipv6}]`, 1],
      [there.ipv4, 1],
      [`[${there.ipv6}]`, 0],
    ] as const) {
      const lines = check(address);
      expect(lines[0], address).toBe(`HTTP/1.1 ${count > 0 ? '200 OK' : '503 Service Unavailable'}`);
      expect(lines.at(-1), address).toBe(body(count));
      expect(lines).toContain(`X-Load-Balancing-Endpoint-Weight: ${count}`);
      expect(lines).toContain('Content-Type: application/json');
      expect(lines).toContain('X-Content-Type-Options: nosniff');
      expect(lines).toContain(`Content-Length: ${body(count).length + 1}`);
    }
    await cluster.drop({ services: ['hc'], slices: ['hc-4', 'hc-6'] });
  });
});

describe('addresses and node ports', () => {
  const pair = (x: number, y: number) => [
    service('s1', {
      type: 'NodePort',
      clusterIP: `10.96.61.${x}`,
      ports: [{ port: 80, nodePort: 30610 + x }],
    }),
    service('s2', {
      type: 'NodePort',
      clusterIP: `10.96.61.${y}`,
      ports: [{ port: 80, nodePort: 30610 + y }],
    }),
  ];
  const found = () =>
    [1, 2].map((i) => [
      ...[client, perPacket(client)].map((from) => cluster.who(from, 'tcp', `10.96.61.${i}`, 80)),
      outside(cluster.node(0).ipv4, 30_610 + i),
    ]);

  it('can be exchanged by two services in one change, and stay where they are when it fails', async () => {
    await cluster.apply(...pair(1, 2), slice('s1', [{ pod: a }]), slice('s2', [{ pod: b }]));
    expect(found()).toEqual([Array(3).fill('a'), Array(3).fill('b')]);
    await cluster.apply(...pair(2, 1));
    expect(found()).toEqual([Array(3).fill('b'), Array(3).fill('a')]);
    const third = service('s3', { type: 'NodePort', ports: [{ port: 80, nodePort: 30612 }] });
    await expect(cluster.apply(...pair(1, 2), third)).rejects.toThrow(/30612 is already the one of service/);
    expect(found()).toEqual([Array(3).fill('b'), Array(3).fill('a')]);
    await expect(cluster.apply(third)).rejects.toThrow(/30612 is already the one of service default\/s1/);
    await cluster.drop({ services: ['s1', 's2'], slices: ['s1-4', 's2-4'] });
  });

  it('that were chosen for a service are not given to one that asks for them in the same change', async () => {
    const chosen = (spec: object) => service('s1', { type: 'NodePort', clusterIP: '10.96.61.3', ...spec });
    await cluster.apply(chosen({}));
    const [number = 0] = await listedPorts('s1');
    const other = service('s2', { type: 'NodePort', ports: [{ port: 80, nodePort: number }] });
    await expect(cluster.apply(chosen({ sessionAffinity: 'ClientIP' }), other)).rejects.toThrow(
      new RegExp(`${number} is already the one of service default/s1`),
    );
    expect(await listedPorts('s1')).toEqual([number]);
    await cluster.drop({ services: ['s1'] });
  });

  it('are not chosen for a load balancer that asks for none', async () => {
    const balancer = (...ports: PortSpec[]) =>
      service('none', {
        type: 'LoadBalancer',
        clusterIP: '10.96.61.4',
        allocateLoadBalancerNodePorts: false,
        ports,
      });
    const ports = [
      { name: 'x', port: 80 },
      { name: 'y', port: 81, nodePort: 30_620 },
    ];
    await cluster.apply(
      balancer(...ports),
      slice('none', [{ pod: a }], { ports: [{ name: 'y', port: 80 }] }),
    );
    expect(await listedPorts('none')).toEqual([undefined, 30_620]);
    expect(outside(cluster.node(0).ipv4, 30_620)).toBe('a');
    await cluster.drop({ services: ['none'], slices: ['none-4'] });
  });

  it('of a family that a service has no more are not served any more', async () => {
    const ips = ['10.96.61.6', 'fd00:96::61:6'];
    const define = (...families: number[]) =>
      cluster.apply(
        service('fam', {
          type: 'NodePort',
          clusterIPs: ips.slice(0, families.length),
          ipFamilies: families.map((family) => `IPv${family}`),
          ipFamilyPolicy: families.length > 1 ? 'RequireDualStack' : 'SingleStack',
          ports: [{ port: 80, nodePort: 30_621 }],
        }),
      );
    const { ipv4, ipv6 } = cluster.node(0);
    const who = () =>
      [client, perPacket(client), cluster.outside].map((from) =>
        [ipv4, ipv6].map((address) => cluster.who(from, 'tcp', address, 30_621)),
      );
    await define(4, 6);
    for (const family of [4, 6] as const) await cluster.apply(slice('fam', [{ pod: a }], { family }));
    expect(who()).toEqual(Array(3).fill(['a', 'a']));
    await define(4);
    expect(who()).toEqual(Array(3).fill(['a', 'refused']));
    expect(cluster.who(client, 'tcp', ips[1] ?? '', 80)).not.toBe('a');
    await define(4, 6);
    expect(who()).toEqual(Array(3).fill(['a', 'a']));
    await cluster.drop({ services: ['fam'], slices: ['fam-4', 'fam-6'] });
  });

  it('take no port from a process of the host where an external address is one of the host', async () => {
    const node = cluster.node(0);
    const address = node.ipv4;
    const other = '198.51.100.77';
    const server = await cluster.serve(node, 'host', [2222]);
    const ports = [
      { name: 'x', port: 2222, targetPort: 80 },
      { name: 'y', port: 2223, targetPort: 80 },
      { name: 'z', port: 2223, targetPort: 80, protocol: 'UDP' },
    ];
    const targets = ports.map(({ name, protocol = 'TCP' }) => ({ name, port: 80, protocol }));
    await cluster.apply(
      service('ex', { clusterIP: '10.96.61.5', externalIPs: [address, other], ports }),
      slice('ex', [{ pod: b }], { ports: targets }),
    );
    const from = [cluster.outside, client, perPacket(client), ...(haveCgroup ? [node] : [])];
    const who = (port: number, kind: 'tcp' | 'udp' = 'tcp', to = address) =>
      [...new Set(from.map((place) => cluster.who(place, kind, to, port)))].join(' ');
    expect([who(2222), who(2223), who(2223, 'udp')]).toEqual(['host', 'b', 'b']);
    const problems = async () => (await node.agent.status()).problems.map(({ message }) => message);
    expect(await problems()).toEqual([
      expect.stringMatching(`a process of this host listens on ${address} port 2222/TCP`),
    ]);
    // An address that the host has for a while only.
    expect(cluster.who(client, 'tcp', other, 2222)).toBe('b');
    inside(node.netns, `ip address add ${other}/32 dev eth0`);
    await expect.poll(() => cluster.who(client, 'tcp', other, 2222)).toBe('host');
    expect(cluster.who(client, 'tcp', other, 2223)).toBe('b');
    inside(node.netns, `ip address del ${other}/32 dev eth0`);
    await expect.poll(() => cluster.who(client, 'tcp', other, 2222)).toBe('b');
    await server.stop();
    expect(who(2222)).toBe('b');
    await cluster.drop({ services: ['ex'], slices: ['ex-4'] });
  });
});

describe('a backend that terminates', () => {
  it('keeps its UDP flows while it serves, and gets no others', async () => {
    const ip = '10.96.62.1';
    const node = cluster.node(0);
    const define = (ready: boolean, serving: boolean, terminating: boolean) =>
      cluster.apply(
        slice(
          'ut',
          [
            { pod: a, ready, serving, terminating },
            { pod: b, ready: !ready },
          ],
          { ports: UDP },
        ),
      );
    await cluster.apply(
      service('ut', {
        type: 'NodePort',
        clusterIP: ip,
        ports: [{ port: 80, protocol: 'UDP', nodePort: 30630 }],
      }),
    );
    await define(true, true, false);
    const stream = (from: Pod | typeof cluster.outside, to: string, port: number, source: number) =>
      cluster.begin(from, 'stream', to, String(port), '3000', '20', String(source));
    const open = [
      stream(client, ip, 80, 20_700),
      stream(perPacket(client), ip, 80, 20_701),
      stream(remote, ip, 80, 20_702),
      stream(perPacket(remote), ip, 80, 20_703),
      ...(haveCgroup ? [stream(node, ip, 80, 20_704)] : []),
      stream(cluster.outside, node.ipv4, 30_630, 20_705),
      stream(cluster.outside, cluster.node(1).ipv4, 30_630, 20_706),
    ];
    const all = (name: string) => Array<string>(open.length).fill(name);
    const last = () => open.map(({ lines }) => lines.at(-1)?.split(' ')[0]);
    await expect.poll(last, { timeout: 5000 }).toEqual(all('a'));
    await define(false, true, true);
    const counts = open.map(({ lines }) => lines.length);
    await expect
      .poll(() => open.every(({ lines }, i) => lines.length > (counts[i] ?? 0) + 5), { timeout: 5000 })
      .toBe(true);
    expect(
      open.map(({ lines }, i) =>
        [...new Set(lines.slice(counts[i]).map((line) => line.split(' ')[0]))].join(),
      ),
    ).toEqual(all('a'));
    for (const from of [client, perPacket(client), remote, perPacket(remote)])
      expect(cluster.who(from, 'udp', ip, 80, { count: 5 })).toBe('b');
    expect(outside(node.ipv4, 30_630, 'udp')).toBe('b');
    await define(false, false, true);
    await expect.poll(last, { timeout: 5000 }).toEqual(all('b'));
    for (const { stop } of open) stop();
    await cluster.drop({ services: ['ut'], slices: ['ut-4'] });
  });
});

describe.runIf(haveCgroup)('a container on the segment of the uplink', () => {
  it('reaches services at its sockets, and is refused there, because nobody sees its packets', async () => {
    const here = cluster.node(0);
    const [ip, ip6] = ['10.96.64.1', 'fd00:96::64:1'];
    await here.agent.apply(
      documents({
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'Network',
        metadata: { name: 'lan' },
        spec: {
          mode: 'macvlan',
          parent: 'eth0',
          ipv4: { cidr: '198.51.100.0/24', gateway: cluster.outside.ipv4 },
          ipv6: { cidr: '2001:db8:100::/64', gateway: cluster.outside.ipv6 },
        },
      }),
    );
    const [one, two] = [51, 52].map((number) => ({
      name: `mac${number}`,
      netns: cluster.scratch.netns(`mac${number}`),
      ipv4: `198.51.100.${number}`,
      ipv6: `2001:db8:100::${number}`,
      node: here.name,
      ...(here.group === undefined ? {} : { group: here.group }),
    })) as [Pod, Pod];
    for (const { name, netns, ipv4, ipv6 } of [one, two])
      await here.agent.apply(
        documents({
          apiVersion: 'sluice.dev/v1alpha1',
          kind: 'Container',
          metadata: { name },
          spec: { netns: { name: netns }, networks: [{ name: 'lan', ipv4, ipv6 }] },
        }),
      );
    await cluster.serve(one, 'one', [80]);
    const ports = [
      { name: 't', port: 80, nodePort: 30_640 },
      { name: 'u', port: 80, protocol: 'UDP', nodePort: 30_640 },
    ];
    await cluster.apply(
      service('lan', {
        type: 'NodePort',
        clusterIPs: [ip, ip6],
        ipFamilyPolicy: 'RequireDualStack',
        ports,
      }),
    );
    const frontends = [
      [ip, 80],
      [ip6, 80],
      [here.ipv4, 30_640],
      [here.ipv6, 30_640],
    ] as const;
    const who = (from: Pod, kind: 'tcp' | 'udp' | 'send') =>
      frontends.map(([address, port]) => cluster.who(from, kind, address, port));
    for (const kind of ['tcp', 'udp', 'send'] as const)
      expect(who(two, kind)).toEqual(Array(4).fill('refused'));
    for (const family of [4, 6] as const)
      await cluster.apply(
        slice('lan', [{ pod: one }], {
          family,
          ports: ports.map(({ name, protocol = 'TCP' }) => ({ name, port: 80, protocol })),
        }),
      );
    for (const from of [one, two])
      for (const kind of ['tcp', 'udp', 'send'] as const)
        expect(who(from, kind)).toEqual(Array(4).fill('one'));
    // A port that the service does not have.
    for (const address of [ip, ip6])
      for (const kind of ['tcp', 'udp'] as const)
        expect(cluster.who(two, kind, address, 81, { timeoutMs: 1000 })).toBe('refused');
    // Its own loopback is not the node's.
    await cluster.serve(two, 'two', [30_640]);
    for (const address of ['0.0.0.0', '127.0.0.1', '::1', '::'])
      expect(cluster.who(two, 'tcp', address, 30_640), address).toBe('two');
    // By way of another node, also from outside.
    for (const address of [cluster.node(1).ipv4, cluster.node(1).ipv6])
      for (const kind of ['tcp', 'udp'] as const)
        expect(outside(address, 30_640, kind), `${kind} ${address}`).toBe('one');
    await cluster.drop({ services: ['lan'], slices: ['lan-4', 'lan-6'] });
  });
});

describe('the zone of a node', () => {
  const node = (name: string, address: string, zone?: string) => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: zone === undefined ? {} : { 'topology.kubernetes.io/zone': zone } },
    status: { addresses: [{ type: 'InternalIP', address }] },
  });

  it('is what its Node says, where the settings say nothing', async () => {
    const ip = '10.96.63.1';
    const [here] = cluster.nodes;
    if (here === undefined) throw new Error('no node');
    const define = (zone?: string) => here.agent.apply(documents(node(here.name, here.ipv4, zone)));
    const asked = () =>
      [client, perPacket(client)].map((from) => cluster.who(from, 'tcp', ip, 80, { count: 24 }));
    await cluster.apply(
      service('zoned', { clusterIP: ip, trafficDistribution: 'PreferClose' }),
      slice('zoned', [
        { pod: a, zone: 'east', hints: ['east'] },
        { pod: b, zone: 'west', hints: ['west'] },
      ]),
    );
    expect(asked()).toEqual(['a b', 'a b']);
    await define('west');
    expect(asked()).toEqual(['b', 'b']);
    await define('east');
    expect(asked()).toEqual(['a', 'a']);
    await define();
    expect(asked()).toEqual(['a b', 'a b']);
    here.agent.cli('delete', 'node', here.name);
    await cluster.drop({ services: ['zoned'], slices: ['zoned-4'] });
  });
});

describe('what changed while no agent ran, and the disk does not know of', () => {
  const [vip, ip] = ['203.0.113.95', '10.96.65.1'];
  let folder: string;
  let alone: Cluster;
  let one: Pod;
  let two: Pod;
  const define = (spec: object, ...slices: readonly object[]): void => {
    const lb = { type: 'LoadBalancer', clusterIP: ip, ports: UDP, ...spec };
    const status = { loadBalancer: { ingress: [{ ip: vip }] } };
    writeFileSync(join(folder, 'lb.yaml'), documents(service('lb', lb, {}, status), ...slices));
  };
  const backend = (pod: Pod): object => slice('lb', [{ pod }], { ports: UDP });
  /** A kill before the disk has what the kernel has. */
  const away = async (change: () => void): Promise<void> => {
    const { agent } = alone.node(0);
    await agent.kill();
    rmSync(join(agent.folder, 'state', 'folder.json'));
    change();
    await agent.start(alone.scratch);
  };

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-edges-'));
    alone = new Cluster('sledr', 1, [{ definitions: folder }]);
    alone.scratch.folder(folder);
    define({});
    await alone.start();
    one = await alone.pod(alone.node(0), 'one', [80]);
    two = await alone.pod(alone.node(0), 'two', [80]);
  });
  afterAll(() => alone.close());

  it('source ranges admit nobody that they do not admit now', async () => {
    const who = () => [one, two].map((from) => alone.who(perPacket(from), 'udp', vip, 80));
    for (const [pod, expected] of [
      [one, ['one', 'timeout']],
      [two, ['timeout', 'one']],
    ] as const) {
      const ranges = { loadBalancerSourceRanges: [`${pod.ipv4}/32`] };
      await away(() => define(ranges, backend(one)));
      expect(who()).toEqual(expected);
    }
  });

  it('UDP leaves a backend that is none any more', async () => {
    await away(() => define({}, backend(one)));
    const open = [two, perPacket(two)].map((place, i) =>
      alone.begin(place, 'stream', ip, '80', '3000', '20', String(20_800 + i)),
    );
    const last = () => open.map(({ lines }) => lines.at(-1)?.split(' ')[0]);
    await expect.poll(last, { timeout: 5000 }).toEqual(open.map(() => 'one'));
    await away(() => define({}, backend(two)));
    await expect.poll(last, { timeout: 5000 }).toEqual(open.map(() => 'two'));
    for (const { stop } of open) stop();
  });
});
