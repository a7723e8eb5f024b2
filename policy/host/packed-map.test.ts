import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { distinct } from './distinct.js';
import { PackedMap } from './packed-map.js';

/** Keys as those of prefixes, few enough that they meet. */
const key = fc.nat(40).map((n) => n * 2 ** 33 + (n % 3));
const step = fc.record({ key, value: fc.nat(3) });

describe('PackedMap', () => {
  it('does what a Map does, whatever it was filled with', () => {
    fc.assert(
      fc.property(fc.array(key), fc.array(step, { maxLength: 100 }), fc.array(key), (first, steps, again) => {
        const map = new PackedMap();
        const model = new Map<number, number>();
        const fill = (list: readonly number[]): void => {
          const { keys, counts } = distinct(list);
          map.fill(keys, counts);
          for (const one of list) model.set(one, (model.get(one) ?? 0) + 1);
        };
        const compare = (): void => {
          expect(map.size).toBe(model.size);
          expect([...map.keys()].sort((a, b) => a - b)).toEqual([...model.keys()].sort((a, b) => a - b));
          for (let n = 0; n <= 40; n++) {
            const one = n * 2 ** 33 + (n % 3);
            expect(map.get(one)).toBe(model.get(one) ?? 0);
          }
        };
        const set = (one: number, value: number): void => {
          map.set(one, value);
          if (value === 0) model.delete(one);
          else model.set(one, value);
        };
        fill(first);
        compare();
        const some = [...map.listed(5 * 2 ** 33, 9 * 2 ** 33)];
        expect(some).toEqual([...map.keys()].filter((one) => one >= 5 * 2 ** 33 && one < 9 * 2 ** 33));
        for (const { key: one, value } of steps) set(one, value);
        compare();
        for (const one of [...model.keys()]) set(one, 0);
        fill(again);
        compare();
      }),
    );
  });
});

describe('distinct', () => {
  it('has each key once, in order, with how often it was there', () => {
    const whole = <K extends number | string>(list: readonly K[]): unknown => {
      const { keys, counts } = distinct(list);
      return [Array.from(keys), Array.from(counts)];
    };
    expect(whole([])).toEqual([[], []]);
    expect(whole([1, 2 ** 38, 2 ** 38 + 1])).toEqual([
      [1, 2 ** 38, 2 ** 38 + 1],
      [1, 1, 1],
    ]);
    expect(whole([7, 2 ** 38, 7, 0, 7])).toEqual([
      [0, 7, 2 ** 38],
      [1, 3, 1],
    ]);
    expect(whole(['b', 'a', 'ab', 'a'])).toEqual([
      ['a', 'ab', 'b'],
      [2, 1, 1],
    ]);
  });
});
