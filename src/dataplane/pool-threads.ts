import { currentProcessor, poolThread, readProcessors, setProcessors } from '../../loader/ffi/libc.js';

/** Room for 1024 processors. Where the kernel has more it refuses, and everything stays as it was. */
const SET_BYTES = 128;
/** How often one of them is asked for its id: those that are idle take turns, and there are four. */
const QUESTIONS = 16;

/**
 * The threads of libuv's pool, kept off the main thread's processor when they work beside it. The kernel wakes a thread
 * on the processor of who wakes it, often, though another one is idle: then one of the two waits.
 */
export class PoolThreads {
  readonly #ids = new Set<number>();
  /** Where the main thread may run, one bit for each processor, and the same without where it runs. */
  readonly #all = Buffer.from(new ArrayBuffer(SET_BYTES));
  readonly #others = Buffer.from(new ArrayBuffer(SET_BYTES));
  #aside = false;

  /** Learns which threads they are. Until then they run where the kernel wants. */
  async find(): Promise<void> {
    for (let i = 0; i < QUESTIONS; i++) this.#ids.add(await poolThread());
  }

  /** For work that begins now. When the main thread is done with its own, or waits, they may run everywhere again. */
  stepAside(): void {
    if (this.#aside || this.#ids.size === 0) return;
    this.#move(() => {
      const own = currentProcessor();
      readProcessors(0, this.#all);
      this.#others.set(this.#all);
      this.#others.writeUInt8(this.#others.readUInt8(own >> 3) & ~(1 << (own & 7)), own >> 3);
      return this.#others;
    });
    this.#aside = true;
    setImmediate(() => {
      this.#aside = false;
      this.#move(() => this.#all);
    });
  }

  #move(processors: () => Uint8Array): void {
    try {
      const set = processors();
      for (const id of this.#ids) setProcessors(id, set);
    } catch {
      // There is no other processor: as it would have been.
    }
  }
}
