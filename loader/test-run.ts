import { BpfTestRunOpts, SkBuff } from './abi/gen/kernel.gen.js';
import { BpfError } from './errors.js';
import { libbpf } from './ffi/libbpf.js';
import { addressOf } from './ffi/native.js';
import type { BpfProgram } from './program.js';

/** Shortest packet that the kernel takes: an Ethernet header (ETH_HLEN). */
export const MIN_PACKET = 14;

/**
 * One frame for many runs of TC programs (BPF_PROG_TEST_RUN): packet and context are memory that the
 * caller changes in place, and a run allocates nothing (about 2 µs each). The packet after the run is not
 * copied back. Runs happen in the network namespace that the main thread is in.
 */
export class TestRun {
  /** The packet, from the Ethernet header on. */
  readonly data: Buffer;
  readonly #context = Buffer.from(new ArrayBuffer(SkBuff.size));
  readonly #opts = Buffer.from(new ArrayBuffer(BpfTestRunOpts.size));

  /** `room`: bytes of the longest packet. */
  constructor(room: number) {
    this.data = Buffer.from(new ArrayBuffer(Math.max(room, MIN_PACKET)));
    const o = BpfTestRunOpts;
    this.#opts.writeBigUInt64LE(BigInt(o.size), o.sz);
    this.#opts.writeBigUInt64LE(addressOf(this.data), o.dataIn);
    this.#opts.writeBigUInt64LE(addressOf(this.#context), o.ctxIn);
    this.#opts.writeUInt32LE(this.#context.length, o.ctxSizeIn);
    this.#opts.writeInt32LE(1, o.repeat);
  }

  /** Device that the packet comes in through; it must exist. 0: the loopback device. */
  set ifindex(index: number) {
    this.#context.writeUInt32LE(index, SkBuff.ifindex);
  }

  /** Word `index` (0 to 4) of the control block that the program finds in `cb`. */
  setControl(index: number, value: number): void {
    this.#context.writeUInt32LE(value, SkBuff.cb + 4 * index);
  }

  /** Runs the program on the first `length` bytes of `data`; returns what it returned. Throws BpfError. */
  run(program: BpfProgram, length: number): number {
    const o = BpfTestRunOpts;
    this.#opts.writeUInt32LE(length, o.dataSizeIn);
    // The kernel left the last packet's length here; it would be taken as room for this one.
    this.#opts.writeUInt32LE(0, o.dataSizeOut);
    const result = libbpf().bpf_prog_test_run_opts(program.fd, this.#opts);
    if (result < 0) throw new BpfError(`test-run program ${program.name}`, -result);
    return this.#opts.readUInt32LE(o.retval);
  }
}
