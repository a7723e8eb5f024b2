import { expect, it } from 'vitest';
import { rangeEnd } from './client.js';
import { Keys } from './keys.js';

it('finds back what a key is', () => {
  const keys = new Keys('/sluice/');
  expect(keys.prefix).toBe('/sluice/');
  expect(keys.place(keys.object('Service', 'shop', 'web'))).toEqual({ type: 'object', kind: 'Service' });
  expect(keys.place(keys.object('Network', undefined, 'front'))).toEqual({ type: 'object', kind: 'Network' });
  expect(keys.place(keys.node('host1'))).toEqual({ type: 'node', node: 'host1' });
  expect(keys.place(`${keys.containers('host1')}shop/web`)).toEqual({ type: 'container', node: 'host1' });
  for (const range of ['10.60.0.64/26', 'fd60::/80'])
    expect(keys.place(keys.block('shop', range))).toEqual({ type: 'block', network: 'shop', range });
});

it('passes over keys of others', () => {
  const keys = new Keys('/sluice');
  for (const key of [
    '/other/nodes/a',
    '/sluice/nodes/',
    '/sluice/nodes/a/b',
    '/sluice/x/a',
    '/sluicex/nodes/a',
  ])
    expect(keys.place(key), key).toBeUndefined();
});

it('ends a range behind every key with the prefix', () => {
  expect(rangeEnd('/sluice/')).toBe('/sluice0');
});
