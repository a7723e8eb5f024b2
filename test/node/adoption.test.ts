import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { sh } from '../../bench/lib/command.js';
import { inside } from '../../bench/lib/netns.js';
import { allowIngress, container, documents, network, OUTSIDE, World } from '../e2e/world.js';
import { containerDevices, listed, mapEntries, pinging, pins } from './kernel-state.js';

/** What a new agent makes of what an earlier one left. */

let world: World;
let a: string;
let b: string;
let stranger: string;

beforeAll(async () => {
  world = new World('sladopt');
  [a, b, stranger] = ['a', 'b', 'c'].map((role) => world.container(role)) as [string, string, string];
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
afterAll(() => world.close());

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
  const addresses = async () =>
    (await listed<{ ipv4: string; ipv6: string }>(world, 'leases')).map(({ ipv4, ipv6 }) => [ipv4, ipv6]);
  const leases = await addresses();
  await world.agent.kill();
  rmSync(state('leases'), { recursive: true });
  await restart();
  expect(containerDevices(world)).toEqual(devices);
  expect(await addresses()).toEqual(leases);
});

// The leases are those that the test before had taken from the kernel.
it('does not need the namespace to have its name still', async () => {
  // Its name may go only once the process is inside.
  const { pid } = await world.start(b, 'sh', ['-c', 'echo ready; exec sleep 60'], true);
  sh(`ip netns del ${b}`);
  const devices = containerDevices(world);
  await world.agent.kill();
  const status = await world.agent.start(world.scratch);
  expect(status).toMatchObject({ endpoints: 2 });
  expect(containerDevices(world)).toEqual(devices);
  expect(sh(`nsenter -t ${pid} -n -- ip -br link`)).toContain('eth0');
  sh(`ip netns attach ${b} ${pid}`);
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

/** Opens one connection after the other for so long; prints how many were made and how many not. */
const CONNECT = `import socket, sys, time
address, port, seconds, patience = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
made = failed = 0
end = time.time() + seconds
while time.time() < end:
  try:
    socket.create_connection((address, port), patience).close()
    made += 1
  except OSError:
    failed += 1
  time.sleep(0.002) # not more than a server that waits for its turn can take
print(made, failed)
`;

// The second answers within the time of a retransmitted SYN: with new maps a handshake that is under way is lost.
it.each([
  ['the same or other programs', [{}, { programs: 'of another version' }, {}], 0.5],
  ['new maps', [{ layout: 'another' }, { layout: 'yet another' }], 3],
] as const)('judges new connections by the policy all the time, with %s', async (_, changes, patience) => {
  const third = documents(container({ name: 'c', netns: stranger, networks: ['net'], labels: { app: 'c' } }));
  await world.agent.apply(third);
  const seconds = 8;
  const server = await world.traffic(b, 'tcp-server', '::', 80, seconds + 20);
  const connect = (netns: string, address: string, wait: number) =>
    world.start(netns, 'python3', ['-c', CONNECT, address, 80, seconds, wait], false);
  const running = await Promise.all([
    connect(a, '10.81.0.3', patience),
    connect(a, 'fd81::3', patience),
    connect(stranger, '10.81.0.3', 0.02),
    connect(stranger, 'fd81::3', 0.02),
  ]);
  for (const change of changes) {
    await world.agent.kill();
    changeJson(state('bpf.json'), change);
    expect(await world.agent.start(world.scratch)).toMatchObject({ state: 'ready', endpoints: 3 });
  }
  const lines = await Promise.all(running.map((process) => process.done));
  const counts = lines.map((line) => line.split(' ').map(Number));
  for (const [made = 0, failed] of counts.slice(0, 2)) {
    expect(made).toBeGreaterThan(500);
    expect(failed).toBe(0);
  }
  for (const [made, failed = 0] of counts.slice(2)) {
    expect(made).toBe(0);
    expect(failed).toBeGreaterThan(50);
  }
  await server.stop();
  await world.agent.delete(third);
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
  expect(await listed(world, 'leases')).toHaveLength(1);
  inside(world.host, 'ip link del sl01234567');
});
