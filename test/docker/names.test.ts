import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FAULT_STEPS } from '../../src/faults.js';
import { documents, type World } from '../e2e/world.js';
import type { Dockerd } from '../lib/dockerd.js';
import { IMAGE } from '../lib/image.js';
import { wholeState } from '../node/kernel-state.js';
import { type Ended, OPTIONS, Rig } from './rig.js';

/** Whom a container of Docker asks for names: Docker's own service, or the agent's (`-o names=sluice`). */

const DOCKERS = '127.0.0.11';
const OURS = ['--network', 'ours'];

let rig: Rig;
let world: World;
let docker: Dockerd;
let before: unknown;

const asking = (whom: string): Promise<Ended> => rig.asking(whom, ...OURS);
/** The name server of a container, and its options. */
const resolvConf = (name: string): string => docker.exec(name, 'cat', '/etc/resolv.conf');
const server = (name: string): string => /^nameserver (\S+)$/m.exec(resolvConf(name))?.[1] ?? '';
const addressOf = (name: string): string =>
  docker.docker('inspect', '-f', '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}', name).trim();
/** What a container hears that has no such name, or no way there; which one depends on who is asked in vain. */
const NOBODY = /bad address|timed out/;

beforeAll(async () => {
  rig = new Rig('sldnm');
  ({ world, docker } = rig);
  await rig.start();
  rig.network('ours', '-o', 'names=sluice');
  rig.network('more', '-o', 'names=sluice');
  rig.network('theirs');
  before = await wholeState(world);
});
afterAll(() => rig.close());

