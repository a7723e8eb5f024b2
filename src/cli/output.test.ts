import { describe, expect, it } from 'vitest';
import { formatDuration, formatFields, formatTable } from './output.js';

describe('formatTable', () => {
  it('pads to the widest cell, and writes nothing after the last', () => {
    expect(
      formatTable(
        ['A', 'LONG', 'C'],
        [
          ['x', 'y', ''],
          ['wide cell', '', 'z'],
        ],
      ),
    ).toEqual(['A          LONG  C', 'x          y', 'wide cell        z']);
  });

  it('counts characters, not UTF-16 units, and bears missing cells', () => {
    expect(formatTable(['A', 'B'], [['𝕏é', '1'], ['abc']])).toEqual(['A    B', '𝕏é   1', 'abc']);
  });
});

describe('formatFields', () => {
  it('aligns the values', () =>
    expect(
      formatFields([
        ['a', '1'],
        ['bcd', ''],
      ]),
    ).toEqual(['a    1', 'bcd']));
});

describe('formatDuration', () => {
  it.each([
    [0, '0s'],
    [0.9, '0s'],
    [59, '59s'],
    [60, '1m'],
    [3599, '59m 59s'],
    [3600, '1h'],
    [3605, '1h'],
    [90_061, '1d 1h'],
    [-5, '0s'],
  ])('%d s is %s', (seconds, text) => expect(formatDuration(seconds)).toBe(text));
});
