import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sh } from '../../bench/lib/command.js';
import { inside, veth } from '../../bench/lib/netns.js';
import { clear } from '../node/kernel-state.js';
import { container, documents, HOST, network, OUTSIDE, trafficTool, World } from './world.js';

/** Networks of every mode with real sockets. */

let world: World;
const CGROUP = '/sys/fs/cgroup/unified';
const group = join(CGROUP, `slt-net-${process.pid}`);
const haveCgroup = existsSync(join(CGROUP, 'cgroup.procs'));

let count = 0;
/** Namespaces of the containers of a test. */
const containers = (...roles: readonly string[]): string[] => {
  count++;
  return roles.map((role) => world.container(`${role}${count}`));
};

beforeAll(async () => {
  if (haveCgroup) mkdirSync(group, { recursive: true });
  world = new World('slnet', haveCgroup ? { cgroupRoot: group } : {});
  await world.agent.start(world.scratch);
  await sayPeer(world.outside, 9000);
});
afterEach(async () => {
  await clear(world);
  await expect.poll(devices, { timeout: 10_000 }).toEqual(['lo', 'uplink0']);
  expect(inside(world.host, 'ip -br address show lo')).not.toContain('10.');
});
afterAll(async () => {
  try {
    await world.agent.down();
    expect(devices()).toEqual(['lo', 'uplink0']);
  } finally {
    world.close();
    if (haveCgroup) rmdirSync(group);
  }
});

function devices(): (string | undefined)[] {
  const lines = inside(world.host, 'ip -br link').trim().split('\n');
  return lines.map((line) => line.split(/[\s@]/)[0]).sort();
}

const serve = (netns: string, port: number) => world.traffic(netns, 'tcp-server', '::', port, 60);

/** A program that is in the cgroup of the host's processes before it begins. */
async function fromHost(address: string, port: number): Promise<string> {
  const script = `echo $$ > ${group}/cgroup.procs; exec ${trafficTool()} tcp-probe ${address} ${port} 500`;
  return (await world.start(world.host, 'sh', ['-c', script], false)).done;
}

function ping(netns: string, address: string, ...more: string[]): string {
  try {
    return inside(netns, `ping -n -c 1 -W 1 ${more.join(' ')} ${address}`);
  } catch (error) {
    return (error as Error).message;
  }
}

/** Python, because it prints what the other side saw. */
function peerSeen(netns: string, address: string, port: number): string {
  return inside(
    netns,
    'python3 -',
    {},
    `import socket\ns = socket.create_connection(("${address}", ${port}), 2)\nprint(s.recv(200).decode())\n`,
  ).trim();
}

function sayPeer(netns: string, port: number) {
  const script = `import socket\ns = socket.socket(socket.AF_INET6)\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\ns.bind(("::", ${port}))\ns.listen(16)\nprint("ready", flush=True)\nwhile True:\n  c, a = s.accept()\n  c.send(a[0].encode())\n  c.close()\n`;
  return world.start(netns, 'python3', ['-c', script], true);
}

