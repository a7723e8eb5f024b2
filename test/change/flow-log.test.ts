/** The flow log and what is seen live, with real packets: exact counts, filters, restarts; and audit. */
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { FlowRecord } from '../../src/flowlog/record.js';
import { allowIngress, container, documents, network, OUTSIDE, World } from '../e2e/world.js';

let world: World;
let app: string;
let other: string;
let db: string;
const DB = '10.72.0.10';
const APP = '10.72.0.11';

beforeAll(async () => {
  world = new World('slflog');
  [db, app, other] = ['db', 'app', 'other'].map((role) => world.container(role)) as [string, string, string];
  await world.agent.start(world.scratch);
  await world.agent.apply(
    documents(
      network('net', 72),
      container({ name: 'db', netns: db, networks: [{ name: 'net', ipv4: DB }], labels: { app: 'db' } }),
      container({ name: 'app', netns: app, networks: [{ name: 'net', ipv4: APP }], labels: { app: 'app' } }),
      container({ name: 'other', netns: other, networks: ['net'], labels: { app: 'other' } }),
      allowIngress('db', 'db', ['app']),
    ),
  );
  await world.traffic(db, 'tcp-server', '0.0.0.0', 5432, 100);
});
afterAll(() => world.close());

type Shown = Omit<FlowRecord, 'first' | 'last'>;

async function log(query: Readonly<Record<string, string>>): Promise<Shown[]> {
  const path = `/v1/flows?${new URLSearchParams(query).toString()}`;
  return (await world.agent.request<{ objects: Shown[] }>('GET', path)).objects;
}
const sum = (records: readonly Shown[], count: 'packets' | 'replyPackets' | 'flows'): number =>
  records.reduce((total, record) => total + record[count], 0);

/** Sends numbered datagrams; how many. */
async function send(netns: string, address: string, port: number): Promise<number> {
  const source = await world.traffic(netns, 'udp-source', address, port, 5000, 1);
  return (JSON.parse(await source.done) as { sent: number }).sent;
}

it('has every flow with its verdict, rule and exact counts', async () => {
  expect(await world.probe(app, DB, 5432)).toBe('open');
  expect(await world.probe(other, DB, 5432, 200)).toBe('timeout');
  const sent = await send(other, DB, 9999);
  expect(sent).toBeGreaterThan(1000);

  const [allowed] = await log({ from: 'app', to: `${DB}/32` });
  expect(allowed).toMatchObject({
    verdict: 'allow',
    protocol: 'TCP',
    from: 'default/app',
    to: 'default/db',
    port: 5432,
    flows: 1,
    sampled: false,
  });
  expect(allowed?.ruleIngress).toContain('NetworkPolicy default/db, ingress rule 0');
  expect(allowed?.packets).toBeGreaterThan(1);
  expect(allowed?.replyPackets).toBeGreaterThan(0);

  const denied = await log({ denied: '1', since: '600', from: 'default/other' });
  expect(denied.map(({ verdict, reason, direction }) => `${verdict} ${reason} ${direction}`)).toEqual([
    'deny policy_ingress ingress',
    'deny policy_ingress ingress',
  ]);
  expect(
    sum(
      denied.filter(({ port }) => port === 9999),
      'packets',
    ),
  ).toBe(sent);
  expect(denied[0]?.ruleIngress).toContain('NetworkPolicy default/db (default deny ingress)');
  expect(await log({ denied: '1', from: 'default/app' })).toEqual([]);
  expect(await log({ to: OUTSIDE.v4 })).toEqual([]);
  const printed = world.agent.cli(
    'get',
    'flows',
    '--denied',
    '--since',
    '10m',
    '--from',
    'other',
    '--to',
    'db',
  );
  expect(printed).toMatch(/ deny +policy_ingress +UDP .*10\.72\.0\.10:9999 .*NetworkPolicy default\/db/);
  expect(() => world.agent.cli('get', 'networks', '--denied')).toThrow('are for flows');
});

