/** Two nodes of a cluster: real agents, CNI and packets, and a stand-in for the API server. */
import { existsSync, readdirSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Pod } from '../services/cluster.js';
import { networkPolicy, pod as podObject, service, slice } from './objects.js';
import { until } from './support.js';
import { KubernetesWorld } from './world.js';

let world: KubernetesWorld;
let client: Pod;
let web: Pod;

beforeAll(async () => {
  world = new KubernetesWorld('slk8', 2);
  await world.start();
  const [first, second] = [world.cluster.node(0), world.cluster.node(1)];
  await until('the networks', () => existsSync(world.confDir(first)) && existsSync(world.confDir(second)));
  client = await world.pod(first, 'client');
  web = await world.pod(second, 'web', { ports: [{ name: 'http', containerPort: 80 }], serve: [80, 81] });
});

afterAll(() => world?.close());

/** Whether a new connection gets an answer, in each family. Shorter than a second: a SYN that is lost is not sent again. */
function reaches(from: Pod, to: Pod, port = 80, timeoutMs = 950): string {
  const ask = (address: string): string => world.cluster.who(from, 'tcp', address, port, { timeoutMs });
  const answers = [ask(to.ipv4), ask(to.ipv6)];
  return answers.every((answer) => answer === to.name)
    ? 'yes'
    : answers.every((answer) => answer === 'timeout')
      ? 'no'
      : answers.join(' and ');
}

async function becomes(expected: 'yes' | 'no', from: Pod, to: Pod, port = 80): Promise<void> {
  await until(`${from.name} to ${to.name}: ${expected}`, () => reaches(from, to, port, 300) === expected);
}

const allow = (app: string, from: object, ports?: readonly object[]): Record<string, unknown> => ({
  podSelector: { matchLabels: { app } },
  policyTypes: ['Ingress'],
  ingress: [{ from: [{ podSelector: from }], ...(ports === undefined ? {} : { ports }) }],
});

