import { expect, it } from 'vitest';
import { parseSources } from '../../policy/schema/parse.js';
import { parseReference, referenceText } from './references.js';

it.each([
  ['network', 'front', { kind: 'Network', name: 'front' }],
  ['Container', 'shop/web', { kind: 'Container', namespace: 'shop', name: 'web' }],
  ['containers', 'web', { kind: 'Container', namespace: 'default', name: 'web' }],
  ['netpol', 'shop/deny', { kind: 'NetworkPolicy', namespace: 'shop', name: 'deny' }],
  ['ns', 'shop', { kind: 'Namespace', name: 'shop' }],
])('%s %s becomes a document that the schema takes', (kind, name, expected) => {
  const reference = parseReference(kind, name);
  expect(reference).toEqual(expected);
  const { resources, errors } = parseSources([{ file: 'command line', text: referenceText(reference) }]);
  expect(errors.map((error) => error.toLine())).toEqual([]);
  expect(resources).toMatchObject([expected]);
});
