import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Codec, u32Codec, u64Codec } from '../../loader/abi/codec.js';
import { BpfError } from '../../loader/errors.js';
import { type BpfMap, possibleCpus } from '../../loader/map.js';
import { BpfObject } from '../../loader/object.js';
import { RingReader } from '../../loader/ring.js';
import { compile, residentBytes, temporaryFolder } from './support.js';

const folder = temporaryFolder();
let object: BpfObject;
beforeAll(() => {
  object = BpfObject.open(compile('maps', folder.path));
  object.load();
});
afterAll(() => {
  object.close();
  folder.remove();
});

function caught(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

function withMap<K, V>(name: string, key: Codec<K>, value: Codec<V>, use: (map: BpfMap<K, V>) => void): void {
  const map = object.map(name, key, value);
  try {
    use(map);
  } finally {
    map.close();
  }
}

interface Prefix {
  readonly length: number;
  readonly address: number;
}
const prefixCodec: Codec<Prefix> = {
  size: 8,
  encode(value, into, offset) {
    into.writeUInt32LE(value.length, offset);
    into.writeUInt32BE(value.address, offset + 4);
  },
  decode: (from, offset) => ({ length: from.readUInt32LE(offset), address: from.readUInt32BE(offset + 4) }),
};

describe('single operations', () => {
  it('get, set and delete in a hash, with flags', () => {
    withMap('hash_map', u32Codec, u64Codec, (map) => {
      expect(map.get(1)).toBeUndefined();
      map.set(1, 5n);
      expect(map.get(1)).toBe(5n);
      expect(caught(() => map.set(1, 6n, 'noexist'))).toMatchObject({
        code: 'EEXIST',
        operation: 'update map hash_map',
      });
      expect(map.get(1)).toBe(5n);
      map.set(1, 6n, 'exist');
      expect(map.get(1)).toBe(6n);
      expect(caught(() => map.set(2, 6n, 'exist'))).toMatchObject({ code: 'ENOENT' });
      expect(map.delete(1)).toBe(true);
      expect(map.delete(1)).toBe(false);
      expect(caught(() => map.set(-1, 0n))).toBeInstanceOf(RangeError);
    });
  });

  it('finds the longest prefix', () => {
    withMap('lpm_map', prefixCodec, u64Codec, (map) => {
      map.set({ length: 8, address: 0x0a000000 }, 8n);
      map.set({ length: 16, address: 0x0a010000 }, 16n);
      expect(map.get({ length: 32, address: 0x0a010203 })).toBe(16n);
      expect(map.get({ length: 32, address: 0x0a020203 })).toBe(8n);
      expect(map.get({ length: 32, address: 0x0b020203 })).toBeUndefined();
      expect([...map.entries()].map(([key, value]) => [key.length, value])).toEqual(
        expect.arrayContaining([
          [8, 8n],
          [16, 16n],
        ]),
      );
      expect(map.count()).toBe(2);
      expect(map.deleteBatch([...map.entries()].map(([key]) => key))).toBe(2);
      expect(map.count()).toBe(0);
    });
  });

  it('reads and writes the values of each CPU', () => {
    withMap('percpu_map', u32Codec, u32Codec, (map) => {
      map.set(1, 7);
      expect(map.getPerCpu(1)).toEqual(new Array(possibleCpus()).fill(7));
      expect(map.getPerCpu(2)).toEqual(new Array(possibleCpus()).fill(0));
      expect(caught(() => map.get(1))).toBeInstanceOf(TypeError);
      const program = object.program('count');
      map.set(0, 0);
      program.testRun({ data: Buffer.alloc(64), repeat: 25 });
      expect(map.getPerCpu(0).reduce((a, b) => a + b)).toBe(25);
      expect([...map.entriesPerCpu()].map(([key]) => key)).toEqual([0, 1, 2, 3]);
      program.close();
    });
    withMap('percpu_hash', u32Codec, u64Codec, (map) => {
      map.setBatch(Array.from({ length: 3000 }, (_, i) => [i, BigInt(i * 3)] as const));
      expect(map.count()).toBe(3000);
      for (const [key, values] of map.entriesPerCpu()) {
        expect(values).toEqual(new Array(possibleCpus()).fill(BigInt(key * 3)));
      }
      expect(map.deleteBatch(Array.from({ length: 3000 }, (_, i) => i))).toBe(3000);
    });
  });

  it('adds up counters of all CPUs', () => {
    interface Counters {
      readonly first: bigint;
      readonly second: bigint;
    }
    const codec: Codec<Counters> = {
      size: 16,
      encode(value, into, offset) {
        into.writeBigUInt64LE(value.first, offset);
        into.writeBigUInt64LE(value.second, offset + 8);
      },
      decode: (from, offset) => ({
        first: from.readBigUInt64LE(offset),
        second: from.readBigUInt64LE(offset + 8),
      }),
    };
    withMap('percpu_counters', u32Codec, codec, (map) => {
      const large = 2 ** 40;
      for (let i = 0; i < 3000; i++) map.set(i, { first: BigInt(i), second: BigInt(large + i) });
      for (const end of [0, 1, 1500, 3000, 4000]) {
        const keys = Array.from({ length: Math.min(end, 3000) }, (_, i) => i);
        const wanted = keys.flatMap((i) => [i * possibleCpus(), (large + i) * possibleCpus()]);
        expect([...map.totals(end)], `${end}`).toEqual(wanted);
      }
    });
    withMap('percpu_map', u32Codec, u32Codec, (map) => {
      expect(caught(() => map.totals(1))).toBeInstanceOf(TypeError);
    });
  });

  it('writes as many entries as there are when more were announced, and copies each', () => {
    withMap('hash_map', u32Codec, u64Codec, (map) => {
      map.setEach(5000, (rows) => {
        for (let i = 0; i < 1500; i++) rows.put(i, BigInt(i * 7));
      });
      expect(new Map(map.entries())).toEqual(
        new Map(Array.from({ length: 1500 }, (_, i) => [i, BigInt(i * 7)])),
      );
      map.setEach(0, () => undefined);
      expect(map.count()).toBe(1500);
    });
  });

  it('shares the memory of an array with the programs', () => {
    withMap('array_map', u32Codec, u64Codec, (map) => {
      const memory = map.mmap();
      const values = new BigUint64Array(memory.buffer, memory.byteOffset, 16);
      Atomics.store(values, 3, 77n);
      expect(map.get(3)).toBe(77n);
      map.set(1, 0n);
      const program = object.program('count');
      program.testRun({ data: Buffer.alloc(64), repeat: 10 });
      program.close();
      expect(Atomics.load(values, 1)).toBe(10n);
      expect(map.mmap()).toBe(memory);
      expect([...map.entries()].length).toBe(16);
      expect(caught(() => map.set(16, 1n))).toMatchObject({ code: 'E2BIG' });
    });
    withMap('hash_map', u32Codec, u64Codec, (map) => expect(caught(() => map.mmap())).toBeDefined());
  });
});

describe('batches', () => {
  it('write, read and remove 10,000 entries', () => {
    withMap('hash_map', u32Codec, u64Codec, (map) => {
      const entries = Array.from({ length: 10_000 }, (_, i) => [i, BigInt(i) * 3n] as const);
      const start = process.hrtime.bigint();
      map.setBatch(entries);
      const took = Number(process.hrtime.bigint() - start) / 1e6;
      console.log(`10,000 entries written in ${took.toFixed(1)} ms`);
      expect(took).toBeLessThan(200);
      const read = new Map(map.entries());
      expect(read.size).toBe(10_000);
      expect(map.count()).toBe(10_000);
      for (const [key, value] of entries) expect(read.get(key)).toBe(value);
      // Every other key is missing: the batch goes on after each.
      const mixed = Array.from({ length: 2_000 }, (_, i) => (i % 2 === 0 ? i : 1_000_000 + i));
      expect(map.deleteBatch(mixed)).toBe(1_000);
      expect(map.count()).toBe(9_000);
      expect(map.deleteBatch(entries.map(([key]) => key))).toBe(9_000);
      expect([...map.entries()]).toEqual([]);
      map.setBatch([]);
      expect(map.deleteBatch([])).toBe(0);
    });
  });

  it('say that the map is full, and keep what fitted', () => {
    const opened = BpfObject.open(`${folder.path}/maps.bpf.o`);
    opened.setMaxEntries('hash_map', 100);
    opened.load();
    const map = opened.map('hash_map', u32Codec, u64Codec);
    const error = caught(() => map.setBatch(Array.from({ length: 150 }, (_, i) => [i, 0n] as const)));
    expect(error).toBeInstanceOf(BpfError);
    expect((error as Error).message).toBe(
      'update map hash_map: it is full (100 entries): argument list too long (E2BIG)',
    );
    expect(map.count()).toBe(100);
    map.close();
    opened.close();
  });

  it('work one by one where the kernel has no batch for the type', () => {
    withMap('cpu_map', u32Codec, u32Codec, (map) => {
      map.setBatch([[0, 192]]);
      expect([...map.entries()]).toEqual([[0, 192]]);
      expect(map.count()).toBe(1);
      expect(map.deleteBatch([0])).toBe(1);
      expect(map.count()).toBe(0);
      expect(caught(() => map.setBatch([[64, 192]]))).toMatchObject({ code: 'E2BIG' });
    });
  });

  it('work on an iteration that deletes what it reads', () => {
    withMap('lru_map', u32Codec, u64Codec, (map) => {
      map.setBatch(Array.from({ length: 500 }, (_, i) => [i, 1n] as const));
      for (const [key] of map.entries()) map.delete(key);
      expect(map.count()).toBe(0);
    });
  });
});

describe('memory', () => {
  it('of a map is known', () => {
    withMap('hash_map', u32Codec, u64Codec, (map) => {
      expect(map.memoryBytes()).toBeGreaterThan(65536 * 16);
      expect(map.memoryBytes()).toBeLessThan(65536 * 500);
    });
  });

  it('does not grow over 200,000 updates and lookups', () => {
    withMap('hash_map', u32Codec, u64Codec, (map) => {
      const loop = (count: number) => {
        for (let i = 0; i < count; i++) {
          map.set(i & 0x3ff, 1n);
          map.get(i & 0x3ff);
        }
      };
      loop(20_000);
      const before = residentBytes();
      const start = process.hrtime.bigint();
      loop(200_000);
      const each = Number(process.hrtime.bigint() - start) / 400_000;
      const grown = residentBytes() - before;
      console.log(`map operation: ${each.toFixed(0)} ns, RSS ${(grown / 1e6).toFixed(1)} MB`);
      expect(grown).toBeLessThan(20e6);
      expect(each).toBeLessThan(20_000);
    });
  });
});

describe('RingReader', () => {
  const fill = (records: number, discardEvery = 0) => {
    const program = object.program('fill_ring');
    const ctxIn = Buffer.alloc(16);
    ctxIn.writeUInt32LE(records, 0);
    ctxIn.writeUInt32LE(discardEvery, 8);
    const { ctxOut } = program.testRun({ ctxIn });
    program.close();
    return ctxOut.readUInt32LE(12);
  };

  it('delivers records in order, across the wrap, without discarded ones', () => {
    const map = object.map('ring', { ...u32Codec, size: 0 }, { ...u32Codec, size: 0 });
    const ring = RingReader.open(map.fd, map.maxEntries);
    // Other tests may have left records.
    ring.poll(() => {});
    expect(ring.poll(() => {})).toBe(0);
    for (let round = 0; round < 50; round++) {
      expect(fill(50)).toBe(0);
      const seen: number[] = [];
      expect(
        ring.poll((record) => seen.push(record.readUInt32LE(0), record.readUInt32LE(56), record.length)),
      ).toBe(50);
      expect(seen).toEqual(Array.from({ length: 50 }, (_, i) => [i, ~i >>> 0, 60]).flat());
    }
    fill(10, 2);
    const odd: number[] = [];
    expect(ring.poll((record) => odd.push(record.readUInt32LE(0)))).toBe(5);
    expect(odd).toEqual([1, 3, 5, 7, 9]);
    fill(10);
    expect(ring.poll(() => {}, 4)).toBe(4);
    expect(ring.poll(() => {})).toBe(6);
    // A full ring: what does not fit is lost, the rest is delivered.
    const lost = fill(200);
    expect(lost).toBeGreaterThan(0);
    expect(ring.poll(() => {})).toBe(200 - lost);
    // The reader's position is in the map: a second reader goes on where the first stopped.
    fill(3);
    ring.close();
    const second = RingReader.open(map.fd, map.maxEntries);
    expect(second.poll(() => {})).toBe(3);
    second.close();
    expect(caught(() => second.poll(() => {}))).toBeInstanceOf(BpfError);
    map.close();
  });
});