describe('a node of a cluster', () => {
  it('gives its pods addresses of its podCIDRs, and tells runtime and cluster when it can', async () => {
    expect(client.ipv4).toMatch(/^10\.80\.0\./);
    expect(web.ipv6).toMatch(/^fd81::/);
    expect(readdirSync(world.confDir(world.cluster.node(0)))).toEqual(['10-sluice.conflist']);
    const condition = (name: string): unknown =>
      (world.api.get('Node', name)?.status?.conditions as { type: string }[] | undefined)?.find(
        ({ type }) => type === 'NetworkUnavailable',
      );
    await until('the condition', () => condition('node0') !== undefined && condition('node1') !== undefined);
    expect(condition('node1')).toMatchObject({ status: 'False', reason: 'SluiceIsUp' });
    const ready = '[+]agent ok\n[+]synced ok\n[+]pod network ok\n';
    expect(world.probe(world.cluster.node(0), '/readyz')).toBe(ready);
    expect(world.probe(world.cluster.node(0), '/livez')).toBe('[+]changes ok\n');
    expect(world.probe(world.cluster.node(0), '/metrics')).toContain(
      'sluice_kubernetes_synced{collection="nodes"} 1',
    );
  });

  it('lets pods of two nodes reach each other, and policies decide by their labels', async () => {
    expect(reaches(client, web)).toBe('yes');
    world.api.put('NetworkPolicy', networkPolicy('web', allow('web', { matchLabels: { role: 'friend' } })));
    await becomes('no', client, web);
    // The sender is a pod of another node for the one that decides.
    world.relabel('client', { app: 'client', role: 'friend' });
    await becomes('yes', client, web);
    world.relabel('client', { app: 'client' });
    await becomes('no', client, web);
    // And the receiver a pod of this node.
    world.relabel('web', { app: 'other' });
    await becomes('yes', client, web);
    world.relabel('web', { app: 'web' });
    await becomes('no', client, web);
    world.api.remove('NetworkPolicy', 'default/web');
    await becomes('yes', client, web);
  });

  it('knows named ports, of its own pods and of others', async () => {
    const ports = [{ port: 'http', protocol: 'TCP' }];
    world.api.put('NetworkPolicy', networkPolicy('in', allow('web', {}, ports)));
    await becomes('no', client, web, 81);
    expect(reaches(client, web, 80)).toBe('yes');
    world.api.remove('NetworkPolicy', 'default/in');
    await becomes('yes', client, web, 81);
    const egress = [{ to: [{ podSelector: {} }], ports }];
    const spec = { podSelector: { matchLabels: { app: 'client' } }, policyTypes: ['Egress'], egress };
    world.api.put('NetworkPolicy', networkPolicy('out', spec));
    await becomes('no', client, web, 81);
    expect(reaches(client, web, 80)).toBe('yes');
    world.api.remove('NetworkPolicy', 'default/out');
    await becomes('yes', client, web, 81);
  });

  it('counts a terminating pod, and neither one that has ended nor one with the address of its node', async () => {
    const spec = allow('web', { matchLabels: { app: 'ghost' } });
    world.api.put('NetworkPolicy', networkPolicy('web', spec));
    await becomes('no', client, web);
    const ips = [client.ipv4, client.ipv6];
    const ghost = { name: 'client', node: 'node0', ips, labels: { app: 'ghost' } };
    const put = (more: object): unknown => world.api.put('Pod', podObject({ ...ghost, ...more }));
    put({ terminating: true });
    await becomes('yes', client, web);
    put({ phase: 'Failed' });
    await becomes('no', client, web);
    put({ hostNetwork: true });
    world.api.put('NetworkPolicy', networkPolicy('mark', { podSelector: { matchLabels: { app: 'none' } } }));
    expect(reaches(client, web)).toBe('no');
    put({ labels: { app: 'client' } });
    world.api.remove('NetworkPolicy', 'default/web');
    world.api.remove('NetworkPolicy', 'default/mark');
    await becomes('yes', client, web);
  });

  it('keeps labels that pass only while a policy asks for them', async () => {
    const passing = { 'statefulset.kubernetes.io/pod-name': 'client' };
    world.relabel('client', { app: 'client', ...passing });
    world.api.put('NetworkPolicy', networkPolicy('web', allow('web', { matchLabels: passing })));
    world.api.put('NetworkPolicy', networkPolicy('two', allow('web', { matchLabels: { app: 'nobody' } })));
    await becomes('yes', client, web);
    world.relabel('client', { app: 'client', 'statefulset.kubernetes.io/pod-name': 'another' });
    await becomes('no', client, web);
    world.api.remove('NetworkPolicy', 'default/web');
    world.api.remove('NetworkPolicy', 'default/two');
    world.relabel('client', { app: 'client' });
    await becomes('yes', client, web);
  });

  it('balances services over the endpoints that the cluster names, wherever they are', async () => {
    const address = '10.96.0.50';
    world.api.put('Service', service('web', [address], [{ name: 'http', port: 80, targetPort: 'http' }]));
    const ends = (ready: boolean): unknown =>
      world.api.put(
        'EndpointSlice',
        slice('web-1', 'web', [{ ip: web.ipv4, node: 'node1', ready }], [{ name: 'http', port: 80 }]),
      );
    ends(true);
    await until('the service', () => world.cluster.who(client, 'tcp', address, 80) === 'web');
    ends(false);
    await until('no endpoint', () => world.cluster.who(client, 'tcp', address, 80) === 'refused');
    world.api.remove('EndpointSlice', 'default/web-1');
    world.api.remove('Service', 'default/web');
  });

  it('reports what it can not apply, applies the rest, and takes the status of policies', async () => {
    const events = (): unknown[] => world.api.list('Event').map((event) => event.message);
    const bad = {
      podSelector: {},
      policyTypes: ['Ingress'],
      ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/40' } }] }],
    };
    world.api.put('NetworkPolicy', networkPolicy('bad', bad));
    world.api.put('NetworkPolicy', networkPolicy('good', allow('web', { matchLabels: { app: 'nobody' } })));
    await becomes('no', client, web);
    await until('the event', () => events().length > 0);
    expect(events()).toHaveLength(1);
    expect(events()[0]).toContain('10.0.0.0/40');
    const status = await world.cluster.node(0).agent.status();
    expect(status.problems).toMatchObject([{ code: 'SLU6210' }]);
    world.api.remove('NetworkPolicy', 'default/bad');
    world.api.remove('NetworkPolicy', 'default/good');
    await becomes('yes', client, web);

    world.api.put('ClusterNetworkPolicy', {
      metadata: { name: 'calm' },
      spec: {
        tier: 'Admin',
        priority: 10,
        subject: { namespaces: {} },
        ingress: [{ action: 'Accept', from: [{ namespaces: {} }] }],
      },
    });
    const accepted = (): unknown => world.api.get('ClusterNetworkPolicy', 'calm')?.status?.conditions;
    await until('the status', () => accepted() !== undefined);
    expect(accepted()).toMatchObject([{ type: 'Accepted', status: 'True', observedGeneration: 1 }]);
    world.api.remove('ClusterNetworkPolicy', 'calm');
  });

  it('makes no container for a pod that the cluster does not know', async () => {
    const made = world.pod(world.cluster.node(0), 'stranger', { serve: [], unknown: true });
    await expect(made).rejects.toThrow('pod default/stranger is not known to the API server yet');
  });
});