it('survives the agent, counts without it, and shows flows that are open', async () => {
  const { agent } = world;
  const before = await log({ denied: '1' });
  process.kill(agent.pid ?? 0, 'SIGTERM');
  expect(await agent.ended()).toBe(true);
  const sent = await send(other, DB, 9999);
  const clients = await world.traffic(app, 'tcp-clients', DB, 5432, 2, 50, 60);
  await agent.start(world.scratch);
  const after = await log({ denied: '1' });
  const packets = (records: readonly Shown[]): number =>
    sum(
      records.filter(({ port }) => port === 9999),
      'packets',
    );
  expect(packets(after)).toBe(packets(before) + sent);
  const open = (): Promise<Shown[]> => log({ from: 'app', since: '60' });
  expect(sum(await open(), 'flows')).toBe(3);
  const early = sum(await open(), 'packets');
  await expect.poll(async () => sum(await open(), 'packets'), { timeout: 10_000 }).toBeGreaterThan(early);
  await clients.stop();
});

interface Seen {
  readonly reason: string;
  readonly from: string;
  readonly to: string;
  readonly rule?: string;
  readonly audit?: true;
}

/** `sluice monitor` until the test ends it. */
function monitor(...args: readonly string[]): { readonly seen: Seen[]; readonly process: ChildProcess } {
  const child = spawn(process.execPath, ['bin/sluice', 'monitor', '-o', 'json', ...args], {
    env: { ...process.env, SLUICE_SOCKET: world.agent.socket },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  world.scratch.onClose(() => void child.kill('SIGKILL'));
  const seen: Seen[] = [];
  let rest = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) seen.push(JSON.parse(line) as Seen);
  });
  return { seen, process: child };
}

it('shows live what is asked for and nothing else', async () => {
  const all = monitor('--to', 'default/db', '--flows');
  const drops = monitor('--reason', 'policy_ingress', '--from', 'other');
  const none = monitor('--from', '203.0.113.0/24');
  const seen = async (): Promise<string[]> => {
    await Promise.all([world.probe(app, DB, 5432), world.probe(other, DB, 5432, 100)]);
    const lines = all.seen.map(({ reason, from }) => `${from} ${reason}`);
    return [...new Set([...lines, ...drops.seen.map(({ reason }) => `only ${reason}`)])].sort();
  };
  // Each of them may need a moment until it listens.
  await expect
    .poll(seen, { timeout: 30_000 })
    .toEqual(['default/app forwarded', 'default/other policy_ingress', 'only policy_ingress']);
  expect(new Set(drops.seen.map(({ from, reason }) => `${from} ${reason}`))).toEqual(
    new Set(['default/other policy_ingress']),
  );
  expect(none.seen).toEqual([]);
  for (const { process: child } of [all, drops, none]) child.kill('SIGTERM');
});

it('audit lets pass what policy denies, and logs it', async () => {
  const { agent } = world;
  expect(agent.cli('policy', 'audit')).toBe('Audit is off.\n');
  expect(() => agent.cli('policy', 'audit', 'on', 'a/b/c')).toThrow('SLU7206');
  expect(() => agent.cli('policy', 'audit', 'off', 'app=db')).toThrow('SLU7207');
  expect(agent.cli('policy', 'audit', 'on', 'app=db')).toBe('Audit is on for app=db: default/db.\n');
  const live = monitor('--to', 'db');
  await expect
    .poll(
      async () => {
        expect(await world.probe(other, DB, 5432)).toBe('open');
        return live.seen.at(-1);
      },
      { timeout: 20_000 },
    )
    .toMatchObject({ reason: 'policy_ingress', audit: true, from: 'default/other' });
  live.process.kill('SIGTERM');
  const [audited] = (await log({ denied: '1', since: '60', from: 'other' })).filter(
    ({ verdict }) => verdict === 'audit',
  );
  expect(audited).toMatchObject({ reason: 'policy_ingress', port: 5432 });
  expect(audited?.ruleIngress).toContain('NetworkPolicy default/db (default deny ingress)');
  const explained = await agent.explain({ from: 'other', to: 'db', port: '5432', protocol: 'TCP' });
  expect(explained).toMatchObject({
    verdict: 'allow',
    sides: [{ verdict: 'allow' }, { container: 'default/db', verdict: 'audit' }],
    notes: ['would be dropped, were it not for the audit of default/db'],
  });

  // It is for the receiver alone, it survives a crash, and a container that gets the label is in it too.
  await agent.apply(
    documents({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'other', namespace: 'default' },
      spec: { podSelector: { matchLabels: { app: 'other' } }, policyTypes: ['Egress'], egress: [] },
    }),
  );
  expect(await world.probe(other, DB, 5432, 200)).toBe('timeout');
  agent.cli('delete', 'netpol', 'default/other');
  await agent.kill();
  expect(await world.probe(other, DB, 5432)).toBe('open');
  await agent.start(world.scratch);
  expect(await world.probe(other, DB, 5432)).toBe('open');
  await agent.apply(
    documents(
      container({ name: 'db', netns: db, networks: [{ name: 'net', ipv4: DB }], labels: { app: 'data' } }),
      allowIngress('db', 'data', ['app']),
    ),
  );
  expect(await world.probe(other, DB, 5432, 200)).toBe('timeout');
  agent.cli('policy', 'audit', 'on', 'default/db');
  expect(await world.probe(other, DB, 5432)).toBe('open');
  expect(agent.cli('policy', 'audit', 'off')).toBe('Audit is off.\n');
  expect(await world.probe(other, DB, 5432, 200)).toBe('timeout');
});

