import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { sh } from '../../bench/lib/command.js';
import { inside, netnsPath, veth } from '../../bench/lib/netns.js';
import { allowIngress, container, documents, network, OUTSIDE, World } from '../e2e/world.js';
import { hostState, listed, mapEntries, pins, until } from './kernel-state.js';

/** The host around the containers: it changes while they run, and in the end it is as it was before. */

let world: World;
afterEach(() => world.close());

function answered(netns: string, address: string): boolean {
  try {
    return inside(netns, `ping -n -c 1 -W 1 ${address}`).includes(' 0% packet loss');
  } catch {
    return false;
  }
}

describe('a change of the host is followed', () => {
  it('another address, another MTU, another uplink', async () => {
    world = new World('slhost');
    const [a, other] = [world.container('a'), world.container('other')] as [string, string];
    await world.agent.start(world.scratch);
    await world.agent.apply(
      documents(network('net', 84), container({ name: 'a', netns: a, networks: ['net'] })),
    );
    expect(answered(a, OUTSIDE.v4)).toBe(true);

    inside(world.host, 'ip address flush dev uplink0 scope global');
    inside(world.host, 'ip address add 198.51.100.77/24 dev uplink0');
    inside(world.host, `ip route add default via ${OUTSIDE.v4}`);
    // 198.51.100.77, v4-mapped; until then answers to the old address still come.
    await until('the new address', () => mapEntries(world).uplinks?.join().includes('ffffc633644d') ?? false);
    await until('masquerading with the new address', () => answered(a, OUTSIDE.v4));
    expect(answered(a, '10.84.0.1')).toBe(true);

    inside(world.host, 'ip link set uplink0 mtu 1400');
    await until('the new MTU', () => inside(a, 'ip link show eth0').includes('mtu 1400'));

    veth(world.host, 'uplink1', other, 'eth0');
    inside(world.host, 'ip address add 203.0.113.1/24 dev uplink1');
    inside(other, 'ip address add 203.0.113.2/24 dev eth0');
    expect((await world.agent.status()).uplinks).toEqual(['uplink0']);
    inside(world.host, 'ip route replace default via 203.0.113.2');
    await until('the new uplink', async () => (await world.agent.status()).uplinks.includes('uplink1'));
    expect(answered(a, '203.0.113.2')).toBe(true);
  });

  it('a device of ours that somebody deletes is made again', async () => {
    world = new World('sldev');
    const a = world.container('a');
    await world.agent.start(world.scratch);
    await world.agent.apply(
      documents(network('net', 84), container({ name: 'a', netns: a, networks: ['net'] })),
    );
    const [endpoint] = await listed<{ hostDevice: string; ipv4: string }>(world, 'endpoints');
    inside(world.host, `ip link del ${endpoint?.hostDevice}`);
    await until('the device', () => answered(a, '10.84.0.1'));
    expect((await listed<{ ipv4: string }>(world, 'endpoints'))[0]?.ipv4).toBe(endpoint?.ipv4);
    expect(mapEntries(world).endpoints).toHaveLength(1);
  });
});

describe('published ports', () => {
  it('are none that connections of the host get, and in the end what it was', async () => {
    world = new World('slports');
    const a = world.container('a');
    const setting = 'net.ipv4.ip_local_reserved_ports';
    const reserved = (): string => inside(world.host, `sysctl -n ${setting}`).trim();
    const publish = (...ports: readonly number[]): Promise<unknown> => {
      const hostPorts = ports.map((hostPort) => ({ hostPort, containerPort: 80 }));
      const object = container({ name: 'a', netns: a, networks: ['net'], hostPorts });
      return world.agent.apply(documents(network('net', 84), object));
    };
    inside(world.host, `sysctl -qw ${setting}=8080,50100`);
    await world.agent.start(world.scratch);
    await publish(80, 50000, 50001, 50100);
    expect(reserved()).toBe('8080,50000-50001,50100');
    await world.agent.kill();
    inside(world.host, `sysctl -qw ${setting}=8080,50000-50001,50100,50200`);
    await world.agent.start(world.scratch);
    expect(reserved()).toBe('8080,50000-50001,50100,50200');
    await publish(50001);
    expect(reserved()).toBe('8080,50001,50100,50200');
    // The kernel takes no more than a page of text: as many as there is room for, and a word about the others.
    const gaps = Array.from({ length: 800 }, (_, i) => 50_001 + 2 * i);
    await publish(...gaps);
    expect(reserved()).toMatch(/^8080,50001,50003,/);
    expect(reserved().length).toBeGreaterThan(3980);
    const { problems } = await world.agent.status();
    expect(problems.map(({ message }) => message)).toEqual([
      expect.stringMatching(/no room in .*ip_local_reserved_ports for \d+ of 800 published ports between/),
    ]);
    await publish(50001);
    expect(reserved()).toBe('8080,50001,50100,50200');
    expect((await world.agent.status()).problems).toEqual([]);
    await world.agent.down();
    expect(reserved()).toBe('8080,50100,50200');
  });
});

