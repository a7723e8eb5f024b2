/**
 * What `policy diff` foresees of random changes over recorded flows is what happens to those flows, and suggested
 * policies allow exactly what was seen. `make test-predict` makes 500 changes.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import type { PolicyDiff } from '../../src/diff/diff.js';
import type { Suggestion } from '../../src/suggest/suggest.js';
import { type Order, Prober } from '../e2e/prober.js';
import { compare, flowKey, type Outcomes, replay as replayFlows } from '../e2e/replay.js';
import { documents, HOST, network, OUTSIDE, World } from '../e2e/world.js';
import { APPS, NAMESPACES, PORTS, Random, TEAMS } from './random.js';

const CHANGES = Number(process.env.SLUICE_PREDICT_CHANGES ?? 15);
const FLOWS = 50;
const UNSEEN = 200;
const PROTOCOLS = ['TCP', 'UDP', 'SCTP', 'ICMP'] as const;

const seed = Number(process.env.SLUICE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
const random = new Random(seed);

interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly netns: string;
  readonly ipv4: string;
  readonly ipv6: string;
}
type Place = Pod | 'outside';

interface Flow extends Omit<Order, 'id'> {
  readonly from: Place;
  readonly to: Place;
  readonly family: 4 | 6;
}

let world: World;
let pods: readonly Pod[];
const probers = new Map<Place, Prober>();

beforeAll(async () => {
  world = new World('slprd');
  pods = random.times(6, (i) => ({
    namespace: NAMESPACES[i % NAMESPACES.length] ?? '',
    name: `c${i}`,
    netns: world.container(`c${i}`),
    ipv4: `10.86.0.${10 + 7 * i}`,
    ipv6: `fd86::${10 + i}`,
  }));
  await world.agent.start(world.scratch);
  inside(world.outside, `ip route add 10.86.0.0/24 via ${HOST.v4}`);
  inside(world.outside, `ip route add fd86::/64 via ${HOST.v6}`);
  for (const pod of pods) probers.set(pod, await Prober.start(world, pod.netns, PORTS));
  probers.set('outside', await Prober.start(world, world.outside, PORTS));
});
afterAll(() => world.close());

/** `labelsOf`: what tells the containers apart. */
function definitions(labelsOf: (pod: Pod) => Readonly<Record<string, string>>): object[] {
  return [
    network('net', 86),
    ...NAMESPACES.map((name) => ({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels: { team: random.one(TEAMS) } },
    })),
    ...pods.map((pod) => ({
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Container',
      metadata: { name: pod.name, namespace: pod.namespace, labels: labelsOf(pod) },
      spec: {
        netns: { name: pod.netns },
        networks: [{ name: 'net', ipv4: pod.ipv4, ipv6: pod.ipv6 }],
        ports: [{ name: 'web', containerPort: random.one(PORTS), protocol: random.one(['TCP', 'UDP']) }],
      },
    })),
  ];
}

function randomFlow(protocols: readonly Order['protocol'][]): Flow {
  const ends: readonly Place[] = [...pods, 'outside'];
  const from = random.one(ends);
  const to = random.one(ends.filter((end) => end !== from));
  const family = random.one([4, 6] as const);
  const protocol = random.one(protocols);
  const port = protocol === 'ICMP' ? 0 : random.one(PORTS);
  return { from, to, family, protocol, address: addressOf(to, family), port };
}

function addressOf(end: Place, family: 4 | 6): string {
  if (end === 'outside') return family === 4 ? OUTSIDE.v4 : OUTSIDE.v6;
  return family === 4 ? end.ipv4 : end.ipv6;
}

const protocolOf = ({ protocol, family }: Flow): string =>
  protocol === 'ICMP' && family === 6 ? 'ICMPv6' : protocol;
const keyOf = (flow: Flow): string =>
  flowKey({
    source: addressOf(flow.from, flow.family),
    destination: flow.address,
    protocol: protocolOf(flow),
    port: flow.port,
  });

