import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster, type Pod, perPacket, service, slice } from './cluster.js';

/**
 * Behaviours of cluster addresses (shared/conformance/services/behaviours.json, by id) with real sockets, two nodes.
 * Each is seen by sockets in the cgroup, which are translated when they connect, and per packet.
 */

let cluster: Cluster;
let a: Pod;
let b: Pod;
let client: Pod;
let remote: Pod;

beforeAll(async () => {
  cluster = new Cluster('slcip', 2);
  await cluster.start();
  a = await cluster.pod(cluster.node(0), 'a', [80, 81]);
  b = await cluster.pod(cluster.node(1), 'b', [80, 81]);
  client = await cluster.pod(cluster.node(0), 'client', []);
  remote = await cluster.pod(cluster.node(1), 'remote', []);
});
afterAll(() => cluster.close());

describe.each(['socket', 'packet'])('cluster addresses, translated per %s', (how) => {
  const via = (pod: Pod) => (how === 'socket' ? pod : perPacket(pod));
  const suffix = how === 'socket' ? 1 : 2;

  it('CIP-1 serves exactly the ready endpoints, and refuses when there are none', async () => {
    const ip = `10.96.1.${suffix}`;
    await cluster.apply(service('one', { clusterIP: ip }));
    for (const from of [client, remote]) expect(cluster.who(via(from), 'tcp', ip, 80)).toBe('refused');
    await cluster.apply(slice('one', [{ pod: a }]));
    for (const from of [client, remote])
      expect(cluster.who(via(from), 'tcp', ip, 80, { count: 8 })).toBe('a');
    await cluster.apply(slice('one', [{ pod: a }, { pod: b }]));
    for (const from of [client, remote]) {
      expect(cluster.who(via(from), 'tcp', ip, 80, { count: 40 })).toBe('a b');
    }
    await cluster.apply(slice('one', [{ pod: a, ready: false }, { pod: b }]));
    for (const from of [client, remote])
      expect(cluster.who(via(from), 'tcp', ip, 80, { count: 20 })).toBe('b');
    await cluster.apply(slice('one', []));
    for (const from of [client, remote]) expect(cluster.who(via(from), 'tcp', ip, 80)).toBe('refused');
    cluster.remove(['service', 'one'], ['endpointslice', 'one-4']);
  });
});
