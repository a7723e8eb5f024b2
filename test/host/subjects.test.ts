/** HostPolicies of units, cgroups and users: real processes in cgroups below a folder of the test's own. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { documents, HOST, OUTSIDE, type Running, trafficTool, World } from '../e2e/world.js';
import { CGROUP, removeCgroups } from './cgroups.js';
import { DENY, hostPolicy, tcp } from './policies.js';

const FAMILIES = [
  ['IPv4', HOST.v4, OUTSIDE.v4],
  ['IPv6', HOST.v6, OUTSIDE.v6],
] as const;
const WEB = '/system.slice/web.service';
const OTHER = '/system.slice/other.service';
const USER = 54321;
const UDP_PORT = 5353;

let world: World;
let root: string;

/** Runs the traffic tool inside a cgroup of the test. */
function inGroup(
  group: string,
  netns: string,
  args: readonly (string | number)[],
  waitReady = false,
): Promise<Running> {
  const script = `echo $$ > ${join(root, group, 'cgroup.procs')}; exec "$@"`;
  return world.start(netns, 'sh', ['-c', script, 'sh', trafficTool(), ...args], waitReady);
}

async function connects(group: string, address: string, port: number): Promise<string> {
  return (await inGroup(group, world.host, ['tcp-probe', address, port, 300])).done;
}

/** Whether datagrams from a cgroup arrive outside. */
async function datagramsArrive(group: string, address: string): Promise<boolean> {
  const sink = await world.traffic(world.outside, 'udp-sink', address, UDP_PORT, 20);
  await (await inGroup(group, world.host, ['udp-openers', address, UDP_PORT, 100, 0.2])).done;
  const { received } = JSON.parse(await sink.stop()) as { received: number };
  return received > 0;
}

