import { basename } from 'node:path';
import type { Codec } from './abi/codec.js';
import { BpfMapType } from './abi/gen/kernel.gen.js';
import { BpfError } from './errors.js';
import { libbpf } from './ffi/libbpf.js';
import { close, duplicate, mmap, munmap, PROT_READ, PROT_WRITE, pageSize } from './ffi/libc.js';
import { addressOf, cString } from './ffi/native.js';
import { type MapInfo, mapInfo, memoryBytes } from './info.js';
import { BATCH_ENTRIES, deleteBatch, lookupBatches, updateBatch } from './map-batch.js';

export type UpdateFlags = 'any' | 'noexist' | 'exist';

const FLAGS: Readonly<Record<UpdateFlags, bigint>> = { any: 0n, noexist: 1n, exist: 2n };
const ENOENT = 2;
const EINVAL = 22;
const FULL: ReadonlySet<number> = new Set([7, 28]);
const PER_CPU: ReadonlySet<number> = new Set([
  BpfMapType.PercpuHash,
  BpfMapType.PercpuArray,
  BpfMapType.LruPercpuHash,
]);

/** Takes the entries of a map. */
export interface Rows<K, V> {
  put(key: K, value: V): void;
}

let cpus = 0;
/** Possible CPUs: how many values an entry of a per-CPU map has. */
export function possibleCpus(): number {
  if (cpus === 0) cpus = libbpf().libbpf_num_possible_cpus();
  return cpus;
}

function ownBuffer(size: number): Buffer {
  return Buffer.from(new ArrayBuffer(size));
}

/**
 * A typed map. Keys and values go through buffers that are allocated once, so single operations
 * leave no garbage in native memory. Every failing operation throws BpfError, whose text says so
 * when the map is full.
 */
export class BpfMap<K, V> {
  readonly name: string;
  readonly maxEntries: number;
  /** Number of the kernel's enum bpf_map_type. */
  readonly type: number;
  readonly info: MapInfo;
  readonly perCpu: boolean;
  #fd: number;
  #fdArgument: bigint;
  readonly #keyCodec: Codec<K>;
  readonly #valueCodec: Codec<V>;
  readonly #key: Buffer;
  readonly #value: Buffer;
  readonly #keyAddress: bigint;
  readonly #valueAddress: bigint;
  /** Bytes of one CPU's value in the buffer. */
  readonly #stride: number;
  #mapping: { readonly address: bigint; readonly memory: Buffer } | undefined;

  private constructor(fd: number, info: MapInfo, name: string, key: Codec<K>, value: Codec<V>) {
    this.name = name;
    this.info = info;
    this.type = info.type;
    this.maxEntries = info.maxEntries;
    this.perCpu = PER_CPU.has(info.type);
    this.#fd = fd;
    this.#fdArgument = BigInt(fd);
    this.#keyCodec = key;
    this.#valueCodec = value;
    this.#stride = this.perCpu ? Math.ceil(info.valueSize / 8) * 8 : info.valueSize;
    this.#key = ownBuffer(Math.max(info.keySize, 1));
    this.#value = ownBuffer(Math.max(this.#stride * (this.perCpu ? possibleCpus() : 1), 1));
    this.#keyAddress = addressOf(this.#key);
    this.#valueAddress = addressOf(this.#value);
  }

  /** Takes a descriptor of its own; the given one stays with its owner. */
  static fromFd<K, V>(fd: number, name: string, key: Codec<K>, value: Codec<V>): BpfMap<K, V> {
    const info = mapInfo(fd);
    checkSizes(info, name, key, value);
    return new BpfMap(duplicate(fd), info, name, key, value);
  }

  /** Opens a pinned map. Throws BpfError: ENOENT when nothing is pinned there, EINVAL for other sizes. */
  static openPinned<K, V>(path: string, key: Codec<K>, value: Codec<V>): BpfMap<K, V> {
    const fd = libbpf().bpf_obj_get(cString(path));
    if (fd < 0) throw new BpfError(`open pinned map ${path}`, -fd);
    try {
      return BpfMap.fromFd(fd, basename(path), key, value);
    } finally {
      close(fd);
    }
  }

