import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import type { DropEvent, Explanation } from '../../src/engine.js';
import { type Order, Prober } from './prober.js';
import { documents, HOST, network, OUTSIDE, World } from './world.js';

/**
 * Real packets, `sluice policy test` and `sluice explain` say the same of random connections under random
 * policies. A connection is allowed if an answer comes, denied if the agent reports the drop of its first packet;
 * each one has to do exactly one of the two.
 */

const ROUNDS = 5;
const PROBES = 400;
/** Under way at once; the kernel reports at most 64 drops in a tick. */
const BATCH = 25;
const DEADLINE_MS = 20_000;
const PORTS = [80, 443, 5000, 8080, 8443];
const PROTOCOLS = ['TCP', 'UDP', 'SCTP', 'ICMP'] as const;
const APPS = ['api', 'db', 'web'];
const TEAMS = ['blue', 'red'];
const NAMESPACES = ['lab', 'shop', 'town'];

const seed = Number(process.env.SLUICE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
/** Mulberry32: small, and the same everywhere. */
let state = seed;
function random(): number {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const below = (n: number): number => Math.floor(random() * n);
const one = <T>(from: readonly T[]): T => from[below(from.length)] as T;
const maybe = (chance: number): boolean => random() < chance;
const times = <T>(count: number, make: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));

interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly netns: string;
  readonly ipv4: string;
  readonly ipv6: string;
}

interface Probe extends Order {
  readonly from: Pod | 'outside';
  readonly to: Pod | 'outside';
  readonly family: 4 | 6;
}

let world: World;
let pods: readonly Pod[];
const probers = new Map<Pod | 'outside', Prober>();

beforeAll(async () => {
  world = new World('slagr');
  pods = times(7, (i) => ({
    namespace: NAMESPACES[i % NAMESPACES.length] ?? '',
    name: `c${i}`,
    netns: world.container(`c${i}`),
    ipv4: `10.85.0.${10 + 7 * i}`,
    ipv6: `fd85::${10 + i}`,
  }));
  await world.agent.start(world.scratch);
  await world.agent.apply(documents(...definitions()));
  inside(world.outside, `ip route add 10.85.0.0/24 via ${HOST.v4}`);
  inside(world.outside, `ip route add fd85::/64 via ${HOST.v6}`);
  for (const pod of pods) probers.set(pod, await Prober.start(world, pod.netns, PORTS));
  probers.set('outside', await Prober.start(world, world.outside, PORTS));
});
afterAll(() => world.close());

/** Everything of a round but the policies: labels and named ports are new each time. */
function definitions(): object[] {
  return [
    network('net', 85),
    ...NAMESPACES.slice(1).map((name) => ({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels: { team: one(TEAMS) } },
    })),
    ...pods.map(({ namespace, name, netns, ipv4, ipv6 }) => ({
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Container',
      metadata: { name, namespace, labels: { app: one(APPS), ...(maybe(0.5) ? { team: one(TEAMS) } : {}) } },
      spec: {
        netns: { name: netns },
        networks: [{ name: 'net', ipv4, ipv6 }],
        ports: maybe(0.7) ? [{ name: 'web', containerPort: one(PORTS), protocol: one(['TCP', 'UDP']) }] : [],
      },
    })),
  ];
}

function selector(): object {
  const kind = below(4);
  if (kind === 0) return {};
  if (kind === 1) return { matchLabels: { app: one(APPS) } };
  if (kind === 2)
    return {
      matchExpressions: [{ key: 'app', operator: one(['In', 'NotIn']), values: [one(APPS), one(APPS)] }],
    };
  return { matchExpressions: [{ key: 'team', operator: one(['Exists', 'DoesNotExist']) }] };
}

function peer(): object {
  const kind = below(6);
  if (kind === 0)
    return { ipBlock: { cidr: one(['0.0.0.0/0', '::/0', `${OUTSIDE.v4}/32`, '2001:db8::/32']) } };
  if (kind === 1) return { ipBlock: { cidr: '10.85.0.0/24', except: ['10.85.0.32/27'] } };
  if (kind === 2) return { ipBlock: { cidr: 'fd85::/64', except: ['fd85::10/124'] } };
  if (kind === 3) return { namespaceSelector: selector() };
  if (kind === 4)
    return { namespaceSelector: { matchLabels: { team: one(TEAMS) } }, podSelector: selector() };
  return { podSelector: selector() };
}

function port(): object {
  const protocol = one(['TCP', 'UDP', 'SCTP']);
  const kind = below(4);
  if (kind === 0) return { protocol };
  if (kind === 1) return { protocol, port: 400, endPort: 8080 };
  if (kind === 2 && protocol !== 'SCTP') return { protocol, port: 'web' };
  return { protocol, port: one(PORTS) };
}

const rules = (field: 'from' | 'to'): object[] =>
  times(below(3), () => ({
    ...(maybe(0.8) ? { [field]: times(1 + below(2), peer) } : {}),
    ...(maybe(0.6) ? { ports: times(1 + below(2), port) } : {}),
  }));

function policies(): object[] {
  return times(9, (i) => {
    const [ingress, egress] = [maybe(0.7), maybe(0.5)];
    return {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: `p${i}`, namespace: NAMESPACES[i % NAMESPACES.length] },
      spec: {
        podSelector: selector(),
        policyTypes: [...(ingress ? ['Ingress'] : []), ...(egress || !ingress ? ['Egress'] : [])],
        ...(ingress ? { ingress: rules('from') } : {}),
        ...(egress || !ingress ? { egress: rules('to') } : {}),
      },
    };
  });
}

