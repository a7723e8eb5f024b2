import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { container, documents, network, type Running, World } from './world.js';

/**
 * Ordinary events while connections are open: labels of a container and of a namespace change, an address gets
 * another owner, two containers swap theirs. Only what is allowed afterwards goes on.
 */

const PORT = 5432;
const DB = '10.86.0.10';
/** A client may notice its last answer this much after the change, ms. */
const SLACK = 250;

let world: World;
let netns: Record<'db' | 'a' | 'b', string>;
beforeAll(async () => {
  world = new World('slev');
  const [db, a, b] = ['db', 'a', 'b'].map((role) => world.container(role)) as [string, string, string];
  netns = { db, a, b };
  await world.agent.start(world.scratch);
  await world.agent.apply(
    documents(network('net', 86), lab('blue'), onNet('db', db, 'db', '10'), onlyBlueApi()),
  );
  await world.traffic(db, 'tcp-server', '::', PORT, 120);
});
afterEach(async () => {
  // Back to the database alone, in a namespace that is blue.
  const there = JSON.parse(await world.agent.list('containers')) as { metadata: { name: string } }[];
  const named = (name: string): boolean => there.some(({ metadata }) => metadata.name === name);
  for (const name of (['a', 'b'] as const).filter(named))
    await world.agent.delete(documents(onNet(name, netns[name], 'api', '20')));
  await world.agent.apply(documents(lab('blue')));
});
afterAll(() => world.close());

const lab = (team: string): object => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name: 'lab', labels: { team } },
});

const onNet = (name: string, where: string, app: string, host: string): object =>
  container({
    name,
    netns: where,
    namespace: name === 'db' ? 'default' : 'lab',
    labels: { app },
    networks: [{ name: 'net', ipv4: `10.86.0.${host}`, ipv6: `fd86::${host}` }],
  });

/** Into db comes who is `app: api` in a namespace with `team: blue`. */
const onlyBlueApi = (): object => ({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'db', namespace: 'default' },
  spec: {
    podSelector: { matchLabels: { app: 'db' } },
    policyTypes: ['Ingress'],
    ingress: [
      {
        from: [
          {
            namespaceSelector: { matchLabels: { team: 'blue' } },
            podSelector: { matchLabels: { app: 'api' } },
          },
        ],
      },
    ],
  },
});

const clients = (from: 'a' | 'b'): Promise<Running> =>
  world.traffic(netns[from], 'tcp-clients', DB, PORT, 10, 2, 60);

const settle = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Result {
  readonly answers: number;
  readonly broken: number;
  readonly silent: number;
  readonly lastAnswer: number;
}

/** Whether a new connection comes through; `explain` has to say the same. */
async function reaches(name: 'a' | 'b', address = DB): Promise<boolean> {
  const { verdict } = await world.agent.explain({
    from: `lab/${name}`,
    to: address,
    protocol: 'TCP',
    port: `${PORT}`,
  });
  const open = (await world.probe(netns[name], address, PORT)) === 'open';
  expect(verdict).toBe(open ? 'allow' : 'deny');
  return open;
}

it.each([
  ['a label of its namespace', () => lab('red'), () => lab('blue')],
  [
    'a label of the container',
    () => onNet('a', netns.a, 'web', '20'),
    () => onNet('a', netns.a, 'api', '20'),
  ],
])('a connection is cut by %s and goes on when it is changed back', async (_, away, back) => {
  await world.agent.apply(documents(onNet('a', netns.a, 'api', '20')));
  const cut = await clients('a');
  await settle(200);
  await world.agent.apply(documents(away()));
  const applied = Date.now();
  await settle(1300);
  const result = JSON.parse(await cut.stop()) as Result;
  expect(result.answers).toBeGreaterThan(100);
  expect(result.lastAnswer).toBeLessThan(applied + SLACK);
  expect(result.silent + result.broken).toBe(10);
  expect(await reaches('a')).toBe(false);

  await world.agent.apply(documents(back()));
  expect(await reaches('a')).toBe(true);
  const kept = await clients('a');
  await settle(100);
  await world.agent.apply(documents(away()));
  await world.agent.apply(documents(back()));
  const again = Date.now();
  await settle(600); // a packet lost in between is sent once more
  const after = JSON.parse(await kept.stop()) as Result;
  expect(after).toMatchObject({ broken: 0, silent: 0 });
  expect(after.lastAnswer).toBeGreaterThan(again + 300);
});

it('an address that gets another owner takes no right with it', async () => {
  await world.agent.apply(documents(onNet('a', netns.a, 'api', '20')));
  const open = await clients('a');
  expect(await reaches('a')).toBe(true);
  await world.agent.delete(documents(onNet('a', netns.a, 'api', '20')));
  await world.agent.apply(documents(onNet('b', netns.b, 'web', '20')));
  expect(await reaches('b')).toBe(false);
  await open.stop();
  // And the other way round: the denied one goes, and the next owner may.
  await world.agent.delete(documents(onNet('b', netns.b, 'web', '20')));
  await world.agent.apply(documents(onNet('a', netns.a, 'api', '20')));
  expect(await reaches('a')).toBe(true);
});

it('two containers swap their addresses in one change', async () => {
  await world.agent.apply(documents(onNet('a', netns.a, 'api', '20'), onNet('b', netns.b, 'web', '21')));
  await (await clients('a')).stop();
  for (let i = 0; i < 3; i++) {
    expect([await reaches('a'), await reaches('b')]).toEqual([true, false]);
    const [first, second] = i % 2 === 0 ? ['21', '20'] : ['20', '21'];
    await world.agent.apply(documents(onNet('a', netns.a, 'api', first), onNet('b', netns.b, 'web', second)));
  }
  expect([await reaches('a'), await reaches('b')]).toEqual([true, false]);
});
