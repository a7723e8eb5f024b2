import { describe, expect, it } from 'vitest';
import { ServiceCompiler } from '../../policy/services/compiler.js';
import { created, read } from '../../test/lib/definitions.js';
import { defaultConfig } from '../config-file.js';
import { ServicesAhead } from './ahead.js';
import { nodeContext, serviceCapacity } from './node-context.js';

const CONFIG = defaultConfig('');

const compiler = (config = CONFIG): ServiceCompiler =>
  new ServiceCompiler(serviceCapacity(config), nodeContext(config, []));

const service = (name: string, spec: object): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name },
  spec: { ports: [{ port: 80 }], ...spec },
});
const slice = (service: string, address: string): object => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name: `${service}-1`, labels: { 'kubernetes.io/service-name': service } },
  addressType: 'IPv4',
  ports: [{ port: 8080 }],
  endpoints: [{ addresses: [address] }],
});

describe('services that are worked out ahead', () => {
  const definitions = read(
    service('web', { clusterIP: '10.96.0.1' }),
    service('open', {}),
    service('outside', { clusterIP: '10.96.0.2', type: 'NodePort' }),
    service('shared', { clusterIP: '10.96.0.3', externalIPs: ['192.0.2.1'] }),
    service('headless', { clusterIP: 'None' }),
    slice('web', '10.0.0.1'),
    slice('open', '10.0.0.2'),
  );

  it('are those that leave nothing open, with all endpoints', () => {
    const ahead = ServicesAhead.of(compiler(), definitions);
    expect(definitions.filter((one) => ahead?.has(one)).map(({ name }) => name)).toEqual([
      'web',
      'web-1',
      'open-1',
    ]);
    expect([...(ahead?.delta.frontends.keys() ?? [])]).toEqual(['10.96.0.1 80 6', '10.96.0.1 0 0']);
    expect(ahead?.delta.members.map(({ text }) => text)).toEqual(['10.0.0.1 8080 6']);
  });

  it('are taken by a change that brings all of them', () => {
    const ahead = ServicesAhead.of(compiler(), definitions);
    const edits = created(definitions);
    expect(ahead?.isIn(edits)).toBe(true);
    expect(ahead?.isIn(edits.slice(1))).toBe(false);
    expect(ahead?.isIn(created(read(service('web', { clusterIP: '10.96.0.1' }))))).toBe(false);
    expect(
      ahead?.isIn(edits.map((edit) => (edit.after === undefined ? edit : { ...edit, before: edit.after }))),
    ).toBe(false);
  });

  it('can be forgotten', () => {
    const ahead = ServicesAhead.of(compiler(), definitions);
    ahead?.compiler.update(ahead.inverse);
    expect(ahead?.compiler.size).toBe(0);
    expect(ahead?.compiler.backendCount).toBe(0);
    expect([...(ahead?.compiler.view.listBackends() ?? [])]).toEqual([]);
  });

  it('are none where something is defined twice, does not fit or is not there', () => {
    const web = service('web', { clusterIP: '10.96.0.1' });
    expect(ServicesAhead.of(compiler(), read(web, web))).toBeUndefined();
    expect(ServicesAhead.of(compiler({ ...CONFIG, serviceEntries: 1 }), definitions)).toBeUndefined();
    expect(ServicesAhead.of(compiler(), read(service('open', {})))).toBeUndefined();
  });
});
