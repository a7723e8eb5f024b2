import { expect, it } from 'vitest';
import type { PodResource } from '../../policy/model/resources.js';
import type { ServiceResource } from '../../policy/model/service.js';
import { Lines } from './client.js';
import { networkWithBlocks, readDocument, slicesOf } from './documents.js';

const pod = (name: string, app: string, ip: string): PodResource =>
  readDocument(
    '/k',
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'shop', labels: { app } },
      spec: { nodeName: 'b', containers: [{ ports: [{ name: 'http', containerPort: 8080 }] }] },
      status: { podIPs: [{ ip }] },
    }),
  ) as PodResource;

it('names the key of what it does not understand', () => {
  expect(() => readDocument('/sluice/objects/Network/_/x', '{"kind": "Network"')).toThrow(
    /the shared object \/sluice\/objects\/Network\/_\/x is ignored/,
  );
});

it("puts this host's part into a network, without the gateway of the whole", () => {
  const text = JSON.stringify({
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Network',
    metadata: { name: 'shop' },
    spec: { mtu: 1400, ipv4: { cidr: '10.60.0.0/16', gateway: '10.60.0.1' } },
  });
  expect(readDocument('/k', networkWithBlocks(text, { ipv4: '10.60.1.64/26' }))).toMatchObject({
    mtu: 1400,
    ipv4: { cidr: '10.60.1.64/26', gateway: '10.60.1.65' },
  });
});

it('finds containers of other hosts for a service, with the number of a named port', () => {
  const service = readDocument(
    '/k',
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: 'shop' },
      spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 'http' }] },
    }),
  ) as ServiceResource;
  const pods = [pod('a', 'web', '10.60.0.2'), pod('b', 'web', 'fd60::2'), pod('c', 'db', '10.60.0.3')];
  const slices = [...slicesOf(service, pods).values()];
  expect(slices).toMatchObject([
    {
      addressType: 'IPv4',
      ports: [{ port: 8080 }],
      endpoints: [{ addresses: ['10.60.0.2'], nodeName: 'b' }],
    },
    { addressType: 'IPv6', endpoints: [{ addresses: ['fd60::2'] }] },
  ]);
  for (const slice of slices) expect(() => readDocument('/k', JSON.stringify(slice))).not.toThrow();
});

it('cuts a stream into lines wherever its pieces end', () => {
  const lines: string[] = [];
  const cut = new Lines((line) => lines.push(line));
  for (const piece of ['{"a"', ':1}\n{"b":2}\n', '\n{"c', '":3}', '\n']) cut.add(Buffer.from(piece));
  expect(lines).toEqual(['{"a":1}', '{"b":2}', '{"c":3}']);
});
