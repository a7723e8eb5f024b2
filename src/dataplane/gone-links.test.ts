import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { GoneLinks } from './gone-links.js';

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

it('forgets nothing while devices come and go, and a few at a time after that', () => {
  const forgotten: number[] = [];
  const gone = new GoneLinks((ifindex) => forgotten.push(ifindex));
  for (const ifindex of range(10)) gone.add(ifindex);
  for (let i = 0; i < 20; i++) {
    vi.advanceTimersByTime(49);
    gone.postpone();
  }
  expect(forgotten).toEqual([]);
  vi.advanceTimersByTime(50);
  expect(forgotten.length).toBeGreaterThan(0);
  expect(forgotten.length).toBeLessThan(10);
  gone.postpone();
  const before = forgotten.length;
  vi.advanceTimersByTime(49);
  expect(forgotten).toHaveLength(before);
  vi.advanceTimersByTime(100);
  expect(forgotten).toEqual(range(10));
  expect(vi.getTimerCount()).toBe(0);
});

it('keeps a bounded number, however busy it is, and never takes long for one', () => {
  const forgotten: number[] = [];
  const gone = new GoneLinks((ifindex) => forgotten.push(ifindex));
  for (const ifindex of range(1000)) {
    const before = forgotten.length;
    gone.add(ifindex);
    expect(forgotten.length - before).toBeLessThanOrEqual(2);
    expect(gone.size).toBeLessThanOrEqual(256);
  }
  gone.flush();
  expect(forgotten).toEqual(range(1000));
});
