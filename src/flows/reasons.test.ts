import { describe, expect, it } from 'vitest';
import { DropReason } from '../../loader/abi/gen/types.gen.js';
import { REASONS, reasonName } from './reasons.js';

describe('REASONS', () => {
  it('has a name and a text for every reason of the BPF programs, and no other', () => {
    const numbers = Object.entries(DropReason)
      .filter(([name]) => name !== 'ReasonCount')
      .map(([, number]) => number);
    expect(Object.keys(REASONS).map(Number)).toEqual(numbers);
    expect(numbers.length).toBe(DropReason.ReasonCount);
    const names = numbers.map(reasonName);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[a-z]+(_[a-z]+)*$/);
  });

  it('shows numbers that it does not know', () => {
    expect(reasonName(99)).toBe('reason_99');
  });
});
