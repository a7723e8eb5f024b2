/**
 * Hosts that share an etcd: how soon a container that starts on one is reached from another, and is who it is for the
 * policy there. Real packets: both sides try every millisecond, from before the container is made.
 *
 * Settings from the environment: BENCH_ROUNDS (40 containers).
 */
import { createSocket, type Socket } from 'node:dgram';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { insideNetns, openNetns } from '../loader/netns.js';
import { documents } from '../test/e2e/world.js';
import { Cluster, type NodeOfCluster } from '../test/services/cluster.js';
import { EtcdStore } from './lib/etcd.js';
import { netnsPath } from './lib/netns.js';
import { report } from './lib/report.js';
import { median } from './lib/stats.js';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 40);
/** Target: milliseconds from the end of `apply` on one host. */
const LIMIT_MS = 100;
const PORT = 7000;
/** How long something may take to be seen at all. */
const GRACE_MS = 10_000;
/** How long a stranger tries after the others got an answer. */
const STRANGER_MS = 200;

/** A UDP socket that was made in a network namespace. */
function socketIn(netns: string, port: number): Socket {
  const socket = createSocket({
    type: 'udp4',
    // Bound before this returns: addresses need no search.
    lookup: (host, _options, callback) => callback(null, host, 4),
  });
  const place = openNetns({ type: 'path', path: netnsPath(netns) });
  try {
    insideNetns(place, () => socket.bind({ address: '0.0.0.0', port, exclusive: true }));
  } finally {
    place.close();
  }
  return socket;
}

function echo(netns: string): Socket {
  const socket = socketIn(netns, PORT);
  socket.on('message', (message, { address, port }) => socket.send(message, port, address));
  return socket;
}

/** Asks an address every millisecond until it answers; the time of the first answer. */
class Attempts {
  readonly answered: Promise<number>;
  answers = 0;
  readonly #socket: Socket;
  readonly #timer: NodeJS.Timeout;

  constructor(netns: string, address: string) {
    this.#socket = socketIn(netns, 0);
    // Without a way there yet a send fails; the next one may not.
    this.#socket.on('error', () => undefined);
    this.#timer = setInterval(() => this.#socket.send('?', PORT, address, () => undefined), 1);
    this.answered = new Promise((resolve) => {
      this.#socket.on('message', () => {
        this.answers++;
        resolve(performance.now());
      });
    });
  }

  end(): void {
    clearInterval(this.#timer);
    this.#socket.close();
  }
}

function within<T>(promise: Promise<T>, what: string): Promise<T> {
  return Promise.race([
    promise,
    new Promise<never>((_, reject) =>
      setTimeout(() => reject(new Error(`${what} within ${GRACE_MS / 1000} s`)), GRACE_MS).unref(),
    ),
  ]);
}

function container(name: string, netns: string, app: string): string {
  return documents({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Container',
    metadata: { name, labels: { app } },
    spec: { netns: { name: netns }, networks: [{ name: 'shop' }] },
  });
}

/** Its IPv4 address in the shared network. */
async function addressOf({ agent }: NodeOfCluster, name: string): Promise<string> {
  const leases = JSON.parse(await agent.list('leases')) as { id: string; ipv4?: string }[];
  const lease = leases.find(({ id }) => id === `default/${name}:shop`);
  if (lease?.ipv4 === undefined) throw new Error(`no address for ${name}`);
  return lease.ipv4;
}

async function main(cluster: Cluster): Promise<void> {
  const folder = cluster.scratch.folder(mkdtempSync(join(tmpdir(), 'slbh-')));
  const { outside, scratch } = cluster;
  const place = { folder, address: outside.ipv4, ports: [2379, 2380], netns: outside.netns } as const;
  await new EtcdStore(scratch, place).start();
  for (const { agent } of cluster.nodes) await agent.start(scratch);
  const [first, second] = cluster.nodes as [NodeOfCluster, NodeOfCluster];
  const file = join(folder, 'shared.yaml');
  const policy = (name: string, app: string, from: string): object => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name },
    spec: {
      podSelector: { matchLabels: { app } },
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ podSelector: { matchLabels: { app: from } } }] }],
    },
  });
  writeFileSync(
    file,
    documents(
      {
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'Network',
        metadata: { name: 'shop' },
        spec: { ipv4: { cidr: '10.60.0.0/16' } },
      },
      policy('web', 'web', 'new'),
      policy('new', 'new', 'web'),
    ),
  );
  first.agent.cli('apply', '--shared', '-f', file);
  for (const { agent } of cluster.nodes)
    for (const until = Date.now() + GRACE_MS; (await agent.list('networks')) === '[]'; ) {
      if (Date.now() > until) throw new Error('a host has no network');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  const web = scratch.netns('web');
  const sockets = [echo(web)];
  await second.agent.apply(container('web', web, 'web'));
  const webAddress = await addressOf(second, 'web');

  const reached: number[] = [];
  const governed: number[] = [];
  const applied: number[] = [];
  let strangers = 0;
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const [name, stranger] = [`new${round}`, `other${round}`];
      const [netns, strangerNetns] = [scratch.netns(name), scratch.netns(stranger)];
      sockets.push(echo(netns));
      await first.agent.apply(container(stranger, strangerNetns, 'other'));
      const from = new Attempts(strangerNetns, webAddress);
      const out = new Attempts(netns, webAddress);
      const asked = performance.now();
      await first.agent.apply(container(name, netns, 'new'));
      const started = performance.now();
      const address = await addressOf(first, name);
      const into = new Attempts(web, address);
      governed.push((await within(out.answered, 'the new container got no answer')) - started);
      reached.push((await within(into.answered, 'the new container did not answer')) - started);
      applied.push(started - asked);
      await new Promise((resolve) => setTimeout(resolve, STRANGER_MS));
      strangers += from.answers;
      for (const attempts of [from, out, into]) attempts.end();
      await first.agent.delete(
        `${container(name, netns, 'new')}\n---\n${container(stranger, strangerNetns, 'other')}`,
      );
    }
  } finally {
    for (const socket of sockets) socket.close();
  }
  if (strangers > 0) throw new Error(`policy let ${strangers} packets of strangers through`);
  const row = (name: string, values: readonly number[]) => ({
    name,
    unit: 'ms',
    better: 'lower' as const,
    ours: Math.max(0, values.at(-1) ?? Number.NaN),
    peers: { limit: LIMIT_MS },
  });
  const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);
  const target = { op: '<=', value: 1 } as const;
  report(
    'hosts',
    [
      { ...row('container up to answering another host, slowest', sorted(reached)), target },
      { ...row('container up to known to the policy of another host, slowest', sorted(governed)), target },
      row('the same, median', [median(governed)]),
      row('start of the container itself, median', [median(applied)]),
    ],
    { rounds: ROUNDS, reached, governed, applied },
  );
}

const settings = {
  nodeRouting: 'overlay',
  podCidrs: ['10.60.0.0/16'],
  etcd: { endpoints: ['http://198.51.100.9:2379'] },
};
const cluster = new Cluster('slbh', 3, Array(3).fill(settings), { fabric: false });
try {
  await main(cluster);
} catch (error) {
  console.error(`bench/hosts: ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  cluster.close();
}
process.exit();
