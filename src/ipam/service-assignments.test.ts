import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ServiceResource } from '../../policy/model/service.js';
import { parseSources } from '../../policy/schema/parse.js';
import { Assignments } from './service-assignments.js';

let folder: string;
let assignments: Assignments;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-assign-'));
  assignments = Assignments.open(folder, {
    serviceCidrs: ['10.96.0.0/16'],
    nodePorts: { min: 30_000, max: 30_100 },
  });
});
afterEach(() => {
  assignments.close();
  rmSync(folder, { recursive: true });
});

function balancer(
  name: string,
  healthCheckNodePort: number,
  nodePort: number,
  protocol = 'TCP',
): ServiceResource {
  const text = JSON.stringify({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: {
      type: 'LoadBalancer',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort,
      ports: [{ port: 80, protocol, nodePort }],
    },
  });
  const { resources } = parseSources([{ file: `${name}.json`, text }]);
  return resources[0] as ServiceResource;
}

describe('the port of a health check', () => {
  it.each([
    [
      'one of its own node ports',
      30_001,
      30_001,
      'TCP',
      'already the one of service default/web (web.json:1)',
    ],
    ['the node port of another service', 30_002, 30_003, 'TCP', 'already the one of service default/other'],
    [
      'the health check of another service',
      30_004,
      30_003,
      'TCP',
      'already the one of service default/other',
    ],
    ['outside of the range of node ports', 30_101, 30_003, 'TCP', 'outside of 30000-30100'],
  ])('is refused if it is %s', (_, health, node, protocol, reason) => {
    assignments.assign(balancer('other', 30_004, 30_002));
    const web = balancer('web', health, node, protocol);
    expect(() => assignments.assign(web)).toThrow(reason);
    // Nothing of it is taken.
    expect(assignments.assign(balancer('next', 30_001, 30_003)).assigned.healthPort).toBe(30_001);
  });

  it('may have the number of a node port of another protocol', () => {
    const { assigned } = assignments.assign(balancer('web', 30_001, 30_001, 'UDP'));
    expect([assigned.healthPort, ...assigned.nodePorts]).toEqual([30_001, 30_001]);
  });
});
