/** An agent with exactly the rights that the manifests give: it does all of its work, and needs all of them. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { networkPolicy, service, slice } from '../kubernetes/objects.js';
import type { Target } from '../kubernetes/resources.js';
import { until } from '../kubernetes/support.js';
import { KubernetesWorld } from '../kubernetes/world.js';
import type { Pod } from '../services/cluster.js';
import { build } from './kustomize.js';
import { capabilitiesOf, rulesOf } from './rights.js';

const manifests = build('deploy/kustomize/base');
const rules = new Set(rulesOf(manifests));
const capabilities = capabilitiesOf(manifests);

/** As a container runtime: nothing beyond these, and nothing can be had again. */
const bounding = ['-all', ...capabilities.map((name) => `+${name.toLowerCase()}`)].join();
const command = ['setpriv', `--bounding-set=${bounding}`, '--inh-caps=-all', '--no-new-privs', '--'];

const rightOf = (verb: string, { type, subresource }: Target): string => {
  const resource = `${type.plural}${subresource === undefined ? '' : `/${subresource}`}`;
  return `${verb} ${resource}${type.group === '' ? '' : `.${type.group}`}`;
};

let world: KubernetesWorld;
let client: Pod;
let web: Pod;

beforeAll(async () => {
  const allowed = (verb: string, target: Target): boolean => rules.has(rightOf(verb, target));
  world = new KubernetesWorld('slrt', 1, {}, { command, api: { allowed } });
  await world.start();
  const [node] = world.cluster.nodes;
  if (node === undefined) throw new Error('no node');
  await until('the network', () => existsSync(world.confDir(node)));
  client = await world.pod(node, 'client');
  web = await world.pod(node, 'web');
});

afterAll(() => world?.close());

const answer = (address: string, port = 80): string => world.cluster.who(client, 'tcp', address, port);

describe('an agent with the rights of the manifests', () => {
  it('has these capabilities and no others', () => {
    const [node] = world.cluster.nodes;
    const status = readFileSync(`/proc/${node?.agent.pid}/status`, 'utf8');
    const bits = { NET_BIND_SERVICE: 10, NET_ADMIN: 12, NET_RAW: 13, SYS_ADMIN: 21, PERFMON: 38, BPF: 39 };
    const mask = capabilities.reduce(
      (sum, name) => sum | (1n << BigInt(bits[name as keyof typeof bits])),
      0n,
    );
    for (const set of ['CapPrm', 'CapEff', 'CapBnd'])
      expect(BigInt(`0x${new RegExp(`${set}:\\s*([0-9a-f]+)`).exec(status)?.[1]}`), set).toBe(mask);
    expect(status).toMatch(/NoNewPrivs:\s*1/);
  });

  it('makes pods, enforces policies and serves services', async () => {
    expect([answer(web.ipv4), answer(web.ipv6)]).toEqual(['web', 'web']);
    const spec = { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'] };
    world.api.put('NetworkPolicy', networkPolicy('closed', spec));
    await until('the policy', () => answer(web.ipv4) === 'timeout');
    world.api.remove('NetworkPolicy', 'default/closed');
    await until('no policy', () => answer(web.ipv4) === 'web');
    world.api.put('Service', service('web', ['10.96.0.77'], [{ name: 'http', port: 80 }]));
    const ends = [{ ip: web.ipv4, node: 'node0' }];
    world.api.put('EndpointSlice', slice('web-1', 'web', ends, [{ name: 'http', port: 80 }]));
    await until('the service', () => answer('10.96.0.77') === 'web');
  });

  it('asks the API for what it may, and uses every right', async () => {
    const [node] = world.cluster.nodes;
    if (node === undefined) throw new Error('no node');
    // A pod that the watch has not told of yet.
    world.api.faults.stalled = true;
    await world.pod(node, 'quick', { serve: [] });
    world.api.faults.stalled = false;
    world.api.cut();
    const block = [{ from: [{ ipBlock: { cidr: '10.0.0.0/40' } }] }];
    world.api.put('NetworkPolicy', networkPolicy('bad', { podSelector: {}, ingress: block }));
    const rule = { action: 'Accept', from: [{ namespaces: {} }] };
    world.api.put('ClusterNetworkPolicy', {
      metadata: { name: 'calm' },
      spec: { tier: 'Admin', priority: 10, subject: { namespaces: {} }, ingress: [rule] },
    });
    world.api.put('Network', { metadata: { name: 'more' }, spec: { ipv4: { cidr: '10.222.0.0/24' } } });
    world.api.put('HostPolicy', {
      metadata: { name: 'lenient' },
      spec: { subject: { interface: 'eth0' }, ingress: [{ action: 'Accept' }] },
    });
    const used = (): string[] =>
      [
        ...new Set(
          world.api.audit.filter(({ code }) => code < 400).map((one) => `${one.verb} ${one.resource}`),
        ),
      ].sort();
    const wanted = [...rules].sort();
    await until('every right', () => wanted.every((right) => used().includes(right))).catch(() => undefined);
    expect(used()).toEqual(wanted);
    expect(world.api.audit.filter(({ code }) => code === 403)).toEqual([]);
    for (const [kind, name] of [
      ['ClusterNetworkPolicy', 'calm'],
      ['Network', 'more'],
      ['HostPolicy', 'lenient'],
    ] as const)
      expect(world.api.get(kind, name)?.status?.conditions, kind).toMatchObject([
        { type: 'Accepted', status: 'True' },
      ]);
    expect(readFileSync(join(world.confDir(node), '10-sluice.conflist'), 'utf8')).toContain('sluice-cni');
  });
});
