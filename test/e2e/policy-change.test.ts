import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { allowIngress, container, documents, network, World } from './world.js';

interface Clients {
  readonly connections: number;
  readonly answers: number;
  readonly broken: number;
  readonly silent: number;
  readonly retransmitted: number;
  readonly lastAnswer: number;
  readonly longestQuietMs: number;
}

let world: World;
let [db, api, stranger] = ['', '', ''];
beforeAll(async () => {
  world = new World('slpc');
  [db, api, stranger] = ['db', 'api', 'str'].map((role) => world.container(role)) as [string, string, string];
  await world.agent.start(world.scratch);
  const fixed = { name: 'net', ipv4: '10.61.0.10', ipv6: 'fd61::10' };
  await world.agent.apply(
    documents(
      network('net', 61),
      container({ name: 'db', netns: db, networks: [fixed], labels: { app: 'db' } }),
      container({ name: 'api', netns: api, networks: ['net'], labels: { app: 'api' } }),
      container({ name: 'stranger', netns: stranger, networks: ['net'], labels: { app: 'stranger' } }),
    ),
  );
  await world.traffic(db, 'tcp-server', '::', 5432, 120);
});
afterAll(() => world.close());

it.each([
  ['IPv4', { server: '10.61.0.10' }],
  ['IPv6', { server: 'fd61::10' }],
])('cuts the open connection that a change denies and leaves the other alone, %s', async (_, { server }) => {
  await world.agent.apply(documents(allowIngress('db', 'db', ['api', 'stranger'])));
  const sink = await world.traffic(db, 'udp-sink', '::', 5433, 30);
  const allowed = await world.traffic(api, 'tcp-clients', server, 5432, 20, 1, 30);
  const denied = await world.traffic(stranger, 'tcp-clients', server, 5432, 20, 1, 30);
  const datagrams = await world.traffic(api, 'udp-source', server, 5433, 2000, 3);
  await new Promise((resolve) => setTimeout(resolve, 500));

  const file = join(world.agent.folder, 'policy.yaml');
  writeFileSync(file, documents(allowIngress('db', 'db', ['api'])));
  world.agent.cli('apply', '-f', file);
  const returned = Date.now();
  await new Promise((resolve) => setTimeout(resolve, 1600));

  const cut = JSON.parse(await denied.stop()) as Clients;
  const kept = JSON.parse(await allowed.stop()) as Clients;
  const source = JSON.parse(await datagrams.done) as { sent: number };
  await new Promise((resolve) => setTimeout(resolve, 100));
  const received = JSON.parse(await sink.stop()) as { received: number };
  expect(cut.answers).toBeGreaterThan(100);
  expect(cut.lastAnswer).toBeLessThan(returned + 50);
  expect(cut.silent + cut.broken).toBe(20);
  expect(kept).toMatchObject({ broken: 0, silent: 0, retransmitted: 0 });
  expect(kept.lastAnswer).toBeGreaterThan(returned + 1000);
  expect(received.received).toBe(source.sent);
  expect(await world.probe(stranger, server, 5432)).toBe('timeout');
  expect(await world.probe(api, server, 5432)).toBe('open');

  // And back: the connection that was cut goes on as soon as it is allowed again.
  world.agent.cli('delete', '-f', file);
  expect(await world.probe(stranger, server, 5432)).toBe('open');
});
