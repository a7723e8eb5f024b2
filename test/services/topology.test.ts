import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster, type Pod, perPacket, service, slice } from './cluster.js';

/** Endpoints near by (shared/conformance/services/behaviours.json, by id): four nodes in three zones, an agent each. */

const ZONES = ['east', 'east', 'west', 'north'] as const;
let cluster: Cluster;
let servers: Pod[];
let clients: Pod[];

beforeAll(async () => {
  cluster = new Cluster(
    'sltop',
    ZONES.length,
    ZONES.map((zone) => ({ zone })),
  );
  await cluster.start();
  servers = [];
  clients = [];
  for (const node of cluster.nodes) {
    if (node.index < 3) servers.push(await cluster.pod(node, `s${node.index}`, [80]));
    clients.push(await cluster.pod(node, `c${node.index}`, []));
  }
});
afterAll(() => cluster.close());

/** Who answers the client of each node, at sockets and per packet. */
function answers(address: string): string[] {
  return clients.map((client) => {
    const found = [client, perPacket(client)].map((from) =>
      cluster.who(from, 'tcp', address, 80, { count: 24 }),
    );
    return [...new Set(found)].join(' or ');
  });
}

describe.each(['PreferClose', 'PreferSameZone'])('trafficDistribution %s', (trafficDistribution) => {
  const ip = trafficDistribution === 'PreferClose' ? '10.96.50.1' : '10.96.50.2';
  const name = trafficDistribution.toLowerCase();
  const define = (chosen: readonly number[], hints: boolean) =>
    cluster.apply(
      service(name, { clusterIP: ip, trafficDistribution, ports: [{ port: 80 }] }),
      slice(
        name,
        chosen.map((i) => ({
          pod: servers[i] as Pod,
          zone: ZONES[i] as string,
          ...(hints ? { hints: [ZONES[i] as string] } : {}),
        })),
      ),
    );

  // The hints of the EndpointSlice controller, and without it those that it would give.
  it.each([true, false])(
    'TD-1 TD-3 stays in the zone where there is an endpoint (hints: %s)',
    async (hints) => {
      await define([0, 2], hints);
      expect(answers(ip)).toEqual(['s0', 's0', 's2', 's0 s2']);
    },
  );

  it('TD-2 uses the endpoints of all nodes of the zone', async () => {
    await define([0, 1, 2], true);
    expect(answers(ip)).toEqual(['s0 s1', 's0 s1', 's2', 's0 s1 s2']);
  });
});

describe('hints', () => {
  it('are followed only if every ready endpoint has one', async () => {
    await cluster.apply(
      service('partly', { clusterIP: '10.96.50.3', ports: [{ port: 80 }] }),
      slice('partly', [
        { pod: servers[0] as Pod, zone: 'east', hints: ['east'] },
        { pod: servers[2] as Pod, zone: 'west' },
      ]),
    );
    expect(answers('10.96.50.3')).toEqual(['s0 s2', 's0 s2', 's0 s2', 's0 s2']);
  });
});
