import { expect, it } from 'vitest';
import { parseSources } from '../../policy/schema/parse.js';
import { DefinitionReader, usableDefinitions } from './definitions.js';

const NOTHING = { resources: [], errors: [] };

const text = (...objects: readonly object[]): string =>
  objects.map((one) => JSON.stringify(one)).join('\n---\n');
const network = (name: string, cidr: string): object => ({
  apiVersion: 'sluice.dev/v1alpha1',
  kind: 'Network',
  metadata: { name },
  spec: { ipv4: { cidr } },
});
const container = (name: string, of: string): object => ({
  apiVersion: 'sluice.dev/v1alpha1',
  kind: 'Container',
  metadata: { name },
  spec: { netns: { name }, networks: [{ name: of }] },
});
const shared = (...objects: readonly object[]) =>
  parseSources([{ file: 'etcd:x', text: text(...objects) }]).resources;

it('keeps containers in networks that other hosts or the cluster define', () => {
  const applied = [{ file: 'a.yaml', text: text(container('web', 'shop')) }];
  const usable = usableDefinitions(applied, NOTHING, shared(network('shop', '10.60.0.0/26')));
  expect(usable.errors).toEqual([]);
  expect(usable.api.map(({ kind, name }) => `${kind} ${name}`)).toEqual(['Container web']);

  const without = usableDefinitions(applied, NOTHING);
  expect(without.api).toEqual([]);
  expect(without.errors.map(({ code }) => code)).toEqual(['SLU1303']);
});

it('leaves out a shared network that collides with one of this host, and what is in it', () => {
  const applied = [
    { file: 'a.yaml', text: text(network('own', '10.60.0.0/16'), container('web', 'own')) },
    { file: 'b.yaml', text: text(container('other', 'shop')) },
  ];
  const usable = usableDefinitions(applied, NOTHING, shared(network('shop', '10.60.0.0/26')));
  expect(usable.api.map(({ kind, name }) => `${kind} ${name}`)).toEqual(['Network own', 'Container web']);
  expect(usable.errors.map(({ file, code }) => [file, code])).toEqual([['b.yaml', 'SLU1303']]);
});

it('reads files ahead of when they are asked about, unless they are others by then', () => {
  const reader = new DefinitionReader();
  const file = (name: string, ...objects: readonly object[]) => ({ file: name, text: text(...objects) });
  const same = file('a.yaml', network('a', '10.60.0.0/26'));
  reader.readAhead([same, file('b.yaml', network('b', '10.61.0.0/26')), file('c.yaml', { kind: 1 })]);
  expect(reader.readFolder([]).resources).toEqual([]); // the last good state of a first start
  const changed = file('b.yaml', network('b', '10.62.0.0/26'));
  const { resources, errors } = reader.readFolder([same, changed]);
  expect(errors).toEqual([]);
  expect(resources).toEqual(parseSources([same, changed]).resources);
  expect(reader.readFolder([same, file('c.yaml', { kind: 1 })]).errors).toHaveLength(1);
  expect(reader.readFolder([same, changed]).resources[0]).toBe(resources[0]);
});
