/** Hosts that share an etcd: one network with a part on each, services and policies for all, and the store gone. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EtcdStore, haveEtcd } from '../../bench/lib/etcd.js';
import { documents } from '../e2e/world.js';
import { Cluster, haveCgroup, type NodeOfCluster, type Pod, perPacket } from '../services/cluster.js';
import { ingressPolicy } from './world.js';

const FAMILIES = ['ipv4', 'ipv6'] as const;

describe.skipIf(!haveEtcd)('hosts that share an etcd (skipped without etcd-server)', () => {
  let cluster: Cluster;
  let store: EtcdStore;
  let folder: string;
  let files = 0;

  /** Runs `sluice COMMAND --shared -f` with these documents on a host. */
  function shared(node: NodeOfCluster, command: 'apply' | 'delete', ...objects: object[]): string {
    const file = join(folder, `shared-${files++}.yaml`);
    writeFileSync(file, documents(...objects));
    return node.agent.cli(command, '--shared', '-f', file);
  }

  /** A container in the shared network with a server; the host chooses its addresses. */
  async function container(node: NodeOfCluster, name: string, app: string): Promise<Pod> {
    const netns = cluster.scratch.netns(name);
    await node.agent.apply(
      documents({
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'Container',
        metadata: { name, labels: { app } },
        spec: { netns: { name: netns }, networks: [{ name: 'shop' }] },
      }),
    );
    const leases = JSON.parse(await node.agent.list('leases')) as Record<string, string>[];
    const lease = leases.find((one) => JSON.stringify(one).includes(`default/${name}`)) as unknown as Pod;
    const pod: Pod = {
      name,
      netns,
      node: node.name,
      ipv4: lease.ipv4,
      ipv6: lease.ipv6,
      ...(node.group === undefined ? {} : { group: node.group }),
    };
    await cluster.serve(pod, name, [80]);
    return pod;
  }

  /** Waits until the answer is the one; what one host does the others do a moment later. */
  async function eventually(expected: string, ...question: Parameters<Cluster['who']>): Promise<void> {
    let last = '';
    for (const deadline = Date.now() + 15_000; Date.now() < deadline; ) {
      last = cluster.who(...question);
      if (last === expected) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(last, `${JSON.stringify(question.slice(1))}`).toBe(expected);
  }

  beforeAll(async () => {
    const settings = {
      nodeRouting: 'overlay',
      podCidrs: ['10.60.0.0/16', 'fd60::/64'],
      etcd: { endpoints: ['http://198.51.100.9:2379'], leaseSeconds: 60 },
    };
    cluster = new Cluster('slne', 3, Array(3).fill(settings), { fabric: false });
    folder = cluster.scratch.folder(mkdtempSync(join(tmpdir(), 'slne-etcd-')));
    const { ipv4: address, netns } = cluster.outside;
    store = new EtcdStore(cluster.scratch, { folder, address, ports: [2379, 2380], netns });
    await store.start();
    await Promise.all(cluster.nodes.map(({ agent }) => agent.start(cluster.scratch, { seconds: 60 })));
  });

  afterAll(() => cluster.close());

  it('gives each host a part of a network, and reaches and governs containers of all; a store that is away stops nothing', async () => {
    const [first, second, third] = cluster.nodes as [NodeOfCluster, NodeOfCluster, NodeOfCluster];
    const said = shared(
      first,
      'apply',
      {
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'Network',
        metadata: { name: 'shop' },
        spec: { ipv4: { cidr: '10.60.0.0/16' }, ipv6: { cidr: 'fd60::/64' } },
      },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'web' },
        spec: {
          selector: { app: 'web' },
          clusterIP: '10.96.0.60',
          clusterIPs: ['10.96.0.60', 'fd00:96::60'],
          ipFamilyPolicy: 'RequireDualStack',
          ports: [{ port: 8000, targetPort: 80 }],
        },
      },
      ingressPolicy('web', 'web', [{ from: [{ podSelector: { matchLabels: { app: 'client' } } }] }]),
    );
    expect(said).toContain('created');
    const network = async ({ agent }: NodeOfCluster): Promise<string> => {
      for (const deadline = Date.now() + 15_000; ; await new Promise((resolve) => setTimeout(resolve, 20))) {
        const text = await agent.list('networks');
        if (text !== '[]' || Date.now() > deadline) return text;
      }
    };
    const ranges = await Promise.all(cluster.nodes.map(network));
    expect(new Set(ranges.map((text) => /10\.60\.\d+\.\d+\/26/.exec(text)?.[0])).size).toBe(3);

    const web = await container(first, 'web', 'web');
    const client = await container(second, 'client', 'client');
    const stranger = await container(third, 'stranger', 'other');
    for (const family of FAMILIES) {
      await eventually('web', client, 'tcp', web[family], 80);
      expect(cluster.ask(client, 'tcp', web[family], 80)).toMatchObject([{ seen: client[family] }]);
      await eventually('client', stranger, 'tcp', client[family], 80);
      expect(cluster.who(stranger, 'tcp', web[family], 80)).toBe('timeout');
    }
    for (const address of ['10.96.0.60', 'fd00:96::60']) {
      await eventually('web', perPacket(client), 'tcp', address, 8000);
      if (haveCgroup) await eventually('web', client, 'tcp', address, 8000);
    }

    expect(() =>
      shared(second, 'apply', {
        apiVersion: 'sluice.dev/v1alpha1',
        kind: 'Container',
        metadata: { name: 'x' },
        spec: { netns: { name: 'x' }, networks: [{ name: 'shop' }] },
      }),
    ).toThrow(/Container default\/x cannot be shared.*SLU6105/);

    // Without the store: what is in force stays, and what a host does for itself works.
    store.stop();
    expect(cluster.who(client, 'tcp', web.ipv4, 80)).toBe('web');
    expect(cluster.who(stranger, 'tcp', web.ipv6, 80)).toBe('timeout');
    const late = await container(third, 'late', 'client');
    expect(cluster.who(third, 'tcp', late.ipv4, 80)).toBe('late');
    expect(() => shared(first, 'delete', ingressPolicy('web', 'web', []))).toThrow(/SLU6101/);

    await store.start();
    await eventually('web', late, 'tcp', web.ipv4, 80);
    shared(first, 'delete', ingressPolicy('web', 'web', []));
    await eventually('web', stranger, 'tcp', web.ipv4, 80);
    expect(cluster.who(stranger, 'tcp', web.ipv6, 80)).toBe('web');

    // An agent that starts again has the same part; a container that goes is forgotten by all.
    await second.agent.kill();
    await second.agent.start(cluster.scratch, { seconds: 60 });
    expect(cluster.who(web, 'tcp', client.ipv4, 80)).toBe('client');
    const again = await container(second, 'again', 'web');
    await eventually('again', stranger, 'tcp', again.ipv6, 80);
    first.agent.cli('delete', 'container', 'web');
    await eventually('again', perPacket(stranger), 'tcp', '10.96.0.60', 8000);
  });
});