function randomProbe(i: number): Probe {
  const ends: readonly (Pod | 'outside')[] = [...pods, 'outside'];
  const from = one(ends);
  const to = one(ends.filter((end) => end !== from));
  const family = one([4, 6] as const);
  const protocol = one(PROTOCOLS);
  const id = 20_000 + i;
  return {
    id,
    from,
    to,
    family,
    protocol,
    address: addressOf(to, family),
    port: protocol === 'ICMP' ? 0 : one(PORTS),
  };
}

function addressOf(end: Pod | 'outside', family: 4 | 6): string {
  if (end === 'outside') return family === 4 ? OUTSIDE.v4 : OUTSIDE.v6;
  return family === 4 ? end.ipv4 : end.ipv6;
}

/** As both tools take it: a name, or the address of the outside. */
const named = (end: Pod | 'outside', family: 4 | 6): string =>
  end === 'outside' ? addressOf(end, family) : `${end.namespace}/${end.name}`;

/** Sends all and waits until each is answered or its drop reported; the rule of the drop, or undefined. */
async function reallySend(batch: readonly Probe[]): Promise<Map<Probe, DropEvent | 'answered'>> {
  for (const probe of batch) probers.get(probe.from)?.begin(probe);
  const done = new Map<Probe, DropEvent | 'answered'>();
  for (const deadline = Date.now() + DEADLINE_MS; done.size < batch.length; ) {
    // A reset that crosses the other side's last packet has no flow any more; no first packet is dropped for that.
    const events = (await world.agent.drops(4 * BATCH)).filter(({ reason }) => reason !== 'tcp_no_flow');
    const drops = new Map(events.map((event) => [tuple(event), event]));
    for (const probe of batch) {
      const outcome = probers.get(probe.from)?.outcomes.get(probe.id);
      if (outcome?.sourcePort === undefined) continue;
      const drop = drops.get(
        tuple({
          source: addressOf(probe.from, probe.family),
          sourcePort: outcome.sourcePort,
          destination: probe.address,
          destinationPort: probe.port,
          protocol: probe.protocol === 'ICMP' && probe.family === 6 ? 'ICMPv6' : probe.protocol,
        }),
      );
      if (drop !== undefined && outcome.answered)
        throw new Error(`answered and dropped (${drop.reason}): ${text(probe)}`);
      if (drop !== undefined) done.set(probe, drop);
      else if (outcome.answered) done.set(probe, 'answered');
    }
    if (Date.now() > deadline) {
      const silent = batch.filter((probe) => !done.has(probe)).map(text);
      throw new Error(`neither answered nor dropped:\n${silent.join('\n')}`);
    }
  }
  for (const prober of probers.values()) prober.end();
  return done;
}

type Tuple = Pick<DropEvent, 'source' | 'sourcePort' | 'destination' | 'destinationPort' | 'protocol'>;
const tuple = ({ source, sourcePort, destination, destinationPort, protocol }: Tuple): string =>
  `${protocol} ${source} ${sourcePort} ${destination} ${destinationPort}`;

const text = ({ from, to, family, protocol, port: to_ }: Probe): string =>
  `${named(from, family)} -> ${named(to, family)} ${to_}/${protocol} IPv${family}`;

/** What `sluice policy test` says of all probes, in order. */
function policyTest(resources: readonly object[], probes: readonly Probe[]): ('allow' | 'deny')[] {
  const file = join(world.agent.folder, 'probes.json');
  const test = {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'PolicyTest',
    metadata: { name: 'agreement' },
    spec: {
      resources,
      probes: probes.map(({ from, to, family, protocol, port: number }) => ({
        from: named(from, family),
        to: named(to, family),
        protocol,
        ...(protocol === 'ICMP' ? {} : { port: number }),
        family: `ipv${family}`,
        expect: 'allow',
      })),
    },
  };
  writeFileSync(file, JSON.stringify(test));
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['bin/sluice', 'policy', 'test', '-o', 'jsonl', file],
    {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    },
  );
  if (status === 2) throw new Error(stderr);
  return stdout
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { verdict: 'allow' | 'deny' }).verdict);
}

function explain({ from, to, family, protocol, port: number }: Probe): Promise<Explanation> {
  return world.agent.explain({
    from: named(from, family),
    to: named(to, family),
    protocol,
    port: String(number),
    family: String(family),
  });
}

it(`of ${ROUNDS * PROBES} connections (seed ${seed})`, async () => {
  const differences: string[] = [];
  let denied = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const resources = [...definitions(), ...policies()];
    await world.agent.apply(documents(...resources));
    const probes = times(PROBES, (i) => randomProbe(round * PROBES + i));
    const tested = policyTest(resources, probes);
    expect(tested).toHaveLength(PROBES);
    for (let start = 0; start < PROBES; start += BATCH) {
      const batch = probes.slice(start, start + BATCH);
      const real = await reallySend(batch);
      for (const [i, probe] of batch.entries()) {
        const outcome = real.get(probe);
        const verdict = outcome === 'answered' ? 'allow' : 'deny';
        const explained = await explain(probe);
        const side = explained.sides.find((candidate) => candidate.verdict === 'deny');
        if (verdict === 'deny') denied++;
        const said: (string | undefined)[] = [tested[start + i], explained.verdict];
        if (outcome !== 'answered')
          said.push(outcome?.reason === explained.reason ? 'deny' : 'another reason');
        if (outcome !== 'answered') said.push(outcome?.rule === side?.rule?.text ? 'deny' : 'another rule');
        if (said.some((word) => word !== verdict))
          differences.push(`round ${round}: ${text(probe)}: ${verdict}, ${said.join(', ')}`);
      }
    }
  }
  expect(differences).toEqual([]);
  // Both verdicts were seen often, whatever the seed.
  expect(denied).toBeGreaterThan(40);
  expect(denied).toBeLessThan(ROUNDS * PROBES - 40);
}, 240_000);