describe('routed', () => {
  it('connects containers, host and outside in both families, with published ports', async () => {
    const [a, b, c] = containers('a', 'b', 'c') as [string, string, string];
    await world.agent.apply(
      documents(
        network('one', 71),
        network('two', 72),
        container({ name: 'a', netns: a, networks: ['one'] }),
        container({
          name: 'b',
          netns: b,
          networks: [{ name: 'one', ipv4: '10.71.0.20', ipv6: 'fd71::20' }],
          hostPorts: [
            { hostPort: 8080, containerPort: 80 },
            { hostPort: 8081, containerPort: 80, hostAddress: HOST.v4 },
          ],
        }),
        container({ name: 'c', netns: c, networks: ['two'] }),
      ),
    );
    await serve(b, 80);
    await serve(world.host, 7000);
    // Container to container, host and back.
    for (const address of ['10.71.0.20', 'fd71::20']) {
      expect(await world.probe(a, address, 80)).toBe('open');
      expect(await world.probe(world.host, address, 80)).toBe('open');
      expect(await world.probe(c, address, 80)).toBe('timeout');
      expect(ping(a, address)).toContain(' 0% packet loss');
    }
    for (const address of ['10.71.0.1', 'fd71::1', HOST.v4, HOST.v6]) {
      expect(await world.probe(a, address, 7000)).toBe('open');
      expect(ping(a, address)).toContain(' 0% packet loss');
    }
    // Masquerade: the outside sees the host.
    expect(peerSeen(a, OUTSIDE.v4, 9000)).toBe(`::ffff:${HOST.v4}`);
    expect(peerSeen(a, OUTSIDE.v6, 9000)).toBe(HOST.v6);
    expect(ping(a, OUTSIDE.v4)).toContain(' 0% packet loss');
    expect(ping(a, OUTSIDE.v6)).toContain(' 0% packet loss');
    expect(ping(a, OUTSIDE.v4, '-t', '1')).toContain('10.71.0.1');
    // Published ports: from outside, other containers of any network, the container itself, the host.
    for (const address of [HOST.v4, HOST.v6]) {
      expect(await world.probe(world.outside, address, 8080)).toBe('open');
      for (const from of [a, b, c]) expect(await world.probe(from, address, 8080)).toBe('open');
    }
    expect(await world.probe(world.outside, HOST.v4, 8081)).toBe('open');
    expect(await world.probe(world.outside, HOST.v6, 8081)).toBe('refused');
    if (haveCgroup) {
      for (const address of ['127.0.0.1', '::1', HOST.v4, HOST.v6])
        expect(await fromHost(address, 8080)).toBe('open');
      expect(await fromHost('127.0.0.1', 9999)).toBe('refused');
    }
    // Addresses are given again after the containers are gone, and not before.
    const leases = world.agent.cli('get', 'leases');
    expect(leases).toContain('10.71.0.20');
    await world.agent.kill();
    await world.agent.start(world.scratch);
    expect(world.agent.cli('get', 'leases')).toBe(leases);
    expect(await world.probe(a, '10.71.0.20', 80)).toBe('open');
  });

  it('gives a container several networks', async () => {
    const [a, b, c] = containers('a', 'b', 'c') as [string, string, string];
    await world.agent.apply(
      documents(
        network('one', 71),
        network('two', 72),
        container({ name: 'a', netns: a, networks: ['one'] }),
        container({
          name: 'b',
          netns: b,
          networks: [
            { name: 'one', ipv4: '10.71.0.20', ipv6: 'fd71::20' },
            { name: 'two', ipv4: '10.72.0.20', ipv6: 'fd72::20' },
          ],
        }),
        container({ name: 'c', netns: c, networks: ['two'] }),
      ),
    );
    await serve(b, 80);
    await serve(a, 80);
    expect(await world.probe(a, '10.71.0.20', 80)).toBe('open');
    expect(await world.probe(c, '10.72.0.20', 80)).toBe('open');
    expect(await world.probe(c, 'fd72::20', 80)).toBe('open');
    expect(await world.probe(c, '10.71.0.20', 80)).toBe('timeout');
    expect(await world.probe(b, '10.71.0.2', 80)).toBe('open');
    expect(inside(b, 'ip -4 route show default').trim().split('\n')).toHaveLength(1);
    // And loses one again.
    await world.agent.apply(
      documents(
        container({ name: 'b', netns: b, networks: [{ name: 'one', ipv4: '10.71.0.20', ipv6: 'fd71::20' }] }),
      ),
    );
    expect(await world.probe(a, '10.71.0.20', 80)).toBe('open');
    expect(await world.probe(c, '10.72.0.20', 80)).toBe('timeout');
    expect(inside(b, 'ip -br link')).not.toContain('eth1');
  });

  it('finds the path MTU through the translation', async () => {
    const [a] = containers('a') as [string];
    const far = world.scratch.netns('far');
    veth(world.outside, 'narrow', far, 'eth0');
    for (const [netns, device, address] of [
      [world.outside, 'narrow', '1'],
      [far, 'eth0', '2'],
    ] as const) {
      inside(netns, `ip link set ${device} mtu 1300`);
      inside(netns, `ip address add 203.0.113.${address}/24 dev ${device}`);
      inside(netns, `ip address add 2001:db8:200::${address}/64 dev ${device} nodad`);
    }
    inside(world.outside, 'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1');
    inside(far, 'ip route add default via 203.0.113.1');
    inside(far, 'ip -6 route add default via 2001:db8:200::1');
    await world.agent.apply(
      documents(network('one', 71), container({ name: 'a', netns: a, networks: ['one'] })),
    );
    expect(ping(a, '203.0.113.2', '-M do', '-s 1400')).toMatch(/mtu ?= ?1300/);
    expect(ping(a, '2001:db8:200::2', '-M do', '-s 1400')).toMatch(/mtu ?[=:] ?1300/);
    expect(inside(a, 'ip route get 203.0.113.2')).toContain('mtu 1300');
    expect(ping(a, '203.0.113.2', '-M do', '-s 1200')).toContain(' 0% packet loss');
  });

  it('answers itself when a container sends more than the uplink carries', async () => {
    const [a] = containers('a') as [string];
    await world.agent.apply(
      documents(network('one', 71, { mtu: 4000 }), container({ name: 'a', netns: a, networks: ['one'] })),
    );
    expect(ping(a, OUTSIDE.v4, '-M do', '-s 2000')).toMatch(/mtu ?= ?1500/);
    expect(ping(a, OUTSIDE.v6, '-M do', '-s 2000')).toMatch(/mtu ?[=:] ?1500/);
    expect(ping(a, OUTSIDE.v4, '-s 3000')).not.toContain('permitted');
  });
});

