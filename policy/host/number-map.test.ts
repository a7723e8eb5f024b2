import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NumberMap } from './number-map.js';

/** Few keys, near each other and far apart: they meet in the same slots. */
const key = fc.oneof(
  fc.nat(40),
  fc.constantFrom(2 ** 32, 2 ** 38 - 1, 2 ** 38 + 64, Number.MAX_SAFE_INTEGER),
);
const step = fc.record({ key, value: fc.nat(3) });

describe('NumberMap', () => {
  it('does what a Map does, in any order of changes', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const map = new NumberMap();
        const model = new Map<number, number>();
        for (const { key: one, value } of steps) {
          map.set(one, value);
          if (value === 0) model.delete(one);
          else model.set(one, value);
        }
        expect(map.size).toBe(model.size);
        expect([...map.keys()].sort((a, b) => a - b)).toEqual([...model.keys()].sort((a, b) => a - b));
        for (const { key: one } of steps) expect(map.get(one)).toBe(model.get(one) ?? 0);
      }),
    );
  });

  it('keeps what it has when it grows', () => {
    const map = new NumberMap();
    map.reserve(100);
    for (let i = 0; i < 5000; i++) map.set(i * 64 * 2 ** 20, i + 1);
    expect(map.size).toBe(5000);
    for (let i = 0; i < 5000; i++) expect(map.get(i * 64 * 2 ** 20)).toBe(i + 1);
    for (let i = 0; i < 5000; i += 2) map.set(i * 64 * 2 ** 20, 0);
    expect(map.size).toBe(2500);
    for (let i = 0; i < 5000; i++) expect(map.get(i * 64 * 2 ** 20)).toBe(i % 2 === 0 ? 0 : i + 1);
  });
});
