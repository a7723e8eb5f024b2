/**
 * What a network costs `docker run`: the time of a whole `docker run --rm` of a program that ends at once, over that of
 * one with `--network none` in the same round, beside Docker's own bridge, without and with a published port: in a
 * network whose names Sluice tells (`-o names=sluice`), and in one that leaves them to Docker. A driver that does nothing,
 * at once, and one that gives each container a device that it had ready, show what of the latter dockerd and the kernel
 * spend on the network of any plugin, most of it for Docker's name service. In the same run, the name service: a local
 * name at a container, and questions a second.
 *
 * The kernel takes down what a container leaves, its network namespace above all, for some 100 ms after its end and holds
 * locks meanwhile. Each run begins when that is done, so none pays for the one before, whichever that was.
 *
 * A dockerd of its own (network namespace, folders, socket) with its rules in iptables, as it is by default.
 * Settings from the environment: BENCH_ROUNDS (31), BENCH_DNS (20000).
 */
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Dockerd } from '../test/lib/dockerd.js';
import { IMAGE } from '../test/lib/image.js';
import { Agent } from './lib/agent.js';
import { sh } from './lib/command.js';
import { inside, killAndWait, netnsPath, type Scratch, veth, waitUntil } from './lib/netns.js';
import { report } from './lib/report.js';
import { withScratch } from './lib/scratch-run.js';
import { interleave, median } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 31);
const QUESTIONS = Number(process.env.BENCH_DNS ?? 20_000);
/** At most this part of what Docker's bridge costs. */
const PART = 0.5;
/** Where Docker looks for plugins. */
const PLUGINS = '/run/docker/plugins';
const NAME_MS = 1;
const PER_SECOND = 10_000;

const WAYS = {
  none: ['--network', 'none'],
  sluice: ['--network', 'ours'],
  'sluice, port': ['--network', 'ours', '-p', '8081:80'],
  named: ['--network', 'named'],
  'named, port': ['--network', 'named', '-p', '8084:80'],
  bridge: ['--network', 'theirs'],
  'bridge, port': ['--network', 'theirs', '-p', '8082:80'],
  nothing: ['--network', 'nothing'],
  device: ['--network', 'device'],
  'nothing, port': ['--network', 'nothing', '-p', '8083:80'],
} as const;
type Way = keyof typeof WAYS;

/** Questions from inside a container's namespace: [median milliseconds one at a time, questions a second]. */
function names(netns: string, server: string): { readonly milliseconds: number; readonly perSecond: number } {
  const script = `
    const { encode } = require('dns-packet');
    const socket = require('node:dgram').createSocket('udp4');
    const message = encode({ type: 'query', id: 1, flags: 0x100, questions: [{ name: 'web', type: 'A' }] });
    let heard = () => {};
    socket.on('message', () => heard());
    const answer = () => new Promise((resolve) => { heard = resolve; });
    socket.connect(53, '${server}', async () => {
      const times = [];
      for (let i = 0; i < 2000; i++) {
        const begin = performance.now();
        socket.send(message);
        await answer();
        times.push(performance.now() - begin);
      }
      times.sort((a, b) => a - b);
      let sent = 0;
      let received = 0;
      const begin = performance.now();
      await new Promise((resolve) => {
        const next = () => { if (sent < ${QUESTIONS}) { sent++; socket.send(message); } };
        heard = () => { if (++received === ${QUESTIONS}) resolve(); else next(); };
        for (let i = 0; i < 32; i++) next();
      });
      const seconds = (performance.now() - begin) / 1000;
      console.log(JSON.stringify({ milliseconds: times[1000], perSecond: ${QUESTIONS} / seconds }));
      socket.close();
    });`;
  const { stdout, stderr, status } = spawnSync(
    'nsenter',
    [`--net=${netnsPath(netns)}`, '--', process.execPath, '-e', script],
    { encoding: 'utf8', timeout: 60_000 },
  );
  if (status !== 0) throw new Error(`names: ${stderr}`);
  return JSON.parse(stdout) as { milliseconds: number; perSecond: number };
}

/** Starts the driver that does nothing under this name, in the host's namespace; it has devices for so many containers. */
async function nullDriver(scratch: Scratch, host: string, name: string, containers = 0): Promise<void> {
  mkdirSync(PLUGINS, { recursive: true });
  const socket = join(PLUGINS, `${name}.sock`);
  const program = fileURLToPath(new URL('./lib/null-driver.js', import.meta.url));
  const command = [`--net=${netnsPath(host)}`, '--', process.execPath, program, socket, String(containers)];
  const child = spawn('nsenter', command, { stdio: ['ignore', 'pipe', 'inherit'] });
  scratch.onClose(() => rmSync(socket, { force: true }));
  scratch.onClose(() => killAndWait(child.pid));
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve);
    child.once('exit', () => reject(new Error('the driver that does nothing did not start')));
  });
}