describe('bridge', () => {
  it('has one segment with broadcast, and policy all the same', async () => {
    const [a, b] = containers('a', 'b') as [string, string];
    await world.agent.apply(
      documents(
        network('seg', 73, { mode: 'bridge' }),
        container({ name: 'a', netns: a, networks: ['seg'], labels: { app: 'a' } }),
        container({
          name: 'b',
          netns: b,
          networks: [{ name: 'seg', ipv4: '10.73.0.20', ipv6: 'fd73::20' }],
          labels: { app: 'b' },
          hostPorts: [{ hostPort: 8080, containerPort: 80 }],
        }),
      ),
    );
    await serve(b, 80);
    expect(inside(a, 'ip route get 10.73.0.20')).not.toContain('via');
    expect(await world.probe(a, '10.73.0.20', 80)).toBe('open');
    expect(await world.probe(a, 'fd73::20', 80)).toBe('open');
    expect(await world.probe(world.host, '10.73.0.20', 80)).toBe('open');
    expect(await world.probe(world.outside, HOST.v4, 8080)).toBe('open');
    expect(peerSeen(a, OUTSIDE.v4, 9000)).toBe(`::ffff:${HOST.v4}`);
    inside(b, 'sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0');
    expect(ping(a, '10.73.0.255', '-b')).toContain('10.73.0.20');
    await world.agent.apply(
      documents({
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'deny', namespace: 'default' },
        spec: { podSelector: { matchLabels: { app: 'b' } }, policyTypes: ['Ingress'] },
      }),
    );
    expect(await world.probe(a, '10.73.0.20', 80)).toBe('timeout');
    expect(ping(a, '10.73.0.255', '-b')).not.toContain('10.73.0.20');
  });
});

