import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, sh } from '../../bench/lib/command.js';
import { inside, netnsPath } from '../../bench/lib/netns.js';
import { Cluster, type NodeOfCluster, type Pod, service, slice } from './cluster.js';

/**
 * Services from outside in XDP: two nodes run it on their uplink, natively and in the kernel's generic way; the
 * backends are on the third, which has none. What the entry nodes' own kernels see of a packet is counted at their
 * taps, which are after XDP.
 */

const MODES = ['native', 'generic'] as const;
const VIP = '203.0.113.90';
const BOTH = [
  { name: 't', port: 80 },
  { name: 'u', port: 80, protocol: 'UDP' },
];
let cluster: Cluster;
let local: Pod;
let b: Pod;
let c: Pod;

const nodePorts = (number: number) => BOTH.map((port) => ({ ...port, nodePort: number }));

/** Frames as they are on a wire: see test/tools/wire.py. */
const makeReal = (netns: string, ...devices: string[]): void => {
  run('nsenter', [`--net=${netnsPath(netns)}`, 'python3', 'test/tools/wire.py', 'real', ...devices]);
};

beforeAll(async () => {
  cluster = new Cluster('slxd', 3, [{ xdp: 'native' }, { xdp: 'generic' }, {}]);
  const nodes = cluster.nodes.map((node) => `n${node.index}`);
  makeReal(cluster.outside.netns, 'eth0');
  for (const node of cluster.nodes) makeReal(node.netns, 'eth0');
  makeReal(cluster.middle, 'out', ...nodes);
  // Only with a program of its own a veth takes at once what the other end sends from XDP.
  sh(`ip -n ${cluster.middle} link set dev n0 xdp obj dist/bpf/bench_empty.bpf.o sec xdp`);
  await cluster.start();
  local = await cluster.pod(cluster.node(0), 'local', [80]);
  b = await cluster.pod(cluster.node(2), 'b', [80]);
  c = await cluster.pod(cluster.node(2), 'c', [80]);
});
afterAll(() => cluster.close());

/** Counts what the node's kernel sees of a port, until `end`: SYNs and other packets. */
async function taps(
  node: NodeOfCluster,
  port: number,
): Promise<{ end(): Promise<{ readonly syn: number; readonly other: number }> }> {
  const words = ['python3', 'test/tools/wire.py', 'count', 'eth0', String(port)];
  const child = spawn('nsenter', [`--net=${netnsPath(node.netns)}`, ...words], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  cluster.scratch.onClose(() => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
  });
  let text = '';
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes('ready')) resolve();
    });
    child.once('exit', (code) => reject(new Error(`the counter ended with ${code}`)));
  });
  return {
    end: async () => {
      const closed = new Promise((resolve) => child.once('close', resolve));
      child.stdin.end();
      await closed;
      const [syn, other] = text.replace('ready', '').trim().split(' ').map(Number);
      return { syn: syn ?? Number.NaN, other: other ?? Number.NaN };
    },
  };
}

async function define(
  name: string,
  number: number,
  pods: readonly Pod[],
  spec: Readonly<Record<string, unknown>> = {},
  targetPort = 80,
): Promise<void> {
  const ports = BOTH.map((port) => ({ ...port, port: targetPort }));
  await cluster.apply(
    service(name, {
      type: 'NodePort',
      ipFamilyPolicy: 'PreferDualStack',
      ports: nodePorts(number),
      ...spec,
    }),
    ...([4, 6] as const).map((family) =>
      slice(
        name,
        pods.map((pod) => ({ pod })),
        { ports, family },
      ),
    ),
  );
}

/** Who answered the datagrams of a stream, in turn. Its first line is `ready`; on a busy machine an answer may be late. */
const answered = (lines: readonly string[]): string[] =>
  lines
    .slice(1)
    .map((line) => line.split(' ')[0] ?? '')
    .filter((who) => who !== 'timeout');

const attached = (node: NodeOfCluster): string => inside(node.netns, 'ip -o link show eth0');