/** Waits until the kernel has taken down the network namespaces that went before: it does so in the order of their end. */
function settle(host: string): void {
  const last = `${host}-last`;
  sh(`ip netns add ${last}`);
  try {
    inside(host, `ip link add last0 type veth peer name last1 netns ${last}`);
  } finally {
    sh(`ip netns delete ${last}`);
  }
  const isGone = (): boolean => !inside(host, 'ip -o link show').includes('last0');
  if (!waitUntil(isGone)) throw new Error('the kernel does not take network namespaces down');
}

async function main(scratch: Scratch): Promise<void> {
  const host = scratch.netns('host');
  const outside = scratch.netns('out');
  veth(host, 'uplink0', outside, 'eth0');
  inside(host, 'ip address add 198.51.100.1/24 dev uplink0');
  inside(host, 'ip route add default via 198.51.100.2');
  const driver = `sluice-${randomBytes(4).toString('hex')}`;
  const socket = join(tmpdir(), `${driver}.sock`);
  const agent = new Agent(scratch, host, {
    dockerPlugin: join(PLUGINS, `${driver}.sock`),
    dockerApi: socket,
  });
  const docker = new Dockerd(scratch, host, socket);
  await agent.start(scratch);
  await docker.start();
  docker.makeImage();
  docker.docker('network', 'create', '-d', driver, '--ipam-driver', driver, 'ours');
  docker.docker('network', 'create', '-d', driver, '--ipam-driver', driver, '-o', 'names=sluice', 'named');
  docker.docker('network', 'create', 'theirs');
  await nullDriver(scratch, host, `${driver}-null`);
  docker.docker('network', 'create', '-d', `${driver}-null`, '--ipam-driver', 'null', 'nothing');
  await nullDriver(scratch, host, `${driver}-veth`, ROUNDS + 1);
  docker.docker('network', 'create', '-d', `${driver}-veth`, '--subnet', '10.78.0.0/16', 'device');
  const policy = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'some' },
    spec: {
      podSelector: { matchLabels: { app: 'web' } },
      ingress: [{ from: [{ podSelector: {} }], ports: [{ port: 80 }] }],
    },
  };
  const netns = scratch.netns('web');
  const town = {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Network',
    metadata: { name: 'town' },
    spec: { ipv4: { cidr: '10.61.0.0/24' } },
  };
  const web = {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Container',
    metadata: { name: 'web' },
    spec: { netns: { name: netns }, networks: ['town'] },
  };
  await agent.apply([policy, town, web].map((document) => JSON.stringify(document)).join('\n---\n'));

  const run = (way: Way): number => {
    settle(host);
    const begin = performance.now();
    docker.docker('run', '--rm', '-l', 'app=web', ...WAYS[way], IMAGE, 'true');
    return performance.now() - begin;
  };
  const ways = Object.keys(WAYS) as Way[];
  for (const way of ways) run(way);
  const times = await interleave(ROUNDS, ways, run);
  const without = times.get('none') ?? [];
  const over = (way: Way): number =>
    median((times.get(way) ?? []).map((time, round) => time - (without[round] ?? Number.NaN)));
  const dns = names(netns, '10.61.0.1');
  const lower = { better: 'lower', target: { op: '<=', value: PART } } as const;
  report(
    'docker',
    [
      {
        name: 'docker run, over --network none, names=sluice',
        unit: 'ms',
        ours: over('named'),
        peers: { bridge: over('bridge') },
        ...lower,
      },
      {
        name: 'the same with a published port',
        unit: 'ms',
        ours: over('named, port'),
        peers: { bridge: over('bridge, port') },
        ...lower,
      },
      {
        name: "with Docker's name service",
        unit: 'ms',
        ours: over('sluice'),
        peers: { bridge: over('bridge') },
        better: 'lower',
      },
      {
        name: "with Docker's name service and a published port",
        unit: 'ms',
        ours: over('sluice, port'),
        peers: { bridge: over('bridge, port') },
        ...lower,
      },
      {
        name: 'dockerd alone: a driver that does nothing',
        unit: 'ms',
        ours: over('nothing'),
        peers: { bridge: over('bridge') },
        better: 'lower',
      },
      {
        name: 'dockerd and the kernel: a device that was ready',
        unit: 'ms',
        ours: over('device'),
        peers: { bridge: over('bridge') },
        better: 'lower',
      },
      {
        name: 'dockerd alone, with a published port',
        unit: 'ms',
        ours: over('nothing, port'),
        peers: { bridge: over('bridge, port') },
        better: 'lower',
      },
      {
        name: 'a local name, median',
        unit: 'ms',
        ours: dns.milliseconds,
        peers: { limit: NAME_MS },
        better: 'lower',
        target: { op: '<=', value: 1 },
      },
      {
        name: 'local names a second',
        unit: '',
        ours: dns.perSecond,
        peers: { limit: PER_SECOND },
        better: 'higher',
        target: { op: '>=', value: 1 },
      },
    ],
    { rounds: ROUNDS, milliseconds: Object.fromEntries(ways.map((way) => [way, times.get(way)])) },
  );
}

await withScratch('docker', 'slbdk', main);
