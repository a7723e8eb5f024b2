import { expect, it } from 'vitest';
import { Blocks, blocksOf } from './blocks.js';
import type { KeyValue } from './client.js';
import { Keys } from './keys.js';

const keys = new Keys('/sluice');

/** A store that two hosts see with a delay: `seen` is what has come back by the watch. */
class Store {
  readonly values = new Map<string, string>();
  readonly seen = new Map<string, string>();
  /** Does what it is asked for, and says nothing. */
  silent = false;

  host(node: string, lengths = { blockLength4: 26, blockLength6: 80 }): Blocks {
    return new Blocks({
      client: {
        claim: ({ key, value }: KeyValue) => {
          if (!this.values.has(key)) this.values.set(key, value);
          if (this.silent) return Promise.reject(new Error('no answer'));
          return Promise.resolve(this.values.get(key) ?? '');
        },
      },
      mirror: { under: (prefix) => [...this.seen].filter(([key]) => key.startsWith(prefix)).values() },
      keys,
      node,
      settings: lengths,
    });
  }
}

const { signal } = new AbortController();

it('divides ranges of both families', () => {
  expect(blocksOf('10.60.0.0/16', 26).count).toBe(1024);
  expect(blocksOf('10.60.0.0/16', 26).at(5)).toBe('10.60.1.64/26');
  expect(blocksOf('fd60::/64', 80).at(3)).toBe('fd60::3:0:0:0/80');
  expect(blocksOf('10.60.0.0/28', 26)).toMatchObject({ count: 1 });
  expect(blocksOf('10.60.0.0/28', 26).at(0)).toBe('10.60.0.0/28');
});

it('gives a block to one host alone, also when both ask before either knows of the other', async () => {
  const store = new Store();
  const [a, b] = [store.host('a'), store.host('b')];
  const [first, second] = await Promise.all([
    a.claim('shop', '10.60.0.0/16', signal),
    b.claim('shop', '10.60.0.0/16', signal),
  ]);
  expect(new Set([first, second])).toEqual(new Set(['10.60.0.0/26', '10.60.0.64/26']));
});

it('keeps what the host has, and says when nothing is left', async () => {
  const store = new Store();
  store.seen.set(keys.block('shop', '10.60.0.64/26'), 'b');
  const b = store.host('b');
  expect(await b.claim('shop', '10.60.0.0/25', signal)).toBe('10.60.0.64/26');
  store.seen.set(keys.block('shop', '10.60.0.0/26'), 'a');
  await expect(store.host('c').claim('shop', '10.60.0.0/25', signal)).rejects.toThrow(
    'no block of 10.60.0.0/25 of network shop is free for host c',
  );
});

it('claims no second block when the answer to the first attempt was lost', async () => {
  const store = new Store();
  const a = store.host('a');
  store.silent = true;
  await expect(a.claim('shop', '10.60.0.0/16', signal)).rejects.toThrow('no answer');
  store.silent = false;
  expect(await a.claim('shop', '10.60.0.0/16', signal)).toBe('10.60.0.0/26');
  expect(store.values.size).toBe(1);
});
