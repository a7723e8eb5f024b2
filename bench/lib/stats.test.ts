import { describe, expect, it } from 'vitest';
import { judge, table } from './report.js';
import { interleave, median, medianRatio, noise } from './stats.js';

describe('median and noise', () => {
  it('takes the middle, or the mean of the two middle ones', () => {
    expect(median([5, 1, 3])).toBe(3);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(() => median([])).toThrow('nothing');
  });

  it('is the interquartile range over the median', () => {
    expect(noise([90, 95, 100, 105, 110])).toBeCloseTo(0.15);
    expect(noise([1, 100, 100, 100, 100, 100, 100, 900])).toBe(0);
    expect(noise([100, 200])).toBe(0);
  });
});

describe('the ratio of two subjects', () => {
  it('compares what was measured in the same round', () => {
    // The machine is slow in the middle of the run; one measurement was disturbed.
    const theirs = [100, 100, 50, 50, 100];
    const ours = [97, 97, 48.5, 48.5, 60];
    expect(medianRatio(ours, theirs)).toBeCloseTo(0.97);
    expect(median(ours) / median(theirs)).toBeCloseTo(0.6);
  });
});

describe('interleave', () => {
  it('runs every subject once a round, every other round backwards', async () => {
    const order: string[] = [];
    const results = await interleave(3, ['a', 'b'], (subject, round) => {
      order.push(`${subject}${round}`);
      return round;
    });
    expect(order).toEqual(['a0', 'b0', 'b1', 'a1', 'a2', 'b2']);
    expect(results.get('a')).toEqual([0, 1, 2]);
  });
});

describe('judge', () => {
  const base = { name: 'x', unit: '1/s', ours: 95 };

  it('compares with the best peer', () => {
    const higher = judge({
      ...base,
      peers: { a: 80, b: 100 },
      better: 'higher',
      target: { op: '>', value: 1 },
    });
    expect(higher).toMatchObject({ ratio: 0.95, ok: false, target: '> 1' });
    const lower = judge({
      ...base,
      peers: { a: 80, b: 100 },
      better: 'lower',
      target: { op: '<', value: 1 },
    });
    expect(lower).toMatchObject({ ratio: 1.1875, ok: false });
  });

  it('meets a target exactly at its value when the sign says so', () => {
    expect(
      judge({ ...base, peers: { a: 100 }, better: 'higher', target: { op: '>=', value: 0.95 } }).ok,
    ).toBe(true);
    expect(judge({ ...base, peers: { a: 95 }, better: 'higher', target: { op: '>', value: 1 } }).ok).toBe(
      false,
    );
  });

  it('misses a target when nothing was measured', () => {
    const row = judge({
      ...base,
      ours: Number.NaN,
      peers: { a: 1 },
      better: 'lower',
      target: { op: '<', value: 2 },
    });
    expect(row.ok).toBe(false);
  });
});

describe('table', () => {
  it('has a column for each peer and says what was missed', () => {
    const text = table([
      judge({
        name: 'rate',
        unit: '1/s',
        ours: 2500,
        peers: { a: 1000 },
        better: 'higher',
        target: { op: '>', value: 3 },
      }),
      judge({ name: 'time', unit: 'us', ours: 1, peers: { b: 2 }, better: 'lower' }),
    ]);
    expect(text.split('\n')[0]).toMatch(/ours\s+a\s+b\s+ratio\s+target/);
    expect(text).toMatch(/rate.*2,500.*1,000.*-.*2\.500.*> 3\s+MISSED/);
  });
});
