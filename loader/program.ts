import { basename } from 'node:path';
import { BpfProgType, BpfTestRunOpts } from './abi/gen/kernel.gen.js';
import { BpfError } from './errors.js';
import { libbpf } from './ffi/libbpf.js';
import { close, duplicate } from './ffi/libc.js';
import { addressOf, cString } from './ffi/native.js';
import { type ProgramInfo, programInfo } from './info.js';

export interface TestRunInput {
  /** Packet; at least 14 bytes for programs that see packets. */
  readonly data?: Buffer;
  /** Context (`struct __sk_buff`, `struct xdp_md`, or the argument of a syscall program). */
  readonly ctxIn?: Buffer;
  /** Where the packet after the run goes. Default: as long as `data` and 256 bytes. */
  readonly dataOut?: Buffer;
  /** How often to run; `durationNs` is the mean. Default 1. */
  readonly repeat?: number;
  readonly flags?: number;
}

export interface TestRunResult {
  /** What the program returned, as an unsigned number. */
  readonly retval: number;
  /** Mean of the runs; 0 for syscall programs, which the kernel does not time. */
  readonly durationNs: number;
  /** The packet after the last run. */
  readonly dataOut: Buffer;
  /** The context after the last run; empty if none was given. */
  readonly ctxOut: Buffer;
}

/** A program in the kernel. It stays loaded for as long as someone holds it: this object, a pin, a link. */
export class BpfProgram {
  readonly name: string;
  #fd: number;
  readonly #opts = Buffer.from(new ArrayBuffer(BpfTestRunOpts.size));
  #info: ProgramInfo | undefined;

  private constructor(name: string, fd: number) {
    this.name = name;
    this.#fd = fd;
  }

  /** Takes a descriptor of its own; the given one stays with its owner. */
  static fromFd(fd: number, name: string): BpfProgram {
    return new BpfProgram(name, duplicate(fd));
  }

  /** Opens a pinned program. Throws BpfError (ENOENT when nothing is pinned there). */
  static openPinned(path: string): BpfProgram {
    const fd = libbpf().bpf_obj_get(cString(path));
    if (fd < 0) throw new BpfError(`open pinned program ${path}`, -fd);
    return new BpfProgram(basename(path), fd);
  }

  get fd(): number {
    if (this.#fd < 0) throw new BpfError(`use program ${this.name}`, 9, 'it was closed');
    return this.#fd;
  }

  get info(): ProgramInfo {
    this.#info ??= programInfo(this.fd);
    return this.#info;
  }

  /** Pins the program below a mounted bpf file system. The folder must exist, the path must not. */
  pin(path: string): void {
    const result = libbpf().bpf_obj_pin(this.fd, cString(path));
    if (result < 0) throw new BpfError(`pin program ${this.name} at ${path}`, -result);
  }

  /**
   * Runs the program in the kernel (BPF_PROG_TEST_RUN). For a syscall program `ctxIn` is its
   * argument, and `ctxOut` the same memory after the run.
   */
  testRun(input: TestRunInput): TestRunResult {
    const isSyscall = this.info.type === BpfProgType.Syscall;
    const opts = this.#opts.fill(0);
    const o = BpfTestRunOpts;
    const { data, ctxIn } = input;
    const none = Buffer.alloc(0);
    const dataOut =
      isSyscall || data === undefined ? none : (input.dataOut ?? Buffer.alloc(data.length + 256));
    let ctxOut = none;
    opts.writeBigUInt64LE(BigInt(o.size), o.sz);
    if (data !== undefined) {
      opts.writeBigUInt64LE(addressOf(data), o.dataIn);
      opts.writeUInt32LE(data.length, o.dataSizeIn);
    }
    if (dataOut.length > 0) {
      opts.writeBigUInt64LE(addressOf(dataOut), o.dataOut);
      opts.writeUInt32LE(dataOut.length, o.dataSizeOut);
    }
    if (ctxIn !== undefined) {
      ctxOut = Buffer.from(ctxIn);
      opts.writeBigUInt64LE(addressOf(isSyscall ? ctxOut : ctxIn), o.ctxIn);
      opts.writeUInt32LE(ctxIn.length, o.ctxSizeIn);
      if (!isSyscall) {
        opts.writeBigUInt64LE(addressOf(ctxOut), o.ctxOut);
        opts.writeUInt32LE(ctxOut.length, o.ctxSizeOut);
      }
    }
    if (!isSyscall) opts.writeInt32LE(input.repeat ?? 1, o.repeat);
    opts.writeUInt32LE(input.flags ?? 0, o.flags);
    const result = libbpf().bpf_prog_test_run_opts(this.fd, opts);
    if (result < 0) throw new BpfError(`test-run program ${this.name}`, -result);
    return {
      retval: opts.readUInt32LE(o.retval),
      durationNs: opts.readUInt32LE(o.duration),
      dataOut: dataOut.subarray(0, opts.readUInt32LE(o.dataSizeOut)),
      ctxOut,
    };
  }

  close(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }
}
