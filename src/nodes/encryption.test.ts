import { expect, it } from 'vitest';
import { checkEncryption } from './encryption.js';

const line = (present: boolean): string => {
  try {
    checkEncryption('wireguard', () => present);
  } catch (error) {
    return (error as Error).message;
  }
  return '';
};

it('refuses encryption that cannot be had, and says why', () => {
  expect(line(false)).toMatch(/^nodeEncryption cannot be wireguard: the kernel \S+ has no WireGuard/);
  expect(line(true)).toMatch(/does not set up WireGuard between nodes yet$/);
  expect(() => checkEncryption('none', () => false)).not.toThrow();
});
