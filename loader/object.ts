import { Btf } from './abi/btf.js';
import type { Codec } from './abi/codec.js';
import { BpfObjectOpenOpts } from './abi/gen/kernel.gen.js';
import { BpfError, VerifierError } from './errors.js';
import { collectMessages, decisiveMessage, libbpf, loadObjectLater } from './ffi/libbpf.js';
import { close, errno } from './ffi/libc.js';
import { addressOf, copyFrom, cString, readCString } from './ffi/native.js';
import { mapInfo } from './info.js';
import { BpfMap } from './map.js';
import { BpfProgram } from './program.js';
import { verifierSummaryText } from './verifier-log.js';

/** The kernel writes the verifier's log here when a program is rejected; untouched memory costs nothing. */
const LOG_SIZE = 16 << 20;
const NOTHING = Buffer.alloc(0);
const EPERM = 1;
const NOT_PERMITTED = 'loading programs needs root (CAP_BPF and CAP_NET_ADMIN)';
const EINVAL = 22;
const ENOENT = 2;

/**
 * A compiled object: open, set constants and sizes, reuse pinned maps, load. Maps and programs that
 * it gives have descriptors of their own, so it can be closed once they are taken.
 */
export class BpfObject {
  readonly path: string;
  #handle: bigint;
  #loaded = false;
  #btf: Btf | undefined;
  #log: Buffer;

  private constructor(path: string, handle: bigint, log: Buffer) {
    this.path = path;
    this.#handle = handle;
    this.#log = log;
  }

  /** Opens an object file. Nothing is in the kernel before load(). Throws BpfError. */
  static open(path: string): BpfObject {
    const log = Buffer.allocUnsafeSlow(LOG_SIZE);
    log[0] = 0;
    const file = cString(path);
    const opts = Buffer.alloc(BpfObjectOpenOpts.size);
    opts.writeBigUInt64LE(BigInt(BpfObjectOpenOpts.size), BpfObjectOpenOpts.sz);
    opts.writeBigUInt64LE(addressOf(log), BpfObjectOpenOpts.kernelLogBuf);
    opts.writeBigUInt64LE(BigInt(LOG_SIZE), BpfObjectOpenOpts.kernelLogSize);
    const handle = libbpf().bpf_object__open_file(file, opts);
    if (handle !== 0n) return new BpfObject(path, handle, log);
    // libbpf tells each of its steps to who listens, which takes longer than the steps: it is asked when something is wrong.
    const { result, messages } = collectMessages(() => ({
      handle: libbpf().bpf_object__open_file(file, opts),
      error: errno(),
    }));
    if (result.handle !== 0n) return new BpfObject(path, result.handle, log);
    throw new BpfError(`open object ${path}`, result.error, decisiveMessage(messages));
  }