describe('down', () => {
  const setUp = async (): Promise<ReturnType<typeof hostState>> => {
    world = new World('sldown');
    const before = hostState(world);
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((role) => world.container(role)) as [
      string,
      string,
      string,
      string,
    ];
    await world.agent.start(world.scratch);
    await world.agent.apply(
      documents(
        network('net', 84),
        network('segment', 85, { mode: 'bridge' }),
        network('outer', 86, { mode: 'macvlan', parent: 'uplink0' }),
        container({
          name: 'a',
          netns: a,
          networks: ['net'],
          hostPorts: [{ hostPort: 80, containerPort: 80 }],
        }),
        container({ name: 'b', netns: b, networks: ['segment', 'net'] }),
        container({ name: 'c', netns: c, networks: ['outer'] }),
        {
          ...container({ name: 'd', netns: d, networks: ['outer'] }),
          spec: { netns: { path: netnsPath(d) }, networks: [{ name: 'outer', device: 'wan0' }] },
        },
        allowIngress('p', 'a', ['b']),
      ),
    );
    // What others have, some of it with names like ours.
    for (const line of [
      'ip link add sl89abcdef type veth peer name sl89abcde0',
      'ip link add slbr89abcdef type bridge',
      'ip route add 192.0.2.0/24 via 198.51.100.2 proto 84',
      'ip address add 192.0.2.77/32 dev lo',
    ]) {
      inside(world.host, line);
    }
    return before;
  };

  const check = (before: ReturnType<typeof hostState>): void => {
    const after = hostState(world);
    const left = (name: string): string[] =>
      after[name]?.filter((line) => !before[name]?.includes(line)) ?? [];
    expect(
      left('links')
        .map((line) => line.split(' ')[0])
        .sort(),
    ).toEqual(['sl89abcde0@sl89abcdef', 'sl89abcdef@sl89abcde0', 'slbr89abcdef']);
    expect(left('addresses')).toEqual(['lo inet 192.0.2.77/32']);
    expect(after['settings']).toEqual(before['settings']);
    expect(pins(world)).toEqual([]);
    for (const line of left('routes')) expect(line).toMatch(/192\.0\.2\./);
    for (const line of before['routes'] ?? []) expect(after['routes']).toContain(line);
    for (const netns of sh('ip netns list').split('\n')) {
      const name = netns.split(' ')[0] ?? '';
      if (!name.startsWith(world.host.replace(/host$/, '')) || name === world.host || name === world.outside)
        continue;
      expect(inside(name, 'ip -br link').trim().split('\n')).toHaveLength(1);
    }
  };

  it('with the agent leaves the host as it was', async () => {
    const before = await setUp();
    await world.agent.down();
    check(before);
  });

  it('after the agent was killed, and twice, leaves the host as it was', async () => {
    const before = await setUp();
    await world.agent.kill();
    const down = (): string =>
      inside(
        world.host,
        `${process.execPath} bin/sluice down --config ${join(world.agent.folder, 'agent.yaml')}`,
      );
    down();
    check(before);
    down();
    check(before);
  });

  it('without the state folder still removes devices, routes, programs and maps', async () => {
    const before = await setUp();
    await world.agent.kill();
    rmSync(join(world.agent.folder, 'state'), { recursive: true });
    inside(
      world.host,
      `${process.execPath} bin/sluice down --config ${join(world.agent.folder, 'agent.yaml')}`,
    );
    const links = (hostState(world).links ?? []).map((line) => line.split(' ')[0]);
    expect(links.filter((name) => /^sl/.test(name ?? '')).sort()).toEqual([
      'sl89abcde0@sl89abcdef',
      'sl89abcdef@sl89abcde0',
      'slbr89abcdef',
    ]);
    expect(pins(world)).toEqual([]);
    expect(before['settings']).toBeDefined();
  });
});

it('works with clsact filters where the kernel has no TCX', async () => {
  world = new World('slclsact', { hooks: 'clsact' });
  const [a, b] = [world.container('a'), world.container('b')] as [string, string];
  expect((await world.agent.start(world.scratch)).hooks).toBe('clsact');
  await world.agent.apply(
    documents(
      network('net', 84),
      container({ name: 'a', netns: a, networks: ['net'], labels: { app: 'a' } }),
      container({ name: 'b', netns: b, networks: ['net'], labels: { app: 'b' } }),
    ),
  );
  expect([answered(a, '10.84.0.3'), answered(a, 'fd84::3'), answered(b, OUTSIDE.v6)]).toEqual([
    true,
    true,
    true,
  ]);
  await world.agent.apply(documents(allowIngress('p', 'b', [])));
  expect([answered(a, '10.84.0.3'), answered(b, '10.84.0.2')]).toEqual([false, true]);
  await world.agent.kill();
  await world.agent.start(world.scratch);
  expect([answered(a, '10.84.0.3'), answered(b, '10.84.0.2')]).toEqual([false, true]);
  expect(inside(world.host, 'tc filter show dev uplink0 ingress')).toContain('sluice_from_upl');
  await world.agent.down();
  expect(inside(world.host, 'tc filter show dev uplink0 ingress')).toBe('');
  expect(inside(world.host, 'tc qdisc show dev uplink0')).not.toContain('clsact');
});
