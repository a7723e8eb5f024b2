/**
 * Domain names in policies, with a name server and web servers outside: the first connection after the first answer, what
 * is not allowed, aliases, restarts. `SLUICE_DOMAIN_NAMES=10000` makes the table of names as large as that.
 */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import { container, documents, network, OUTSIDE, World } from '../e2e/world.js';

const MANY = Number(process.env.SLUICE_DOMAIN_NAMES ?? 1000);
const SCRIPT = 'test/tools/names.py';

let world: World;
let app: string;
let other: string;

const run = async <T>(netns: string, ...args: readonly (string | number)[]): Promise<T> => {
  const running = await world.start(netns, 'python3', [SCRIPT, ...args], false);
  return JSON.parse(await running.done) as T;
};
const connect = (netns: string, ...names: readonly string[]): Promise<string[]> =>
  run<string[]>(netns, 'connect', OUTSIDE.v4, ...names);

/** What a container with the label may reach by name; DNS is allowed to the name server outside. */
const cluster = {
  apiVersion: 'policy.networking.k8s.io/v1alpha2',
  kind: 'ClusterNetworkPolicy',
  metadata: { name: 'names' },
  spec: {
    tier: 'Admin',
    priority: 10,
    subject: { pods: { podSelector: { matchLabels: { app: 'app' } } } },
    egress: [
      {
        action: 'Accept',
        to: [{ networks: [`${OUTSIDE.v4}/32`] }],
        protocols: [{ udp: { destinationPort: { number: 53 } } }],
      },
      {
        name: 'web',
        action: 'Accept',
        to: [{ domainNames: ['*.example.com', 'A3.example.net.', '*.example.org'] }],
        protocols: [{ tcp: { destinationPort: { number: 80 } } }],
      },
      { action: 'Deny', to: [{ networks: ['0.0.0.0/0', '::/0'] }] },
    ],
  },
};

beforeAll(async () => {
  world = new World('sldom');
  inside(world.outside, 'ip route add local 203.0.112.0/20 dev lo');
  inside(world.outside, 'ip -6 route add local 2001:db8:200::/64 dev lo');
  [app, other] = ['app', 'other'].map((role) => world.container(role)) as [string, string];
  await world.start(world.outside, 'python3', [SCRIPT, 'serve', OUTSIDE.v4], true);
  await world.agent.start(world.scratch);
  await world.agent.apply(
    documents(
      network('net', 73),
      container({ name: 'app', netns: app, networks: ['net'], labels: { app: 'app' } }),
      container({ name: 'other', netns: other, networks: ['net'], labels: { app: 'other' } }),
      cluster,
    ),
  );
});
afterAll(() => world.close());

it('the first connection right after the first answer succeeds, 1,000 times', async () => {
  expect(await run(app, 'count', OUTSIDE.v4, 1000, 'n%d.example.com')).toEqual({ open: 1000 });
});

it('allows what matches, over aliases and both families, and nothing else', async () => {
  expect(await connect(app, '6:n7.example.com', 'a3.example.net', 'N5.Example.COM')).toEqual([
    'open',
    'open',
    'open',
  ]);
  // A name outside of the rule, an alias outside of it to a new address, another port, an address without a name.
  expect(await connect(app, 'other.example.edu', 'n3000.example.net', 'other.example.edu')).toEqual([
    'timeout',
    'timeout',
    'timeout',
  ]);
  expect(await run(app, 'reach', '203.0.112.1', 81)).toBe('timeout');
  expect(await run(app, 'reach', '203.0.127.200', 80)).toBe('timeout');
  expect(await connect(other, 'other.example.edu')).toEqual(['open']);
  expect(world.agent.cli('drops')).toContain('203.0.127.250:80');
});

it('known names go on working without the agent and after it was killed', async () => {
  const { agent } = world;
  // Devices stay, whatever is noted in their slots: that questions go through the agent, that denials are only logged.
  const devices = () => [app, other].map((netns) => inside(netns, 'ip -o link show dev eth0'));
  const before = devices();
  agent.cli('policy', 'audit', 'on', 'app=other');
  await agent.kill();
  expect(await run(app, 'reach', '203.0.112.5', 80)).toBe('open');
  expect(await connect(app, 'n5.example.com', 'n2000.example.com')).toEqual(['open', 'timeout']);
  await agent.start(world.scratch);
  expect(devices()).toEqual(before);
  agent.cli('policy', 'audit', 'off');
  expect(await run(app, 'reach', '203.0.112.5', 80)).toBe('open');
  expect(await connect(app, 'n2000.example.com', 'other.example.edu')).toEqual(['open', 'timeout']);
});

it('works by annotation too, and ends with the policy', async () => {
  const { agent } = world;
  const policy = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: {
      name: 'names',
      namespace: 'default',
      annotations: { 'sluice.dev/egress-domain-names': '*.example.com:80, other.example.edu:443' },
    },
    spec: {
      podSelector: { matchLabels: { app: 'other' } },
      policyTypes: ['Egress'],
      egress: [{ to: [{ ipBlock: { cidr: `${OUTSIDE.v4}/32` } }], ports: [{ protocol: 'UDP', port: 53 }] }],
    },
  };
  await agent.apply(documents(policy));
  expect(await connect(other, 'n3001.example.com', 'other.example.edu')).toEqual(['open', 'timeout']);
  await agent.delete(documents(policy));
  expect(await connect(other, 'other.example.edu')).toEqual(['open']);
  const { spec, ...rest } = policy;
  await expect(
    agent.apply(documents({ ...rest, spec: { ...spec, policyTypes: ['Ingress'] } })),
  ).rejects.toThrow('egress');
});

it(`keeps ${MANY} names with ten addresses each in bounded memory`, async () => {
  const { agent } = world;
  const rss = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${agent.pid ?? 0}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  const before = rss();
  expect(await run(app, 'resolve', OUTSIDE.v4, MANY, 'm%d.example.org')).toBe(MANY);
  const growth = rss() - before;
  expect(growth).toBeLessThan(30 + MANY * 0.03);
  if (MANY >= 10_000)
    console.log(`${MANY * 10} addresses: ${Math.round(growth)} MB more, ${Math.round(rss())} MB in all`);
  await agent.kill();
  await agent.start(world.scratch);
  expect(await run(app, 'reach', '203.0.112.5', 80)).toBe('open');
});