describe('names of containers of Docker', () => {
  it('are told by Docker, unless the network says otherwise', () => {
    rig.serve('plain', '--network', 'theirs');
    expect(server('plain')).toBe(DOCKERS);
    docker.docker('rm', '-f', 'plain');
  });

  it('are told by the agent: containers, aliases, services', async () => {
    rig.serve('web', ...OURS, '--network-alias', 'shop', '-l', 'app=web', '-p', '8080:80');
    rig.serve('client', ...OURS);
    expect(server('client')).toBe(addressOf('client').replace(/\d+$/, '1'));
    expect(await rig.ways('client')).toEqual(['made']);
    expect(docker.exec('client', 'nc', '-w', '1', 'web', '80')).toBe('web');
    expect(docker.exec('client', 'nc', '-w', '1', 'shop', '80')).toBe('web');
    // As the first thing that a container does.
    for (let i = 0; i < 3; i++) {
      expect(rig.ask('web', ...OURS)).toBe('web');
      expect(rig.ask('me', ...OURS, '--network-alias', 'me')).toContain('Connection refused');
    }
    const id = docker.docker('ps', '-q', '--filter', 'name=web');
    expect(docker.exec('client', 'nc', '-w', '1', id, '80')).toBe('web');
    const service = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'api', namespace: 'default' },
      spec: { clusterIP: '10.96.77.1', selector: { app: 'web' }, ports: [{ port: 80 }] },
    };
    await world.agent.apply(documents(service));
    await expect.poll(() => docker.exec('client', 'nc', '-w', '1', 'api.default', '80')).toBe('web');
    expect(rig.ask('api.default.svc.cluster.local', ...OURS)).toBe('web');
    await world.agent.delete(documents(service));
  });

  it('cost no process of Docker and no rule in the container', () => {
    const pid = docker.docker('inspect', '-f', '{{.State.Pid}}', 'client');
    expect(readFileSync(`/proc/${pid}/net/ip_tables_names`, 'utf8')).toBe('');
    expect(readFileSync(`/proc/${pid}/net/udp`, 'utf8').trim().split('\n')).toHaveLength(1);
  });

  it('keep search domains and options', () => {
    const wanted = ['--dns-search', 'one.example', '--dns-opt', 'timeout:3', '--dns-opt', 'rotate'];
    rig.serve('own', ...OURS, ...wanted);
    const text = resolvConf('own');
    expect(text).toContain('search one.example\n');
    expect(text).toMatch(/^options sluice-ndots ndots:0 timeout:3 rotate$/m);
    expect(docker.exec('own', 'nc', '-w', '1', 'web', '80')).toBe('web');
    docker.docker('rm', '-f', 'own');
  });

  it.each([
    ['name servers of its own', ['--dns', '192.0.2.53']],
    ['links', ['--link', 'web:alias']],
    ['a second network', []],
  ])('are told by Docker to a container with %s', async (what, options) => {
    docker.docker('create', '--name', 'it', ...OURS, ...options, IMAGE, 'sleep', '1000');
    if (what === 'a second network') docker.docker('network', 'connect', 'theirs', 'it');
    docker.docker('start', 'it');
    expect(server('it')).toBe(DOCKERS);
    expect(docker.exec('it', 'nc', '-w', '1', what === 'links' ? 'alias' : 'web', '80')).toBe('web');
    docker.docker('rm', '-f', 'it');
  });

  it('follow it into further networks, and out of its first', () => {
    rig.serve('far', '--network', 'more');
    rig.serve('away', '--network', 'theirs');
    for (const network of ['more', 'theirs']) docker.docker('network', 'connect', network, 'client');
    expect(docker.exec('client', 'nc', '-w', '1', 'far', '80')).toBe('far');
    expect(docker.exec('client', 'nc', '-w', '1', 'away', '80')).toBe('away');
    expect(docker.exec('far', 'nc', '-w', '1', 'away', '80')).toMatch(NOBODY);
    docker.docker('network', 'disconnect', 'ours', 'client');
    expect(docker.exec('client', 'nc', '-w', '1', 'far', '80')).toBe('far');
    expect(docker.exec('client', 'nc', '-w', '1', 'web', '80')).toMatch(NOBODY);
    docker.docker('network', 'connect', 'ours', 'client');
    expect(docker.exec('client', 'nc', '-w', '1', 'web', '80')).toBe('web');
    docker.docker('rm', '-f', 'far', 'away', 'client');
  });

  it('wait for a device that takes its time', async () => {
    expect(await rig.delayed(() => asking('web'))).toEqual({ output: 'web', status: 0 });
  });

  it('are told to containers whose files somebody reads', async () => {
    const folder = join(docker.folder, 'data', 'containers');
    let read = 0;
    const reader = setInterval(() => {
      for (const id of readdirSync(folder)) {
        try {
          const fd = openSync(join(folder, id, 'resolv.conf'), 'r');
          read++;
          closeSync(fd);
        } catch {
          // not there yet, or gone
        }
      }
    }, 20);
    for (let i = 0; i < 5; i++) expect(await asking('web')).toEqual({ output: 'web', status: 0 });
    clearInterval(reader);
    expect(read).toBeGreaterThan(20);
  });

  it('come back with the agent, with Docker, and with the container', async () => {
    rig.serve('client', ...OURS);
    await world.agent.kill();
    await world.agent.start(world.scratch);
    await expect.poll(() => docker.exec('client', 'nc', '-w', '1', 'web', '80')).toBe('web');
    await docker.stop('SIGKILL');
    await docker.start(...OPTIONS);
    expect(docker.exec('client', 'nc', '-w', '1', 'web', '80')).toBe('web');
    docker.docker('restart', '-t', '0', 'client');
    expect(server('client')).not.toBe(DOCKERS);
    expect(docker.exec('client', 'nc', '-w', '1', 'web', '80')).toBe('web');
    docker.docker('rm', '-f', 'client');
  });

  it('are told to a container that Docker starts again when it is started itself', async () => {
    rig.serve('again', ...OURS, '--restart', 'always', '--network-alias', 'twice');
    // A new agent knows of Docker what the one before was told.
    await world.agent.kill();
    await world.agent.start(world.scratch);
    await docker.stop('SIGKILL');
    await docker.start(...OPTIONS, '--live-restore=false');
    expect(await rig.ways('again')).toEqual(['made']);
    expect(server('again')).toBe(addressOf('again').replace(/\d+$/, '1'));
    docker.docker('start', 'web');
    await expect.poll(() => docker.exec('again', 'nc', '-w', '1', 'web', '80')).toBe('web');
    await expect.poll(() => docker.exec('web', 'nc', '-w', '1', 'twice', '80')).toBe('again');
    docker.docker('rm', '-f', 'again');
    await docker.stop('SIGKILL');
    await docker.start(...OPTIONS);
    expect(docker.exec('web', 'hostname')).toBe('web');
  });

  it.each(FAULT_STEPS.docker)('leave no container without, when the agent is killed at %s', async (step) => {
    rig.dieAt(step);
    const client = asking(addressOf('web'));
    expect(await world.agent.ended()).toBe(true);
    rig.dieAt('');
    await world.agent.start(world.scratch);
    const { output, status } = await client;
    if (status === 0) expect(output).toBe('web');
    else expect(status).toBe(125); // Docker has not started it
    expect(rig.ask('web', ...OURS)).toBe('web');
  });

  it.each([[['--ipv6']], [['--internal']], [['-o', 'handover=true']]])(
    'can not be had of the agent in a network with %j',
    (options) => {
      const where = ['network', 'create', '-d', rig.driver, '--ipam-driver', rig.driver];
      const { stderr } = docker.try(...where, '-o', 'names=sluice', ...options, 'wrong');
      expect(stderr).toMatch(/option names cannot be sluice in a network with \S+: leave one of them out/);
    },
  );

  it('leave nothing', async () => {
    docker.docker('rm', '-f', 'web');
    // What Docker forgot while the agent was away goes when that is seen twice.
    await expect.poll(() => wholeState(world), { timeout: 20_000, interval: 500 }).toEqual(before);
  });
});
