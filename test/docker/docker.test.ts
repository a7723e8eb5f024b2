import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { waitUntil } from '../../bench/lib/netns.js';
import { allowIngress, documents, HOST, World } from '../e2e/world.js';
import { Dockerd } from '../lib/dockerd.js';
import { FIRST_LABEL, FirstPackets } from '../lib/first-packets.js';
import { IMAGE } from '../lib/image.js';
import { wholeState } from '../node/kernel-state.js';

const CGROUP = '/sys/fs/cgroup/unified';
const group = join(CGROUP, `sluice-docker-${process.pid}`);
const haveCgroup = existsSync(join(CGROUP, 'cgroup.procs'));
/** The driver's name is that of its socket, and Docker looks for it in one folder. */
const driver = `sluice-${randomBytes(4).toString('hex')}`;

let world: World;
let docker: Dockerd;
let before: unknown;

/** A container that says its name to who connects to port 80; it listens. */
function run(name: string, network: string, ...more: readonly string[]): string {
  const where = ['--name', name, '--hostname', name, '--network', network, '--stop-timeout', '1'];
  const server = ['nc', '-ll', '-p', '80', '-e', '/bin/hostname'];
  const id = docker.docker('run', '-d', ...where, ...more, IMAGE, ...server);
  const pid = docker.docker('inspect', '-f', '{{.State.Pid}}', name).trim();
  const listens = (file: string): boolean =>
    / 0*:0050 0*:0000 0A /.test(readFileSync(`/proc/${pid}/net/${file}`, 'utf8'));
  expect(waitUntil(() => listens('tcp') || listens('tcp6'))).toBe(true);
  return id;
}

/** Port 81 of an IPv4 address as /proc/net/tcp has it. */
const peerText = (address: string): string =>
  `${Buffer.from(address.split('.').map(Number)).reverse().toString('hex').toUpperCase()}:0051`;

/** What a container hears when it connects; an error's text if it can't. */
const get = (from: string, to: string, port = 80): string =>
  docker.exec(from, 'nc', '-w', '1', to, String(port));

function createNetwork(name: string, ...more: readonly string[]): string {
  return docker.docker('network', 'create', '-d', driver, ...more, name);
}

const OPTIONS = ['--ip-forward=false', '--iptables=false', '--ip6tables=false', '--bridge=none'];

beforeAll(async () => {
  if (haveCgroup) mkdirSync(group);
  const socket = join(tmpdir(), `${driver}.sock`);
  world = new World('sldk', {
    dockerPlugin: `/run/docker/plugins/${driver}.sock`,
    dockerApi: socket,
    ...(haveCgroup ? { cgroupRoot: group } : {}),
  });
  docker = new Dockerd(world.scratch, world.host, socket, haveCgroup ? group : undefined);
  await world.agent.start(world.scratch);
  await docker.start(...OPTIONS);
  docker.makeImage();
  before = await wholeState(world);
});
afterAll(() => {
  world.close();
});