describe.each(MODES)('%s XDP', (mode) => {
  const entry = (): NodeOfCluster => cluster.node(MODES.indexOf(mode));

  it('is on the uplink, and the status says so', async () => {
    expect(attached(entry())).toMatch(mode === 'native' ? / xdp / : / xdpgeneric /);
    expect((await entry().agent.status()).xdp).toEqual([mode]);
    expect(attached(cluster.node(2))).not.toMatch(/xdp/);
    expect((await cluster.node(2).agent.status()).xdp).toEqual(['off']);
  });

  it('TYPE-1 takes both families and both protocols to a backend elsewhere, by the address of the node', async () => {
    const { ipv4, ipv6 } = entry();
    await define('np', 31_000, [b]);
    for (const address of [ipv4, ipv6]) {
      // The first one finds the neighbours.
      cluster.who(cluster.outside, 'tcp', address, 31_000);
      const before = await taps(entry(), 31_000);
      const answers = [
        ...cluster.ask(cluster.outside, 'tcp', address, 31_000, { count: 50, timeoutMs: 2000 }),
        ...cluster.ask(cluster.outside, 'udp', address, 31_000, { count: 50, timeoutMs: 2000 }),
      ];
      const { syn } = await before.end();
      for (const answer of answers) expect(answer).toMatchObject({ who: 'b', seen: address });
      // One in a second goes by the stack.
      expect(syn).toBeLessThan(25);
    }
  });

  it('keeps the packets of open flows from the kernel, and takes a UDP flow to the next backend', async () => {
    await define('np', 31_001, [b]);
    cluster.who(cluster.outside, 'udp', entry().ipv4, 31_001);
    const counted = await taps(entry(), 31_001);
    const { lines, done } = cluster.begin(
      cluster.outside,
      'stream',
      entry().ipv4,
      '31001',
      '300',
      '5',
      '20700',
    );
    const until = async (name: string): Promise<string | undefined> => {
      for (let i = 0; i < 400 && lines.at(-1)?.split(' ')[0] !== name; i++)
        await new Promise((resolve) => setTimeout(resolve, 5));
      return lines.at(-1)?.split(' ')[0];
    };
    expect(await until('b')).toBe('b');
    await define('np', 31_001, [c]);
    expect(await until('c')).toBe('c');
    await done;
    const { other } = await counted.end();
    expect([...new Set(answered(lines))]).toEqual(['b', 'c']);
    expect(other).toBeLessThan(150);
  });

  it('serves addresses of load balancers, and only the sources that they take', async () => {
    inside(cluster.outside.netns, `ip route replace ${VIP}/32 via ${entry().ipv4}`);
    const balancer = (ranges: readonly string[]) =>
      cluster.apply(
        service(
          'lb',
          { type: 'LoadBalancer', ports: BOTH, loadBalancerSourceRanges: ranges },
          {},
          { loadBalancer: { ingress: [{ ip: VIP }] } },
        ),
        slice('lb', [{ pod: b }], { ports: BOTH }),
      );
    const ask = () => [
      cluster.who(cluster.outside, 'tcp', VIP, 80, { count: 5 }),
      cluster.who(cluster.outside, 'udp', VIP, 80, { count: 5 }),
    ];
    await balancer([]);
    expect(ask()).toEqual(['b', 'b']);
    await balancer(['192.0.2.0/24']);
    expect(ask()).toEqual(['timeout', 'timeout']);
    await balancer(['192.0.2.0/24', `${cluster.outside.ipv4}/32`]);
    expect(ask()).toEqual(['b', 'b']);
    await cluster.apply(service('lb', { ports: BOTH }));
    expect(cluster.who(cluster.outside, 'tcp', VIP, 80)).not.toBe('b');
  });

  it('AFF-4 keeps a client at its backend', async () => {
    const ask = () =>
      cluster.who(cluster.outside, 'tcp', entry().ipv4, 31_003, { count: 40, timeoutMs: 2000 });
    await define('np', 31_003, [b, c]);
    expect(ask()).toBe('b c');
    await define('np', 31_003, [b, c], { sessionAffinity: 'ClientIP' });
    const first = ask();
    expect(['b', 'c']).toContain(first);
    expect(cluster.who(cluster.outside, 'tcp', entry().ipv4, 31_003, { count: 20 })).toBe(first);
  });

  it('ETP-1 leaves what has no backend here to the policy Local', async () => {
    await define('np', 31_004, [b]);
    expect(cluster.who(cluster.outside, 'tcp', entry().ipv4, 31_004, { count: 5 })).toBe('b');
    await define('np', 31_004, [b], { externalTrafficPolicy: 'Local' });
    expect(cluster.who(cluster.outside, 'tcp', entry().ipv4, 31_004)).toBe('timeout');
    expect(cluster.ask(cluster.outside, 'tcp', cluster.node(2).ipv4, 31_004)[0]).toMatchObject({
      who: 'b',
      seen: cluster.outside.ipv4,
    });
  });

  it('brings refusals and ICMP errors back to the client, and refuses what has no backend', async () => {
    const { ipv4, ipv6 } = entry();
    await define('np', 31_005, [b], {}, 81);
    for (const address of [ipv4, ipv6]) {
      for (const kind of ['tcp', 'udp'] as const)
        expect(
          `${kind} ${cluster.who(cluster.outside, kind, address, 31_005, { count: 3, timeoutMs: 1000 })}`,
        ).toBe(`${kind} refused`);
    }
    await define('np', 31_005, []);
    for (const kind of ['tcp', 'udp'] as const)
      expect(cluster.who(cluster.outside, kind, ipv4, 31_005, { timeoutMs: 1000 })).toBe('refused');
  });

  it('leaves what a process of the node answers to TC, and its answers', async () => {
    const { ipv4, ipv6, name } = entry();
    const server = await cluster.serve(entry(), 'own', [8086]);
    await define('np', 31_007, [{ ...b, ipv4, ipv6, node: name }], {}, 8086);
    for (const address of [ipv4, ipv6])
      for (const kind of ['tcp', 'udp'] as const)
        expect(cluster.who(cluster.outside, kind, address, 31_007, { count: 3 }), `${kind} ${address}`).toBe(
          'own',
        );
    await server.stop();
  });

  it('passes large requests, in segments and in fragments', async () => {
    await define('np', 31_006, [b]);
    for (const address of [entry().ipv4, entry().ipv6]) {
      for (const [kind, size] of [
        ['tcp', 60_000],
        ['udp', 8000],
      ] as const) {
        const [line] = cluster.call(cluster.outside, 'large', kind, address, '31006', String(size));
        expect(line).toBe(`b ${address} ${size}`);
      }
    }
  });
});

