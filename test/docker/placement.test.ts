import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FAULT_STEPS } from '../../src/faults.js';
import { allowIngress, documents, HOST, type World } from '../e2e/world.js';
import type { Dockerd } from '../lib/dockerd.js';
import { IMAGE } from '../lib/image.js';
import { wholeState } from '../node/kernel-state.js';
import { type Ended, OPTIONS, openFiles, Rig, SERVER } from './rig.js';

/**
 * Where the device of a container is made: in its namespace, before Docker starts its process, or on the host, from where
 * Docker takes it.
 */

let rig: Rig;
let world: World;
let docker: Dockerd;
let before: unknown;

const serve: Rig['serve'] = (...args) => rig.serve(...args);
const ask: Rig['ask'] = (...args) => rig.ask(...args);
const ways: Rig['ways'] = (name) => rig.ways(name);
const ONE = ['--network', 'one'];
const asking = (whom: string): Promise<Ended> => rig.asking(whom, ...ONE);

beforeAll(async () => {
  rig = new Rig('slplc');
  ({ world, docker } = rig);
  await rig.start();
  for (const [name, ...options] of [
    ['one'],
    ['two'],
    ['six', '--ipv6'],
    ['inner', '--internal'],
    ['handed', '-o', 'handover=true'],
  ] as const)
    rig.network(name, ...options);
  before = await wholeState(world);
});
afterAll(() => rig.close());