it('foresees what a change would do, and changes nothing', async () => {
  const { agent } = world;
  const path = join(agent.folder, 'new.yaml');
  writeFileSync(path, documents(allowIngress('db', 'data', ['other'])));
  const listening = await world.start(
    db,
    process.execPath,
    ['-e', 'require("net").createServer().listen(9,()=>console.log("ready"))'],
    true,
  );
  expect(await world.probe(app, DB, 9)).toBe('open');
  const printed = agent.cli('policy', 'diff', '-f', path);
  expect(printed).toContain('networkpolicy default/db configured (dry run)\n');
  const line = (from: string, port: number): string | undefined =>
    printed
      .split('\n')
      .find((text) => text.startsWith(`default/${from} `) && text.includes(`${DB}:${port} `));
  expect(line('app', 9)).toMatch(
    /allow \(NetworkPolicy default\/db, ingress rule 0.* {2}deny \(NetworkPolicy/,
  );
  expect(line('other', 5432)).toMatch(/deny \(NetworkPolicy default\/db .* {2}allow \(NetworkPolicy/);
  expect(printed).toMatch(/\d+ of \d+ recorded flows would change: \d+ denied, \d+ allowed/);
  // A connection that ends meanwhile is counted once more.
  const timeless = (text: string): string[] =>
    text
      .replace(/\d{4}-\S+Z/g, '')
      .split('\n')
      .sort();
  expect(timeless(agent.cli('apply', '--dry-run', '-f', path))).toEqual(timeless(printed));
  expect(await world.probe(app, DB, 9)).toBe('open');
  expect(agent.cli('history')).not.toContain('dry');
  writeFileSync(path, documents({ ...allowIngress('x', 'db', []), spec: { podSelector: 7 } }));
  expect(() => agent.cli('policy', 'diff', '-f', path)).toThrow('podSelector');
  await listening.stop();
});

/** A TCP packet FIN ACK from port 5432 to port 43210. */
const LATE = `
import socket, struct, sys
source, target = (socket.inet_aton(a) for a in sys.argv[1:])
def packet(sum):
    return struct.pack("!HHIIBBHHH", 5432, 43210, 1, 1, 0x50, 0x11, 512, sum, 0)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as s:
    s.bind((sys.argv[1], 0))
    sum_ = checksum(source + target + struct.pack("!HH", 6, 20) + packet(0))
    s.sendto(packet(sum_), (sys.argv[2], 0))
`;

it('takes a packet that comes after the end of its connection for no flow', async () => {
  const { agent } = world;
  const late = await world.start(db, 'python3', ['-c', LATE, DB, APP], false);
  await late.done;
  const records = (): Promise<Shown[]> => log({ from: DB, to: APP });
  await expect.poll(async () => (await records()).length, { timeout: 5000 }).toBe(1);
  expect((await records())[0]).toMatchObject({
    verdict: 'deny',
    reason: 'tcp_no_flow',
    port: 43_210,
    flows: 0,
    packets: 1,
  });
  // What would keep db from opening connections changes nothing about it.
  const path = join(agent.folder, 'late.yaml');
  const denied = { podSelector: { matchLabels: { app: 'data' } }, policyTypes: ['Egress'], egress: [] };
  writeFileSync(path, documents({ ...allowIngress('closed', 'data', []), spec: denied }));
  expect(agent.cli('policy', 'diff', '-f', path)).not.toContain('43210');
});
