/** A service whose backends come and go under connections, and what became of each connection. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { Agent } from './agent.js';
import { run } from './command.js';
import { inside, netnsPath, type Scratch, veth } from './netns.js';

const CGROUP = '/sys/fs/cgroup/unified';
const CLUSTER_IP = '10.96.0.80';
const PORT = 8080;
/** Addresses that backends may have; so many at most are behind the service at a time, on average `BACKENDS`. */
const POOL = 160;
const BACKENDS = 100;
const FEWEST = 70;
const MOST = 130;

/** One connection, as its client saw it. Times are nanoseconds of CLOCK_MONOTONIC. */
export interface ChurnConnection {
  readonly opened: bigint;
  readonly ended: bigint;
  /** Address of the backend, `-` if none answered. */
  readonly backend: string;
  /** `ok`, or how it broke. */
  readonly status: string;
}

/** A change of the backends: told to the agent, and in force. */
export interface ChurnChange {
  readonly told: bigint;
  readonly inForce: bigint;
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

export interface ChurnResult {
  readonly connections: readonly ChurnConnection[];
  readonly changes: readonly ChurnChange[];
  /** Addresses behind the service at the start. */
  readonly first: readonly string[];
}

export interface ChurnOptions {
  /** How long connections are opened. */
  readonly seconds: number;
  /** Connections each second, half of them translated at their sockets and half per packet. */
  readonly rate: number;
  /** Changes each second. */
  readonly changes: number;
}

function address(index: number): string {
  return `198.51.100.${50 + index}`;
}

function definition(backends: readonly string[]): string {
  const slice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'churn', labels: { 'kubernetes.io/service-name': 'churn' } },
    addressType: 'IPv4',
    ports: [{ port: PORT }],
    endpoints: backends.map((one) => ({ addresses: [one] })),
  };
  return JSON.stringify(slice);
}

