import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside } from '../../bench/lib/netns.js';
import type { History } from '../../src/change/types.js';
import { Cluster, haveCgroup, type Pod, perPacket, service, slice } from './cluster.js';

/** Behaviours of connections that last (shared/conformance/services/behaviours.json, by id), whatever happens meanwhile. */

let cluster: Cluster;
let client: Pod;
const pods: Pod[] = [];
const IP = '10.96.40.1';
const OTHER = '10.96.40.2';

beforeAll(async () => {
  cluster = new Cluster('sllas', 1);
  await cluster.start();
  const server = await cluster.pod(cluster.node(0), 'server', [80]);
  pods.push(server);
  await cluster.server(server, 'keep', 'server', '90');
  client = await cluster.pod(cluster.node(0), 'client', []);
  const web = { name: 'web', port: 80 };
  const keep = { name: 'keep', port: 90 };
  const ports = [web, keep];
  await cluster.apply(
    service('one', { type: 'NodePort', clusterIP: IP, ports: [web, { ...keep, nodePort: 30490 }] }),
    slice('one', [{ pod: server }], { ports }),
    service('two', { clusterIP: OTHER, ports }),
    slice('two', [{ pod: server }], { ports }),
  );
});
afterAll(() => cluster.close());

const clients = () => [client, perPacket(client)];

/** Waits for so many lines, all of which are the server's name. */
async function grows(lines: readonly string[], count: number): Promise<void> {
  while (lines.length < count && (lines.at(-1) ?? 'server') === 'server')
    await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Connections that stay open, one by each way; `check` ends them and throws if one was interrupted. */
async function holding(): Promise<{ readonly check: () => Promise<void> }> {
  const open = [
    ...clients().map((from) => cluster.begin(from, 'hold', IP, '90', '5000', '10')),
    cluster.begin(cluster.outside, 'hold', cluster.node(0).ipv4, '30490', '5000', '10'),
  ];
  for (const { lines } of open) await grows(lines, 1);
  return {
    check: async () => {
      const before = open.map(({ lines }) => lines.length);
      // Each goes on after all that happened.
      for (const [i, { lines }] of open.entries()) await grows(lines, (before[i] ?? 0) + 5);
      for (const { stop } of open) stop();
      for (const { lines, done } of open) {
        await done;
        expect(new Set(lines)).toEqual(new Set(['server']));
      }
    },
  };
}

const serves = () =>
  clients().every((from) =>
    [IP, OTHER].every((ip) => cluster.who(from, 'tcp', ip, 80, { count: 5 }) === 'server'),
  );

describe('a service', () => {
  it.each(['socket', 'packet'])(
    'CT-5 does not break a connection that gets foreign segments, per %s',
    async (how) => {
      const from = how === 'socket' ? client : perPacket(client);
      const connection = cluster.begin(from, 'hold', IP, '90', '20', '10');
      await connection.done;
      expect(connection.lines).toEqual(Array.from({ length: 20 }, () => 'server'));
    },
  );

  it('CIP-6 goes on while the agent is killed and started, and is as it was', async () => {
    const { agent } = cluster.node(0);
    const state = async () => [await agent.list('services'), await agent.list('backends')];
    const before = await state();
    const held = await holding();
    await agent.kill();
    expect(serves()).toBe(true);
    expect(await agent.start(cluster.scratch)).toMatchObject({ adopted: true, state: 'ready' });
    expect(serves()).toBe(true);
    expect(await state()).toEqual(before);
    await held.check();
  });

  it.runIf(haveCgroup)('with least connections gives each backend as many as the others', async () => {
    const names = ['server', 'second', 'third'];
    for (const name of names.slice(1)) {
      const pod = await cluster.pod(cluster.node(0), name, []);
      pods.push(pod);
      await cluster.server(pod, 'keep', name, '90');
    }
    const annotations = { 'sluice.dev/balancing': 'least-connections' };
    const ports = [{ port: 90 }];
    await cluster.apply(
      service('least', { clusterIP: '10.96.40.3', ports }, { annotations }),
      slice(
        'least',
        pods.map((pod) => ({ pod })),
        { ports },
      ),
    );
    const open: ReturnType<Cluster['begin']>[] = [];
    const connect = async (): Promise<void> => {
      const connection = cluster.begin(client, 'hold', '10.96.40.3', '90', '5000', '10');
      while (connection.lines.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      open.push(connection);
    };
    const of = (name: string) => open.filter(({ lines }) => lines[0] === name);
    for (let i = 0; i < 6; i++) await connect();
    expect(names.map((name) => of(name).length)).toEqual([2, 2, 2]);
    for (const connection of of('second')) {
      connection.stop();
      await connection.done;
      open.splice(open.indexOf(connection), 1);
    }
    for (let i = 0; i < 2; i++) await connect();
    expect(names.map((name) => of(name).length)).toEqual([2, 2, 2]);
    for (const { stop } of open) stop();
    await cluster.drop({ services: ['least'], slices: ['least-4'] });
  });

  it("CIP-8 goes on when somebody flushes the node's packet filters", async () => {
    const { netns } = cluster.node(0);
    const held = await holding();
    const flush = (line: string) => {
      try {
        inside(netns, line);
      } catch {
        // It was not there: nothing to flush.
      }
    };
    inside(netns, 'nft flush ruleset');
    for (const table of ['filter', 'nat', 'mangle', 'raw']) {
      flush(`iptables -t ${table} -F`);
      flush(`ip6tables -t ${table} -F`);
    }
    flush('tc qdisc del dev eth0 clsact');
    flush('tc filter del dev eth0 ingress');
    expect(serves()).toBe(true);
    await held.check();
  });

  // The last one: the revision that the disk had no answer for can't be read.
  it('leaves a backend at once when the disk does not answer', async () => {
    const { agent } = cluster.node(0);
    const gone = { clusterIP: '10.96.40.4', ports: [{ port: 80 }] };
    const server = pods.slice(0, 1).map((pod) => ({ pod }));
    await cluster.apply(service('gone', gone), slice('gone', server));
    expect(cluster.who(client, 'tcp', gone.clusterIP, 80)).toBe('server');
    const { revisions } = await agent.request<History>('GET', '/v1/history');
    const next = String((revisions[0]?.number ?? 0) + 1).padStart(8, '0');
    // Who opens it to write waits until somebody reads.
    const disk = join(agent.folder, 'state', 'history', `${next}.json.tmp`);
    execFileSync('mkfifo', [disk]);
    let isAnswered = false;
    const answer = cluster.apply(slice('gone', [])).then(() => {
      isAnswered = true;
    });
    for (const from of clients()) {
      while (cluster.who(from, 'tcp', gone.clusterIP, 80) !== 'refused')
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(isAnswered).toBe(false);
    expect(readFileSync(disk, 'utf8')).toContain('"name":"gone-4"');
    await answer;
  });
});