  /**
   * Sets constants (`const volatile` variables) by name. The others keep the values of the source.
   * Throws BpfError for a name that the object lacks and a value that does not fit.
   */
  setRodata(values: Readonly<Record<string, number | bigint>>): void {
    this.#beforeLoad('set constants');
    const handle = libbpf().bpf_object__find_map_by_name(this.#open(), cString('.rodata'));
    const size = Buffer.alloc(8);
    const address = handle === 0n ? 0n : libbpf().bpf_map__initial_value(handle, size);
    if (address === 0n) throw new BpfError(`set constants of ${this.path}`, EINVAL, 'it has no .rodata');
    const data = copyFrom(address, Number(size.readBigUInt64LE(0)));
    const variables = new Map([...this.#types().variables()].map((v) => [v.name, v]));
    for (const [name, value] of Object.entries(values)) {
      const variable = variables.get(name);
      if (variable === undefined || variable.section !== '.rodata') {
        throw new BpfError(`set constant ${name}`, ENOENT, `${this.path} has no such constant`);
      }
      writeInteger(data, variable.offset, variable.size, BigInt(value), name);
    }
    const result = libbpf().bpf_map__set_initial_value(handle, data, data.length);
    if (result < 0) throw new BpfError(`set constants of ${this.path}`, -result);
  }

  /** Sets how many entries a map holds. */
  setMaxEntries(map: string, entries: number): void {
    this.#beforeLoad(`set the size of map ${map}`);
    const result = libbpf().bpf_map__set_max_entries(this.#map(map), entries);
    if (result < 0) throw new BpfError(`set the size of map ${map} to ${entries}`, -result);
  }

  /** Number of the kernel's enum bpf_map_type. */
  mapType(map: string): number {
    return libbpf().bpf_map__type(this.#map(map));
  }

  /** The number of entries that a map will be created with. */
  maxEntries(map: string): number {
    return libbpf().bpf_map__max_entries(this.#map(map));
  }

  /**
   * Uses the map that is pinned at a path instead of creating one. False: nothing is pinned there.
   * Throws BpfError (EINVAL) if the pinned map has another type, key, value, size or flags.
   */
  reuseMap(map: string, pinnedPath: string): boolean {
    this.#beforeLoad(`reuse map ${map}`);
    const library = libbpf();
    const handle = this.#map(map);
    const fd = library.bpf_obj_get(cString(pinnedPath));
    if (fd === -ENOENT) return false;
    if (fd < 0) throw new BpfError(`open pinned map ${pinnedPath}`, -fd);
    try {
      const pinned = mapInfo(fd);
      const shape: [string, number, number][] = [
        ['type', library.bpf_map__type(handle), pinned.type],
        ['key size', library.bpf_map__key_size(handle), pinned.keySize],
        ['value size', library.bpf_map__value_size(handle), pinned.valueSize],
        ['max entries', library.bpf_map__max_entries(handle), pinned.maxEntries],
        ['flags', library.bpf_map__map_flags(handle), pinned.flags],
      ];
      const different = shape
        .filter(([, wanted, found]) => wanted !== found)
        .map(([what, wanted, found]) => `${what} ${found} instead of ${wanted}`);
      if (different.length > 0) {
        throw new BpfError(`reuse map ${map} pinned at ${pinnedPath}`, EINVAL, different.join(', '));
      }
      const result = library.bpf_map__reuse_fd(handle, fd);
      if (result < 0) throw new BpfError(`reuse map ${map} pinned at ${pinnedPath}`, -result);
      return true;
    } finally {
      close(fd);
    }
  }

  /** Says whether load() loads a program. */
  setAutoload(program: string, on: boolean): void {
    this.#beforeLoad(`choose program ${program}`);
    const result = libbpf().bpf_program__set_autoload(this.#program(program), on ? 1 : 0);
    if (result < 0) throw new BpfError(`choose program ${program}`, -result);
  }

  /**
   * Creates the maps and loads the programs. Throws VerifierError when the verifier rejects a program,
   * else BpfError with libbpf's reason. After an error the object can only be closed.
   */
  load(): void {
    this.#beforeLoad('load');
    this.#log[0] = 0;
    const { result, messages } = collectMessages(() => libbpf().bpf_object__load(this.#open()));
    if (result >= 0) {
      this.#loaded = true;
      return;
    }
    const program = messages
      .map((line) => /^prog '([^']+)': BPF program load failed/.exec(line)?.[1])
      .find(Boolean);
    const log = this.#log.toString('utf8', 0, Math.max(0, this.#log.indexOf(0)));
    if (program !== undefined && /^processed \d+ insns|^BPF program is too large|^\d+: \(/m.test(log)) {
      throw new VerifierError(program, -result, verifierSummaryText(log), log);
    }
    const what = program === undefined ? `load ${this.path}` : `load program ${program}`;
    const detail = result === -EPERM ? NOT_PERMITTED : decisiveMessage(messages);
    throw new BpfError(what, -result, detail);
  }

  /**
   * As load(), on a thread: the caller goes on meanwhile, without this object. False: it failed, and load() of another
   * object says why. Then this one can only be closed.
   */
  async loadLater(): Promise<boolean> {
    this.#beforeLoad('load');
    this.#loaded = true;
    return (await loadObjectLater(this.#open())) >= 0;
  }

  /** A typed map of the loaded object. Throws BpfError when the codecs' sizes are not the map's. */
  map<K, V>(name: string, key: Codec<K>, value: Codec<V>): BpfMap<K, V> {
    return BpfMap.fromFd(this.#fd(`map ${name}`, libbpf().bpf_map__fd(this.#map(name))), name, key, value);
  }

  /** Pins a map of the loaded object without knowing its types. The folder must exist, the path must not. */
  pinMap(name: string, path: string): void {
    const fd = this.#fd(`map ${name}`, libbpf().bpf_map__fd(this.#map(name)));
    const result = libbpf().bpf_obj_pin(fd, cString(path));
    if (result < 0) throw new BpfError(`pin map ${name} at ${path}`, -result);
  }

  /** A program of the loaded object. */
  program(name: string): BpfProgram {
    return BpfProgram.fromFd(
      this.#fd(`program ${name}`, libbpf().bpf_program__fd(this.#program(name))),
      name,
    );
  }

  /** Names of the maps that the source declares (without .rodata and other sections). */
  get mapNames(): readonly string[] {
    const library = libbpf();
    const names: string[] = [];
    let map = library.bpf_object__next_map(this.#open(), null);
    for (; map !== 0n; map = library.bpf_object__next_map(this.#open(), map)) {
      const name = readCString(library.bpf_map__name(map));
      if (!name.includes('.')) names.push(name);
    }
    return names;
  }

  get programNames(): readonly string[] {
    const library = libbpf();
    const names: string[] = [];
    let program = library.bpf_object__next_program(this.#open(), null);
    for (; program !== 0n; program = library.bpf_object__next_program(this.#open(), program)) {
      names.push(readCString(library.bpf_program__name(program)));
    }
    return names;
  }

  /** Frees the object. Maps and programs that were taken from it stay usable. */
  close(): void {
    if (this.#handle !== 0n) libbpf().bpf_object__close(this.#handle);
    this.#handle = 0n;
    // Megabytes, which who still has the closed object would keep.
    this.#btf = undefined;
    this.#log = NOTHING;
  }

  #open(): bigint {
    if (this.#handle === 0n) throw new BpfError(`use object ${this.path}`, 9, 'it was closed');
    return this.#handle;
  }

  #beforeLoad(what: string): void {
    if (this.#loaded) throw new BpfError(what, EINVAL, `${this.path} is loaded already`);
  }

  #map(name: string): bigint {
    const map = libbpf().bpf_object__find_map_by_name(this.#open(), cString(name));
    if (map === 0n) throw new BpfError(`find map ${name}`, ENOENT, `${this.path} has no such map`);
    return map;
  }

  #program(name: string): bigint {
    const program = libbpf().bpf_object__find_program_by_name(this.#open(), cString(name));
    if (program === 0n)
      throw new BpfError(`find program ${name}`, ENOENT, `${this.path} has no such program`);
    return program;
  }

  #fd(what: string, fd: number): number {
    if (fd < 0) throw new BpfError(`take ${what}`, EINVAL, 'it is not loaded');
    return fd;
  }

  #types(): Btf {
    if (this.#btf === undefined) {
      const btf = libbpf().bpf_object__btf(this.#open());
      const size = Buffer.alloc(4);
      const data = btf === 0n ? 0n : libbpf().btf__raw_data(btf, size);
      if (data === 0n) throw new BpfError(`read types of ${this.path}`, EINVAL, 'it has no BTF');
      this.#btf = Btf.parse(copyFrom(data, size.readUInt32LE(0)));
    }
    return this.#btf;
  }
}

function writeInteger(into: Buffer, offset: number, size: number, value: bigint, name: string): void {
  const bits = size * 8;
  if (![8, 16, 32, 64].includes(bits) || value >= 1n << BigInt(bits) || value < -(1n << BigInt(bits - 1))) {
    throw new BpfError(`set constant ${name}`, 34, `${value} does not fit into ${size} bytes`);
  }
  let rest = BigInt.asUintN(bits, value);
  for (let i = 0; i < size; i++, rest >>= 8n) into[offset + i] = Number(rest & 0xffn);
}
