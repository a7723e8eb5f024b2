import { describe, expect, it } from 'vitest';
import {
  addressOf,
  bufferAt,
  copyFrom,
  copyTo,
  cString,
  Library,
  nativeCallback,
  nativeFunction,
  readCString,
} from './native.js';

const libc = Library.open(null);

describe('native calls', () => {
  it('passes and returns 32 and 64 bit integers of either sign', () => {
    const labs = nativeFunction(libc, 'labs', 'i64', ['i64']);
    const abs = nativeFunction(libc, 'abs', 'i32', ['i32']);
    expect(labs(-5_000_000_000n)).toBe(5_000_000_000n);
    expect(labs(-7)).toBe(7n);
    expect(abs(-7)).toBe(7);
    const atoi = nativeFunction(libc, 'atoi', 'i32', ['ptr']);
    expect(atoi(cString('-123'))).toBe(-123);
    const strtoul = nativeFunction(libc, 'strtoul', 'u64', ['ptr', 'ptr', 'i32']);
    expect(strtoul(cString('18446744073709551615'), null, 10)).toBe(18446744073709551615n);
    const htonl = nativeFunction(libc, 'htonl', 'u32', ['u32']);
    expect(htonl(0xff)).toBe(0xff000000);
  });

  it('gives C the address of views at an offset, and reads what C wrote', () => {
    const memory = Buffer.alloc(64);
    const view = memory.subarray(16, 32);
    expect(addressOf(view)).toBe(addressOf(memory) + 16n);
    const memset = nativeFunction(libc, 'memset', 'ptr', ['ptr', 'i32', 'u64']);
    expect(memset(view, 0xab, 4)).toBe(addressOf(view));
    expect([...memory.subarray(14, 22)]).toEqual([0, 0, 0xab, 0xab, 0xab, 0xab, 0, 0]);
  });

  it('copies foreign memory and strings', () => {
    const malloc = nativeFunction(libc, 'malloc', 'ptr', ['u64']);
    const free = nativeFunction(libc, 'free', 'void', ['ptr']);
    const address = malloc(32);
    copyTo(address, cString('grüße'));
    expect(readCString(address)).toBe('grüße');
    expect(readCString(address, 2)).toBe('gr');
    expect(copyFrom(address, 2).toString()).toBe('gr');
    const view = bufferAt(address, 8);
    view[0] = 'G'.charCodeAt(0);
    expect(readCString(address)).toBe('Grüße');
    expect(free(address)).toBeUndefined();
    expect(readCString(0n)).toBe('');
  });

  it('calls back into JavaScript, also when the callback calls C again', () => {
    const qsort = nativeFunction(libc, 'qsort', 'void', ['ptr', 'u64', 'u64', 'ptr']);
    const abs = nativeFunction(libc, 'abs', 'i32', ['i32']);
    const compare = nativeCallback('i32', ['ptr', 'ptr'], (a, b) => {
      const [x, y] = [copyFrom(a, 4).readInt32LE(0), copyFrom(b, 4).readInt32LE(0)];
      return abs(x) - abs(y);
    });
    const numbers = new Int32Array([-9, 3, -1, 7, 0, -5]);
    qsort(new Uint8Array(numbers.buffer), numbers.length, 4, compare.address);
    expect([...numbers]).toEqual([0, -1, 3, -5, 7, -9]);
  });

  it('refuses a wrong number of arguments, missing symbols and libraries, and NUL in strings', () => {
    const abs = nativeFunction(libc, 'abs', 'i32', ['i32']);
    expect(() => abs()).toThrow('abs takes 1 arguments, got 0');
    expect(() => nativeFunction(libc, 'no_such_function', 'i32', [])).toThrow('no_such_function');
    expect(libc.has('abs')).toBe(true);
    expect(libc.has('no_such_function')).toBe(false);
    expect(() => Library.open('libnosuch.so.9')).toThrow('libnosuch.so.9');
    expect(() => cString('a\0b')).toThrow('NUL');
  });

  it('does not grow over 300,000 calls and stays below 10 µs each', () => {
    const memset = nativeFunction(libc, 'memset', 'ptr', ['ptr', 'i32', 'u64']);
    const memory = Buffer.alloc(4096);
    const run = (count: number) => {
      for (let i = 0; i < count; i++) memset(memory, i & 0xff, 64n);
    };
    run(20_000);
    global.gc?.();
    const before = process.memoryUsage().rss;
    const start = process.hrtime.bigint();
    run(300_000);
    const each = Number(process.hrtime.bigint() - start) / 300_000;
    const grown = process.memoryUsage().rss - before;
    console.log(`FFI call: ${each.toFixed(0)} ns, RSS ${(grown / 1e6).toFixed(1)} MB`);
    expect(grown).toBeLessThan(20e6);
    expect(each).toBeLessThan(10_000);
  });
});
