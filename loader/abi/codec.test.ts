import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as codecs from './codec.js';
import * as types from './gen/types.gen.js';

describe('generated codecs', () => {
  it('write numbers, byte order, addresses and padding where C has them', () => {
    const key: types.FlowKey = {
      saddr: Uint8Array.from({ length: 16 }, (_, i) => i),
      daddr: Uint8Array.from({ length: 16 }, (_, i) => 16 + i),
      sport: 0x1234,
      dport: 80,
      ifindex: 0x01020304,
      proto: 6,
    };
    const buffer = Buffer.alloc(60, 0xff);
    types.flowKeyCodec.encode(key, buffer, 8);
    expect(buffer.toString('hex', 8, 52)).toBe(
      '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f12340050040302010600' + '0000',
    );
    expect([buffer[7], buffer[52]]).toEqual([0xff, 0xff]);
    const back = types.flowKeyCodec.decode(buffer, 8);
    expect(back).toEqual(key);
    buffer.fill(0);
    expect(back).toEqual(key);
  });

  it('refuse values that do not fit', () => {
    const buffer = Buffer.alloc(64);
    const peer = { profile: 1, rule: 2, verdict: 3 };
    expect(() => types.policyPeerCodec.encode({ ...peer, verdict: 256 }, buffer, 0)).toThrow(RangeError);
    expect(() => types.policyPeerCodec.encode({ ...peer, rule: -1 }, buffer, 0)).toThrow(RangeError);
    const address = { addr: new Uint8Array(4), port: 1, proto: 6 };
    expect(() => types.hostportKeyCodec.encode(address, buffer, 0)).toThrow(
      'hostport_key.addr needs 16 bytes, not 4',
    );
  });

  it('read any bytes back to the same bytes, but for padding', () => {
    const all = Object.entries({ ...types, ...codecs }).filter(([name]) => name.endsWith('Codec')) as [
      string,
      codecs.Codec<unknown>,
    ][];
    expect(all.length).toBeGreaterThan(15);
    for (const [name, codec] of all) {
      if (typeof codec !== 'object') continue;
      fc.assert(
        fc.property(fc.uint8Array({ minLength: codec.size, maxLength: codec.size }), (bytes) => {
          const value = codec.decode(Buffer.from(bytes), 0);
          const into = Buffer.alloc(codec.size + 16, 0xaa);
          codec.encode(value, into, 8);
          expect(codec.decode(into, 8), name).toEqual(value);
          expect(into.readBigUInt64LE(0)).toBe(0xaaaaaaaaaaaaaaaan);
          expect(into.readBigUInt64LE(codec.size + 8)).toBe(0xaaaaaaaaaaaaaaaan);
        }),
        { numRuns: 50 },
      );
    }
  });

  it('name enum members by number', () => {
    expect(types.DropReason.PolicyEgress).toBe(6);
    expect(types.DropReasonName[6]).toBe('PolicyEgress');
    expect(types.ReservedIdentity.First).toBe(256);
    expect(types.LAYOUT_HASH).toMatch(/^[0-9a-f]{16}$/);
    expect(types.MAPS.flows.value.size).toBe(types.flowCodec.size);
  });
});

describe('plain codecs', () => {
  it('round-trip arrays and bytes of a fixed length', () => {
    const buffer = Buffer.alloc(16);
    codecs.putArray([1, 2, 3], codecs.be32Codec, buffer, 4, 3, 'x');
    expect(buffer.toString('hex')).toBe('00000000000000010000000200000003');
    expect(codecs.takeArray(buffer, codecs.be32Codec, 4, 3)).toEqual([1, 2, 3]);
    expect(() => codecs.putArray([1], codecs.u8Codec, buffer, 0, 2, 'x')).toThrow('x needs 2 values, not 1');
    const three = codecs.bytesCodec(3);
    three.encode(Uint8Array.of(7, 8, 9), buffer, 0);
    expect(three.decode(buffer, 0)).toEqual(Uint8Array.of(7, 8, 9));
    expect(() => three.encode(Uint8Array.of(7), buffer, 0)).toThrow(RangeError);
  });
});