it('asks the policy of a backend on the entry node, and of one elsewhere', async () => {
  const node = cluster.node(0);
  const ask = () => cluster.who(cluster.outside, 'tcp', node.ipv4, 31_010);
  await define('np', 31_010, [local]);
  expect(ask()).toBe('local');
  const closed = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'closed' },
    spec: { podSelector: {}, policyTypes: ['Ingress'] },
  };
  await cluster.apply(closed);
  expect(ask()).toBe('timeout');
  await define('np', 31_010, [b]);
  expect(ask()).toBe('timeout');
  cluster.remove(['networkpolicy', 'closed']);
  expect(ask()).toBe('b');
  await define('np', 31_010, [local]);
  expect(ask()).toBe('local');
});

it('goes on over a restart, follows its setting, and is gone with `sluice down`', async () => {
  const node = cluster.node(1);
  await define('np', 31_011, [b]);
  expect(cluster.who(cluster.outside, 'udp', node.ipv4, 31_011)).toBe('b');
  const { lines, done } = cluster.begin(cluster.outside, 'stream', node.ipv4, '31011', '150', '20', '20800');
  const link = attached(node);
  await node.agent.kill();
  await node.agent.start(cluster.scratch, { seconds: 60 });
  expect(attached(node)).toBe(link);
  await done;
  expect([...new Set(answered(lines))]).toEqual(['b']);

  await node.agent.kill();
  const settings = JSON.parse(readFileSync(node.agent.configFile, 'utf8')) as object;
  writeFileSync(node.agent.configFile, JSON.stringify({ ...settings, xdp: 'native' }));
  await node.agent.start(cluster.scratch, { seconds: 60 });
  expect(attached(node)).toMatch(/ xdp /);
  await node.agent.down();
  expect(attached(node)).not.toMatch(/xdp/);
});
