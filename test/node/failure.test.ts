import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sh } from '../../bench/lib/command.js';
import { inside } from '../../bench/lib/netns.js';
import { stableName } from '../../src/ipam/mac.js';
import { allowIngress, container, documents, network, World } from '../e2e/world.js';
import { change, clear, containerDevices, hostState, listed, mapEntries, until } from './kernel-state.js';

/** Changes that fail half way, and agents that are killed half way. */

let world: World;
let names: string[];

function netns(index: number): string {
  return names[index] ?? '';
}

const four = (...indexes: number[]): object[] =>
  indexes.map((i) =>
    container({ name: `c${i}`, netns: netns(i), networks: ['net'], labels: { app: `c${i}` } }),
  );

/** The name that the device of a container gets on the host. */
function hostName(container: string): string {
  return stableName('sl', world.host, `default/${container}:net`);
}

describe('an agent', () => {
  beforeAll(async () => {
    world = new World('slfail');
    names = ['a', 'b', 'c', 'd'].map((role) => world.container(role));
    await world.agent.start(world.scratch);
  });
  afterEach(() => clear(world));
  afterAll(() => world.close());

  it('leaves everything as it was when a change fails in the middle', async () => {
    await world.agent.apply(documents(network('net', 82), ...four(0, 1), allowIngress('p', 'c1', ['c0'])));
    const before = { maps: mapEntries(world), host: hostState(world) };
    const all = () =>
      ['networks', 'containers', 'policies', 'endpoints', 'identities', 'leases'].map((list) =>
        world.agent.cli('get', list, '-o', 'json'),
      );
    const objects = all();
    // The third container cannot be made: its device's name is taken, which nobody can know beforehand.
    inside(world.host, `ip link add ${hostName('c3')} type veth peer name elsewhere`);
    const wanted = documents(
      network('more', 83, { mode: 'bridge' }),
      ...four(2, 3),
      allowIngress('p', 'c1', ['c2']),
      { ...allowIngress('q', 'c0', ['c2', 'c3']) },
      container({
        name: 'c0',
        netns: netns(0),
        networks: ['net'],
        labels: { app: 'c0', more: 'x' },
        hostPorts: [{ hostPort: 80, containerPort: 80 }],
      }),
    );
    await expect(world.agent.apply(wanted)).rejects.toThrow(/device eth0 cannot be made for default\/c3/);
    inside(world.host, 'ip link del elsewhere');
    expect(all()).toEqual(objects);
    expect({ maps: mapEntries(world), host: hostState(world) }).toEqual(before);
    expect(inside(netns(0), 'ping -n -c 2 -i 0.2 -W 1 10.82.0.3')).toContain(' 0% packet loss');
    // And the next one works.
    await world.agent.apply(wanted);
    expect(inside(netns(2), 'ping -n -c 2 -i 0.2 -W 1 10.82.0.2')).toContain(' 0% packet loss');
  });

  it('brings back a container that had to go for a change that failed', async () => {
    await world.agent.apply(documents(network('net', 82), ...four(0, 1)));
    inside(world.host, `ip link add ${hostName('c3')} type veth peer name elsewhere`);
    const moved = container({ name: 'c0', netns: netns(0), networks: [{ name: 'net', ipv4: '10.82.0.99' }] });
    await expect(world.agent.apply(documents(moved, ...four(3)))).rejects.toThrow(/c3/);
    expect(inside(netns(0), 'ip -br -4 address show eth0')).toContain('10.82.0.2/32');
    expect(inside(netns(0), 'ping -n -c 2 -i 0.2 -W 1 10.82.0.3')).toContain(' 0% packet loss');
    inside(world.host, 'ip link del elsewhere');
  });

  it('refuses a change before anything is touched when it can be known', async () => {
    await world.agent.apply(documents(network('net', 82), ...four(0)));
    const before = mapEntries(world);
    sh(`ip -n ${netns(1)} link add eth0 type veth peer name x`);
    await expect(world.agent.apply(documents(...four(2, 1)))).rejects.toThrow(/eth0 already exists/);
    // Of one that comes alone the kernel says it, which has been asked for the device by then.
    await expect(world.agent.apply(documents(...four(1)))).rejects.toThrow(/eth0 already exists/);
    const gone = container({ name: 'gone', netns: 'no-such-namespace', networks: ['net'] });
    await expect(world.agent.apply(documents(...four(2), gone))).rejects.toThrow(
      /no-such-namespace does not exist/,
    );
    expect(mapEntries(world)).toEqual(before);
    expect(inside(netns(2), 'ip -br link')).not.toContain('eth0');
    sh(`ip -n ${netns(1)} link del eth0`);
  });

  it('that is killed at any moment of a change converges when it starts again', async () => {
    await world.agent.apply(documents(network('net', 82), ...four(0)));
    for (let round = 0; round < 12; round++) {
      const request =
        round % 2 === 0
          ? change(world, 'apply', documents(...four(1, 2, 3), allowIngress('p', 'c1', ['c0'])))
          : change(world, 'delete', documents(...four(1, 2, 3)));
      const settled = request.then(
        () => 'done',
        () => 'cut off',
      );
      await new Promise((resolve) => setTimeout(resolve, round * 4));
      await world.agent.kill();
      await settled;
      const status = await world.agent.start(world.scratch);
      const leases = await listed<{ id: string; ipv4: string; ifindex: number }>(world, 'leases');
      const devices = containerDevices(world);
      expect(status).toMatchObject({ state: 'ready', endpoints: status.containers });
      expect([leases.length, Object.keys(devices).length, mapEntries(world).endpoints?.length]).toEqual([
        status.containers,
        status.containers,
        status.containers,
      ]);
      expect(new Set(leases.map((lease) => lease.ipv4)).size).toBe(leases.length);
      expect(leases.map((lease) => lease.ifindex).sort()).toEqual(Object.values(devices).sort());
      for (const lease of leases) {
        const index = Number(/c(\d)/.exec(lease.id)?.[1]);
        expect(inside(netns(index), 'ip -br -4 address show eth0')).toContain(lease.ipv4);
      }
      expect(inside(netns(0), 'ping -n -c 1 -W 1 10.82.0.1')).toContain(' 0% packet loss');
    }
  });
});

