import { spawn } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Agent } from '../../bench/lib/agent.js';
import { inside, netnsPath, Scratch } from '../../bench/lib/netns.js';
import { Wireguard } from '../../loader/netlink/wireguard.js';
import { ANNOTATIONS } from '../../policy/model/annotations.js';
import { KEY_FILE } from '../../src/nodes/node-key.js';
import { until } from '../nodes/paths.js';
import { nodeObject } from '../nodes/world.js';
import { Cluster, type NodeOfCluster, type Place, type Pod } from '../services/cluster.js';

/** Debian's kernels have it (`make test-kernels`); the one of this machine may not. */
const probe = Wireguard.open();
probe?.close();
const have = probe !== undefined;
const slow = process.env.KERNEL_TESTS !== undefined;
const START = { seconds: slow ? 1200 : 60 };
const PATIENCE_MS = slow ? 5000 : 500;
const UNTIL_MS = slow ? 120_000 : 10_000;
const SETTINGS = {
  nodeRouting: 'overlay',
  nodeEncryption: 'wireguard',
  podCidrs: ['10.80.0.0/13', 'fd80::/12'],
};
const FAMILIES = ['ipv4', 'ipv6'] as const;
const OTHER_KEY = Buffer.alloc(32, 9).toString('base64');

it.runIf(!have)('a kernel without WireGuard is refused by its name, and nothing is touched', async () => {
  const scratch = new Scratch('slwgx');
  try {
    const netns = scratch.netns('host');
    const agent = new Agent(scratch, netns, SETTINGS);
    await expect(agent.start(scratch, START)).rejects.toThrow(
      /nodeEncryption cannot be wireguard: the kernel \S+ has no WireGuard \(CONFIG_WIREGUARD\)/,
    );
    expect(existsSync(join(agent.folder, 'state', KEY_FILE))).toBe(false);
    expect(inside(netns, 'ip -br link')).not.toMatch(/^sl/m);
  } finally {
    expect(scratch.close()).toEqual([]);
  }
});