function randomFlows(
  count: number,
  protocols: readonly Order['protocol'][],
  not: ReadonlySet<string> = new Set(),
): Flow[] {
  const flows = new Map<string, Flow>();
  while (flows.size < count) {
    const flow = randomFlow(protocols);
    if (!not.has(keyOf(flow))) flows.set(keyOf(flow), flow);
  }
  return [...flows.values()];
}

function replay(flows: readonly Flow[]): Promise<Outcomes> {
  return replayFlows(
    world,
    flows.map((flow) => {
      const prober = probers.get(flow.from);
      if (prober === undefined) throw new Error('nobody opens flows there');
      const { protocol, address, port, family } = flow;
      const source = addressOf(flow.from, family);
      return { key: keyOf(flow), prober, source, protocolName: protocolOf(flow), protocol, address, port };
    }),
  );
}

it(`suggests policies that allow what was seen and nothing else (seed ${seed})`, async () => {
  const { agent } = world;
  // Containers that share labels share a policy: here each has its own.
  await agent.apply(documents(...definitions(({ name }) => ({ app: name }))));
  const seen = randomFlows(FLOWS, ['TCP', 'UDP', 'SCTP']);
  await replay(seen);
  const { text, policies } = await agent.request<Suggestion>('GET', '/v1/suggest');
  expect(policies).toBe(pods.length);
  const diff = await agent.request<PolicyDiff>('POST', '/v1/diff', { sources: [{ file: 's.yaml', text }] });
  expect(diff.flows).toEqual([]);
  await agent.apply(text, 's.yaml');
  const again = await replay(seen);
  expect([...again].filter(([, drop]) => drop !== undefined)).toEqual([]);
  const unseen = randomFlows(UNSEEN, PROTOCOLS, allowedBy(seen));
  const tried = await replay(unseen);
  expect([...tried].filter(([, drop]) => drop === undefined)).toEqual([]);
  await agent.delete(text, 's.yaml');
}, 300_000);

it(`foresees ${CHANGES} random changes (seed ${seed})`, async () => {
  const { agent } = world;
  await agent.apply(
    documents(
      ...definitions(() => ({
        app: random.one(APPS),
        ...(random.maybe(0.5) ? { team: random.one(TEAMS) } : {}),
      })),
    ),
  );
  const flows = randomFlows(FLOWS, PROTOCOLS);
  let before = await replay(flows);
  expect([...before.values()].filter((drop) => drop !== undefined)).toEqual([]);
  const differences: string[] = [];
  let flips = 0;
  for (let i = 0; i < CHANGES; i++) {
    const [one, two] = [random.policy(), random.policy()];
    const text = documents(one, ...(nameOf(one) === nameOf(two) ? [] : [two]));
    const sources = [{ file: 'change.yaml', text }];
    const diff = await agent.request<PolicyDiff>('POST', '/v1/diff', { sources });
    expect(diff.asked).toBeGreaterThanOrEqual(FLOWS);
    expect(diff.skipped).toBe(0);
    await agent.apply(text, 'change.yaml');
    const after = await replay(flows);
    const compared = compare(diff, before, after);
    flips += compared.flips;
    differences.push(...compared.differences.map((line) => `change ${i}: ${line}`));
    before = after;
  }
  expect(differences).toEqual([]);
  expect(flips).toBeGreaterThan(CHANGES);
}, 600_000);

const nameOf = (object: object): string => {
  const { kind, metadata } = object as { kind: string; metadata: { name: string } };
  return `${kind} ${metadata.name}`;
};

/** A container seen in one family is allowed in both: selectors know no families. */
function allowedBy(seen: readonly Flow[]): Set<string> {
  return new Set(
    seen.flatMap((flow) =>
      ([4, 6] as const).map((family) => keyOf({ ...flow, family, address: addressOf(flow.to, family) })),
    ),
  );
}