describe('macvlan', () => {
  it('puts containers on the segment of the uplink, and judges there', async () => {
    const [a, b] = containers('a', 'b') as [string, string];
    const spec = {
      mode: 'macvlan',
      parent: 'uplink0',
      ipv4: { cidr: '198.51.100.0/24', gateway: OUTSIDE.v4 },
      ipv6: { cidr: '2001:db8:100::/64', gateway: OUTSIDE.v6 },
    };
    await world.agent.apply(
      documents(
        { apiVersion: 'sluice.dev/v1alpha1', kind: 'Network', metadata: { name: 'lan' }, spec },
        container({
          name: 'a',
          netns: a,
          networks: [{ name: 'lan', ipv4: '198.51.100.50', ipv6: '2001:db8:100::50' }],
          labels: { app: 'a' },
        }),
        container({
          name: 'b',
          netns: b,
          networks: [{ name: 'lan', ipv4: '198.51.100.51', ipv6: '2001:db8:100::51' }],
        }),
      ),
    );
    await serve(a, 80);
    expect(await world.probe(world.outside, '198.51.100.50', 80)).toBe('open');
    expect(await world.probe(b, '2001:db8:100::50', 80)).toBe('open');
    expect(peerSeen(a, OUTSIDE.v4, 9000)).toBe('::ffff:198.51.100.50');
    await world.agent.apply(
      documents({
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'deny', namespace: 'default' },
        spec: { podSelector: { matchLabels: { app: 'a' } }, policyTypes: ['Ingress'] },
      }),
    );
    expect(await world.probe(world.outside, '198.51.100.50', 80)).toBe('timeout');
    expect(await world.probe(b, '2001:db8:100::50', 80)).toBe('timeout');
    expect(peerSeen(a, OUTSIDE.v4, 9000)).toBe('::ffff:198.51.100.50');
  });
});

describe('MTU', () => {
  it.each(['routed', 'bridge', 'macvlan'])('may be as small as IPv4 allows (%s)', async (mode) => {
    const [a] = containers('a') as [string];
    const spec = {
      mode,
      mtu: 576,
      ...(mode === 'macvlan' ? { parent: 'uplink0' } : {}),
      ipv4: { cidr: '10.75.0.0/24' },
    };
    const net = { apiVersion: 'sluice.dev/v1alpha1', kind: 'Network', metadata: { name: 'small' }, spec };
    await world.agent.apply(documents(net, container({ name: 'a', netns: a, networks: ['small'] })));
    expect(inside(a, 'ip -o link show eth0')).toContain('mtu 576');
    if (mode !== 'macvlan') expect(ping(a, '10.75.0.1', '-s 1400')).toContain('1 received');
  });
});

describe('none and host', () => {
  it('leave the container without a device, and without its own namespace', async () => {
    const [a] = containers('a') as [string];
    const bare = (name: string, mode: string) => ({
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Network',
      metadata: { name },
      spec: { mode },
    });
    await world.agent.apply(
      documents(
        bare('nothing', 'none'),
        bare('mine', 'host'),
        container({ name: 'a', netns: a, networks: ['nothing'] }),
        {
          apiVersion: 'sluice.dev/v1alpha1',
          kind: 'Container',
          metadata: { name: 'daemon' },
          spec: { networks: ['mine'] },
        },
      ),
    );
    expect(inside(a, 'ip -br link').trim().split('\n')).toHaveLength(1);
    expect(world.agent.cli('get', 'containers')).toContain('daemon');
  });
});

describe('a namespace that goes and comes', () => {
  it('is told, and filled again', async () => {
    const [a] = containers('a') as [string];
    const file = join(world.agent.folder, 'defs.yaml');
    writeFileSync(
      file,
      documents(
        network('one', 71),
        container({ name: 'a', netns: a, networks: [{ name: 'one', ipv4: '10.71.0.9' }] }),
      ),
    );
    world.agent.cli('apply', '-f', file);
    sh(`ip netns del ${a}`);
    const becomes = (state: string) =>
      expect.poll(async () => (await world.agent.status()).state, { timeout: 10_000 }).toBe(state);
    await becomes('degraded');
    expect(world.agent.cli('status')).toContain(a);
    sh(`ip netns add ${a}`);
    await becomes('ready');
    expect(inside(a, 'ip -4 -br address show eth0')).toContain('10.71.0.9');
    expect(ping(a, '10.71.0.1')).toContain(' 0% packet loss');
  });
});
