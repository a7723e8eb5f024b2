import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import type { Codec } from '../../loader/abi/codec.js';
import { DropReason, type FlowMarks, MAPS } from '../../loader/abi/gen/types.gen.js';
import { BpfMap } from '../../loader/map.js';
import { container, documents, HOST, network, OUTSIDE, World } from './world.js';

/** `sluice explain` against a real agent: who is meant, what is decided, why; and that nothing changes. */

let world: World;
let file: string;

const shop = (name: string, netns: string, more: object = {}): object =>
  container({
    name,
    netns,
    namespace: 'shop',
    labels: { app: name },
    networks: [{ name: 'town', ...ADDRESS[name] }],
    ...more,
  });
const ADDRESS: Readonly<Record<string, { ipv4: string; ipv6: string }>> = {
  web: { ipv4: '10.81.0.10', ipv6: 'fd81::10' },
  db: { ipv4: '10.81.0.11', ipv6: 'fd81::11' },
  other: { ipv4: '10.81.0.12', ipv6: 'fd81::12' },
};

/** Line 1 is the policy; rules are in lines that the test names. */
const POLICY = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: sql}]
  - from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
  - to: [{ipBlock: {cidr: 0.0.0.0/0}}]
    ports: [{port: 443}]
`;

beforeAll(async () => {
  world = new World('slexp');
  const [web, db, other, low, far] = ['web', 'db', 'oth', 'low', 'far'].map((role) =>
    world.container(role),
  ) as [string, string, string, string, string];
  await world.agent.start(world.scratch);
  await world.agent.apply(
    documents(
      network('town', 81),
      network('island', 82),
      network('wire', 83, { mode: 'macvlan', parent: 'uplink0', masquerade: false }),
      shop('web', web),
      shop('db', db, {
        ports: [{ name: 'sql', containerPort: 5432 }],
        hostPorts: [{ hostPort: 15432, containerPort: 5432 }],
      }),
      shop('other', other),
      container({ name: 'low', netns: low, networks: ['wire'] }),
      container({ name: 'far', netns: far, networks: ['island'] }),
    ),
  );
  file = join(world.agent.folder, 'policies.yaml');
  writeFileSync(file, POLICY);
  world.agent.cli('apply', '-f', file);
});
afterAll(() => world.close());

const ask = (from: string, to: string, service = '5432/TCP', more: Readonly<Record<string, string>> = {}) => {
  const [port = '', protocol = ''] = service.split('/');
  return world.agent.explain({ from, to, port, protocol, ...more });
};

describe('between containers', () => {
  it.each(['4', '6'])('says who decided on both sides, IPv%s', async (family) => {
    const allowed = await ask('shop/web', 'shop/db', '5432/TCP', { family });
    expect(allowed).toMatchObject({ verdict: 'allow', reason: 'forwarded', family: Number(family) });
    expect(allowed.from).toMatchObject({ name: 'shop/web', network: 'town' });
    expect(allowed.translation).toBeUndefined();
    const [egress, ingress] = allowed.sides;
    expect(egress).toMatchObject({
      direction: 'egress',
      container: 'shop/web',
      verdict: 'allow',
      rule: { policy: 'web', index: 0, file, line: 19 },
    });
    expect(ingress).toMatchObject({
      direction: 'ingress',
      container: 'shop/db',
      verdict: 'allow',
      rule: { policy: 'db', index: 0, file, line: 8 },
    });
    expect(ingress?.policies).toMatchObject([
      {
        name: 'db',
        line: 1,
        rules: [
          { index: 0, matches: true, decides: true, missing: [] },
          {
            index: 1,
            matches: false,
            decides: false,
            missing: [
              `peer ${ADDRESS.web?.[family === '4' ? 'ipv4' : 'ipv6']}: must be inside 203.0.113.0/24`,
            ],
          },
        ],
      },
    ]);
  });

  it('says what would have had to match', async () => {
    const port = await ask('shop/web', 'shop/db', '80/TCP');
    expect(port).toMatchObject({ verdict: 'deny', reason: 'policy_ingress' });
    expect(port.sides[0]?.verdict).toBe('allow');
    expect(port.sides[1]).toMatchObject({ verdict: 'deny', rule: { policy: 'db', index: 'default deny' } });
    expect(port.sides[1]?.policies[0]?.rules[0]?.missing).toEqual([
      'port 80/TCP: must be sql/TCP (there 5432)',
    ]);
    const peer = await ask('shop/other', 'shop/db');
    expect(peer.sides[0]).toMatchObject({ verdict: 'allow', because: 'no policy applies', policies: [] });
    expect(peer.sides[1]?.policies[0]?.rules[0]?.missing).toEqual([
      'peer shop/other: label app must be web, it is other',
    ]);
  });

  it('asks the receiver too when the sender may not', async () => {
    const both = await ask('shop/web', 'shop/other', '80/TCP');
    expect(both).toMatchObject({ verdict: 'deny', reason: 'policy_egress' });
    expect(both.sides.map(({ verdict }) => verdict)).toEqual(['deny', 'allow']);
    await world.agent.apply(
      documents({
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'other', namespace: 'shop' },
        spec: { podSelector: { matchLabels: { app: 'other' } }, policyTypes: ['Ingress'] },
      }),
    );
    const denied = await ask('shop/web', 'shop/other', '80/TCP');
    expect(denied.reason).toBe('policy_egress');
    expect(denied.sides.map(({ verdict, rule }) => [verdict, rule?.policy])).toEqual([
      ['deny', 'web'],
      ['deny', 'other'],
    ]);
    expect(denied.sides[1]?.policies).toMatchObject([{ name: 'other', rules: [] }]);
  });

  it('says that networks are apart, and that a container reaches itself', async () => {
    const apart = await ask('far', 'shop/db');
    expect(apart).toMatchObject({ verdict: 'deny', reason: 'network' });
    expect(apart.sides.map(({ verdict }) => verdict)).toEqual(['not asked', 'not asked']);
    const itself = await ask('shop/db', '10.81.0.11', '80/TCP');
    expect(itself.verdict).toBe('allow');
    expect(itself.sides.map(({ because }) => because)).toEqual([
      'a container always reaches itself',
      'a container always reaches itself',
    ]);
  });
});

describe('with the host and the outside', () => {
  it('shows masquerade and published ports', async () => {
    const out = await ask('shop/web', OUTSIDE.v4, '443/TCP');
    expect(out).toMatchObject({
      verdict: 'allow',
      translation: { by: ['masquerade'], source: HOST.v4, destination: OUTSIDE.v4, destinationPort: 443 },
    });
    const published = await ask('203.0.113.7', HOST.v4, '15432/TCP');
    expect(published).toMatchObject({
      verdict: 'allow',
      translation: {
        by: ['hostPort'],
        source: '203.0.113.7',
        destination: '10.81.0.11',
        destinationPort: 5432,
      },
      sides: [{ direction: 'ingress', container: 'shop/db', rule: { policy: 'db', index: 1 } }],
    });
    const excepted = await ask('203.0.113.200', HOST.v4, '15432/TCP');
    expect(excepted).toMatchObject({ verdict: 'deny', reason: 'policy_ingress' });
    expect(excepted.sides[0]?.policies[0]?.rules[1]?.missing).toEqual([
      'peer 203.0.113.200: is inside 203.0.113.128/25, an exception of 203.0.113.0/24',
    ]);
    const hairpin = await ask('shop/web', HOST.v4, '15432/TCP');
    expect(hairpin).toMatchObject({
      verdict: 'allow',
      translation: { by: ['hostPort'], destination: '10.81.0.11', destinationPort: 5432 },
    });
    expect(hairpin.sides.map(({ container, verdict }) => [container, verdict])).toEqual([
      ['shop/web', 'allow'],
      ['shop/db', 'allow'],
    ]);
    const local = await ask('host', HOST.v6, '15432/TCP');
    expect(local).toMatchObject({
      verdict: 'allow',
      translation: { by: ['hostPort'], destination: 'fd81::11', destinationPort: 5432 },
      sides: [{ direction: 'ingress', because: 'traffic with its own host is always allowed' }],
    });
  });

  it('leaves to the host what is the host’s', async () => {
    for (const [from, to] of [
      ['host', 'world'],
      ['world', 'host'],
      ['world', HOST.v6],
    ] as const)
      expect(await ask(from, to, '22/TCP')).toMatchObject({
        verdict: 'allow',
        reason: 'not_judged',
        sides: [],
      });
    for (const [from, to] of [
      ['host', 'shop/db'],
      ['shop/db', 'host'],
    ] as const) {
      const answer = await ask(from, to, '22/TCP');
      expect(answer).toMatchObject({ verdict: 'allow', reason: 'forwarded' });
      expect(answer.sides[0]?.because).toBe('traffic with its own host is always allowed');
    }
  });

  it('judges containers on the wire where they are', async () => {
    expect(await ask('low', 'world', '80/TCP')).toMatchObject({
      verdict: 'allow',
      sides: [{ container: 'default/low' }],
    });
    expect(await ask('world', 'low', '80/TCP')).toMatchObject({
      verdict: 'allow',
      sides: [{ direction: 'ingress', container: 'default/low' }],
    });
  });

  it('names every other reason to drop', async () => {
    const reserved = await ask('shop/other', '10.81.0.99', '80/UDP');
    expect(reserved).toMatchObject({ verdict: 'deny', reason: 'reserved' });
    expect(reserved.sides).toMatchObject([{ container: 'shop/other', verdict: 'not asked' }]);
  });
});

it('refuses what has no answer, in one line', async () => {
  await expect(ask('shop/wep', 'shop/db')).rejects.toThrow('"shop/wep" is not defined');
  await expect(ask('shop/wep', 'shop/db')).rejects.toThrow('did you mean "shop/web"?');
  await expect(ask('world', '203.0.113.1')).rejects.toThrow('no packet passes Sluice');
  await expect(ask('shop/web@island', 'world')).rejects.toThrow('is not in network island; it is in town');
  await expect(ask('shop/web', '127.0.0.1')).rejects.toThrow('loopback');
  await expect(ask('10.81.0.10', 'fd81::11')).rejects.toThrow('different families');
});

it('prints it for people and for programs; the exit status is the verdict', () => {
  const cli = (...args: string[]) =>
    spawnSync(process.execPath, ['bin/sluice', 'explain', ...args], {
      encoding: 'utf8',
      env: { ...process.env, SLUICE_SOCKET: world.agent.socket },
    });
  const allowed = cli('shop/web', 'shop/db', '5432/TCP');
  expect([allowed.status, allowed.stderr]).toEqual([0, '']);
  expect(allowed.stdout).toContain(
    `Egress of shop/web: allow, NetworkPolicy shop/web, egress rule 0 (${file}:19)`,
  );
  const denied = cli('shop/other', 'shop/db', '5432', '-o', 'json');
  expect(denied.status).toBe(1);
  expect(JSON.parse(denied.stdout)).toMatchObject({ verdict: 'deny', protocol: 'TCP', port: 5432 });
  const unknown = cli('shop/none', 'shop/db');
  expect([unknown.status, unknown.stdout]).toEqual([2, '']);
  expect(unknown.stderr.trim().split('\n')).toHaveLength(1);
});

it('changes no counter, no flow and no map', async () => {
  inside(world.host, 'ping -n -c 1 -W 1 10.81.0.10'); // a flow that is there
  // The agent takes over what the flow log has; nothing is added to it from then on.
  await expect.poll(() => everything().flow_log_map, { timeout: 10_000 }).toEqual([]);
  const before = everything();
  for (const family of ['4', '6']) {
    for (const [from, to] of [
      ['shop/web', 'shop/db'],
      ['shop/other', 'shop/db'],
      ['shop/web', 'world'],
      ['world', 'shop/db'],
      ['world', 'host'],
      ['host', 'shop/db'],
      ['low', 'world'],
      ['world', 'low'],
    ] as const) {
      for (const service of ['5432/TCP', '53/UDP', '9/SCTP', '0/ICMP'])
        await ask(from, to, service, { family });
    }
  }
  expect(everything()).toEqual(before);
});

/** Every byte of every pinned map, but for what time and the kernel's own packets change. */
function everything(): Record<string, string[]> {
  const out: Record<string, string[]> = {};
  for (const name of Object.keys(MAPS) as (keyof typeof MAPS)[]) {
    const { key, value } = MAPS[name] as { key: Codec<unknown>; value: Codec<unknown> };
    const map = BpfMap.openPinned(join(world.agent.folder, 'bpf', 'sluice', 'maps', name), key, value);
    const rows = map.perCpu ? map.entriesPerCpu() : map.entries();
    out[name] = [...rows]
      .filter(([k]) => !isNoise(name, k))
      .map(([k, v]) => text([k, name === 'flow_marks_map' ? marked(v as FlowMarks) : v]))
      .sort();
    map.close();
  }
  return out;
}

/** The marks are renewed by each pass of expiry. */
const marked = ({ seen }: FlowMarks) => seen.map((pass) => pass > 0);

/** Counters of what IPv6 stacks say by themselves, by index of the metrics map. */
const OWN_TALK = new Set(
  [0, 128].flatMap((first) => [first + DropReason.Multicast, first + DropReason.LinkLocal]),
);

function isNoise(map: string, key: unknown): boolean {
  return map === 'metrics' && OWN_TALK.has(key as number);
}

function text(value: unknown): string {
  return JSON.stringify(value, (name, part: unknown) => {
    if (name === 'gcScanned' || name === 'logSlot') return undefined; // expiry and flow log are at work all the time
    if (part instanceof Uint8Array) return Buffer.from(part).toString('hex');
    return typeof part === 'bigint' ? String(part) : part;
  });
}
