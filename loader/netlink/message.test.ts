import { describe, expect, it } from 'vitest';
import { align4, forEachAttribute, forEachMessage, MessageBuilder, stringAttribute } from './message.js';

describe('MessageBuilder', () => {
  it('writes header, fixed part, padded and nested attributes', () => {
    const message = new MessageBuilder(8); // grows
    message.begin(18, 0x301, 7).u32(0x01020304);
    message.attributeString(3, 'lo').attribute32(4, 1500).attribute8(5, 9);
    message.nested(26, () => message.nested(10, () => message.attribute8(8, 1)));
    message.end();
    expect(message.bytes().toString('hex')).toBe(
      [
        '3c000000120001030700000000000000', // length 60, type, flags, sequence, port
        '04030201',
        '070003006c6f0000', // "lo\0" and one byte of padding
        '08000400dc050000',
        '0500050009000000',
        '10001a00' + '0c000a00' + '0500080001000000',
      ].join(''),
    );
  });

  it('appends messages on multiples of four and takes back a broken one', () => {
    const message = new MessageBuilder();
    message.begin(1, 0, 1).u8(1).end();
    expect(message.length).toBe(20);
    message.begin(2, 0, 2).u32(0).abandon();
    message.begin(3, 0, 3).end();
    const seen: number[][] = [];
    forEachMessage(message.bytes(), message.length, (type, flags, sequence, start, end) => {
      seen.push([type, flags, sequence, start, end]);
    });
    expect(seen).toEqual([
      [1, 0, 1, 16, 17],
      [3, 0, 3, 36, 36],
    ]);
  });

  it('refuses an attribute that its length field cannot hold', () => {
    const message = new MessageBuilder();
    expect(() => message.begin(1, 0, 1).attributeBytes(1, Buffer.alloc(65533))).toThrow(RangeError);
  });
});

describe('walking', () => {
  it('stops at a broken length and never leaves the buffer', () => {
    const attributes = Buffer.from('08000400dc050000' + '0300010000000000' + '0800040000000000', 'hex');
    const seen: number[] = [];
    forEachAttribute(attributes, 0, attributes.length, (type) => seen.push(type));
    expect(seen).toEqual([4]);
    forEachAttribute(Buffer.from('ff00010000000000', 'hex'), 0, 8, (type) => seen.push(type));
    forEachMessage(Buffer.from('ff000000000000000000000000000000', 'hex'), 16, (type) => seen.push(type));
    expect(seen).toEqual([4]);
  });

  it('masks the flags of a type and reads strings with and without NUL', () => {
    const attribute = Buffer.from('060003806c6f', 'hex');
    forEachAttribute(attribute, 0, 6, (type, at, length) => {
      expect([type, stringAttribute(attribute, at, length)]).toEqual([3, 'lo']);
    });
    expect(stringAttribute(Buffer.from('lo\0'), 0, 3)).toBe('lo');
    expect([0, 1, 4, 5].map(align4)).toEqual([0, 4, 4, 8]);
  });
});
