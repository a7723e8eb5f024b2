import { describe, expect, it } from 'vitest';
import { flowEntries, jiffiesPerSecond, largestFreeRange } from './constants.js';

describe('largestFreeRange', () => {
  it('takes the larger side of the ephemeral ports, without node ports', () => {
    expect(
      largestFreeRange([
        { min: 32768, max: 60999 },
        { min: 30000, max: 32767 },
      ]),
    ).toEqual({ min: 1024, max: 29999 });
    expect(
      largestFreeRange([
        { min: 1024, max: 29000 },
        { min: 30000, max: 32767 },
      ]),
    ).toEqual({ min: 32768, max: 65535 });
    expect(largestFreeRange([{ min: 40000, max: 41000 }])).toEqual({ min: 1024, max: 39999 });
  });

  it('uses all ports when nothing is left', () => {
    expect(largestFreeRange([{ min: 1, max: 65535 }])).toEqual({ min: 1024, max: 65535 });
  });
});

describe('constants of the machine', () => {
  it('knows the rate of the timer', () => {
    expect([100, 250, 300, 1000]).toContain(jiffiesPerSecond());
  });

  it('sizes the flow table', () => {
    expect(flowEntries(1000)).toBe(1000);
    const entries = flowEntries('auto');
    expect(entries).toBeGreaterThanOrEqual(131072);
    expect(Math.log2(entries) % 1).toBe(0);
  });
});
