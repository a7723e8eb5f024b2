import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { allowIngress, container, documents, network, OUTSIDE, World } from '../e2e/world.js';
import { change, clear, containerDevices, hostState, listed, mapEntries, pins } from './kernel-state.js';

/** Definitions that change while they are in force. */

let world: World;
let a: string;
let b: string;

beforeAll(async () => {
  world = new World('slchange');
  [a, b] = [world.container('a'), world.container('b')];
  await world.agent.start(world.scratch);
});
beforeEach(() => world.agent.apply(documents(network('net', 87), ...both())));
afterEach(async () => {
  // A start from nothing but the definitions ends in maps of the same size: nothing was left over.
  const before = sizes();
  const host = hostState(world);
  await world.agent.kill();
  await world.agent.start(world.scratch);
  expect(sizes()).toEqual(before);
  expect(hostState(world)).toEqual(host);
  await clear(world);
});
afterAll(async () => {
  try {
    await world.agent.down();
    expect(pins(world)).toEqual([]);
  } finally {
    world.close();
  }
});

const sizes = () => Object.entries(mapEntries(world)).map(([name, rows]) => [name, rows.length]);

function both(more: { a?: object; b?: object } = {}): object[] {
  return [
    container({ name: 'a', netns: a, networks: ['net'], labels: { app: 'a' }, ...more.a }),
    container({ name: 'b', netns: b, networks: ['net'], labels: { app: 'b' }, ...more.b }),
  ];
}

function reaches(from: string, address: string): boolean {
  try {
    return inside(from, `ping -n -c 1 -W 1 ${address}`).includes(' 0% packet loss');
  } catch {
    return false;
  }
}

async function addresses(): Promise<{ a: string[]; b: string[] }> {
  const found = { a: [] as string[], b: [] as string[] };
  const endpoints = await listed<{ container: string; ipv4: string; ipv6: string }>(world, 'endpoints');
  for (const { container: name, ipv4, ipv6 } of endpoints) {
    found[name === 'default/a' ? 'a' : 'b'].push(ipv4, ipv6);
  }
  return found;
}

async function connected(): Promise<void> {
  const to = await addresses();
  const results = [
    ...to.b.map((address) => reaches(a, address)),
    ...to.a.map((address) => reaches(b, address)),
  ];
  expect(results).not.toContain(false);
  expect([reaches(a, OUTSIDE.v4), reaches(b, OUTSIDE.v6)]).toEqual([true, true]);
}

it('labels, policies and ports leave the devices alone', async () => {
  const devices = containerDevices(world);
  await world.agent.apply(documents(allowIngress('p', 'b', ['a'])));
  expect(reaches(a, '10.87.0.3')).toBe(true);
  await world.agent.apply(documents(...both({ a: { labels: { app: 'other' } } })));
  expect(reaches(a, '10.87.0.3')).toBe(false);
  expect(reaches(b, '10.87.0.2')).toBe(true);
  await world.agent.apply(
    documents(...both({ a: { labels: { app: 'a' }, hostPorts: [{ hostPort: 8080, containerPort: 80 }] } })),
  );
  expect(reaches(a, '10.87.0.3')).toBe(true);
  // The port moves to the other container in one change.
  await world.agent.apply(documents(...both({ b: { hostPorts: [{ hostPort: 8080, containerPort: 81 }] } })));
  expect(mapEntries(world).hostports).toHaveLength(2);
  await change(world, 'delete', documents(allowIngress('p', 'b', ['a'])));
  expect(mapEntries(world).policy_peers).toEqual([]);
  expect(containerDevices(world)).toEqual(devices);
});

it('a network gets another range, gateway, mode and back', async () => {
  await connected();
  for (const spec of [
    { ipv4: { cidr: '10.88.0.0/24' } },
    { ipv4: { cidr: '10.88.0.0/24', gateway: '10.88.0.254' } },
    { mode: 'bridge' },
    { mode: 'bridge', mtu: 1300 },
    { mtu: 1300 },
    { masquerade: true },
  ]) {
    await world.agent.apply(documents(network('net', 87, spec)));
    await connected();
    if ('mtu' in spec) expect(inside(a, 'ip link show eth0')).toContain('mtu 1300');
  }
  await world.agent.apply(documents(network('net', 87, { masquerade: false })));
  expect([reaches(a, '10.87.0.1'), reaches(a, OUTSIDE.v4)]).toEqual([true, false]);
});

it('a container gets another network, address, device name and namespace', async () => {
  await world.agent.apply(documents(network('two', 89), ...both({ a: { networks: ['net', 'two'] } })));
  expect(inside(a, 'ip -br -4 address show eth1')).toContain('10.89.0.2/32');
  expect([reaches(a, '10.87.0.3'), reaches(b, '10.87.0.2')]).toEqual([true, true]);
  expect(reaches(b, '10.89.0.2')).toBe(false); // networks do not reach each other
  await world.agent.apply(documents(...both({ a: { networks: ['two'] }, b: { networks: ['two'] } })));
  expect(inside(a, 'ip -br link')).not.toContain('eth1');
  await connected();
  const named = { networks: [{ name: 'net', device: 'lan', ipv4: '10.87.0.200', mac: '02:00:00:00:87:01' }] };
  await world.agent.apply(documents(...both({ a: named })));
  expect(inside(a, 'ip -br link show lan')).toContain('02:00:00:00:87:01');
  await connected();
  const c = world.container('c');
  await world.agent.apply(documents(...both({ a: { netns: c, ...named } })));
  expect(inside(a, 'ip -br link').trim().split('\n')).toHaveLength(1);
  expect(reaches(c, (await addresses()).b[0] ?? '')).toBe(true);
  await change(world, 'delete', documents(network('two', 89)));
  expect(await listed(world, 'networks')).toHaveLength(1);
});

it('addresses change hands in one change', async () => {
  const fixed = (ipv4: string) => ({ networks: [{ name: 'net', ipv4 }] });
  await world.agent.apply(documents(...both({ a: fixed('10.87.0.50'), b: fixed('10.87.0.60') })));
  await connected();
  await world.agent.apply(documents(...both({ a: fixed('10.87.0.60'), b: fixed('10.87.0.50') })));
  expect(inside(a, 'ip -br -4 address show eth0')).toContain('10.87.0.60');
  await connected();
});

it('everything is deleted in one change', async () => {
  await change(world, 'delete', documents(network('net', 87), ...both()));
  expect(await listed(world, 'networks')).toEqual([]);
  expect(await listed(world, 'leases')).toEqual([]);
  expect(Object.keys(containerDevices(world))).toEqual([]);
  expect(inside(world.host, 'ip -br address show lo')).not.toContain('10.87.');
});
