import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Journal } from '../ipam/journal.js';
import { GRACE_SECONDS, Learned, type LearnedRecord, MAX_OF_NAME } from './learned.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-learned-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const open = (limit = 1000, now = 0): Learned =>
  new Learned(Journal.open<LearnedRecord>(join(folder, 'journal')), limit, now);
const at = (...addresses: string[]) => addresses.map((address) => ({ address, ttl: 60 }));
const END = (60 + GRACE_SECONDS) * 1000;

it('keeps an address for its time and a grace, and longer while it is in use', () => {
  const learned = open();
  expect([...learned.learn(['a.example', 'c.example'], at('192.0.2.1'), 0)]).toEqual(['192.0.2.1']);
  expect([...learned.learn(['a.example'], at('192.0.2.1'), 1000)]).toEqual([]);
  const all = (): boolean => true;
  expect(learned.sweep(END - 1, () => false, all).size).toBe(0);
  expect(learned.sweep(END, () => true, all).size).toBe(0);
  expect([...learned.sweep(END, () => false, all)]).toEqual(['192.0.2.1']);
  expect([...learned.namesOf('192.0.2.1')]).toEqual(['a.example']);
  expect([...learned.sweep(END + 1000, () => false, all)]).toEqual(['192.0.2.1']);
  expect(learned.sizes).toEqual({ names: 0, addresses: 0 });
});

it('is bounded by name and in all', () => {
  const learned = open(100);
  for (let i = 0; i < 80; i++) learned.learn(['a.example'], at(`192.0.2.${i}`), i);
  expect(learned.sizes).toEqual({ names: 1, addresses: MAX_OF_NAME });
  expect(learned.has('a.example', '192.0.2.0')).toBe(false);
  for (let i = 0; i < 80; i++) learned.learn([`n${i}.example`], at('198.51.100.1'), i);
  expect(learned.sizes).toEqual({ names: 37, addresses: MAX_OF_NAME + 1 });
  expect(learned.refused).toBe(44);
});

it('is on disk, without what has expired or is not wanted', () => {
  const learned = open();
  learned.learn(['a.example', 'b.example'], at('192.0.2.1', '2001:db8::1'), 0);
  learned.learn(['late.example'], at('192.0.2.9'), 50_000);
  learned.sweep(
    1,
    () => false,
    (name) => name !== 'b.example',
  );
  learned.close();
  const again = open(1000, END);
  expect(again.sizes).toEqual({ names: 1, addresses: 1 });
  expect([...again.namesOf('192.0.2.9')]).toEqual(['late.example']);
  again.close();
});