describe.runIf(have)('WireGuard between nodes', () => {
  let cluster: Cluster;
  let pods: [Pod, Pod];
  let keys: string[];

  /** What all are told of a node; `key`: of its annotation, default its own. */
  const told = (
    node: NodeOfCluster,
    key: string | undefined = keys[node.index],
    ipv4 = node.ipv4,
  ): object => {
    const object = nodeObject({ ...node, ipv4 }) as { metadata: object };
    const annotations = key === undefined || key === '' ? {} : { [ANNOTATIONS.publicKey]: key };
    return { ...object, metadata: { ...object.metadata, annotations } };
  };
  const who = (from: Place, how: 'tcp' | 'udp', address: string, port = 80): string =>
    cluster.who(from, how, address, port, { timeoutMs: PATIENCE_MS });
  const peersOf = async (node: NodeOfCluster) => (await node.agent.status()).encryption?.peers;
  const keyOf = async (node: NodeOfCluster): Promise<string> =>
    (await node.agent.status()).encryption?.publicKey ?? '';

  beforeAll(async () => {
    cluster = new Cluster('slwg', 2, [SETTINGS, SETTINGS], { fabric: false });
    await cluster.start(START);
    keys = await Promise.all(cluster.nodes.map(keyOf));
    pods = [
      await cluster.pod(cluster.node(0), 'pod0', [80, 9000]),
      await cluster.pod(cluster.node(1), 'pod1', [80, 9000]),
    ];
  });
  afterAll(() => cluster.close());

  it('sends nothing to a node that has told no key, and says so', async () => {
    await cluster.apply(...cluster.nodes.map((node) => told(node, '')));
    const [a, b] = pods;
    const capture = await sniff(cluster, 'not arp and not icmp6');
    for (const family of FAMILIES) expect(who(a, 'udp', b[family])).toBe('timeout');
    // Nor does the host send it by its other routes.
    for (const family of FAMILIES)
      expect(() => inside(cluster.node(0).netns, `ip route get ${b[family]}`)).toThrow(
        /unreachable|No route/,
      );
    expect(await capture.stop()).toEqual([]);
    const { encryption, problems } = await cluster.node(0).agent.status();
    expect(encryption).toMatchObject({ peers: [], withoutKey: ['node1'] });
    expect(problems.map(({ message }) => message)).toContainEqual(
      expect.stringContaining('nothing is sent to node node1: it has told no WireGuard key'),
    );
    expect((await cluster.node(0).agent.drops(50)).map(({ reason }) => reason)).toContain('node_no_key');
  });

  it('carries all between pods, and nothing is in the clear on the way', async () => {
    await cluster.apply(...cluster.nodes.map((node) => told(node)));
    for (const node of cluster.nodes) await cluster.serve(node, `host${node.index}`, [8080]);
    const clear = await sniff(cluster, 'not udp port 51820 and not arp and not icmp6');
    const encrypted = await sniff(cluster, 'udp port 51820');
    for (const family of FAMILIES) {
      for (const [from, to] of [pods, [...pods].reverse()] as [Pod, Pod][]) {
        for (const how of ['tcp', 'udp'] as const)
          expect(
            cluster.ask(from, how, to[family], 80, { timeoutMs: PATIENCE_MS }),
            `${from.name} ${how} ${family}`,
          ).toMatchObject([{ who: to.name, seen: from[family] }]);
        expect(cluster.call(from, 'large', 'tcp', to[family], '9000', '65000')).toEqual([
          expect.stringContaining(' 65000'),
        ]);
      }
      // Between a pod and another node, each way.
      expect(who(pods[0], 'tcp', cluster.node(1)[family], 8080)).toBe('host1');
      expect(who(cluster.node(0), 'tcp', pods[1][family])).toBe('pod1');
    }
    expect(await clear.stop()).toEqual([]);
    expect((await encrypted.stop()).length).toBeGreaterThan(20);
    expect(await peersOf(cluster.node(0))).toMatchObject([{ node: 'node1', endpoint: '198.51.100.2:51820' }]);
    expect((await peersOf(cluster.node(0)))?.[0]?.lastHandshake).toBeGreaterThan(0);
    expect(inside(pods[0].netns, 'ip -o link show eth0')).toContain('mtu 1370');
    expect(cluster.node(0).agent.cli('status')).toMatch(
      /Encryption +WireGuard slwg\S+, UDP port 51820, 1 peer, latest handshake \S+ ago/,
    );
  });

  it('takes nothing from the overlay port that was not encrypted', () => {
    for (const address of [cluster.node(0).ipv4, cluster.node(0).ipv6])
      expect(who(cluster.outside, 'udp', address, 4789)).toBe('refused');
  });

  it('lets nothing pass with a wrong key, in either direction', async () => {
    await cluster.apply(told(cluster.node(1), OTHER_KEY));
    for (const [from, to] of [pods, [...pods].reverse()] as [Pod, Pod][])
      expect(who(from, 'udp', to.ipv4)).toBe('timeout');
    await cluster.apply(told(cluster.node(1)));
    await until(() => who(pods[0], 'udp', pods[1].ipv4) === 'pod1', UNTIL_MS);
  });

  it('loses nothing over a restart of an agent', async () => {
    const [a, b] = pods;
    const stream = cluster.begin(a, 'stream', b.ipv4, '80', '100000', '50', '4713', String(PATIENCE_MS));
    const { agent } = cluster.node(1);
    await until(() => stream.lines.length >= 5, UNTIL_MS);
    await agent.kill();
    await agent.start(cluster.scratch, START);
    const after = stream.lines.length;
    await until(() => stream.lines.length >= after + 10, UNTIL_MS);
    stream.stop();
    expect(stream.lines.filter((line) => !line.startsWith('pod1'))).toEqual(['ready']);
    expect(await keyOf(cluster.node(1))).toBe(keys[1]);
  });

  it('follows a node to another address, and to another key', async () => {
    const node = cluster.node(1);
    inside(node.netns, 'ip address del 198.51.100.2/24 dev eth0');
    inside(node.netns, 'ip address add 198.51.100.22/24 dev eth0');
    inside(node.netns, `ip route replace default via ${cluster.outside.ipv4}`);
    await cluster.apply(told(node, keys[1], '198.51.100.22'));
    await until(() => who(pods[0], 'udp', pods[1].ipv4) === 'pod1', UNTIL_MS);
    expect(await peersOf(cluster.node(0))).toMatchObject([{ endpoint: '198.51.100.22:51820' }]);

    await node.agent.kill();
    rmSync(join(node.agent.folder, 'state', KEY_FILE));
    await node.agent.start(cluster.scratch, START);
    const fresh = await keyOf(node);
    expect(fresh).not.toBe(keys[1]);
    await cluster.apply(told(node, fresh, '198.51.100.22'));
    await until(() => who(pods[0], 'tcp', pods[1].ipv6) === 'pod1', UNTIL_MS);
    expect(await peersOf(cluster.node(0))).toHaveLength(1);
  });

  it('leaves nothing behind', () => {
    const { agent, netns } = cluster.node(0);
    agent.cli('down');
    expect(inside(netns, 'ip -br link')).not.toMatch(/^sl/m);
    for (const family of ['-4', '-6'])
      expect(inside(netns, `ip ${family} route show table all proto 85`)).toBe('');
    expect(existsSync(join(agent.folder, 'state', KEY_FILE))).toBe(false);
  });
});

/** What the first node's port of the switch carries and the filter takes, a line each, from when it is listening. */
async function sniff(cluster: Cluster, filter: string): Promise<{ readonly stop: () => Promise<string[]> }> {
  const words = ['tcpdump', '-n', '-l', '--immediate-mode', '-i', 'n0', filter];
  const child = spawn('nsenter', [`--net=${netnsPath(cluster.middle)}`, '--', ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  cluster.scratch.onClose(() => void child.kill('SIGKILL'));
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (chunk: Buffer) => {
      if (chunk.toString().includes('listening on')) resolve();
    });
    void ended.then(() => reject(new Error('tcpdump ended')));
  });
  return {
    stop: async () => {
      child.kill('SIGINT');
      await ended;
      return text.split('\n').filter((line) => line !== '');
    },
  };
}
