import { describe, expect, it } from 'vitest';
import { RingConsumer } from './ring.js';

const BUSY = 0x80000000;
const DISCARD = 0x40000000;

/** A ring of 64 bytes, written as the kernel would. */
function ring(start = 0) {
  const size = 64;
  const consumer = Buffer.from(new ArrayBuffer(8));
  const producer = Buffer.from(new ArrayBuffer(8));
  const data = Buffer.from(new ArrayBuffer(size * 2));
  consumer.writeBigUInt64LE(BigInt(start), 0);
  producer.writeBigUInt64LE(BigInt(start), 0);
  let position = start;
  const header = (at: number, value: number) => {
    const offset = at % size;
    data.writeUInt32LE(value, offset);
    data.writeUInt32LE(value, offset + size);
  };
  return {
    consumed: () => Number(consumer.readBigUInt64LE(0)),
    header,
    /** Puts a record and returns where its header is. */
    put: (bytes: readonly number[], flags = 0): number => {
      const at = position;
      header(at, bytes.length + flags);
      bytes.forEach((byte, i) => {
        const offset = (at + 8 + i) % size;
        data[offset] = byte;
        data[offset + size] = byte;
      });
      position += Math.ceil((bytes.length + 8) / 8) * 8;
      producer.writeBigUInt64LE(BigInt(position), 0);
      return at;
    },
    reader: new RingConsumer(consumer, producer, data),
  };
}

function records(reader: RingConsumer, max?: number): number[][] {
  const seen: number[][] = [];
  reader.poll((record) => seen.push([...record]), max);
  return seen;
}

describe('RingConsumer', () => {
  it('gives records of any length once and moves the consumer position', () => {
    const { reader, put, consumed } = ring();
    expect(records(reader)).toEqual([]);
    put([1, 2, 3]);
    put([4]);
    put([]);
    expect(records(reader)).toEqual([[1, 2, 3], [4], []]);
    expect(consumed()).toBe(16 + 16 + 8);
    expect(records(reader)).toEqual([]);
  });

  it('stops at a record that is being written, skips discarded ones', () => {
    const { reader, put, header, consumed } = ring();
    put([1]);
    put([2], DISCARD);
    const busy = put([3], BUSY);
    put([4]);
    expect(records(reader)).toEqual([[1]]);
    expect(consumed()).toBe(32);
    header(busy, 1);
    expect(records(reader)).toEqual([[3], [4]]);
  });

  it('reads across the end of the ring and across 2^32 bytes', () => {
    for (const start of [0, 2 ** 31 - 16, 2 ** 32 - 24, 2 ** 33 - 8]) {
      const { reader, put, consumed } = ring(start);
      let total = start;
      for (let i = 0; i < 20; i++) {
        const bytes = Array.from({ length: 17 + (i % 8) }, (_, j) => (i + j) & 0xff);
        put(bytes);
        expect(records(reader)).toEqual([bytes]);
        total += Math.ceil((bytes.length + 8) / 8) * 8;
        expect(consumed()).toBe(total);
      }
    }
  });

  it('keeps to a maximum, and consumes the record of a callback that throws', () => {
    const { reader, put } = ring();
    put([1]);
    put([2]);
    put([3]);
    expect(records(reader, 1)).toEqual([[1]]);
    expect(() =>
      reader.poll(() => {
        throw new Error('stop');
      }),
    ).toThrow('stop');
    expect(records(reader)).toEqual([[3]]);
  });

  it('refuses a size that is no power of 2', () => {
    const page = Buffer.from(new ArrayBuffer(8));
    expect(() => new RingConsumer(page, page, Buffer.from(new ArrayBuffer(48)))).toThrow(RangeError);
  });
});
