import { describe, expect, it } from 'vitest';
import { decodeAddress, encodeAddress } from './address.js';
import { MessageBuilder } from './message.js';

function encoded(input: Parameters<typeof encodeAddress>[3]): string {
  const message = new MessageBuilder();
  encodeAddress('add address', message, 5, input);
  return message.bytes().toString('hex');
}

describe('address messages', () => {
  it('IPv4: local and address are the same', () => {
    expect(encoded({ address: '10.0.0.2', prefix: 24 })).toBe(
      '02180000' + '05000000' + '08000200' + '0a000002' + '08000100' + '0a000002',
    );
  });

  it('IPv6 without duplicate address detection and without a route', () => {
    const bytes = `fd00${'00'.repeat(13)}02`;
    expect(
      encoded({ address: 'fd00::2', prefix: 128, noDad: true, noPrefixRoute: true, scope: 'link' }),
    ).toBe(`0a8002fd05000000${`14000200${bytes}`}${`14000100${bytes}`}${'08000800' + '02020000'}`);
  });

  it.each([-1, 33, 1.5])('refuses prefix length %d', (prefix) => {
    expect(() => encoded({ address: '10.0.0.2', prefix })).toThrow(
      'prefix length is not between 0 and 32 (EINVAL)',
    );
  });

  it('decodes flags of 32 bits, and takes the local end of a point-to-point device', () => {
    const bytes = Buffer.from(
      '02208000' + '05000000' + '08000100' + '0a000001' + '08000200' + '0a000002' + '08000800' + 'c8020000',
      'hex',
    );
    expect(decodeAddress(bytes, 0, bytes.length)).toEqual({
      ifindex: 5,
      family: 4,
      address: '10.0.0.2',
      prefix: 32,
      scope: 'universe',
      tentative: true,
      duplicate: true,
    });
    const foreign = Buffer.from('1c200000' + '05000000', 'hex');
    expect(decodeAddress(foreign, 0, foreign.length)).toBeUndefined();
  });
});
