/** History, rollback, and changes that are taken back unless they are confirmed: with and without an agent. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { allowIngress, container, documents, network, World } from '../e2e/world.js';
import { mustSluice } from '../lib/cli.js';

let world: World;
let db: string;
let app: string;

beforeEach(async () => {
  world = new World('slcf');
  [db, app] = ['db', 'app'].map((role) => world.container(role)) as [string, string];
  await world.agent.start(world.scratch);
  await world.agent.apply(
    documents(
      network('net', 71),
      container({
        name: 'db',
        netns: db,
        networks: [{ name: 'net', ipv4: '10.71.0.10' }],
        labels: { app: 'db' },
      }),
      container({ name: 'app', netns: app, networks: ['net'], labels: { app: 'app' } }),
    ),
  );
  await world.traffic(db, 'tcp-server', '0.0.0.0', 5432, 60);
});
afterEach(() => world.close());

const reach = (): Promise<string> => world.probe(app, '10.71.0.10', 5432, 250);

function file(name: string, ...objects: readonly object[]): string {
  const path = join(world.agent.folder, name);
  writeFileSync(path, documents(...objects));
  return path;
}

interface Listed {
  readonly revisions: readonly { readonly number: number; readonly what: string; readonly by: string }[];
  readonly pending?: object;
}
const cli = (...args: readonly string[]): Promise<string> => mustSluice(world.agent.socket, ...args);
const history = async (): Promise<Listed> => JSON.parse(await cli('history', '-o', 'json')) as Listed;

it('keeps every change as a revision and goes back to any of them', async () => {
  const { agent } = world;
  const open = file('open.yaml', allowIngress('db', 'db', ['app']));
  const closed = file('closed.yaml', allowIngress('db', 'db', []));
  await cli('apply', '-f', open);
  await cli('apply', '-f', closed);
  await cli('apply', '-f', closed); // changes nothing, so it is no revision
  expect(await reach()).toBe('timeout');
  await cli('delete', 'netpol', 'default/db');
  expect((await history()).revisions.map(({ number, what }) => [number, what.split('/').at(-1)])).toEqual([
    [4, 'db'],
    [3, 'closed.yaml'],
    [2, 'open.yaml'],
    [1, 'apply'],
  ]);
  expect(await cli('history', '3')).toContain('networkpolicy default/db configured');
  const three = JSON.parse(await cli('history', '3', '-o', 'json')) as {
    changes: { before: object; after: object }[];
  };
  expect(three.changes).toMatchObject([
    { before: { spec: { ingress: [{}] } }, after: { spec: { ingress: [] } } },
  ]);

  expect(await cli('rollback', '3')).toBe('networkpolicy default/db created\n');
  expect(await reach()).toBe('timeout');
  await cli('rollback', '2');
  expect(await reach()).toBe('open');
  expect(await cli('rollback', '2')).toBe('nothing to take back\n');
  await expect(cli('rollback', '99')).rejects.toThrow('SLU7201');

  // All of it is there after a crash.
  const before = await history();
  await agent.kill();
  await agent.start(world.scratch);
  expect(await history()).toEqual(before);
  await cli('rollback', '3');
  expect(await reach()).toBe('timeout');
  expect((await history()).revisions[0]).toMatchObject({ number: 7, what: 'rollback to 3' });
  await cli('rollback', '1');
  expect(await cli('get', 'policies', '-o', 'json')).toContain('"items": []');
});

it('takes a change back unless it is confirmed', async () => {
  const { agent } = world;
  const closed = file('closed.yaml', allowIngress('db', 'db', []));
  expect(await cli('apply', '-f', closed, '--confirm-within', '2s')).toContain('revision 2 waits for');
  expect(await reach()).toBe('timeout');
  await expect(cli('apply', '-f', file('more.yaml', allowIngress('app', 'app', [])))).rejects.toThrow(
    'SLU7204',
  );
  expect(await cli('status')).toContain('Unconfirmed');
  await expect.poll(async () => (await history()).pending, { timeout: 8000 }).toBeUndefined();
  expect(await reach()).toBe('open');
  expect((await history()).revisions[0]).toMatchObject({
    by: 'agent',
    what: 'rollback to 1 (not confirmed)',
  });
  await expect(cli('confirm')).rejects.toThrow('SLU7203');

  await cli('apply', '-f', closed, '--confirm-within', '300s');
  const { watchdog } = JSON.parse(readFileSync(join(agent.folder, 'state', 'confirm.json'), 'utf8')) as {
    watchdog: { pid: number };
  };
  expect(existsSync(`/proc/${watchdog.pid}`)).toBe(true);
  expect(await cli('confirm')).toBe('revision 4 confirmed\n');
  await expect.poll(() => existsSync(`/proc/${watchdog.pid}`) && isAlive(watchdog.pid)).toBe(false);
  expect((await history()).pending).toBeUndefined();
  expect(await reach()).toBe('timeout');
});

it('takes it back after SIGKILL of the agent, with nobody there', async () => {
  const { agent } = world;
  await cli('apply', '-f', file('closed.yaml', allowIngress('db', 'db', [])), '--confirm-within', '2s');
  await agent.kill();
  expect(await reach()).toBe('timeout');
  await expect.poll(reach, { timeout: 15_000 }).toBe('open');
  await expect.poll(() => existsSync(join(agent.folder, 'state', 'confirm.json'))).toBe(false);
  expect(readdirSync(join(agent.folder, 'state', 'applied'))).not.toContain('networkpolicy.default.db.yaml');
  await expect.poll(() => startable()).toBe(true);
  expect((await history()).revisions[0]).toMatchObject({
    by: 'agent',
    what: 'rollback to 1 (not confirmed)',
  });
});

it('an agent that starts goes on waiting, and takes back what is overdue', async () => {
  const { agent } = world;
  const closed = file('closed.yaml', allowIngress('db', 'db', []));
  await cli('apply', '-f', closed, '--confirm-within', '600s');
  await agent.kill();
  await agent.start(world.scratch);
  expect((await history()).pending).toMatchObject({ revision: 2, to: 1 });
  expect(await reach()).toBe('timeout');
  await agent.kill();
  const path = join(agent.folder, 'state', 'confirm.json');
  const saved = JSON.parse(readFileSync(path, 'utf8')) as object;
  writeFileSync(path, JSON.stringify({ ...saved, until: 0, boot: 'another' })); // the machine was started again
  await agent.start(world.scratch);
  expect((await history()).pending).toBeUndefined();
  expect(await reach()).toBe('open');
});

/** The lock of the process that settled it may be held a moment longer. */
async function startable(): Promise<boolean> {
  try {
    await world.agent.start(world.scratch);
    return true;
  } catch {
    return false;
  }
}

function isAlive(pid: number): boolean {
  return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}