describe('without the API', () => {
  it('CIP-7 services stay while the API restarts, and new ones come after it', async () => {
    const ports = [{ name: 'http', port: 80 }];
    const define = (name: string, address: string): void => {
      world.api.put('Service', service(name, [address], [{ name: 'http', port: 80 }]));
      const ends = [{ ip: web.ipv4, node: 'node1' }];
      world.api.put('EndpointSlice', slice(`${name}-1`, name, ends, ports));
    };
    const who = (address: string): string => world.cluster.who(client, 'tcp', address, 80, { count: 5 });
    define('lives', '10.96.0.60');
    world.relabel('client', { app: 'client' });
    await until('the service', () => who('10.96.0.60') === 'web', 60_000);
    await world.api.goAway();
    expect(who('10.96.0.60')).toBe('web');
    await world.api.listen();
    define('comes', '10.96.0.61');
    await until(
      'the new service',
      () => {
        expect(who('10.96.0.60')).toBe('web');
        return who('10.96.0.61') === 'web';
      },
      60_000,
    );
    for (const name of ['lives', 'comes']) {
      world.api.remove('EndpointSlice', `default/${name}-1`);
      world.api.remove('Service', `default/${name}`);
    }
  });

  it('traffic and policies stay, a restart does not touch them, and what happened meanwhile is caught up', async () => {
    const node = world.cluster.node(1);
    world.api.put('NetworkPolicy', networkPolicy('web', allow('web', { matchLabels: { app: 'client' } })));
    const stranger = await world.pod(world.cluster.node(0), 'other');
    await becomes('no', stranger, web);
    const flow = world.cluster.begin(client, 'ask', 'tcp', web.ipv4, '80', '1', '300');
    await flow.done;

    await world.api.goAway();
    expect([reaches(client, web), reaches(stranger, web)]).toEqual(['yes', 'no']);
    await node.agent.kill();
    expect([reaches(client, web), reaches(stranger, web)]).toEqual(['yes', 'no']);
    const started = world.startAgent(node);
    await until(
      'an agent that waits',
      () => world.probe(node, '/readyz').includes('[-]synced failed: '),
      30_000,
    );
    expect([reaches(client, web), reaches(stranger, web)]).toEqual(['yes', 'no']);
    expect(world.probe(node, '/livez')).toBe('[+]changes ok\n');

    world.relabel('other', { app: 'client' });
    world.api.store.compact();
    await world.api.listen();
    await started;
    await becomes('yes', stranger, web);
    expect(reaches(client, web)).toBe('yes');
  });

  it('an agent that has lived through it has the same maps as a fresh one, byte for byte', async () => {
    const node = world.cluster.node(1);
    // Faults of all kinds, with changes in between.
    for (let i = 0; i < 6; i++) {
      world.api.put(
        'NetworkPolicy',
        networkPolicy(`p${i % 3}`, allow('web', { matchLabels: { [`k${i}`]: 'v' } })),
      );
      world.relabel('other', { app: 'client', [`k${i}`]: 'v' });
      if (i % 2 === 0) world.api.cut();
      else world.api.store.compact();
      if (i === 3) world.api.faults.refuse = { match: 'watch=true', code: 500, count: 4 };
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    world.api.remove('NetworkPolicy', 'default/p1');
    await world.api.goAway();
    world.api.put('Namespace', { metadata: { name: 'late', labels: { when: 'later' } } });
    await world.api.listen();
    await until('all of it', () => world.probe(node, '/metrics').includes('sluice_kubernetes_objects 1'));
    const lived = await world.settled(node);
    expect(await world.fresh(node)).toEqual(lived);
  });
});
