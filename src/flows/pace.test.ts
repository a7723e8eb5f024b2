import { describe, expect, it } from 'vitest';
import { Pace } from './pace.js';

describe('work that can wait', () => {
  it('is done at once when nobody asks for anything', () => {
    const pace = new Pace(() => 0);
    expect([1000, 2000, 3000].map((now) => pace.isDue(now, false))).toEqual([true, true, true]);
  });

  it('is put off while requests come, three times in a row', () => {
    let asked = 0;
    const pace = new Pace(() => asked);
    const turns = [1000, 2000, 3000, 4000, 5000, 6000].map((now) => {
      asked = now - 99;
      return pace.isDue(now, false);
    });
    expect(turns).toEqual([false, false, false, true, false, false]);
    asked = 6900;
    expect(pace.isDue(7000, false)).toBe(true);
  });

  it('is not put off when it is pressing', () => {
    const pace = new Pace(() => 1000);
    expect([pace.isDue(1000, true), pace.isDue(1001, false)]).toEqual([true, false]);
  });
});
