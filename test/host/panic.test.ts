/** The host is opened, closed and brought up by commands, with and without an agent. */
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { documents, HOST, OUTSIDE, World } from '../e2e/world.js';
import { DENY, hostPolicy, tcp } from './policies.js';

let world: World;
beforeEach(async () => {
  world = new World('slpc');
  for (const netns of [world.host, world.outside])
    for (const port of [22, 80]) await world.traffic(netns, 'tcp-server', '::', port, 60);
});
afterEach(() => world.close());

const FAMILIES = [
  [HOST.v4, OUTSIDE.v4],
  [HOST.v6, OUTSIDE.v6],
] as const;
const deny = hostPolicy('closed', { ingress: [DENY], egress: [DENY] });

function command(...args: readonly string[]): string {
  return inside(
    world.host,
    `${process.execPath} bin/sluice ${args.join(' ')} --config ${world.agent.configFile}`,
  );
}

/** What a port of the host, and one outside, answer: `[from outside, from the host]`. */
const reach = async (port: number, [host, outside]: readonly [string, string] = FAMILIES[0]) =>
  Promise.all([world.probe(world.outside, host, port, 300), world.probe(world.host, outside, port, 300)]);

const OPEN = ['open', 'open'];
const CLOSED = ['timeout', 'timeout'];

describe('panic-open and panic-close', () => {
  it('open and close a host with policies after SIGKILL of the agent, and stay over its start', async () => {
    await world.agent.start(world.scratch);
    await world.agent.apply(documents(deny));
    await world.agent.kill();
    expect(await reach(80)).toEqual(CLOSED);
    expect(command('panic-open')).toContain('The host is open');
    for (const family of FAMILIES) expect(await reach(80, family)).toEqual(OPEN);
    await world.agent.start(world.scratch);
    expect(await reach(80)).toEqual(OPEN);
    expect(JSON.stringify((await world.agent.status()).problems)).toContain('SLU7013');
    expect(command('panic-end')).toContain('The policies of the host count');
    for (const family of FAMILIES) expect(await reach(80, family)).toEqual(CLOSED);
    await expect.poll(async () => (await world.agent.status()).problems, { timeout: 10_000 }).toEqual([]);
    await world.agent.delete(documents(deny));
    expect(await reach(80)).toEqual(OPEN);
    command('panic-close');
    for (const family of FAMILIES) {
      expect(await reach(80, family)).toEqual(CLOSED);
      expect(await reach(22, family)).toEqual(OPEN);
    }
    command('panic-end');
    expect(await reach(80)).toEqual(OPEN);
    await expect.poll(() => existsSync(hostPins()), { timeout: 10_000 }).toBe(false);
  });

  it('close a host on which no agent ever ran, and leave nothing', async () => {
    mkdirSync(join(world.agent.folder, 'state'), { recursive: true });
    const session = await world.traffic(world.outside, 'tcp-clients', HOST.v4, 22, 1, 5, 30);
    command('panic-close');
    for (const family of FAMILIES) {
      expect(await reach(80, family)).toEqual(CLOSED);
      expect(await reach(22, family)).toEqual(OPEN);
    }
    const { broken, longestQuietMs } = JSON.parse(await session.stop()) as Record<string, number>;
    expect(broken).toBe(0);
    expect(longestQuietMs).toBeLessThan(1000);
    command('panic-end');
    for (const family of FAMILIES) expect(await reach(80, family)).toEqual(OPEN);
    expect(existsSync(hostPins())).toBe(false);
  });

  const hostPins = (): string => join(world.agent.folder, 'bpf', 'sluice', 'host');
});

describe('a change that is not confirmed', () => {
  it('is taken back in time, also after SIGKILL of the agent', async () => {
    await world.agent.start(world.scratch);
    const file = join(world.agent.folder, 'deny.yaml');
    writeFileSync(file, documents(deny));
    const session = await world.traffic(world.outside, 'tcp-clients', HOST.v4, 22, 1, 5, 60);
    world.agent.cli('apply', '-f', file, '--confirm-within', '2s');
    await world.agent.kill();
    expect(await reach(80)).toEqual(CLOSED);
    expect(await reach(22)).toEqual(OPEN);
    await expect.poll(() => reach(80), { timeout: 15_000 }).toEqual(OPEN);
    const { broken } = JSON.parse(await session.stop()) as { broken: number };
    expect(broken).toBe(0);
  });
});

describe('boot', () => {
  it('brings the policy of the state on disk into force before the network is up', async () => {
    const lists = join(world.agent.folder, 'lists');
    mkdirSync(lists);
    writeFileSync(join(lists, 'friends'), `${OUTSIDE.v4}\n${OUTSIDE.v6}\n`);
    await world.agent.start(world.scratch);
    const policy = hostPolicy('boot', {
      ingress: [
        { action: 'Accept', from: [{ list: join(lists, 'friends') }], protocols: [tcp(443)] },
        { action: 'Deny' },
      ],
    });
    await world.agent.apply(documents(policy));
    expect(await reach(80)).toEqual(['timeout', 'open']);
    await world.agent.kill();

    // The machine is off: the kernel knows nothing any more, and the list is on a disk that comes later.
    const bpf = join(world.agent.folder, 'bpf', 'sluice');
    inside(world.host, 'ip link del uplink0');
    rmSync(bpf, { recursive: true });
    rmSync(lists, { recursive: true });
    inside(world.host, `ip link add uplink0 type veth peer name eth0 netns ${world.outside}`);
    expect(command('boot')).toContain('The last good definitions are in force');
    // Counts every packet that reaches a socket of the host from the first moment.
    await world.traffic(world.host, 'tcp-server', '::', 443, 60);
    const [sink4, sink6] = await Promise.all(
      [HOST.v4, '::'].map((address, i) =>
        world.traffic(world.host, 'udp-sink', address === '::' ? '::' : '0.0.0.0', 7000 + i, 60),
      ),
    );
    for (const [netns, device, { v4, v6 }] of [
      [world.outside, 'eth0', OUTSIDE],
      [world.host, 'uplink0', HOST],
    ] as const) {
      inside(netns, `ip link set ${device} up`);
      inside(netns, `ip address add ${v4}/24 dev ${device}`);
      inside(netns, `ip address add ${v6}/64 dev ${device} nodad`);
    }
    const senders = await Promise.all([
      world.traffic(world.outside, 'udp-openers', HOST.v4, 7000, 200, 1),
      world.traffic(world.outside, 'udp-openers', HOST.v6, 7001, 200, 1),
    ]);
    for (const [host] of FAMILIES) {
      expect(await world.probe(world.outside, host, 443, 1000)).toBe('open');
      expect(await world.probe(world.outside, host, 80, 300)).toBe('timeout');
    }
    expect(command('boot')).toContain('Already in force');
    await world.agent.start(world.scratch);
    const problems = JSON.stringify((await world.agent.status()).problems);
    expect(problems).toContain('SLU7010');
    for (const [host] of FAMILIES) {
      expect(await world.probe(world.outside, host, 443, 1000)).toBe('open');
      expect(await world.probe(world.outside, host, 80, 300)).toBe('timeout');
    }
    await Promise.all(senders.map(({ done }) => done));
    for (const sink of [sink4, sink6]) {
      const { received } = JSON.parse((await sink?.stop()) ?? '{}') as { received: number };
      expect(received).toBe(0);
    }
    expect(readdirSync(bpf)).toContain('host');
  });
});
