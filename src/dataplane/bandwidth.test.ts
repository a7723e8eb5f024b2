import { expect, it } from 'vitest';
import { bandwidthEntry } from './bandwidth.js';

it('turns bits a second into nanoseconds a byte, and a burst into time', () => {
  // 8 Gbit/s: one nanosecond a byte; a burst of 8 Mbit takes a millisecond.
  const { ingress, egress } = bandwidthEntry({ ingress: { rate: 8e9, burst: 8e6 } });
  expect(ingress).toEqual({ cost: 1n << 20n, tolerance: 1_000_000n, next: 0n });
  expect(egress).toEqual({ cost: 0n, tolerance: 0n, next: 0n });
});

it('keeps the figures within what the program can multiply', () => {
  const { ingress, egress } = bandwidthEntry({
    ingress: { rate: 1, burst: Number.MAX_SAFE_INTEGER },
    egress: { rate: Number.MAX_SAFE_INTEGER, burst: 1 },
  });
  expect(ingress.cost * (1n << 19n)).toBeLessThan(1n << 64n);
  expect(ingress.tolerance).toBeLessThan(1n << 63n);
  expect(egress).toMatchObject({ cost: 1n, tolerance: 0n });
});