describe('an agent with settings of its own', () => {
  afterEach(() => world.close());

  it('says which setting to raise when the policy maps are too small', async () => {
    world = new World('slsmall', { policyPeerEntries: 1024 });
    names = ['a', 'b'].map((role) => world.container(role));
    await world.agent.start(world.scratch);
    await world.agent.apply(documents(network('net', 82), ...four(0, 1), allowIngress('p', 'c1', ['c0'])));
    const before = mapEntries(world);
    const ipBlocks = Array.from({ length: 1500 }, (_, i) => ({
      ipBlock: { cidr: `198.${18 + (i >> 8)}.${i & 255}.0/24` },
    }));
    const large = {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'p', namespace: 'default' },
      spec: {
        podSelector: { matchLabels: { app: 'c1' } },
        policyTypes: ['Ingress'],
        ingress: [{ from: ipBlocks }],
      },
    };
    await expect(world.agent.apply(documents(large))).rejects.toThrow(
      /policy_peers has room for 1024 .*policyPeerEntries/,
    );
    expect(mapEntries(world)).toEqual(before);
    expect(inside(netns(0), 'ping -n -c 1 -W 1 10.82.0.3')).toContain(' 0% packet loss');
  });

  it('a namespace of the folder that is not there yet holds up nothing else', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-definitions-'));
    world = new World('slfolder', { definitions: folder });
    world.scratch.folder(folder);
    names = [world.container('a')];
    const late = `${world.host}-late`;
    writeFileSync(
      join(folder, 'all.yaml'),
      documents(network('net', 82), ...four(0), container({ name: 'late', netns: late, networks: ['net'] })),
    );
    const status = await world.agent.start(world.scratch);
    expect(status).toMatchObject({
      state: 'degraded',
      endpoints: 1,
      problems: [{ code: 'SLU4301', file: join(folder, 'all.yaml') }],
    });
    sh(`ip netns add ${late}`);
    world.scratch.onClose(() => sh(`ip netns del ${late}`));
    await until('the late container', async () => (await world.agent.status()).state === 'ready');
    expect(inside(late, 'ping -n -c 1 -W 1 10.82.0.2')).toContain(' 0% packet loss');
  });
});
