import { type ChildProcess, spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside, netnsPath } from '../../bench/lib/netns.js';
import { container, documents, network, World } from '../e2e/world.js';
import { resolver } from '../lib/dns-client.js';

let world: World;
const netns = { web: '', db: '', far: '' };

/** A name server on the host that knows every name: 192.0.2.99. */
async function upstream(): Promise<ChildProcess> {
  const script = `
    const { decode, encode } = require('dns-packet');
    const socket = require('node:dgram').createSocket('udp4');
    socket.on('message', (m, from) => {
      const { id, questions } = decode(m);
      const answers = questions.map(({ name }) => ({ type: 'A', name, data: '192.0.2.99' }));
      socket.send(encode({ type: 'response', id, questions, answers }), from.port, from.address);
    });
    socket.bind(53, '127.0.0.53', () => console.log('ready'));`;
  const child = spawn('nsenter', [`--net=${netnsPath(world.host)}`, '--', process.execPath, '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  return child;
}

const definitions = (alias: string): string =>
  documents(
    network('town', 61),
    network('farm', 62),
    container({
      name: 'web',
      netns: netns.web,
      networks: [{ name: 'town', ipv4: '10.61.0.2', ipv6: 'fd61::2', aliases: [alias] }],
    }),
    container({
      name: 'db',
      netns: netns.db,
      networks: [
        { name: 'town', ipv4: '10.61.0.3' },
        { name: 'farm', ipv4: '10.62.0.3' },
      ],
    }),
    container({ name: 'far', netns: netns.far, networks: [{ name: 'farm', ipv4: '10.62.0.2' }] }),
  );

beforeAll(async () => {
  world = new World('sldns', { dnsUpstreams: ['127.0.0.53'], metricsAddress: '127.0.0.1:9644' });
  const child = await upstream();
  world.scratch.onClose(() => child.kill('SIGKILL'));
  await world.agent.start(world.scratch);
  for (const name of ['web', 'db', 'far'] as const) netns[name] = world.container(name);
  await world.agent.apply(definitions('www'));
});
afterAll(() => world.close());

describe('names in networks of definitions', () => {
  it('are answered at the gateway, over UDP and TCP, IPv4 and IPv6, to members of the network', async () => {
    const client = await resolver(world, netns.db);
    for (const server of ['10.61.0.1', 'fd61::1', '10.62.0.1'])
      expect([server, await client.ask(server, 'web', 'A')]).toEqual([server, 'NOERROR 10.61.0.2']);
    expect(await client.ask('10.61.0.1', 'www.default', 'AAAA')).toBe('NOERROR fd61::2');
    expect(await client.ask('10.61.0.1', '2.0.61.10.in-addr.arpa', 'PTR')).toBe('NOERROR web.town');
    expect(await client.ask('10.61.0.1', 'web', 'A', 'tcp')).toBe('NOERROR 10.61.0.2');
    expect(await client.ask('10.61.0.1', 'example.org', 'A')).toBe('NOERROR 192.0.2.99');
    const other = await resolver(world, netns.web);
    expect(await other.ask('10.61.0.1', 'far', 'A')).toBe('NOERROR 192.0.2.99'); // not of its network
    expect(await other.ask('10.61.0.1', 'db', 'A')).toBe('NOERROR 10.61.0.3');
    const metrics = (): string => inside(world.host, 'curl -s http://127.0.0.1:9644/metrics');
    await expect
      .poll(metrics, { timeout: 5000 })
      .toMatch(/^sluice_dns_questions_total\{result="local"\} 7$/m);
    expect(metrics()).toMatch(/^sluice_dns_questions_total\{result="forwarded"\} 2$/m);
  });

  it('are those of services too, which every network knows', async () => {
    const service = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'api', namespace: 'shop' },
      spec: { clusterIP: '10.96.0.77', ports: [{ port: 80 }] },
    };
    await world.agent.apply(documents(service));
    const client = await resolver(world, netns.far);
    // The thread that answers hears of it right after the agent has answered.
    for (const name of ['api.shop', 'api.shop.svc.cluster.local'])
      await expect.poll(() => client.ask('10.62.0.1', name, 'A')).toBe('NOERROR 10.96.0.77');
    expect(await client.ask('10.62.0.1', '77.0.96.10.in-addr.arpa', 'PTR')).toBe(
      'NOERROR api.shop.svc.cluster.local',
    );
    await world.agent.delete(documents(service));
    await expect.poll(() => client.ask('10.62.0.1', 'api.shop', 'A')).toBe('NOERROR 192.0.2.99');
  });

  it('follow changes, and come back with the agent', async () => {
    const client = await resolver(world, netns.db);
    await world.agent.apply(definitions('shop'));
    expect(await client.ask('10.61.0.1', 'shop', 'A')).toBe('NOERROR 10.61.0.2');
    expect(await client.ask('10.61.0.1', 'www', 'A')).toBe('NOERROR 192.0.2.99');
    await world.agent.kill();
    expect(await client.ask('10.61.0.1', 'shop', 'A')).toBe('no answer');
    await world.agent.start(world.scratch);
    await expect.poll(() => client.ask('10.61.0.1', 'shop', 'A')).toBe('NOERROR 10.61.0.2');
  });

  it('withstand junk: 100,000 messages, connections that are half open, large or slow', async () => {
    const client = await resolver(world, netns.db);
    const before = await world.agent.status();
    const worst = await client.flood('10.61.0.1', 100_000);
    expect(worst.answers).toBeGreaterThan(50);
    expect(worst.median).toBeLessThan(50);
    expect(await client.ask('10.61.0.1', 'web', 'A')).toBe('NOERROR 10.61.0.2');
    expect((await world.agent.status()).pid).toBe(before.pid);
    expect((await world.agent.status()).state).toBe('ready');
  });
});
