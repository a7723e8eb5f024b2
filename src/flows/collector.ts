import { type GcArgs, gcArgsCodec } from '../../loader/abi/gen/types.gen.js';
import type { BpfProgram } from '../../loader/program.js';

/** Longest time that one turn may take, ms: packets are handled elsewhere, but the agent waits. */
const TURN_MS = 5;
const MIN_SLICE = 8192;
/** From this fill on lifetimes are shortened, up to 90 % at a full table. */
const PRESSURE_FROM = 0.7;
const MAX_PRESSURE = 90;

/**
 * Expires flows: each turn runs the BPF program over a few slices of the table, so nothing is copied
 * to user space. What it counts on the way is the number of entries.
 */
export class FlowCollector {
  readonly #program: BpfProgram;
  readonly #capacity: number;
  readonly #slice: number;
  #start = 0;
  #passScanned = 0;
  #passExpired = 0;
  #passHalf = 0;
  #entries = 0;
  #expired = 0;
  #jiffies = 0;
  readonly #halfOpen: (count: number) => void;

  /** `halfOpen` is told, after each pass, how many half-open TCP flows the table holds. */
  constructor(program: BpfProgram, capacity: number, halfOpen: (count: number) => void) {
    this.#program = program;
    this.#capacity = capacity;
    this.#halfOpen = halfOpen;
    this.#slice = Math.max(MIN_SLICE, Math.ceil(capacity / 16));
  }

  /** Entries in the table, as of the last whole pass (or what the present one has seen, if that is more). */
  get entries(): number {
    return Math.max(this.#entries, this.#passScanned - this.#passExpired);
  }

  /** Entries that were expired by this process. */
  get expired(): number {
    return this.#expired;
  }

  /** The kernel's jiffies (low 32 bits) when the table was last looked at. */
  get jiffies(): number {
    return this.#jiffies;
  }

  /** Works for at most 5 ms or to the end of the table. */
  turn(): void {
    const end = performance.now() + TURN_MS;
    do {
      const result = this.#run({ start: this.#start, count: this.#slice, pressure: this.#pressure() });
      this.#passScanned += result.scanned;
      this.#passExpired += result.expired;
      this.#passHalf += result.half;
      this.#expired += result.expired;
      if (result.scanned < this.#slice) {
        this.#entries = Math.max(0, this.#passScanned - this.#passExpired);
        this.#start = 0;
        this.#passScanned = 0;
        this.#passExpired = 0;
        this.#halfOpen(this.#passHalf);
        this.#passHalf = 0;
        return;
      }
      // What was removed no longer has to be skipped.
      this.#start += Math.max(0, result.scanned - result.expired);
    } while (performance.now() < end);
  }

  #pressure(): number {
    const fill = this.entries / this.#capacity;
    if (fill <= PRESSURE_FROM) return 0;
    return Math.min(MAX_PRESSURE, Math.round(((fill - PRESSURE_FROM) / (1 - PRESSURE_FROM)) * MAX_PRESSURE));
  }

  #run(input: Pick<GcArgs, 'start' | 'count' | 'pressure'>): GcArgs {
    const context = Buffer.alloc(gcArgsCodec.size);
    gcArgsCodec.encode({ ...input, now: 0, scanned: 0, expired: 0, open: 0, half: 0 }, context, 0);
    const result = gcArgsCodec.decode(this.#program.testRun({ ctxIn: context }).ctxOut, 0);
    this.#jiffies = result.now;
    return result;
  }
}