describe('Docker', () => {
  it('connects containers of a network, by name and alias, over IPv4 and IPv6', () => {
    createNetwork('one', '--ipam-driver', driver, '--ipv6');
    run('web', 'one', '--network-alias', 'shop', '-l', 'app=web');
    run('client', 'one', '-l', 'app=client');
    expect(get('client', 'web')).toBe('web');
    expect(get('client', 'shop')).toBe('web');
    const [address] = docker
      .docker('inspect', '-f', '{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}', 'web')
      .split('\n');
    expect(get('client', address ?? '')).toBe('web');
    expect(docker.exec('client', 'ip', 'route')).toMatch(/^default via 10\.128\.0\.1 dev eth0/);
  });

  it('sees containers by their labels, before they run', async () => {
    await world.agent.apply(documents(allowIngress('guard', 'web', ['friend'])));
    expect(get('client', 'web')).toContain('timed out');
    run('friend', 'one', '-l', 'app=friend');
    expect(get('friend', 'web')).toBe('web');
    // Denied and allowed from the first instruction on.
    const ask = ['sh', '-c', 'nc -w 1 web 80 2>&1'];
    expect(docker.docker('run', '--rm', '--network', 'one', '-l', 'app=friend', IMAGE, ...ask)).toBe('web');
    expect(docker.try('run', '--rm', '--network', 'one', '-l', 'app=other', IMAGE, ...ask).stdout).toContain(
      'timed out',
    );
    expect(world.agent.cli('drops')).toContain('default/guard');
    await world.agent.apply(documents(allowIngress('guard', 'web', ['friend', 'client'])));
    expect(get('client', 'web')).toBe('web');
  });

  it.skipIf(!haveCgroup)('translates connections to services where the socket is', async () => {
    const address = '10.96.77.1';
    const spec = { clusterIP: address, selector: { app: 'echo' }, ports: [{ port: 81 }] };
    const service = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'echo', namespace: 'default' },
      spec,
    };
    await world.agent.apply(documents(service));
    const where = ['--name', 'echo', '--network', 'one', '-l', 'app=echo'];
    docker.docker('run', '-d', ...where, IMAGE, 'nc', '-ll', '-p', '81', '-e', '/bin/cat');
    const ask = (): string =>
      docker.exec(
        'client',
        'sh',
        '-c',
        `((sleep 1; echo) | nc ${address} 81) >/dev/null 2>&1 & sleep 0.2; cat /proc/net/tcp`,
      );
    const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}';
    const backend = docker.docker('inspect', '-f', format, 'echo');
    // As soon as the agent has seen that Docker moved the device.
    expect(waitUntil(() => ask().includes(`${peerText(backend)} 01`))).toBe(true);
    expect(ask()).not.toContain(peerText(address));
    docker.docker('rm', '-f', 'echo');
    await world.agent.delete(documents(service));
  });

  it('publishes ports', async () => {
    run('pub', 'one', '-p', '8080:80', '-p', '127.0.0.1:8081:80', '-p', '9000-9002:80/udp', '-l', 'app=pub');
    expect(await world.probe(world.outside, HOST.v4, 8080)).toBe('open');
    expect(await world.probe(world.outside, HOST.v6, 8080)).toBe('open');
    expect(await world.probe(world.outside, HOST.v4, 8081)).not.toBe('open');
    expect(get('client', HOST.v4, 8080)).toBe('pub');
    const taken = docker.try('run', '--rm', '--network', 'one', '-p', '8080:80', IMAGE, 'true');
    expect(taken.stderr).toMatch(/host port 8080\/TCP is already taken by container default\/pub/);
    docker.docker('rm', '-f', 'pub');
    expect(await world.probe(world.outside, HOST.v4, 8080)).not.toBe('open');
    // What a process of the host has stays its own.
    const server = await world.traffic(world.host, 'tcp-server', '0.0.0.0', 8085, 60);
    const refused = docker.try('run', '--rm', '--network', 'one', '-p', '8085:80', IMAGE, 'true');
    expect(refused.stderr).toMatch(/host port 8085\/TCP is in use by a process of this host/);
    run('range', 'one', '-p', '8085-8086:80');
    expect(await world.probe(world.outside, HOST.v4, 8086)).toBe('open');
    docker.docker('rm', '-f', 'range');
    await server.stop();
  });

  it('publishes ports at the address that a network has for them', async () => {
    const binding = `com.docker.network.bridge.host_binding_ipv4=${HOST.v4}`;
    createNetwork('bound', '--ipam-driver', driver, '--ipv6', '-o', binding);
    run('here', 'bound', '-p', '8087:80', '-p', '0.0.0.0:8088:80');
    expect(await world.probe(world.outside, HOST.v4, 8087)).toBe('open');
    expect(await world.probe(world.outside, HOST.v6, 8087)).not.toBe('open');
    expect(await world.agent.list('containers')).toMatch(
      /"hostPort":8088,"containerPort":80,"hostAddress":"0\.0\.0\.0"/,
    );
    docker.docker('rm', '-f', 'here');
    docker.docker('network', 'rm', 'bound');
  });

  it('starts no container in a namespace that no policy could name', () => {
    for (const name of ['Bad Name', '']) {
      const label = `sluice.dev/namespace=${name}`;
      const refused = docker.try('run', '--rm', '--network', 'one', '-l', label, IMAGE, 'true');
      expect(refused.stderr).toMatch(/label sluice\.dev\/namespace must be a name of lower case letters/);
    }
  });

  it('connects and disconnects a second network of a running container, with ranges of Docker itself', () => {
    const prefix = 'com.docker.network.container_iface_prefix=two';
    const where = ['--subnet', '10.77.0.0/24', '--gateway', '10.77.0.254'];
    createNetwork('two', ...where, '-o', 'mtu=1400', '-o', prefix);
    run('far', 'two', '--ip', '10.77.0.9');
    expect(get('client', '10.77.0.9')).toContain('timed out'); // networks are apart
    docker.docker('network', 'connect', '--alias', 'both', 'two', 'client');
    expect(get('client', 'far')).toBe('far');
    expect(get('client', 'web')).toBe('web');
    expect(docker.exec('client', 'ip', 'link', 'show', 'two0')).toContain('mtu 1400');
    docker.docker('network', 'disconnect', 'one', 'client');
    expect(get('client', 'far')).toBe('far');
    expect(get('client', 'web')).toMatch(/bad address|timed out/);
    docker.docker('network', 'connect', 'one', 'client');
    expect(get('client', 'web')).toBe('web');
    docker.docker('network', 'disconnect', 'two', 'client');
  });

  it('keeps an internal network to itself', () => {
    createNetwork('inner', '--ipam-driver', driver, '--internal');
    run('in1', 'inner');
    run('in2', 'inner');
    expect(get('in1', 'in2')).toBe('in2');
    expect(docker.exec('in1', 'ip', 'route')).not.toContain('default');
  });

  it('shares the network of definitions', async () => {
    const netns = world.container('plain');
    await world.agent.apply(
      documents(
        {
          apiVersion: 'sluice.dev/v1alpha1',
          kind: 'Network',
          metadata: { name: 'town' },
          spec: { ipv4: { cidr: '10.88.0.0/24' } },
        },
        {
          apiVersion: 'sluice.dev/v1alpha1',
          kind: 'Container',
          metadata: { name: 'plain' },
          spec: { netns: { name: netns }, networks: ['town'] },
        },
      ),
    );
    const borrow = ['--ipam-driver', driver, '--ipam-opt', 'network=town', '-o', 'network=town'];
    expect(() => createNetwork('town', ...borrow)).toThrow(
      /network town has 10\.88\.0\.0\/24: use .*--subnet/,
    );
    createNetwork('town', ...borrow, '--subnet', '10.88.0.0/24');
    run('guest', 'town', '-l', 'app=guest');
    expect(docker.exec('guest', 'ip', 'address')).toContain('10.88.0.3/24');
    expect(await world.probe(netns, '10.88.0.3', 80)).toBe('open');
    docker.docker('rm', '-f', 'guest');
    docker.docker('network', 'rm', 'town');
    expect(await world.agent.list('networks')).toContain('town');
    world.agent.cli('delete', 'container', 'plain');
    world.agent.cli('delete', 'network', 'town');
  });

  it('runs a project of two containers as docker compose makes it', () => {
    const labels = (service: string) => [
      '--label',
      'com.docker.compose.project=shop',
      '--label',
      `com.docker.compose.service=${service}`,
    ];
    createNetwork('shop_default', '--label', 'com.docker.compose.project=shop');
    for (const service of ['api', 'front'])
      run(`shop-${service}-1`, 'shop_default', '--network-alias', service, ...labels(service));
    expect(get('shop-front-1', 'api')).toBe('shop-api-1');
  });

  it('judges what containers send from their first instruction on', async () => {
    const first = new FirstPackets(world.scratch, 58);
    await world.agent.apply(first.definitions);
    await first.start();
    docker.docker('network', 'create', ...first.dockerNetwork(driver));
    const options = ['--network', 'first', '-v', `${first.program}:/first`, '-l', `role=${FIRST_LABEL.role}`];
    for (let i = 0; i < 6; i++)
      first.note(i, docker.try('run', '--rm', ...options, IMAGE, '/first', ...first.send(i)).stdout);
    expect(await first.verdict()).toEqual({ containers: 6, lost: [], passed: [] });
    docker.docker('network', 'rm', 'first');
    await world.agent.delete(first.definitions);
  });

  it('runs the example', () => {
    const env = {
      ...process.env,
      DOCKER_HOST: `unix://${docker.socket}`,
      DRIVER: driver,
      IMAGE,
      SLUICE: 'bin/sluice',
      SLUICE_SOCKET: world.agent.socket,
    };
    const output = execFileSync('examples/docker/shop', { encoding: 'utf8', env });
    expect(output.split('\n').filter((line) => line.includes(' asks '))).toEqual([
      'shop-web asks shop-db: shop-db',
      'shop-guest asks shop-db: shop-db',
      'shop-web asks shop-db: shop-db',
      'shop-guest asks shop-db: no answer',
    ]);
  });

  it('loses nothing when the agent is killed', async () => {
    await world.agent.kill();
    expect(get('client', 'web')).toBe('web');
    await world.agent.start(world.scratch);
    expect(get('client', 'web')).toBe('web');
    expect(JSON.parse(await world.agent.list('endpoints'))).toHaveLength(8); // as many as before
    docker.docker('restart', '-t', '0', 'web');
    expect(get('client', 'web')).toBe('web');
  });

  it('loses nothing when Docker is killed', async () => {
    await docker.stop('SIGKILL');
    await docker.start(...OPTIONS);
    expect(get('client', 'web')).toBe('web');
    run('late', 'one', '-l', 'app=friend');
    expect(get('late', 'web')).toBe('web');
  });

  it('starts containers again that are to run again, with their policy, while nobody can ask Docker', async () => {
    const where = ['--restart', 'always', '-p', '8090:80'];
    run('again', 'one', '-l', 'app=web', ...where);
    run('guest', 'one', '-l', 'app=guest', '--restart', 'always');
    await docker.stop('SIGKILL');
    await docker.start(...OPTIONS, '--live-restore=false');
    const running = docker.docker('ps', '--format', '{{.Names}}').split('\n');
    expect(running).toEqual(expect.arrayContaining(['again', 'guest']));
    expect(get('guest', 'again')).toContain('timed out');
    docker.docker('start', 'web', 'client', 'friend', 'late');
    expect(get('friend', 'again')).toBe('again');
    expect(await world.probe(world.outside, HOST.v4, 8090)).not.toBe('open'); // the policy is for ports too
    await world.agent.apply(documents(allowIngress('guard', 'web', ['friend', 'client', 'guest'])));
    expect(get('guest', 'again')).toBe('again');
  });

  it('uses its networks and ranges again after sluice down', async () => {
    await world.agent.down();
    await world.agent.start(world.scratch);
    docker.docker('restart', '-t', '0', 'web', 'client');
    expect(get('client', 'web')).toBe('web');
    run('fresh', 'one');
    const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}';
    const addresses = docker
      .docker('ps', '-q')
      .split('\n')
      .map((id) => docker.docker('inspect', '-f', format, id));
    expect(addresses).toHaveLength(new Set(addresses).size);
    expect(get('fresh', 'web')).toBe('web');
    expect(() => createNetwork('odd', '--subnet', '127.1.0.0/24')).toThrow(/127\.1\.0\.0\/24 is loopback/);
    const small = ['--ipam-driver', driver, '--ipv6', '-o', 'mtu=600'];
    expect(() => createNetwork('odd', ...small)).toThrow(/mtu must be at least 1280 for IPv6/);
    const uplink = ['--subnet', '198.51.100.0/24'];
    expect(() => createNetwork('odd', ...uplink)).toThrow(/remote: 198\.51\.100\.0\/24 has .*uplink0/);
  });

  it('leaves nothing of containers that were killed, removed while the agent was away, or with their network', async () => {
    docker.docker('kill', 'friend', 'late');
    docker.docker('rm', '-f', 'client', 'in1', 'in2');
    const names = docker.docker('ps', '-aq').split('\n');
    docker.docker('rm', '-f', ...names);
    docker.docker('network', 'rm', 'one', 'two', 'inner', 'shop_default');
    await world.agent.apply(documents(allowIngress('guard', 'web', [])));
    world.agent.cli('delete', 'networkpolicy', 'guard');
    expect(await wholeState(world)).toEqual(before);
  });
});
