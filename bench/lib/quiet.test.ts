import { describe, expect, it } from 'vitest';
import { cpuTimes, othersBusy, undisturbed } from './quiet.js';

const BEFORE = `cpu  300 0 300 1400 0 0 0 0 0 0
cpu0 100 0 100 800 0 0 0 0 0 0
cpu1 200 0 200 600 0 0 0 0 0 0
intr 12`;
const AFTER = `cpu  450 0 350 1500 0 0 0 0 0 0
cpu0 130 0 120 840 10 0 0 0 0 0
cpu1 320 0 230 650 0 0 0 0 0 0
intr 13`;

describe('quiet', () => {
  it('reads busy and total time of each CPU', () => {
    expect(cpuTimes(BEFORE)).toEqual([
      { busy: 200, total: 1000 },
      { busy: 400, total: 1000 },
    ]);
  });

  it('looks at the other CPUs only, and does not count waiting for a disk', () => {
    expect(othersBusy(cpuTimes(BEFORE), cpuTimes(AFTER), 1)).toBe(0.5);
    expect(othersBusy(cpuTimes(BEFORE), cpuTimes(AFTER), 0)).toBe(0.75);
  });

  it('measures at least once and at most as often as it may', () => {
    let runs = 0;
    const { result, disturbance } = undisturbed(0, 3, () => {
      runs += 1;
      return 'measured';
    });
    expect(result).toBe('measured');
    expect(disturbance).toBeGreaterThanOrEqual(0);
    expect(runs).toBeGreaterThanOrEqual(1);
    expect(runs).toBeLessThanOrEqual(3);
  });
});
