/** What `policy diff` foresees of changes of HostPolicies over recorded and open flows is what happens to those. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import type { AuditState } from '../../src/audit/audit.js';
import type { PolicyDiff } from '../../src/diff/diff.js';
import type { Listing } from '../../src/engine.js';
import type { FlowRecord } from '../../src/flowlog/record.js';
import type { Suggestion } from '../../src/suggest/suggest.js';
import { Random } from '../change/random.js';
import { type Order, Prober } from '../e2e/prober.js';
import { compare, flowKey, type ReplayedFlow, replay } from '../e2e/replay.js';
import { documents, HOST, OUTSIDE, World } from '../e2e/world.js';
import { DENY, hostPolicy } from './policies.js';

const CHANGES = Number(process.env.SLUICE_PREDICT_CHANGES ?? 8);
const PORTS = [7001, 7002, 7010, 7011];
/** Addresses of peers: the last part. */
const PEERS = [2, 3, 4, 5];
const NETWORKS = [
  '198.51.100.2/31',
  '198.51.100.4/30',
  '198.51.100.0/24',
  '2001:db8:100::4/126',
  '2001:db8:100::2/128',
];

/** A few changes are always the same, so that they are known to matter. */
const FIRST_SEED = 1_473_287_456;
const isShort = process.env.SLUICE_PREDICT_CHANGES === undefined;
const seed = Number(
  process.env.SLUICE_TEST_SEED ?? (isShort ? FIRST_SEED : Math.floor(Math.random() * 2 ** 31)),
);
const random = new Random(seed);

let world: World;
let flows: readonly ReplayedFlow[];
let list: string;

beforeAll(async () => {
  world = new World('slfor');
  for (const last of PEERS.slice(1)) {
    inside(world.outside, `ip addr add 198.51.100.${last}/24 dev eth0`);
    inside(world.outside, `ip -6 addr add 2001:db8:100::${last}/64 dev eth0 nodad preferred_lft 0`);
  }
  list = join(world.agent.folder, 'list');
  writeFileSync(list, '198.51.100.3\n2001:db8:100::4/127\n');
  await world.agent.start(world.scratch);
  const [here, there] = [
    await Prober.start(world, world.host, PORTS),
    await Prober.start(world, world.outside, PORTS),
  ];
  const all = new Map<string, ReplayedFlow>();
  while (all.size < 40) {
    const six = random.maybe(0.5);
    const protocol = random.one<Order['protocol']>(['TCP', 'UDP', 'ICMP']);
    const port = protocol === 'ICMP' ? 0 : random.one(PORTS);
    const protocolName = protocol === 'ICMP' && six ? 'ICMPv6' : protocol;
    const incoming = random.maybe(0.3);
    // A UDP server that is not bound answers from the address that the route says.
    const peer = protocol === 'UDP' ? 2 : random.one(PEERS);
    const address = incoming ? HOST[six ? 'v6' : 'v4'] : six ? `2001:db8:100::${peer}` : `198.51.100.${peer}`;
    const source = (incoming ? OUTSIDE : HOST)[six ? 'v6' : 'v4'];
    const key = `${source} ${address} ${protocolName} ${port}`;
    all.set(key, { key, prober: incoming ? there : here, source, protocolName, protocol, address, port });
  }
  flows = [...all.values()];
}, 60_000);
afterAll(() => world.close());

function diffOf(text: string): Promise<PolicyDiff> {
  return world.agent.request<PolicyDiff>('POST', '/v1/diff', { sources: [{ file: 'change.yaml', text }] });
}

function randomRule(direction: 'from' | 'to'): Readonly<Record<string, unknown>> {
  const peer = random.maybe(0.25) ? { list } : { networks: random.times(2, () => random.one(NETWORKS)) };
  const low = random.one(PORTS);
  const protocol = random.one([
    { tcp: { destinationPort: { number: low } } },
    { udp: { destinationPort: { range: { start: low, end: low + 9 } } } },
    { icmp: { type: 8 } },
    { icmpv6: { type: random.one([128, 129]) } },
  ]);
  return {
    action: random.one(['Accept', 'Deny', 'Pass']),
    ...(random.maybe(0.8) ? { [direction]: [peer] } : {}),
    ...(random.maybe(0.6) ? { protocols: [protocol] } : {}),
  };
}

function randomPolicy(): object {
  const rules = (direction: 'from' | 'to') => random.times(1 + random.below(3), () => randomRule(direction));
  return hostPolicy(
    random.one(['one', 'two', 'three']),
    { ingress: rules('from'), egress: rules('to') },
    {
      tier: random.one(['Admin', 'Baseline']),
      priority: random.below(5),
      subject: random.one([{ host: {} }, { host: {} }, { interface: 'uplink0' }, { interface: 'other0' }]),
    },
  );
}

/** A process that keeps connections: to addresses, or of all who come if there are none. */
const keep = (netns: string, port: number, ...addresses: readonly string[]) =>
  world.start(netns, 'python3', ['-c', KEEP, port, ...addresses], true);
const KEEP = `import signal, socket, sys
port, addresses = int(sys.argv[1]), sys.argv[2:]
kept = [socket.create_connection((address, port)) for address in addresses]
server = None if kept else socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while server:
    kept.append(server.accept())
signal.pause()
`;

