import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HOST, World } from '../e2e/world.js';
import { Dockerd } from '../lib/dockerd.js';
import { IMAGE } from '../lib/image.js';
import { wholeState } from '../node/kernel-state.js';

/** Projects of docker compose, the client itself: the example, and twice side by side. */

const EXAMPLE = 'examples/docker/compose.yaml';
const driver = `sluice-${randomBytes(4).toString('hex')}`;
const PORTS: Readonly<Record<string, string>> = { red: '8380', blue: '8381' };

let world: World;
let docker: Dockerd;
let before: unknown;
/** What the red project has besides the example. */
let more: string;

/** Runs compose for a project; its output, and its errors if it fails. */
function compose(project: string, ...args: readonly string[]): string {
  const env = {
    ...process.env,
    DOCKER_HOST: `unix://${docker.socket}`,
    DRIVER: driver,
    IMAGE,
    PORT: PORTS[project] ?? '',
  };
  const files = ['-f', EXAMPLE, ...(project === 'red' ? ['-f', more] : [])];
  const options = { encoding: 'utf8', env, timeout: 60_000 } as const;
  const { status, stdout, stderr } = spawnSync('docker-compose', ['-p', project, ...files, ...args], options);
  if (status !== 0) throw new Error(`docker-compose ${args.join(' ')}: ${stderr.trim()}`);
  return stdout.trim();
}

function idOf(project: string, service: string): string {
  const labels = { project, service };
  const filters = Object.entries(labels).map(([key, value]) => `label=com.docker.compose.${key}=${value}`);
  return docker.docker('ps', '-q', ...filters.flatMap((filter) => ['--filter', filter]));
}

/** What a service of a project hears when it connects, if only an error. */
const get = (project: string, from: string, to: string, port: number): string =>
  docker.exec(idOf(project, from), 'nc', '-w', '1', to, String(port));

/** Waits until the database of a project listens, which compose does not. */
const hears = (project: string, from: string, to: string, what: string): Promise<void> =>
  expect.poll(() => get(project, from, to, 5432), { timeout: 10_000 }).toBe(what);

/** The example's services, and some that use more of what a project can have. */
function writeMore(guest: string): void {
  const wait = { image: IMAGE, command: 'sleep 100000', stop_grace_period: '1s' };
  const services = {
    db: { networks: { default: { aliases: ['store'] }, back: { ipv4_address: '10.131.7.77' } } },
    guest: { ...wait, labels: { app: guest } },
    // In the network of another service, started after it.
    beside: { ...wait, network_mode: 'service:web', depends_on: ['web'] },
    inner: { ...wait, networks: ['back'] },
  };
  const back = {
    driver,
    internal: true,
    ipam: { driver, config: [{ subnet: '10.131.7.0/24' }] },
    driver_opts: { 'com.docker.network.driver.mtu': '1400' },
  };
  // The names of this project are told by the agent, those of the other one by Docker.
  const ours = { driver, ipam: { driver }, driver_opts: { names: 'sluice' } };
  writeFileSync(more, JSON.stringify({ services, networks: { default: ours, back } }));
}

beforeAll(async () => {
  const socket = join(tmpdir(), `${driver}.sock`);
  world = new World('sldc', { dockerPlugin: `/run/docker/plugins/${driver}.sock`, dockerApi: socket });
  docker = new Dockerd(world.scratch, world.host, socket);
  more = join(docker.folder, 'more.yaml');
  await world.agent.start(world.scratch);
  await docker.start('--ip-forward=false', '--iptables=false', '--ip6tables=false', '--bridge=none');
  docker.makeImage();
  before = await wholeState(world);
});
afterAll(() => {
  world.close();
});

describe('docker compose', () => {
  it('runs a project: names, aliases, fixed addresses, an internal network, one shared by services', async () => {
    writeMore('guest');
    compose('red', 'up', '-d');
    const db = idOf('red', 'db');
    await hears('red', 'web', 'db', db);
    expect(get('red', 'web', 'store', 5432)).toBe(db);
    expect(get('red', 'beside', 'db', 5432)).toBe(db);
    expect(get('red', 'inner', '10.131.7.77', 5432)).toBe(db);
    expect(docker.exec(idOf('red', 'inner'), 'ip', 'route')).not.toContain('default');
    expect(docker.exec(idOf('red', 'inner'), 'ip', 'link')).toContain('mtu 1400');
    await expect.poll(() => world.probe(world.outside, HOST.v4, 8380), { timeout: 10_000 }).toBe('open');
  });

  it('keeps projects of the same services apart', async () => {
    compose('blue', 'up', '-d');
    await hears('blue', 'web', 'db', idOf('blue', 'db'));
    const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}';
    const [address = ''] = docker.docker('inspect', '-f', format, idOf('blue', 'db')).split(' ');
    expect(get('red', 'web', address, 5432)).toContain('timed out');
    await expect.poll(() => world.probe(world.outside, HOST.v4, 8381), { timeout: 10_000 }).toBe('open');
  });

  it('has its services judged by their labels, also by those that they get later', () => {
    expect(get('red', 'guest', 'db', 5432)).toBe(idOf('red', 'db'));
    world.agent.cli('apply', '-f', 'examples/docker/policy.yaml');
    expect(get('red', 'guest', 'db', 5432)).toContain('timed out');
    expect(get('red', 'web', 'db', 5432)).toBe(idOf('red', 'db'));
    writeMore('web');
    compose('red', 'up', '-d', 'guest');
    expect(get('red', 'guest', 'db', 5432)).toBe(idOf('red', 'db'));
    world.agent.cli('delete', '-f', 'examples/docker/policy.yaml');
  });

  it('scales services and starts them again', async () => {
    compose('red', 'up', '-d', '--scale', 'guest=2', 'guest');
    expect(
      docker.exec(idOf('red', 'web'), 'nslookup', '-type=a', 'guest').match(/^Address: 10\./gm),
    ).toHaveLength(2);
    compose('red', 'restart', '-t', '0', 'db');
    await hears('red', 'web', 'db', idOf('red', 'db'));
  });

  it('takes everything away', async () => {
    compose('red', 'down', '-t', '0');
    compose('blue', 'down', '-t', '0');
    expect(await wholeState(world)).toEqual(before);
  });
});
