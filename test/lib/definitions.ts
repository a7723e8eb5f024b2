import { expect } from 'vitest';
import type { Resource } from '../../policy/model/resources.js';
import { parseSources } from '../../policy/schema/parse.js';
import { keyOf } from '../../src/state/keys.js';
import type { Edit } from '../../src/state/objects.js';

/** Objects as the compiler has them, from definitions without a mistake. */
export function read(...items: readonly object[]): Resource[] {
  const { resources, errors } = parseSources([
    { file: 'f', text: JSON.stringify({ apiVersion: 'v1', kind: 'List', items }) },
  ]);
  expect(errors).toEqual([]);
  return resources;
}

/** The change that makes them. */
export function created(resources: readonly Resource[]): Edit[] {
  return resources.map((after) => ({ key: keyOf(after), after, origin: after.origin }));
}
