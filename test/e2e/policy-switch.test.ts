import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { Agent as HttpAgent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import type { ApplyResult } from '../../src/engine.js';
import { mapEntries } from '../node/kernel-state.js';
import { container, documents, network, World } from './world.js';

/** Policies change all the time under traffic: no packet is judged by anything but the old or the new one. */

const SWITCHES = 10_000;
/** Datagrams a second of each source. */
const RATE = 400;

let world: World;
let state = '';
afterEach(() => {
  world.close();
  rmSync(state, { recursive: true, force: true });
});

/** A folder in memory where there is one: this is not about how fast a disk takes each state. */
function stateDir(): string {
  state = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'sluice-switch-'));
  return state;
}

const pods = (matchLabels: object): object => ({ podSelector: { matchLabels } });

/** Both let `x` reach `db` and keep `y` out, each in its own way. */
const A = policy([{ from: [pods({ app: 'x' })], ports: [{ protocol: 'UDP', port: 5000 }, { port: 5001 }] }]);
const B = policy([
  { from: [pods({ app: 'z' })] },
  { from: [{ podSelector: { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['y', 'db'] }] } }] },
]);

function policy(ingress: readonly object[]): string {
  return documents({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'db', namespace: 'default' },
    spec: { podSelector: { matchLabels: { app: 'db' } }, policyTypes: ['Ingress'], ingress },
  });
}

/** The agent's own API, over one connection. */
function switcher(socketPath: string): { apply(text: string): Promise<ApplyResult>; close(): void } {
  const agent = new HttpAgent({ keepAlive: true, maxSockets: 1 });
  const headers = { 'content-type': 'application/json' };
  return {
    apply: (text) =>
      new Promise((resolve, reject) => {
        const call = request(
          { agent, socketPath, method: 'POST', path: '/v1/apply', headers },
          (response) => {
            let body = '';
            response.setEncoding('utf8').on('data', (chunk: string) => {
              body += chunk;
            });
            response.on('end', () => resolve(JSON.parse(body) as ApplyResult));
          },
        );
        call.once('error', reject);
        call.end(JSON.stringify({ sources: [{ file: 'db.yaml', text }] }));
      }),
    close: () => agent.destroy(),
  };
}

async function town(
  settings: Readonly<Record<string, unknown>> = {},
): Promise<Record<'db' | 'x' | 'y', string>> {
  world = new World('slsw', { ...settings, stateDir: stateDir() });
  const [db, x, y] = ['db', 'x', 'y'].map((role) => world.container(role)) as [string, string, string];
  await world.agent.start(world.scratch);
  const fixed = { name: 'net', ipv4: '10.84.0.10', ipv6: 'fd84::10' };
  await world.agent.apply(
    documents(
      network('net', 84),
      container({ name: 'db', netns: db, networks: [fixed], labels: { app: 'db' } }),
      container({ name: 'x', netns: x, networks: ['net'], labels: { app: 'x' } }),
      container({ name: 'y', netns: y, networks: ['net'], labels: { app: 'y' } }),
    ),
  );
  await world.agent.apply(A);
  return { db, x, y };
}

it(`${SWITCHES} switches between two policies drop nothing that both allow and pass nothing that both deny`, async () => {
  const { db, x, y } = await town();
  const long = 300;
  // Open flows, new flows with each datagram, connections; from the one that may and the one that may not.
  const sinks = await Promise.all(
    [5000, 5002].map((port) => world.traffic(db, 'udp-sink', '::', port, long)),
  );
  await world.traffic(db, 'tcp-server', '::', 5001, long);
  const clients = await world.traffic(x, 'tcp-clients', '10.84.0.10', 5001, 20, 10, long);
  const allowed = [
    await world.traffic(x, 'udp-source', '10.84.0.10', 5000, RATE, long),
    await world.traffic(x, 'udp-openers', 'fd84::10', 5000, RATE, long),
  ];
  const denied = [
    await world.traffic(y, 'udp-source', 'fd84::10', 5002, RATE, long),
    await world.traffic(y, 'udp-openers', '10.84.0.10', 5002, RATE, long),
    await world.traffic(y, 'udp-openers', 'fd84::10', 5000, RATE, long),
  ];
  const api = switcher(world.agent.socket);
  for (let i = 0; i < SWITCHES; i++) {
    const result = await api.apply(i % 2 === 0 ? B : A);
    if (!result.ok || result.changes[0]?.action !== 'configured') throw new Error(JSON.stringify(result));
  }
  api.close();
  const sent = await Promise.all(
    allowed.map(async (source) => JSON.parse(await source.stop()) as { sent: number }),
  );
  const refused = await Promise.all(
    denied.map(async (source) => JSON.parse(await source.stop()) as { sent: number }),
  );
  const tcp: unknown = JSON.parse(await clients.stop());
  await new Promise((resolve) => setTimeout(resolve, 200)); // what is on its way
  const [open, closed] = (await Promise.all(sinks.map((sink) => sink.stop()))).map(
    (line) => JSON.parse(line) as { received: number },
  );
  expect(refused.every((source) => source.sent > 0)).toBe(true);
  expect(closed?.received).toBe(0);
  expect(open?.received).toBe(sent.reduce((sum, source) => sum + source.sent, 0));
  expect(tcp).toMatchObject({ connections: 20, broken: 0, silent: 0 });
  const dropped = new Set((await world.agent.drops(10_000)).map(({ from }) => from));
  expect([...dropped]).toEqual(['default/y']);
}, 300_000);

it('a policy that does not fit is refused, and the one in force stays', async () => {
  const { db, x, y } = await town({ policyPeerEntries: 1024, metricsAddress: '127.0.0.1:9644' });
  await world.traffic(db, 'tcp-server', '::', 5001, 60);
  const ipBlock = (i: number): object => ({ ipBlock: { cidr: `198.${18 + (i >> 8)}.${i & 255}.0/24` } });
  const large = policy([{ from: Array.from({ length: 1500 }, (_, i) => ipBlock(i)) }]);
  const before = mapEntries(world);
  const metrics = (): string => inside(world.host, 'curl -s http://127.0.0.1:9644/metrics');
  expect(metrics()).toContain('sluice_apply_failures_total{source="api"} 0');

  await expect(world.agent.apply(large, 'large.yaml')).rejects.toThrow(/policy_peers has room for 1024/);

  expect(mapEntries(world)).toEqual(before);
  expect(await world.probe(x, '10.84.0.10', 5001)).toBe('open');
  expect(await world.probe(y, '10.84.0.10', 5001)).toBe('timeout');
  expect(metrics()).toContain('sluice_apply_failures_total{source="api"} 1');
  expect(metrics()).toContain('sluice_last_apply_success 0');
  const line = world.agent
    .log()
    .split('\n')
    .find((entry) => entry.includes('what was in force stays'));
  expect(line).toContain('policy_peers has room for 1024');
  expect(line).toContain('SLU3301');

  await world.agent.apply(B);
  expect(metrics()).toContain('sluice_last_apply_success 1');
});