it('knows the connections that are open before there is any HostPolicy', async () => {
  const running = [
    await keep(world.host, 7098),
    await keep(world.outside, 7099),
    await keep(world.outside, 7098, HOST.v4, HOST.v6),
    await keep(world.host, 7099, OUTSIDE.v4, '2001:db8:100::4'),
  ];
  const incoming = [`${OUTSIDE.v4} ${HOST.v4} TCP 7098`, `${OUTSIDE.v6} ${HOST.v6} TCP 7098`];
  const outgoing = [`${HOST.v4} ${OUTSIDE.v4} TCP 7099`, `${HOST.v6} 2001:db8:100::4 TCP 7099`];
  const denied = async (policy: object): Promise<string[]> => {
    const { flows: changed } = await diffOf(documents(policy));
    expect(changed.every(({ after }) => after.rules[0]?.startsWith('HostPolicy closed, '))).toBe(true);
    return changed.map(flowKey).sort();
  };
  expect(await denied(hostPolicy('closed', { ingress: [DENY] }))).toEqual(incoming.sort());
  expect(await denied(hostPolicy('closed', { egress: [DENY] }))).toEqual(outgoing.sort());
  expect(await denied(hostPolicy('closed', { egress: [{ ...DENY, to: [{ list }] }] }))).toEqual(
    outgoing.slice(1),
  );
  // The tests run as root.
  expect(await denied(hostPolicy('closed', { egress: [DENY] }, { subject: { user: 0 } }))).toEqual(outgoing);
  expect(await denied(hostPolicy('closed', { egress: [DENY] }, { subject: { user: 4000 } }))).toEqual([]);
  for (const one of running) await one.stop();
});

it('says that limits of rates are not foreseen', async () => {
  const { agent } = world;
  const limited = (rate: number): string =>
    documents(
      hostPolicy('limited', { ingress: [{ action: 'Accept', limit: { packetsPerSecond: rate } }, DENY] }),
    );
  const file = join(agent.folder, 'limited.yaml');
  writeFileSync(file, limited(100));
  const line = '1 rule with a limit of rates changes: what is above a limit is not foreseen.\n';
  expect(agent.cli('policy', 'diff', '-f', file)).toContain(line);
  await agent.apply(limited(100));
  expect(agent.cli('policy', 'diff', '-f', file)).not.toContain('of rates');
  expect((await diffOf(limited(200))).limits).toBe(1);
  await agent.delete(limited(100));
});

it('suggests a policy that allows what was seen and nothing else', async () => {
  const { agent } = world;
  const open = documents(hostPolicy('open', { egress: [{ action: 'Accept' }] }));
  await agent.apply(open);
  const [seen, unseen] = [flows.slice(0, 25), flows.slice(25)];
  await replay(world, seen);
  const { text, rules } = await agent.request<Suggestion>('GET', '/v1/suggest?selector=host');
  expect(rules).toBeGreaterThan(3);
  expect((await diffOf(text)).flows).toEqual([]);
  await agent.delete(open);
  await agent.apply(text, 's.yaml');
  const dropped = async (some: readonly ReplayedFlow[]): Promise<string[]> =>
    [...(await replay(world, some))]
      .filter(([, drop]) => drop !== undefined)
      .map(([key]) => key)
      .sort();
  expect(await dropped(seen)).toEqual([]);
  expect(await dropped(unseen)).toEqual(unseen.map(({ key }) => key).sort());
  await agent.delete(text, 's.yaml');
});

it('lets pass in audit what policies deny, and logs it', async () => {
  const { agent } = world;
  const closed = documents(hostPolicy('closed', { ingress: [DENY], egress: [DENY] }));
  await agent.apply(closed);
  const state = await agent.request<AuditState>('POST', '/v1/audit', { on: true, selector: 'host' });
  expect(state).toMatchObject({ targets: ['host'], host: true });
  expect([...(await replay(world, flows)).values()].filter((drop) => drop !== undefined)).toEqual([]);
  const { objects } = await agent.request<Listing>('GET', '/v1/flows?denied=1&since=600');
  const audited = (objects as FlowRecord[]).filter(({ verdict }) => verdict === 'audit');
  const logged = new Map(audited.map((line) => [flowKey(line), line]));
  for (const { key } of flows) {
    const { reason, ruleIngress, ruleEgress } = logged.get(key) ?? {};
    expect([reason, (ruleIngress ?? ruleEgress)?.replace(/, .*/, '')], key).toEqual([
      'host_policy',
      'HostPolicy closed',
    ]);
  }
  await agent.request('POST', '/v1/audit', { on: false });
  const dropped = [...(await replay(world, flows.slice(0, 5))).values()];
  expect(dropped.every((drop) => drop?.reason === 'host_policy')).toBe(true);
  await agent.delete(closed);
});

it(`foresees ${CHANGES} random changes (seed ${seed})`, async () => {
  await world.agent.apply(documents(hostPolicy('one', { egress: [{ action: 'Accept' }] })));
  let before = await replay(world, flows);
  expect([...before.values()].filter((drop) => drop !== undefined)).toEqual([]);
  const { objects } = await world.agent.request<Listing>('GET', '/v1/flows?since=600');
  const logged = new Set((objects as FlowRecord[]).map(flowKey));
  expect(flows.map(({ key }) => key).filter((key) => !logged.has(key))).toEqual([]);
  const differences: string[] = [];
  let flips = 0;
  for (let i = 0; i < CHANGES; i++) {
    const text = documents(randomPolicy());
    const diff = await diffOf(text);
    expect(diff.skipped).toBe(0);
    await world.agent.apply(text);
    const after = await replay(world, flows);
    const compared = compare(diff, before, after);
    flips += compared.flips;
    differences.push(...compared.differences.map((line) => `change ${i}: ${line}`));
    before = after;
  }
  expect(differences).toEqual([]);
  expect(flips).toBeGreaterThan(CHANGES);
}, 600_000);
