import { BpfError } from './errors.js';
import { mmap, munmap, PROT_READ, PROT_WRITE, pageSize } from './ffi/libc.js';

const BUSY = 0x80000000;
const DISCARDED = 0x40000000;
const HEADER = 8;

/**
 * The consumer's side of a ring buffer's memory (kernel: Documentation/bpf/ringbuf.rst): a page with the
 * consumer position, a page with the producer position, and the data mapped twice in a row, so that a
 * record that wraps is in one piece. Positions only grow; the data's size is a power of 2.
 */
export class RingConsumer {
  readonly #consumer: BigInt64Array;
  readonly #producer: Int32Array;
  readonly #data: Buffer;
  readonly #headers: Int32Array;
  readonly #mask: number;
  #position: number;

  constructor(consumer: Buffer, producer: Buffer, data: Buffer) {
    const size = data.length / 2;
    if (size <= 0 || (size & (size - 1)) !== 0) throw new RangeError('the ring size is no power of 2');
    this.#consumer = new BigInt64Array(consumer.buffer, consumer.byteOffset, 1);
    this.#producer = new Int32Array(producer.buffer, producer.byteOffset, 1);
    this.#data = data;
    this.#headers = new Int32Array(data.buffer, data.byteOffset, data.length / 4);
    this.#mask = size - 1;
    this.#position = Number(Atomics.load(this.#consumer, 0));
  }

  /**
   * Hands out the records that are complete, at most `max`, and returns how many. A record is a view
   * of the ring that is valid only during the call. If `onRecord` throws, that record is consumed.
   */
  poll(onRecord: (record: Buffer) => void, max = Number.POSITIVE_INFINITY): number {
    let position = this.#position;
    let records = 0;
    try {
      // Less than 2^32 bytes are between the two, so the low half of the positions is enough.
      let pending = (Atomics.load(this.#producer, 0) - (position % 2 ** 32)) >>> 0;
      while (pending > 0 && records < max) {
        const at = position & this.#mask;
        const header = Atomics.load(this.#headers, at >> 2) >>> 0;
        if (header >= BUSY) break;
        const length = header % DISCARDED;
        const step = Math.ceil((length + HEADER) / 8) * 8;
        position += step;
        pending -= step;
        if (header < DISCARDED) {
          records++;
          onRecord(this.#data.subarray(at + HEADER, at + HEADER + length));
        }
      }
    } finally {
      if (position !== this.#position) {
        this.#position = position;
        Atomics.store(this.#consumer, 0, BigInt(position));
      }
    }
    return records;
  }
}

interface Mapping {
  readonly address: bigint;
  readonly length: number;
}

/**
 * Reads a BPF_MAP_TYPE_RINGBUF map through shared memory: no system call per record or per poll.
 * The kernel keeps no count of records that found no room; programs have to count them.
 */
export class RingReader {
  readonly #mappings: readonly Mapping[];
  #consumer: RingConsumer | undefined;

  private constructor(consumer: RingConsumer, mappings: readonly Mapping[]) {
    this.#consumer = consumer;
    this.#mappings = mappings;
  }

  /** Maps the ring. `size` is the map's max_entries. Throws SystemError. */
  static open(mapFd: number, size: number): RingReader {
    const page = pageSize();
    const consumer = mmap(mapFd, page, PROT_READ | PROT_WRITE);
    const producer = mmap(mapFd, page + 2 * size, PROT_READ, page);
    const mappings = [consumer, producer].map(({ address, memory }) => ({ address, length: memory.length }));
    return new RingReader(
      new RingConsumer(consumer.memory, producer.memory, producer.memory.subarray(page)),
      mappings,
    );
  }

  /** See RingConsumer.poll. */
  poll(onRecord: (record: Buffer) => void, max?: number): number {
    if (this.#consumer === undefined) throw new BpfError('read ring buffer', 9, 'it was closed');
    return this.#consumer.poll(onRecord, max);
  }

  close(): void {
    if (this.#consumer === undefined) return;
    this.#consumer = undefined;
    for (const { address, length } of this.#mappings) munmap(address, length);
  }
}
