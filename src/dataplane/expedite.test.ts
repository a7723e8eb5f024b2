import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Expedite } from './expedite.js';

let folder: string;
let setting: string;
const value = (): string => readFileSync(setting, 'utf8');

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'expedite-'));
  setting = join(folder, 'rcu_expedited');
  writeFileSync(setting, '0');
});
afterEach(() => rmSync(folder, { recursive: true }));

it('is on for as long as there is work, and no longer', async () => {
  const expedite = new Expedite(folder, setting);
  await expedite.hold(async () => {
    expect(expedite.during(value)).toBe('1');
    await Promise.resolve();
    expect(value()).toBe('1');
  });
  expect(value()).toBe('0');
  expect(() =>
    expedite.during(() => {
      throw new Error('no');
    }),
  ).toThrow('no');
  expect(value()).toBe('0');
});

it('leaves alone what somebody else turned on, and is used when that is over', () => {
  writeFileSync(setting, '1');
  const expedite = new Expedite(folder, setting);
  expect(expedite.during(value)).toBe('1');
  expect(value()).toBe('1');
  writeFileSync(setting, '0');
  expect(expedite.during(value)).toBe('1');
  expect(value()).toBe('0');
});

it('is turned off by the next agent when one was killed meanwhile', () => {
  new Expedite(folder, setting).during(() => {
    new Expedite(folder, setting);
    expect(value()).toBe('0');
  });
  writeFileSync(setting, '1'); // by an administrator: nothing says that it was 0
  new Expedite(folder, setting);
  expect(value()).toBe('1');
});

it('does without where it cannot be written', () => {
  const expedite = new Expedite(folder, join(folder, 'none'));
  expect(expedite.during(() => 'done')).toBe('done');
  expect(existsSync(join(folder, 'none'))).toBe(false);
});

it('does without where nobody could undo it', () => {
  const expedite = new Expedite(join(folder, 'none'), setting);
  expect(expedite.during(value)).toBe('0');
});