/** Numbers below `limit`; the same ones in each run. */
function random(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** The backends after one more step: one goes, one comes, or one takes the place of another. */
function next(current: readonly string[], choose: (limit: number) => number): string[] {
  const idle = Array.from({ length: POOL }, (_, i) => address(i)).filter((one) => !current.includes(one));
  const kind = current.length <= FEWEST ? 0 : current.length >= MOST ? 1 : choose(3);
  const gone = choose(current.length);
  const left = kind === 0 ? [...current] : current.filter((_, i) => i !== gone);
  return kind === 1 ? left : [...left, idle[choose(idle.length)] ?? ''];
}

/** Runs it all in namespaces of `scratch`. Needs a cgroup2 file system. */
export async function churn(scratch: Scratch, options: ChurnOptions): Promise<ChurnResult> {
  const host = scratch.netns('host');
  const outside = scratch.netns('out');
  const client = scratch.netns('client');
  const tool = build();
  veth(host, 'uplink0', outside, 'eth0');
  inside(host, 'ip address add 198.51.100.1/24 dev uplink0');
  const lines = [
    'address add 198.51.100.2/24 dev eth0',
    ...Array.from({ length: POOL }, (_, i) => `address add ${address(i)}/32 dev eth0`),
    'route add 10.92.0.0/24 via 198.51.100.1',
  ];
  inside(outside, 'ip -batch -', {}, lines.join('\n'));
  inside(host, 'ip route add default via 198.51.100.2');
  const group = cgroup(scratch, host);
  const agent = new Agent(scratch, host, { cgroupRoot: group, uplinks: ['uplink0'], logLevel: 'warn' });
  await agent.start(scratch);
  const choose = random(20_260_101);
  let backends = Array.from({ length: BACKENDS }, (_, i) => address(i));
  const first = backends;
  const base = [
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Network',
      metadata: { name: 'churn' },
      spec: { ipv4: { cidr: '10.92.0.0/24' }, masquerade: false },
    },
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Container',
      metadata: { name: 'client' },
      spec: { netns: { name: client }, networks: [{ name: 'churn', ipv4: '10.92.0.10' }] },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'churn' },
      spec: { clusterIP: CLUSTER_IP, ports: [{ port: 80 }] },
    },
  ];
  await agent.apply(JSON.stringify({ apiVersion: 'v1', kind: 'List', items: base }));
  await agent.apply(definition(backends));

  const server = spawn('nsenter', [`--net=${netnsPath(outside)}`, '--', tool, 'serve', String(PORT)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  scratch.onClose(() => server.kill('SIGKILL'));
  await new Promise<void>((resolve) => server.stdout.once('data', () => resolve()));
  const words = [tool, 'clients', CLUSTER_IP, 80, options.rate / 2, options.seconds, 1000].join(' ');
  const outputs = [`echo $$ > ${group}/cgroup.procs && exec ${words}`, `exec ${words}`].map((line) => {
    const child = spawn('nsenter', [`--net=${netnsPath(client)}`, '--', 'sh', '-c', line], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    scratch.onClose(() => child.kill('SIGKILL'));
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    return new Promise<string>((resolve) => child.once('close', () => resolve(text)));
  });
  let running = true;
  const ended = Promise.all(outputs).finally(() => {
    running = false;
  });
  const changes: ChurnChange[] = [];
  for (const began = performance.now(); running; ) {
    const wanted = next(backends, choose);
    const told = process.hrtime.bigint();
    await agent.apply(definition(wanted));
    const inForce = process.hrtime.bigint();
    const [before, after] = [backends, wanted];
    changes.push({
      told,
      inForce,
      added: after.filter((one) => !before.includes(one)),
      removed: before.filter((one) => !after.includes(one)),
    });
    backends = wanted;
    const due = began + (changes.length * 1000) / options.changes;
    await new Promise((resolve) => setTimeout(resolve, Math.max(1, due - performance.now())));
  }
  const connections = (await ended)
    .flatMap((text) => text.trim().split('\n'))
    .map((line): ChurnConnection => {
      const [opened = '0', end = '0', backend = '-', status = ''] = line.split(' ');
      return { opened: BigInt(opened), ended: BigInt(end), backend, status };
    });
  return { connections, changes, first };
}

/** Connections that broke although their backend was behind the service all the time, and those that never had one. */
export function broken({ connections, changes }: ChurnResult): ChurnConnection[] {
  return connections.filter(({ opened, ended, backend, status }) => {
    if (status === 'ok') return false;
    const left = changes.some(
      ({ told, inForce, removed }) => removed.includes(backend) && told <= ended && inForce >= opened,
    );
    return !left;
  });
}

/**
 * How long after the removal of its backend each connection was opened, nanoseconds, for those that were: `since` says
 * whether from when the agent was told or from when the agent said that the change is in force.
 */
export function late({ connections, changes }: ChurnResult, since: 'told' | 'inForce'): bigint[] {
  const removals = new Map<string, { readonly from: bigint; until: bigint }[]>();
  for (const change of changes) {
    for (const one of change.added) {
      const open = removals.get(one)?.at(-1);
      if (open !== undefined) open.until = change.told;
    }
    for (const one of change.removed) {
      const list = removals.get(one) ?? [];
      list.push({ from: change[since], until: 2n ** 63n });
      removals.set(one, list);
    }
  }
  return connections.flatMap(({ opened, backend }) =>
    (removals.get(backend) ?? [])
      .filter(({ from, until }) => opened > from && opened < until)
      .map(({ from }) => opened - from),
  );
}

function cgroup(scratch: Scratch, name: string): string {
  if (!existsSync(join(CGROUP, 'cgroup.procs'))) throw new Error('no cgroup2 file system is mounted');
  const path = join(CGROUP, name);
  mkdirSync(path);
  scratch.onClose(() => rmdirSync(path));
  return path;
}

function build(): string {
  mkdirSync(join('build', 'bench'), { recursive: true });
  const tool = join(process.cwd(), 'build', 'bench', 'churn');
  run('gcc', ['-O2', '-Wall', '-Wextra', '-o', tool, 'bench/tools/churn.c']);
  return tool;
}