  get fd(): number {
    if (this.#fd < 0) throw new BpfError(`use map ${this.name}`, 9, 'it was closed');
    return this.#fd;
  }

  /** The value of a key; undefined if there is none. Of a per-CPU map use getPerCpu. */
  get(key: K): V | undefined {
    this.#refusePerCpu('get');
    return this.#lookup(key) ? this.#valueCodec.decode(this.#value, 0) : undefined;
  }

  /** The value of a key on each possible CPU; empty if the key is not there. */
  getPerCpu(key: K): V[] {
    if (!this.perCpu) throw new TypeError(`map ${this.name} is not a per-CPU map`);
    return this.#lookup(key) ? this.#decodePerCpu(this.#value, 0) : [];
  }

  /** Writes an entry; in a per-CPU map the value of all CPUs. With `noexist` an existing key is EEXIST. */
  set(key: K, value: V, flags: UpdateFlags = 'any'): void {
    this.#keyCodec.encode(key, this.#key, 0);
    this.#encodeValue(value, this.#value, 0);
    const result = libbpf().bpf_map_update_elem(
      this.#argument(),
      this.#keyAddress,
      this.#valueAddress,
      FLAGS[flags],
    );
    if (result < 0) throw this.#error('update', -result);
  }

  /** Removes an entry. False: it was not there. */
  delete(key: K): boolean {
    this.#keyCodec.encode(key, this.#key, 0);
    const result = libbpf().bpf_map_delete_elem(this.#argument(), this.#keyAddress);
    if (result === -ENOENT) return false;
    if (result < 0) throw this.#error('delete from', -result);
    return true;
  }

  /**
   * All entries, read in batches while the iteration goes on. Entries that change meanwhile may be
   * missed or seen in either state; each call reads afresh. Of a per-CPU map use entriesPerCpu.
   */
  *entries(): Iterable<[K, V]> {
    this.#refusePerCpu('entries');
    for (const { keys, values, count } of this.#batches()) {
      for (let i = 0; i < count; i++) {
        yield [
          this.#keyCodec.decode(keys, i * this.info.keySize),
          this.#valueCodec.decode(values, i * this.#stride),
        ];
      }
    }
  }

  /** All entries of a per-CPU map, with the value on each possible CPU. */
  *entriesPerCpu(): Iterable<[K, V[]]> {
    if (!this.perCpu) throw new TypeError(`map ${this.name} is not a per-CPU map`);
    const size = this.#value.length;
    for (const { keys, values, count } of this.#batches()) {
      for (let i = 0; i < count; i++) {
        yield [this.#keyCodec.decode(keys, i * this.info.keySize), this.#decodePerCpu(values, i * size)];
      }
    }
  }

  /**
   * Of a per-CPU array whose values are counters of 64 bits: the sums over all CPUs for the keys below `end`, one key after
   * the other. Exact up to 2^53.
   */
  totals(end: number): Float64Array {
    if (this.type !== BpfMapType.PercpuArray || this.info.valueSize % 8 !== 0)
      throw new TypeError(`map ${this.name} is no per-CPU array of counters`);
    const fields = this.info.valueSize / 8;
    const totals = new Float64Array(Math.min(end, this.maxEntries) * fields);
    const perKey = fields * possibleCpus();
    let at = 0;
    for (const { values, count } of this.#batches()) {
      const words = new Uint32Array(values.buffer, values.byteOffset, count * perKey * 2);
      for (let key = 0, word = 0; key < count && at < totals.length; key++, at += fields) {
        for (let cpu = possibleCpus(); cpu > 0; cpu--) {
          for (let field = 0; field < fields; field++, word += 2)
            totals[at + field] =
              (totals[at + field] ?? 0) + (words[word] ?? 0) + (words[word + 1] ?? 0) * 2 ** 32;
        }
      }
      if (at >= totals.length) break;
    }
    return totals;
  }

  /** Number of entries. It reads all of them: 0.1 to 0.3 µs each. Of an array all slots count. */
  count(): number {
    let total = 0;
    for (const { count } of this.#batches()) total += count;
    return total;
  }

  /** Writes many entries. On an error those before the failing one are written. */
  setBatch(entries: readonly (readonly [K, V])[]): void {
    this.setEach(entries.length, (rows) => {
      for (const [key, value] of entries) rows.put(key, value);
    });
  }

  /** As `setBatch`, for at most `total` entries, which are copied one by one: one object may stand for all of them. */
  setEach(total: number, write: (rows: Rows<K, V>) => void): void {
    const keySize = this.info.keySize;
    const valueSize = this.#value.length;
    const room = Math.min(total, BATCH_ENTRIES);
    const [keys, values] = [ownBuffer(room * keySize), ownBuffer(room * valueSize)];
    let count = 0;
    const flush = (): void => {
      const error = updateBatch(this.fd, { keys, values, count, keySize, valueSize });
      if (error !== 0) throw this.#error('update', error);
      count = 0;
    };
    const put = (key: K, value: V): void => {
      this.#keyCodec.encode(key, keys, count * keySize);
      this.#encodeValue(value, values, count * valueSize);
      if (++count === room) flush();
    };
    write({ put });
    if (count > 0) flush();
  }

  /** Removes many entries. Returns how many there were. */
  deleteBatch(keys: readonly K[]): number {
    const room = Math.min(keys.length, BATCH_ENTRIES);
    const buffer = ownBuffer(room * this.info.keySize);
    let deleted = 0;
    for (let start = 0; start < keys.length; start += room) {
      const count = Math.min(room, keys.length - start);
      for (let i = 0; i < count; i++) {
        this.#keyCodec.encode(keys[start + i] as K, buffer, i * this.info.keySize);
      }
      const { error, count: done } = deleteBatch(this.fd, buffer, count, this.info.keySize);
      deleted += done;
      if (error !== 0) throw this.#error('delete from', error);
    }
    return deleted;
  }

  /** Pins the map below a mounted bpf file system. The folder must exist, the path must not. */
  pin(path: string): void {
    const result = libbpf().bpf_obj_pin(this.fd, cString(path));
    if (result < 0) throw new BpfError(`pin map ${this.name} at ${path}`, -result);
  }

  /**
   * The memory of an array with BPF_F_MMAPABLE, shared with the kernel: values of `value size`
   * rounded up to 8 bytes, one after the other. It must not be touched after close(). A Buffer's
   * methods write byte by byte: make a typed array of it for writes that must not tear.
   */
  mmap(): Buffer {
    if (this.#mapping === undefined) {
      const page = pageSize();
      const length = this.maxEntries * Math.ceil(this.info.valueSize / 8) * 8;
      this.#mapping = mmap(this.fd, Math.ceil(length / page) * page, PROT_READ | PROT_WRITE);
    }
    return this.#mapping.memory;
  }

  /** Bytes of kernel memory that the map holds. */
  memoryBytes(): number {
    return memoryBytes(this.fd);
  }

  close(): void {
    if (this.#mapping !== undefined) munmap(this.#mapping.address, this.#mapping.memory.length);
    this.#mapping = undefined;
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  #argument(): bigint {
    if (this.#fd < 0) throw new BpfError(`use map ${this.name}`, 9, 'it was closed');
    return this.#fdArgument;
  }

  #refusePerCpu(method: string): void {
    if (this.perCpu) throw new TypeError(`map ${this.name} is a per-CPU map: use ${method}PerCpu`);
  }

  #lookup(key: K): boolean {
    this.#keyCodec.encode(key, this.#key, 0);
    const result = libbpf().bpf_map_lookup_elem(this.#argument(), this.#keyAddress, this.#valueAddress);
    if (result === -ENOENT) return false;
    if (result < 0) throw this.#error('look up in', -result);
    return true;
  }

  #encodeValue(value: V, into: Buffer, offset: number): void {
    this.#valueCodec.encode(value, into, offset);
    if (!this.perCpu) return;
    for (let at = this.#stride; at < this.#value.length; at += this.#stride) {
      into.copyWithin(offset + at, offset, offset + this.#stride);
    }
  }

  #decodePerCpu(from: Buffer, offset: number): V[] {
    return Array.from({ length: possibleCpus() }, (_, cpu) =>
      this.#valueCodec.decode(from, offset + cpu * this.#stride),
    );
  }

  #batches() {
    const sizes = { keySize: this.info.keySize, valueSize: this.#value.length };
    return lookupBatches(this.fd, sizes, this.maxEntries, (error) => this.#error('read', error));
  }

  #error(what: string, error: number): BpfError {
    const isArray = this.type === BpfMapType.Array || this.type === BpfMapType.PercpuArray;
    const reason = isArray
      ? `its keys go from 0 to ${this.maxEntries - 1}`
      : `it is full (${this.maxEntries} entries)`;
    const full = FULL.has(error) && what === 'update' ? reason : undefined;
    return new BpfError(`${what} map ${this.name}`, error, full);
  }
}

function checkSizes<K, V>(info: MapInfo, name: string, key: Codec<K>, value: Codec<V>): void {
  if (info.keySize === key.size && info.valueSize === value.size) return;
  throw new BpfError(
    `open map ${name}`,
    EINVAL,
    `keys of ${info.keySize} and values of ${info.valueSize} bytes, not ${key.size} and ${value.size}`,
  );
}