describe('the device of a container of Docker', () => {
  it('is made in its namespace', async () => {
    serve('web', '--network', 'one', '-l', 'app=web', '-p', '8080:80');
    expect(await ways('web')).toEqual(['made']);
    expect(docker.exec('web', 'ip', 'route')).toMatch(
      /^default via (10\.\d+\.\d+\.1) dev eth0 \n10\.\d+\.0\.0\/\d+ dev eth0 .* src 10\.\d+\.\d+\.\d+ ?$/,
    );
    expect(await world.probe(world.outside, HOST.v4, 8080)).toBe('open');
    expect(ask('web', '--network', 'one')).toBe('web');
    const taken = docker.try('run', '--rm', '--network', 'one', '-p', '8080:80', IMAGE, 'true');
    expect(taken.stderr).toMatch(/host port 8080\/TCP is already taken by container default\/web/);
  });

  it('is made so in a network of mode bridge as well', async () => {
    const options = ['-o', 'mode=bridge', '-o', 'mtu=1400'];
    rig.network('flat', ...options);
    serve('flat', '--network', 'flat');
    expect(await ways('flat')).toEqual(['made']);
    expect(docker.exec('flat', 'ip', 'link', 'show', 'eth0')).toContain('mtu 1400');
    expect(ask('flat', '--network', 'flat')).toBe('flat');
    docker.docker('rm', '-f', 'flat');
    docker.docker('network', 'rm', 'flat');
  });

  it('has its policy from the first packet on', async () => {
    await world.agent.apply(documents(allowIngress('guard', 'web', ['friend'])));
    for (let i = 0; i < 3; i++) {
      expect(ask('web', '--network', 'one', '-l', 'app=friend')).toBe('web');
      expect(ask('web', '--network', 'one', '-l', 'app=other')).toContain('timed out');
    }
    world.agent.cli('delete', 'networkpolicy', 'guard');
  });

  it('is waited for by Docker, for as long as it takes', async () => {
    expect(await rig.delayed(() => asking('web'))).toEqual({ output: 'web', status: 0 });
    expect(openFiles(world.agent.pid ?? 0).filter((file) => file.endsWith('/resolv.conf'))).toEqual([]);
  });

  it('is made before the agent ends', async () => {
    const client = asking('web');
    process.kill(rig.holding(), 'SIGTERM');
    expect(await world.agent.ended()).toBe(true);
    await world.agent.start(world.scratch); // Docker tells it of the container's end
    expect(await client).toEqual({ output: 'web', status: 0 });
  });

  it('is there with the ports of its own, of several that start at the same time', async () => {
    const ports = ['-p', '80', '-p', '8100-8110:81'];
    const all = await Promise.all([1, 2, 3, 4].map(() => rig.run([...ONE, ...ports], 'true')));
    expect(all).toEqual(all.map(() => ({ output: '', status: 0 })));
    const same = await Promise.all([1, 2].map(() => rig.run([...ONE, '-p', '8111:80'], 'sleep', '1')));
    expect(same.map(({ status }) => status).sort()).toEqual([0, 125]);
    expect(same.map(({ output }) => output).join('')).toMatch(
      /host port 8111\/TCP is already taken by container/,
    );
  });

  it('is made at once in one that runs', async () => {
    serve('far', '--network', 'two');
    docker.docker('network', 'connect', 'two', 'web');
    docker.docker('network', 'connect', 'six', 'web');
    docker.docker('network', 'connect', 'inner', 'web');
    expect(await ways('web')).toEqual(['made', 'made', 'made', 'made']);
    expect(docker.exec('web', 'nc', '-w', '1', 'far', '80')).toBe('far');
    expect(docker.exec('web', 'ip', '-6', 'address', 'show', 'eth2')).toMatch(/inet6 fd/);
    docker.docker('network', 'disconnect', 'two', 'web');
    expect(devices('web')).toEqual(['eth0', 'eth2', 'eth3']);
    docker.docker('network', 'connect', 'two', 'web');
    expect(docker.exec('web', 'nc', '-w', '1', 'far', '80')).toBe('far');
    // Docker moves them all when it starts a container that has several.
    docker.docker('restart', '-t', '0', 'web');
    expect(await ways('web')).toEqual(['moved', 'moved', 'moved', 'moved']);
    expect(docker.exec('web', 'nc', '-w', '1', 'far', '80')).toBe('far');
    docker.docker('rm', '-f', 'web', 'far');
  });

  it('is moved by Docker where that has to count devices, looks for no gateway, or turns IPv6 off and on', async () => {
    for (const network of ['six', 'inner', 'handed']) {
      serve('it', '--network', network);
      expect(await ways('it')).toEqual(['moved']);
      expect(ask('it', '--network', network)).toBe('it');
      docker.docker('rm', '-f', 'it');
    }
  });

  it('lets networks of other drivers be connected while it runs, in a network with handover', () => {
    docker.docker('network', 'create', 'foreign');
    serve('both', '--network', 'handed');
    docker.docker('network', 'connect', 'foreign', 'both');
    expect(devices('both')).toEqual(['eth0', 'eth1']);
    docker.docker('rm', '-f', 'both');
    // Before it runs it needs none: Docker moves all devices then.
    docker.docker('create', '--name', 'both', '--network', 'one', IMAGE, ...SERVER);
    docker.docker('network', 'connect', 'foreign', 'both');
    docker.docker('start', 'both');
    expect(devices('both')).toEqual(['eth0', 'eth1']);
    docker.docker('rm', '-f', 'both');
    docker.docker('network', 'rm', 'foreign');
  });

  it('is kept when Docker is killed, and counted by Docker from then on', async () => {
    serve('web', '--network', 'one', '-p', '8080:80');
    serve('far', '--network', 'two');
    docker.docker('network', 'create', 'foreign');
    await docker.stop('SIGKILL');
    await docker.start(...OPTIONS);
    expect(ask('web', '--network', 'one')).toBe('web');
    expect(await world.probe(world.outside, HOST.v4, 8080)).toBe('open');
    docker.docker('network', 'connect', 'two', 'web');
    expect(docker.exec('web', 'nc', '-w', '1', 'far', '80')).toBe('far');
    expect(await ways('web')).toEqual(['made', 'made']);
    docker.docker('network', 'connect', 'foreign', 'far');
    expect(devices('far')).toEqual(['eth0', 'eth1']);
    docker.docker('network', 'disconnect', 'one', 'web');
    expect(docker.exec('web', 'ip', 'route')).toMatch(/^default via \S+ dev eth1/);
    expect(docker.exec('web', 'nc', '-w', '1', 'far', '80')).toBe('far');
    docker.docker('rm', '-f', 'web', 'far');
    docker.docker('network', 'rm', 'foreign');
  });

  it.each(FAULT_STEPS.docker)(
    'is there or the container does not start, when the agent is killed at %s',
    async (step) => {
      serve('peer', '--network', 'one');
      rig.dieAt(step);
      const client = asking('peer');
      expect(await world.agent.ended()).toBe(true);
      rig.dieAt('');
      await world.agent.start(world.scratch);
      const { output, status } = await client;
      if (status === 0) expect(output).toBe('peer');
      // Docker's own: it has not started the container.
      else expect(status).toBe(125);
      expect(ask('peer', '--network', 'one')).toBe('peer');
      docker.docker('rm', '-f', 'peer');
    },
  );

  it('leaves nothing', async () => {
    // What Docker forgot while the agent was away goes when that is seen twice.
    await expect.poll(() => wholeState(world), { timeout: 20_000, interval: 500 }).toEqual(before);
  });
});

/** The devices of a container but lo. */
function devices(container: string): string[] {
  const listed = docker.exec(container, 'ip', 'link').matchAll(/^\d+: (eth\d+)@/gm);
  return [...listed].map(([, name = '']) => name).sort();
}