describe.skipIf(CGROUP === undefined)('subjects at the socket', () => {
  beforeAll(async () => {
    root = join(CGROUP ?? '', `slt-host-${process.pid}`);
    for (const group of ['', '/system.slice', WEB, OTHER, '/system.slice/free.service', '/people'])
      mkdirSync(join(root, group), { recursive: true });
    world = new World('slhs', { cgroupRoot: root });
    world.scratch.onClose(() => removeCgroups(root));
    await world.agent.start(world.scratch);
    for (const netns of [world.host, world.outside])
      for (const port of [80, 8080]) await world.traffic(netns, 'tcp-server', '::', port, 120);
  }, 60_000);
  afterAll(() => world.close());

  const web = hostPolicy(
    'web',
    {
      egress: [
        { action: 'Accept', to: [{ networks: [`${OUTSIDE.v4}/32`, `${OUTSIDE.v6}/128`] }] },
        { action: 'Deny' },
      ],
    },
    { subject: { unit: 'web.service' } },
  );
  const other = hostPolicy('other', { egress: [DENY] }, { subject: { cgroup: OTHER } });

  it('the programs for cgroups come with the first policy of one, beside those of the devices', async () => {
    const programs = (): string[] => readdirSync(join(world.agent.pinPath, 'host', 'progs')).sort();
    const devices = hostPolicy('devices', { ingress: [{ action: 'Deny', protocols: [tcp(8080)] }] });
    await world.agent.apply(documents(devices));
    expect(programs()).toEqual(['sluice_host_egress', 'sluice_host_ingress', 'sluice_host_xdp']);
    expect(await world.probe(world.outside, HOST.v4, 8080)).toBe('timeout');
    await world.agent.apply(documents(other));
    expect(programs().filter((name) => name.includes('socket'))).toHaveLength(2);
    expect(await connects(OTHER, OUTSIDE.v4, 80)).toBe('timeout');
    expect(await connects(WEB, OUTSIDE.v4, 80)).toBe('open');
    expect(await world.probe(world.outside, HOST.v4, 8080)).toBe('timeout');
    expect(await world.probe(world.outside, HOST.v4, 80)).toBe('open');
    await world.agent.delete(documents(devices, other));
  });

  it.each(FAMILIES)(
    'one service may reach a peer and another may not, TCP and UDP, %s',
    async (_, __, outside) => {
      await world.agent.apply(documents(web, other));
      expect(await connects(WEB, outside, 80)).toBe('open');
      expect(await connects(OTHER, outside, 80)).toBe('timeout');
      expect(await connects('/system.slice/free.service', outside, 80)).toBe('open');
      expect(await world.probe(world.host, outside, 80)).toBe('open');
      expect(await datagramsArrive(WEB, outside)).toBe(true);
      expect(await datagramsArrive(OTHER, outside)).toBe(false);
      const drops = (await world.agent.drops(1000)).filter(({ reason }) => reason === 'host_policy');
      expect(drops.some(({ rule }) => rule?.startsWith('HostPolicy other, egress rule 0 (') === true)).toBe(
        true,
      );
      await world.agent.delete(documents(web, other));
      expect(await connects(OTHER, outside, 80)).toBe('open');
    },
  );

  it.each(FAMILIES)(
    'connections to the server of one service are closed, open ones are cut, %s',
    async (_, host) => {
      const closed = hostPolicy(
        'closed',
        { ingress: [{ action: 'Deny', protocols: [tcp(8081)] }] },
        { subject: { unit: 'other.service' } },
      );
      await inGroup(OTHER, world.host, ['tcp-server', '::', 8081, 60], true).then(async (server) => {
        const clients = await world.traffic(world.outside, 'tcp-clients', host, 8081, 5, 1, 30);
        await world.agent.apply(documents(closed));
        expect(await world.probe(world.outside, host, 8081, 300)).toBe('timeout');
        expect(await world.probe(world.outside, host, 8080, 300)).toBe('open');
        const { lastAnswer } = JSON.parse(await clients.stop()) as { lastAnswer: number };
        expect(Date.now() - lastAnswer).toBeGreaterThan(300);
        await world.agent.delete(documents(closed));
        expect(await world.probe(world.outside, host, 8081, 1000)).toBe('open');
        await server.stop();
      });
    },
  );

  it('a process that moves to another cgroup follows', async () => {
    await world.agent.apply(documents(web, other));
    for (const outside of [OUTSIDE.v4, OUTSIDE.v6]) {
      const lines = await mover(outside);
      await expect.poll(lines.latest, { timeout: 5000 }).toBe('open');
      writeFileSync(join(root, OTHER, 'cgroup.procs'), String(lines.pid));
      await expect.poll(lines.latest, { timeout: 5000 }).toBe('timeout');
      writeFileSync(join(root, WEB, 'cgroup.procs'), String(lines.pid));
      await expect.poll(lines.latest, { timeout: 5000 }).toBe('open');
      await lines.stop();
    }
    await world.agent.delete(documents(web, other));
  });

  /** One process that makes a new connection and a datagram of a new socket over and over; `latest` is what it got. */
  async function mover(
    outside: string,
  ): Promise<{ pid: number; latest: () => string; stop(): Promise<unknown> }> {
    const out = join(world.agent.folder, 'mover');
    writeFileSync(out, '');
    const script = [
      `echo $$ > ${join(root, WEB, 'cgroup.procs')}`,
      `while :; do ${trafficTool()} tcp-probe ${outside} 80 200 > ${out}.new; mv ${out}.new ${out}; done`,
    ].join('; ');
    const running = await world.start(world.host, 'sh', ['-c', script], false);
    return {
      pid: running.pid,
      latest: () => readFileSync(out, 'utf8').trim(),
      stop: () => running.stop(),
    };
  }

  it('a unit that starts after its policy, and one that is started again, are found', async () => {
    const late = hostPolicy('late', { egress: [DENY] }, { subject: { unit: 'late.service' } });
    await world.agent.apply(documents(late));
    const path = join(root, 'people', 'late.service');
    for (let round = 0; round < 2; round++) {
      mkdirSync(path);
      await expect
        .poll(() => connects('/people/late.service', OUTSIDE.v4, 80), { timeout: 5000 })
        .toBe('timeout');
      removeCgroups(path);
    }
    await world.agent.delete(documents(late));
  });

  it('users, alone and together with a cgroup', async () => {
    const asUser = async (user: number, group: string, address: string): Promise<string> => {
      const script = `echo $$ > ${join(root, group, 'cgroup.procs')}; exec setpriv --reuid=${user} --clear-groups "$@"`;
      const args = ['-c', script, 'sh', trafficTool(), 'tcp-probe', address, 80, 300];
      return (await world.start(world.host, 'sh', args, false)).done;
    };
    const user = hostPolicy('user', { egress: [DENY] }, { subject: { user: USER } });
    await world.agent.apply(documents(user));
    for (const outside of [OUTSIDE.v4, OUTSIDE.v6]) {
      expect(await asUser(USER, '/people', outside)).toBe('timeout');
      expect(await asUser(USER + 1, '/people', outside)).toBe('open');
    }
    const first = hostPolicy(
      'first',
      { egress: [{ action: 'Accept', protocols: [tcp(80)] }] },
      { subject: { unit: 'web.service' }, priority: 1 },
    );
    await world.agent.apply(documents(first));
    expect(await asUser(USER, WEB, OUTSIDE.v4)).toBe('open');
    expect(await asUser(USER, OTHER, OUTSIDE.v4)).toBe('timeout');
    await world.agent.delete(documents(first, user));
    await expect(
      world.agent.apply(
        documents(hostPolicy('user', { egress: [DENY] }, { subject: { user: 'nobody-here' } })),
      ),
    ).rejects.toThrow('there is no user "nobody-here" on this host');
  });
});
