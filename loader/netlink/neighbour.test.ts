import { describe, expect, it } from 'vitest';
import { MessageBuilder } from './message.js';
import { decodeNeighbour, encodeNeighbour, encodeNeighbourKey } from './neighbour.js';

describe('neighbour messages', () => {
  it('encodes a permanent entry and its key', () => {
    const message = new MessageBuilder();
    encodeNeighbour('test', message, {
      ifindex: 5,
      address: '169.254.1.1',
      mac: '02:00:00:00:00:01',
      permanent: true,
    });
    expect(message.bytes().toString('hex')).toBe(
      '02000000' + '05000000' + '80000000' + '08000100' + 'a9fe0101' + '0a000200' + '020000000001' + '0000',
    );
    message.reset();
    encodeNeighbourKey('test', message, { ifindex: 5, address: 'fe80::1' });
    expect(message.bytes().toString('hex')).toBe(
      `${'0a000000' + '05000000' + '00000000' + '14000100'}fe80${'00'.repeat(13)}01`,
    );
  });

  it('decodes an entry that is not resolved', () => {
    const bytes = Buffer.from('02000000' + '05000000' + '20000001' + '08000100' + '0a000009', 'hex');
    expect(decodeNeighbour(bytes, 0, bytes.length)).toEqual({
      ifindex: 5,
      family: 4,
      address: '10.0.0.9',
      state: 'failed',
    });
  });
});
