import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { sh } from '../../bench/lib/command.js';
import { inside } from '../../bench/lib/netns.js';
import { allowIngress, container, documents, network, OUTSIDE, World } from '../e2e/world.js';
import { containerDevices, listed, mapEntries, pinging, pins } from './kernel-state.js';

/** What a new agent makes of what an earlier one left. */

let world: World;
let a: string;
let b: string;

beforeEach(async () => {
  world = new World('sladopt');
  [a, b] = [world.container('a'), world.container('b')];
  await world.agent.start(world.scratch);
  await world.agent.apply(
    documents(
      network('net', 81),
      container({ name: 'a', netns: a, networks: ['net'], labels: { app: 'a' } }),
      container({
        name: 'b',
        netns: b,
        networks: ['net'],
        labels: { app: 'b' },
        hostPorts: [{ hostPort: 8080, containerPort: 80 }],
      }),
      allowIngress('b', 'b', ['a']),
    ),
  );
});
afterEach(() => world.close());

const state = (...path: string[]): string => join(world.agent.folder, 'state', ...path);

function changeJson(file: string, change: Readonly<Record<string, unknown>>): void {
  writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, 'utf8')) as object), ...change }));
}

async function restart(): Promise<void> {
  const traffic = [
    ...(await pinging(world, a, '10.81.0.3', 4)),
    ...(await pinging(world, a, 'fd81::3', 4)),
    ...(await pinging(world, b, OUTSIDE.v4, 4)),
  ];
  const status = await world.agent.start(world.scratch);
  expect(status).toMatchObject({ state: 'ready', containers: 2, endpoints: 2, problems: [] });
  for (const result of await Promise.all(traffic)) expect(result).toMatchObject({ sent: 800, lost: 0 });
}

it('with the same programs ends in the same maps and devices', async () => {
  const before = { devices: containerDevices(world), pins: pins(world) };
  const entries = mapEntries(world);
  await world.agent.kill();
  await restart();
  expect({ devices: containerDevices(world), pins: pins(world) }).toEqual(before);
  // Numbers of sets, rules and identities are new; everything else is as it was.
  const sizes = (maps: Record<string, string[]>) =>
    Object.entries(maps).map(([name, rows]) => [name, rows.length]);
  expect(sizes(mapEntries(world))).toEqual(sizes(entries));
  expect(mapEntries(world)).toMatchObject({
    hostports: entries.hostports,
    networks: entries.networks,
    uplinks: entries.uplinks,
  });
});

it('without the leases takes the addresses from the kernel', async () => {
  const devices = containerDevices(world);
  const addresses = () =>
    listed<{ ipv4: string; ipv6: string }>(world, 'leases').map((lease) => [lease.ipv4, lease.ipv6]);
  const leases = addresses();
  await world.agent.kill();
  rmSync(state('leases'), { recursive: true });
  await restart();
  expect(containerDevices(world)).toEqual(devices);
  expect(addresses()).toEqual(leases);
});

it('with other programs moves the links to them, on the maps that are there', async () => {
  const ids = (): string => sh('bpftool -j link list');
  const devices = containerDevices(world);
  await world.agent.kill();
  changeJson(state('bpf.json'), { programs: 'of another version' });
  const before = ids();
  await restart();
  expect(containerDevices(world)).toEqual(devices);
  expect(ids()).not.toEqual(before);
  expect(await world.agent.status()).toMatchObject({ adopted: true });
});

it('with another layout of the maps fills new ones before it moves the links', async () => {
  const devices = containerDevices(world);
  await world.agent.kill();
  changeJson(state('bpf.json'), { layout: 'another' });
  await restart();
  expect(containerDevices(world)).toEqual(devices);
  expect(await world.agent.status()).toMatchObject({ adopted: false });
});

it('removes what is no longer defined, and nothing of others', async () => {
  inside(world.host, 'ip link add sl01234567 type veth peer name other');
  inside(world.host, 'ip link set sl01234567 alias sluice:somebody:else');
  await world.agent.kill();
  rmSync(state('applied', 'container.default.b.yaml'));
  const status = await world.agent.start(world.scratch);
  expect(status).toMatchObject({ state: 'ready', containers: 1, endpoints: 1 });
  expect(Object.keys(containerDevices(world))).toHaveLength(2);
  expect(containerDevices(world)).toHaveProperty('sl01234567');
  expect(inside(b, 'ip -br link')).not.toContain('eth0');
  const maps = mapEntries(world);
  expect(maps.hostports).toEqual([]);
  expect(maps.endpoints).toHaveLength(1);
  expect(pins(world).filter((name) => /links\/\d+-/.test(name))).toHaveLength(3);
  expect(listed(world, 'leases')).toHaveLength(1);
});

it('does not need the namespace to have its name still', async () => {
  const pid = (await world.start(b, 'sleep', ['60'], false)).pid;
  sh(`ip netns del ${b}`);
  const devices = containerDevices(world);
  await world.agent.kill();
  const status = await world.agent.start(world.scratch);
  expect(status).toMatchObject({ endpoints: 2 });
  expect(containerDevices(world)).toEqual(devices);
  expect(sh(`nsenter -t ${pid} -n -- ip -br link`)).toContain('eth0');
  sh(`ip netns add ${b}`);
});
