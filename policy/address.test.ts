import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addressAt,
  canonicalAddress,
  cidrContains,
  cidrContainsCidr,
  cidrSize,
  cidrsOverlap,
  formatAddress,
  formatCidr,
  lastAddress,
  offsetIn,
  parseAddress,
  parseCidr,
  tryParseAddress,
  tryParseCidr,
} from './address.js';

const bytes = (text: string): number[] => [...parseAddress(text)];

describe('addresses', () => {
  it('stores IPv4 v4-mapped', () => {
    expect(bytes('10.1.2.3')).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 1, 2, 3]);
  });

  // RFC 5952 section 4.
  it.each([
    ['2001:db8::1', '2001:db8::1'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['2001:0db8::0001', '2001:db8::1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
  ])('%s is written %s', (text, canonical) => {
    expect(canonicalAddress(text)).toBe(canonical);
  });

  it.each([
    '',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.04',
    ' 1.2.3.4',
    '1.2.3.4 ',
    '1.2.3.-1',
    '0x1.2.3.4',
    ':',
    ':::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1::2::3',
    '12345::',
    'g::',
    'fe80::1%eth0',
    '::ffff:1.2.3.4',
    '1.2.3.4::',
    '1:2:3:4:5:6:7::8',
    '::1/64',
    'localhost',
  ])('refuses "%s"', (text) => {
    expect(tryParseAddress(text)).toBeUndefined();
    expect(() => parseAddress(text)).toThrow(/is not an IPv4 or IPv6 address/);
  });

  it('reads back what it writes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (address) => {
        expect(parseAddress(formatAddress(address))).toEqual(address);
      }),
    );
  });
});

describe('CIDRs', () => {
  it('counts IPv4 prefixes from 96', () => {
    expect(parseCidr('10.1.0.0/16')).toMatchObject({ prefixLength: 112, family: 4 });
    expect(parseCidr('fd00::/8')).toMatchObject({ prefixLength: 8, family: 6 });
    expect(formatCidr(parseCidr('0.0.0.0/0'))).toBe('0.0.0.0/0');
    expect(formatCidr(parseCidr('::/0'))).toBe('::/0');
  });

  it.each([
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/08',
    'fd00::/129',
    '/8',
    '10.0.0.0/8/8',
    '10.0.0.0/-1',
  ])('refuses %s', (text) => {
    expect(tryParseCidr(text)).toBeUndefined();
    expect(() => parseCidr(text)).toThrow(/is not a CIDR/);
  });

  it('says what a prefix with host bits should be', () => {
    expect(() => parseCidr('10.1.2.3/16')).toThrow('write 10.1.0.0/16');
    expect(formatCidr(parseCidr('10.1.2.3/16', 'clear'))).toBe('10.1.0.0/16');
    expect(formatCidr(parseCidr('10.1.2.3/16', 'keep'))).toBe('10.1.2.3/16');
  });

  it('keeps the families apart', () => {
    expect(cidrContains(parseCidr('::/0'), parseAddress('10.0.0.1'))).toBe(false);
    expect(cidrContains(parseCidr('0.0.0.0/0'), parseAddress('::1'))).toBe(false);
    expect(cidrsOverlap(parseCidr('::/0'), parseCidr('0.0.0.0/0'))).toBe(false);
  });

  it('compares prefixes bit by bit', () => {
    expect(cidrContains(parseCidr('10.1.128.0/17'), parseAddress('10.1.128.0'))).toBe(true);
    expect(cidrContains(parseCidr('10.1.128.0/17'), parseAddress('10.1.127.255'))).toBe(false);
    expect(cidrContainsCidr(parseCidr('10.0.0.0/8'), parseCidr('10.1.0.0/16'))).toBe(true);
    expect(cidrContainsCidr(parseCidr('10.1.0.0/16'), parseCidr('10.0.0.0/8'))).toBe(false);
    expect(cidrsOverlap(parseCidr('10.1.0.0/16'), parseCidr('10.0.0.0/8'))).toBe(true);
    expect(cidrsOverlap(parseCidr('10.1.0.0/16'), parseCidr('10.2.0.0/16'))).toBe(false);
  });

  it('counts inside a prefix', () => {
    const cidr = parseCidr('10.1.0.0/16');
    expect(formatAddress(addressAt(cidr, 258n))).toBe('10.1.1.2');
    expect(offsetIn(cidr, parseAddress('10.1.1.2'))).toBe(258n);
    expect(formatAddress(lastAddress(cidr))).toBe('10.1.255.255');
    expect(cidrSize(parseCidr('fd00::/64'))).toBe(1n << 64n);
  });
});
