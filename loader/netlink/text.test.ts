import { isIPv6 } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NetlinkError } from './errors.js';
import { ipBytes, ipText, macBytes, macText } from './text.js';

const text = (address: string): string => {
  const bytes = ipBytes('test', address);
  return ipText(bytes, 0, bytes.length);
};

describe('IP addresses', () => {
  // RFC 5952, sections 4 and 5
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['2001:0DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['fe80::1:2', 'fe80::1:2'],
    ['::ffff:192.0.2.1', '::ffff:192.0.2.1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ])('%s is written as %s', (given, expected) => {
    expect(text(given)).toBe(expected);
  });

  it('any 16 bytes become text that reads back as the same bytes', () => {
    const word = fc.oneof(fc.constant(0), fc.nat(0xffff));
    fc.assert(
      fc.property(fc.array(word, { minLength: 8, maxLength: 8 }), (words) => {
        const bytes = Uint8Array.from(words.flatMap((value) => [value >> 8, value & 0xff]));
        const written = ipText(bytes, 0, 16);
        expect(isIPv6(written)).toBe(true);
        expect([...ipBytes('test', written)]).toEqual([...bytes]);
      }),
    );
  });

  it.each(['', '10.0.0', '10.0.0.256', '10.0.0.1/24', 'fe80::1%eth0', '1::2::3', 'x'])(
    'refuses %j',
    (bad) => {
      expect(() => ipBytes('add address', bad)).toThrow(NetlinkError);
      expect(() => ipBytes('add address', bad)).toThrow(
        `add address: ${JSON.stringify(bad)} is not an IP address`,
      );
    },
  );
});

describe('MAC addresses', () => {
  it('reads both cases and writes the lower one', () => {
    const bytes = macBytes('test', '02:AB:00:ff:10:09');
    expect(macText(Buffer.from(bytes), 0, 6)).toBe('02:ab:00:ff:10:09');
    expect(macText(Buffer.from([127, 0, 0, 1]), 0, 4)).toBe('7f:00:00:01');
    expect(macText(Buffer.alloc(0), 0, 0)).toBe('');
  });

  it.each(['', '02:00:00:00:00', '02-00-00-00-00-01', '02:00:00:00:00:0g'])('refuses %j', (bad) => {
    expect(() => macBytes('set link', bad)).toThrow('is not a MAC address (EINVAL)');
  });
});
