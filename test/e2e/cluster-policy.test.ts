/** ClusterNetworkPolicies through a real agent: tiers, the reported rule, the listing, folder and API alike. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { allowIngress, container, documents, network, World } from './world.js';

let world: World;
beforeEach(() => {
  world = new World('slcp');
});
afterEach(() => world.close());

const namespaced = (matchLabels: object): object => ({ namespaces: { matchLabels } });

function cluster(name: string, tier: string, priority: number, ingress: readonly object[]): object {
  return {
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterNetworkPolicy',
    metadata: { name },
    spec: { tier, priority, subject: { namespaces: {} }, ingress },
  };
}

it('decides before and after NetworkPolicies, and names its rule', async () => {
  const [db, app] = ['db', 'app'].map((role) => world.container(role)) as [string, string];
  await world.agent.start(world.scratch);
  const { agent } = world;
  const labels = (name: string, team: string): object => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name, labels: { team } },
  });
  await agent.apply(
    documents(
      labels('shop', 'shop'),
      network('net', 67),
      container({
        name: 'db',
        netns: db,
        networks: [{ name: 'net', ipv4: '10.67.0.10' }],
        labels: { app: 'db' },
      }),
      container({ name: 'app', netns: app, namespace: 'shop', networks: ['net'] }),
    ),
  );
  await world.traffic(db, 'tcp-server', '0.0.0.0', 5432, 30);
  const reach = (): Promise<string> => world.probe(app, '10.67.0.10', 5432, 250);
  const put = (file: string, ...objects: readonly object[]): string => {
    const path = join(agent.folder, file);
    writeFileSync(path, documents(...objects));
    agent.cli('apply', '-f', path);
    return path;
  };
  expect(await reach()).toBe('open');

  // Baseline holds as long as no NetworkPolicy isolates the container.
  const peers = { from: [namespaced({ team: 'shop' })] };
  put('base.yaml', cluster('base', 'Baseline', 10, [{ name: 'no shop', action: 'Deny', ...peers }]));
  expect(await reach()).toBe('timeout');
  expect(agent.cli('drops')).toContain('ClusterNetworkPolicy base, ingress rule 0 "no shop" (');
  const policy = allowIngress('db', 'db', []) as { spec: { ingress: unknown[] } };
  policy.spec.ingress = [{ from: [{ namespaceSelector: { matchLabels: { team: 'shop' } } }] }];
  put('policy.yaml', policy);
  expect(await reach()).toBe('open');

  // Admin comes first; a Pass before it leaves the NetworkPolicy to decide.
  put('admin.yaml', cluster('stop', 'Admin', 5, [{ action: 'Deny', ...peers }]));
  expect(await reach()).toBe('timeout');
  const pass = put('pass.yaml', cluster('pass', 'Admin', 1, [{ action: 'Pass', ...peers }]));
  expect(await reach()).toBe('open');
  expect(
    agent
      .cli('get', 'policies')
      .trim()
      .split('\n')
      .map((line) => line.split(/ {2,}/).slice(0, 3).join(' ')),
  ).toEqual([
    'NAMESPACE NAME TIER',
    '- pass Admin 1',
    '- stop Admin 5',
    '- base Baseline 10',
    'default db NetworkPolicy',
  ]);
  agent.cli('delete', '-f', pass);
  expect(await reach()).toBe('timeout');
  agent.cli('delete', 'cnp', 'stop');
  expect(await reach()).toBe('open');

  // The peers follow the labels of namespaces.
  agent.cli('delete', 'netpol', 'default/db');
  expect(await reach()).toBe('timeout');
  put('shop.yaml', labels('shop', 'other'));
  expect(await reach()).toBe('open');
});
