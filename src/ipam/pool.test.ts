import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AddressPool } from './pool.js';

describe('AddressPool', () => {
  it('skips network, broadcast and gateway and says when it is empty', () => {
    const pool = new AddressPool('10.1.0.0/29', '10.1.0.1');
    const given = Array.from({ length: 5 }, (_, i) => pool.take(`c${i}`));
    expect(given).toEqual(['10.1.0.2', '10.1.0.3', '10.1.0.4', '10.1.0.5', '10.1.0.6']);
    expect(pool.take('late')).toBeUndefined();
    pool.release('10.1.0.4', 'somebody else');
    expect(pool.take('late')).toBeUndefined();
    pool.release('10.1.0.4', 'c2');
    expect(pool.take('late')).toBe('10.1.0.4');
  });

  it('goes on after the last address and wraps, so a released one rests', () => {
    const pool = new AddressPool('10.1.0.0/29', '10.1.0.1');
    expect(pool.take('a')).toBe('10.1.0.2');
    pool.release('10.1.0.2', 'a');
    expect(pool.take('b')).toBe('10.1.0.3');
    pool.resumeAfter('10.1.0.6');
    expect(pool.take('c')).toBe('10.1.0.2');
  });

  it('hands out IPv6 addresses, and every address of a /31', () => {
    const six = new AddressPool('fd00:1::/64', 'fd00:1::1');
    expect([six.take('a'), six.take('b')]).toEqual(['fd00:1::2', 'fd00:1::3']);
    const tiny = new AddressPool('10.9.9.0/31', '10.9.9.1');
    expect([tiny.take('a'), tiny.take('b')]).toEqual(['10.9.9.0', undefined]);
  });

  it('refuses a claimed address to another owner', () => {
    const pool = new AddressPool('10.1.0.0/24', '10.1.0.1');
    expect(pool.claim('10.1.0.9', 'a')).toBeUndefined();
    expect(pool.claim('10.1.0.9', 'a')).toBeUndefined();
    expect(pool.claim('10.1.0.9', 'b')).toBe('a');
    expect(pool.ownerOf('10.1.0.9')).toBe('a');
  });

  it('never gives one address to two owners', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(30)), { maxLength: 200 }), (steps) => {
        const pool = new AddressPool('10.1.0.0/28', '10.1.0.5');
        const held = new Map<string, string>(); // address -> owner
        for (const [take, n] of steps) {
          const owner = `c${n}`;
          if (take) {
            const address = pool.take(owner);
            if (address === undefined) expect(held.size).toBe(13);
            else {
              expect(held.has(address)).toBe(false);
              held.set(address, owner);
            }
          } else {
            const address = [...held].find(([, o]) => o === owner)?.[0];
            if (address === undefined) continue;
            pool.release(address, owner);
            held.delete(address);
          }
        }
        expect(pool.used).toBe(held.size);
      }),
    );
  });
});

it('gives out only what lies between its limits, whatever is claimed outside', () => {
  const pool = new AddressPool('10.0.0.0/24', '10.0.0.1', { first: '10.0.0.20', last: '10.0.0.21' });
  expect(pool.claim('10.0.0.99', 'fixed')).toBeUndefined();
  expect([pool.take('a'), pool.take('b'), pool.take('c')]).toEqual(['10.0.0.20', '10.0.0.21', undefined]);
  expect(pool.hasFree).toBe(false);
  pool.release('10.0.0.20', 'a');
  expect(pool.hasFree).toBe(true);
  expect(pool.take('d')).toBe('10.0.0.20');
});

it('never gives out the gateway, also inside the limits', () => {
  const pool = new AddressPool('10.0.0.0/24', '10.0.0.1', { first: '10.0.0.1', last: '10.0.0.1' });
  expect(pool.hasFree).toBe(false);
  expect(pool.take('a')).toBeUndefined();
});
