import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { u32Codec, u64Codec } from '../../loader/abi/codec.js';
import { BpfError, VerifierError } from '../../loader/errors.js';
import { BpfMap } from '../../loader/map.js';
import { BpfObject } from '../../loader/object.js';
import { BpfProgram } from '../../loader/program.js';
import { compile, mountBpf, temporaryFolder } from './support.js';

let object: string;
let rejected: string;
const folder = temporaryFolder();
let bpffs: ReturnType<typeof mountBpf>;

beforeAll(() => {
  object = compile('maps', folder.path);
  rejected = compile('rejected', folder.path);
  bpffs = mountBpf();
});
afterAll(() => {
  bpffs.remove();
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

const packet = Buffer.alloc(64);

describe('BpfObject', () => {
  it('lists what is in the file', () => {
    const opened = BpfObject.open(object);
    expect([...opened.mapNames].sort()).toEqual([
      'array_map',
      'cpu_map',
      'hash_map',
      'lpm_map',
      'lru_map',
      'percpu_counters',
      'percpu_hash',
      'percpu_map',
      'ring',
    ]);
    expect(opened.programNames).toEqual(['answer', 'other_answer', 'count', 'fill_ring', 'refuse']);
    opened.close();
    expect(caught(() => opened.mapNames)).toBeInstanceOf(BpfError);
  });

  it('sets constants of each size before the load and leaves the others', () => {
    const opened = BpfObject.open(object);
    opened.setRodata({ cfg_answer: 41, cfg_large: 0xfedcba9876543210n });
    opened.load();
    const program = opened.program('answer');
    expect(program.testRun({ data: packet }).retval).toBe(41 + 1 + 1000);
    opened.close();
    // The program has a descriptor of its own.
    expect(program.testRun({ data: packet }).retval).toBe(1042);
    program.close();
    expect(caught(() => program.fd)).toMatchObject({ code: 'EBADF' });
  });

  it('loads on another thread while this one goes on, and only says that it was refused', async () => {
    const opened = BpfObject.open(object);
    opened.setRodata({ cfg_answer: 41, cfg_large: 0xfedcba9876543210n });
    const loading = opened.loadLater();
    expect(await Promise.race([loading, Promise.resolve('meanwhile')])).toBe('meanwhile');
    expect(await loading).toBe(true);
    const program = opened.program('answer');
    expect(program.testRun({ data: packet }).retval).toBe(41 + 1 + 1000);
    program.close();
    opened.close();
    const bad = BpfObject.open(rejected);
    expect(await bad.loadLater()).toBe(false);
    bad.close();
  });

  it('refuses constants that are not there or do not fit, and any change after the load', () => {
    const opened = BpfObject.open(object);
    expect(caught(() => opened.setRodata({ cfg_nothing: 1 }))).toMatchObject({
      operation: 'set constant cfg_nothing',
      code: 'ENOENT',
    });
    expect(caught(() => opened.setRodata({ cfg_small: 256 }))).toMatchObject({
      code: 'ERANGE',
      detail: '256 does not fit into 1 bytes',
    });
    opened.load();
    for (const change of [
      () => opened.setRodata({ cfg_small: 1 }),
      () => opened.setMaxEntries('hash_map', 8),
      () => opened.setAutoload('count', false),
      () => opened.load(),
    ]) {
      expect(caught(change)).toMatchObject({ code: 'EINVAL' });
    }
    opened.close();
  });

  it('sets sizes, leaves programs out, and says what is missing', () => {
    const opened = BpfObject.open(object);
    opened.setMaxEntries('hash_map', 123);
    expect(opened.maxEntries('hash_map')).toBe(123);
    opened.setAutoload('count', false);
    opened.load();
    const map = opened.map('hash_map', u32Codec, u64Codec);
    expect(map.maxEntries).toBe(123);
    expect(map.info.name).toBe('hash_map');
    expect(caught(() => opened.program('count'))).toMatchObject({ detail: 'it is not loaded' });
    expect(caught(() => opened.program('nothing'))).toMatchObject({ code: 'ENOENT' });
    expect(caught(() => opened.map('nothing', u32Codec, u64Codec))).toMatchObject({ code: 'ENOENT' });
    expect(caught(() => opened.map('hash_map', u32Codec, u32Codec))).toMatchObject({
      detail: 'keys of 4 and values of 8 bytes, not 4 and 4',
    });
    map.close();
    opened.close();
  });

  it('says why an object cannot be opened', () => {
    expect(caught(() => BpfObject.open('/nonexistent.o'))).toMatchObject({ code: 'ENOENT' });
    const notElf = caught(() => BpfObject.open('/etc/hostname')) as BpfError;
    expect(notElf).toBeInstanceOf(BpfError);
    expect(notElf.message).not.toContain('\n');
    expect(notElf.detail).toContain('hostname');
  });

  it('says which map cannot be created and why', () => {
    const opened = BpfObject.open(object);
    opened.setMaxEntries('ring', 4097 * 3);
    opened.setMaxEntries('lpm_map', 0);
    const error = caught(() => opened.load()) as BpfError;
    expect(error).toBeInstanceOf(BpfError);
    expect(error.code).toBe('EINVAL');
    expect(error.detail).toContain("map 'lpm_map'");
    opened.close();
  });

  it('reuses a pinned map with its entries, and refuses one of another shape', () => {
    const pin = `${bpffs.path}/hash_map`;
    const first = BpfObject.open(object);
    expect(first.reuseMap('hash_map', pin)).toBe(false);
    first.load();
    const map = first.map('hash_map', u32Codec, u64Codec);
    map.pin(pin);
    map.set(1, 11n);
    expect(caught(() => map.pin(pin))).toMatchObject({
      code: 'EEXIST',
      operation: `pin map hash_map at ${pin}`,
    });
    map.close();
    first.close();

    const second = BpfObject.open(object);
    expect(second.reuseMap('hash_map', pin)).toBe(true);
    expect(caught(() => second.reuseMap('lru_map', pin))).toMatchObject({
      detail: 'type 1 instead of 9, max entries 65536 instead of 1024',
    });
    second.load();
    const again = second.map('hash_map', u32Codec, u64Codec);
    expect(again.get(1)).toBe(11n);
    const opened = BpfMap.openPinned(pin, u32Codec, u64Codec);
    expect(opened.info.id).toBe(again.info.id);
    expect(opened.name).toBe('hash_map');
    opened.close();
    again.close();
    second.close();
    expect(caught(() => BpfMap.openPinned(`${bpffs.path}/none`, u32Codec, u64Codec))).toMatchObject({
      code: 'ENOENT',
    });
  });
});

describe('a rejected program', () => {
  it('gives one line with program, reason, instruction and source, and the log on demand', () => {
    const opened = BpfObject.open(rejected);
    const error = caught(() => opened.load()) as VerifierError;
    expect(error).toBeInstanceOf(VerifierError);
    expect(error.program).toBe('unchecked');
    expect(error.code).toBe('EACCES');
    expect(error.summary).toMatch(
      /^rejected by the verifier: R0 invalid mem access 'map_value_or_null', instruction \d+, at `return \*value;`/,
    );
    expect(error.message).toMatch(/^load program unchecked: rejected by the verifier: .* \(EACCES\)$/);
    expect(error.message).not.toContain('\n');
    expect(error.log).toContain('processed');
    expect(error.log.split('\n').length).toBeGreaterThan(5);
    opened.close();
  });

  it('can be left out', () => {
    const opened = BpfObject.open(rejected);
    opened.setAutoload('unchecked', false);
    opened.load();
    opened.program('fine').close();
    opened.close();
  });
});

describe('BpfProgram', () => {
  it('runs with data, repeats, and measures', () => {
    const opened = BpfObject.open(object);
    opened.load();
    const program = opened.program('answer');
    const data = Buffer.alloc(100, 7);
    const result = program.testRun({ data, repeat: 10_000 });
    expect(result.retval).toBe(8);
    expect(result.durationNs).toBeGreaterThan(0);
    expect(result.durationNs).toBeLessThan(5_000);
    expect(result.dataOut.equals(data)).toBe(true);
    expect(caught(() => program.testRun({ data: Buffer.alloc(4) }))).toMatchObject({
      code: 'EINVAL',
      operation: 'test-run program answer',
    });
    program.close();
    opened.close();
  });

  it('gives a syscall program its argument and the result back', () => {
    const opened = BpfObject.open(object);
    opened.load();
    const program = opened.program('fill_ring');
    const ctxIn = Buffer.alloc(16);
    ctxIn.writeUInt32LE(1000, 0);
    const result = program.testRun({ ctxIn });
    expect(result.retval).toBe(5);
    // 64 bytes a record: 4096 bytes take fewer than 64, the rest is lost.
    expect(result.ctxOut.readUInt32LE(12)).toBeGreaterThan(900);
    expect(ctxIn.readUInt32LE(12)).toBe(0);
    program.close();
    opened.close();
  });

  it('tells id, tag, name and sizes, and survives by its pin', () => {
    const opened = BpfObject.open(object);
    opened.load();
    const program = opened.program('other_answer');
    const { info } = program;
    expect(info).toMatchObject({ name: 'other_answer', type: 3 });
    expect(info.id).toBeGreaterThan(0);
    expect(info.tag).toMatch(/^[0-9a-f]{16}$/);
    expect(info.verifiedInstructions).toBeGreaterThan(0);
    expect(info.jitedSize).toBeGreaterThan(0);
    expect(info.loadTime).toBeGreaterThan(0n);
    program.pin(`${bpffs.path}/other_answer`);
    program.close();
    opened.close();
    const again = BpfProgram.openPinned(`${bpffs.path}/other_answer`);
    expect(again.info).toEqual(info);
    expect(again.testRun({ data: packet }).retval).toBe(99);
    again.close();
    expect(caught(() => BpfProgram.openPinned(`${bpffs.path}/none`))).toMatchObject({ code: 'ENOENT' });
  });
});
