import { afterEach, beforeEach, expect, it } from 'vitest';
import { allowIngress, container, documents, network, OUTSIDE, World } from './world.js';

const RESTARTS = 20;
const UDP_RATE = 20_000;

let world: World;
beforeEach(() => {
  world = new World('slkill');
});
afterEach(() => world.close());

it(`loses no packet while the agent is killed and started ${RESTARTS} times`, async () => {
  const [server, client, stranger] = ['srv', 'cli', 'str'].map((role) => world.container(role)) as [
    string,
    string,
    string,
  ];
  await world.agent.start(world.scratch);
  await world.agent.apply(
    documents(
      network('net', 62),
      container({
        name: 'server',
        netns: server,
        networks: [{ name: 'net', ipv4: '10.62.0.10', ipv6: 'fd62::10' }],
        labels: { app: 'server' },
      }),
      container({ name: 'client', netns: client, networks: ['net'], labels: { app: 'client' } }),
      container({ name: 'stranger', netns: stranger, networks: ['net'], labels: { app: 'stranger' } }),
      allowIngress('server', 'server', ['client']),
    ),
  );
  const seconds = 120;
  const sink = await world.traffic(server, 'udp-sink', '::', 5001, seconds);
  await world.traffic(server, 'tcp-server', '::', 5002, seconds);
  await world.traffic(world.outside, 'tcp-server', '::', 5003, seconds);
  const datagrams = await world.traffic(client, 'udp-source', '10.62.0.10', 5001, UDP_RATE, seconds);
  const local = await world.traffic(client, 'tcp-clients', 'fd62::10', 5002, 50, 10, seconds);
  const outward = await world.traffic(client, 'tcp-clients', OUTSIDE.v4, 5003, 50, 10, seconds);

  for (let round = 0; round < RESTARTS; round++) {
    await world.agent.kill();
    // Nobody is there: policy holds for new flows all the same.
    const [denied, allowed, out] = await Promise.all([
      world.probe(stranger, '10.62.0.10', 5002, 150),
      world.probe(client, '10.62.0.10', 5002),
      world.probe(client, OUTSIDE.v6, 5003),
    ]);
    expect({ round, denied, allowed, out }).toEqual({
      round,
      denied: 'timeout',
      allowed: 'open',
      out: 'open',
    });
    const status = await world.agent.start(world.scratch);
    expect(status).toMatchObject({ adopted: true, state: 'ready', containers: 3, policies: 1 });
    expect(await world.probe(stranger, 'fd62::10', 5002, 150)).toBe('timeout');
    expect(await world.probe(client, 'fd62::10', 5002)).toBe('open');
  }

  const { sent, errors } = JSON.parse(await datagrams.stop()) as { sent: number; errors: number };
  await new Promise((resolve) => setTimeout(resolve, 200));
  const { received, outOfOrder } = JSON.parse(await sink.stop()) as { received: number; outOfOrder: number };
  expect({ errors, outOfOrder, lost: sent - received }).toEqual({ errors: 0, outOfOrder: 0, lost: 0 });
  for (const clients of [local, outward]) {
    expect(JSON.parse(await clients.stop())).toMatchObject({
      connections: 50,
      broken: 0,
      silent: 0,
      retransmitted: 0,
    });
  }
  expect(sent).toBeGreaterThan(UDP_RATE * 5);
});
