import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatAddress, parseCidr } from '../address.js';
import { lengthOf, type PrefixKey, prefixBytes, prefixKey, prefixText, widen } from './prefix.js';
import { PrefixTable } from './prefix-table.js';

/** Few bits vary, so that prefixes meet. */
const v4 = fc
  .tuple(fc.nat(3), fc.nat(3), fc.integer({ min: 0, max: 32 }))
  .map(([a, d, length]) => prefixKey(parseCidr(`10.${a * 64}.0.${d * 64}/${length}`, 'clear')));
const v6 = fc
  .tuple(fc.nat(3), fc.nat(3), fc.integer({ min: 0, max: 128 }))
  .map(([a, d, length]) => prefixKey(parseCidr(`2001:db8:${a}::${d}/${length}`, 'clear')));
const key = fc.oneof(v4, v6);
const step = fc.record({ peer: fc.integer({ min: 1, max: 4 }), key, add: fc.boolean() });

/** The slow way: every peer with a prefix that contains this one. */
function containing(contents: ReadonlyMap<number, ReadonlySet<PrefixKey>>, of: PrefixKey): number[] {
  return [...contents]
    .filter(([, keys]) =>
      [...keys].some(
        (one) =>
          typeof one === typeof of && lengthOf(one) <= lengthOf(of) && widen(of, lengthOf(one)) === one,
      ),
    )
    .map(([peer]) => peer)
    .sort((a, b) => a - b);
}

describe('PrefixTable', () => {
  it('gives each prefix the peers that contain it, whatever the order of changes', () => {
    fc.assert(
      fc.property(fc.array(fc.array(step, { maxLength: 12 }), { maxLength: 12 }), (batches) => {
        const table = new PrefixTable();
        const contents = new Map<number, Set<PrefixKey>>();
        const kernel = new Map<PrefixKey, number>();
        for (const batch of batches) {
          const changes = batch.map(({ peer, key: one, add }) => {
            const keys = contents.get(peer) ?? new Set();
            contents.set(peer, keys);
            if (add) keys.add(one);
            else keys.delete(one);
            return { peer, added: add ? [one] : [], removed: add ? [] : [one] };
          });
          const seen = new Set<PrefixKey>();
          const { v4: four, v6: six } = table.update(changes);
          const changed = [four, six].flatMap(({ keys, before, now }) =>
            (keys as PrefixKey[]).map((one, i) => ({ one, before: before[i] ?? 0, now: now[i] ?? 0 })),
          );
          for (const { one, before, now } of changed) {
            expect(seen.has(one)).toBe(false);
            seen.add(one);
            expect(before).toBe(kernel.get(one) ?? 0);
            if (now === 0) kernel.delete(one);
            else kernel.set(one, now);
          }
          const all = new Set([...contents.values()].flatMap((keys) => [...keys]));
          expect(new Set(kernel.keys())).toEqual(all);
          for (const [one, peerClass] of kernel)
            expect(table.combinations.members(peerClass)).toEqual(containing(contents, one));
          for (const family of [4, 6] as const) {
            const own = [...all].filter((one) => (typeof one === 'number') === (family === 4));
            const lengths = [...new Set(own.map(lengthOf))].sort((a, b) => b - a);
            expect(table.lengths(family)).toEqual(lengths);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('keeps text, bytes and lengths of prefixes', () => {
    for (const text of [
      '0.0.0.0/0',
      '255.255.255.255/32',
      '10.1.2.0/23',
      '::/0',
      '2001:db8::/33',
      '::1/128',
    ]) {
      const one = prefixKey(parseCidr(text));
      expect(prefixText(one)).toBe(text);
      expect(prefixBytes(one)).toHaveLength(16);
      expect(formatAddress(prefixBytes(widen(one, 0)))).toBe(text.includes(':') ? '::' : '0.0.0.0');
    }
  });
});
