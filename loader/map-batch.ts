import { BpfMapBatchOpts } from './abi/gen/kernel.gen.js';
import type { BpfError } from './errors.js';
import { libbpf } from './ffi/libbpf.js';

/**
 * Batch operations on raw keys and values, with one call per entry where the kernel has no batch
 * for the map's type.
 */

/** Entries in one system call. */
export const BATCH_ENTRIES = 1024;

const ENOENT = 2;
const EINTR = 4;
const EAGAIN = 11;
const ENOSPC = 28;
/** EINVAL, EOPNOTSUPP, ENOTSUPP: no batch operation for this type of map. */
const NO_BATCH: ReadonlySet<number> = new Set([22, 95, 524]);

interface Sizes {
  readonly keySize: number;
  /** Of the buffer's slot: for per-CPU maps of all CPUs together. */
  readonly valueSize: number;
}

const counter = Buffer.from(new ArrayBuffer(4));
const opts = Buffer.from(new ArrayBuffer(BpfMapBatchOpts.size));
opts.writeBigUInt64LE(BigInt(BpfMapBatchOpts.size), BpfMapBatchOpts.sz);

/** Writes `count` entries. Returns 0 or the errno of the first that failed. */
export function updateBatch(
  fd: number,
  batch: Sizes & { readonly keys: Buffer; readonly values: Buffer; readonly count: number },
): number {
  const { keys, values, count, keySize, valueSize } = batch;
  const library = libbpf();
  counter.writeUInt32LE(count, 0);
  const result = library.bpf_map_update_batch(fd, keys, values, counter, opts);
  if (result >= 0) return 0;
  if (!NO_BATCH.has(-result)) return -result;
  for (let i = 0; i < count; i++) {
    const key = keys.subarray(i * keySize);
    const error = library.bpf_map_update_elem(fd, key, values.subarray(i * valueSize), 0n);
    if (error < 0) return -error;
  }
  return 0;
}

/** Removes entries; keys that are not there are skipped. Returns how many there were, and an errno or 0. */
export function deleteBatch(
  fd: number,
  keys: Buffer,
  count: number,
  keySize: number,
): { readonly count: number; readonly error: number } {
  const library = libbpf();
  let deleted = 0;
  let at = 0;
  while (at < count) {
    counter.writeUInt32LE(count - at, 0);
    const result = library.bpf_map_delete_batch(fd, keys.subarray(at * keySize), counter, opts);
    if (result < 0 && NO_BATCH.has(-result)) break;
    // The kernel stops at a key that is missing, and says how many it had removed before it.
    const done = counter.readUInt32LE(0);
    deleted += done;
    at += done;
    if (result >= 0) return { count: deleted, error: 0 };
    if (result !== -ENOENT) return { count: deleted, error: -result };
    at++;
  }
  for (; at < count; at++) {
    const result = library.bpf_map_delete_elem(fd, keys.subarray(at * keySize));
    if (result >= 0) deleted++;
    else if (result !== -ENOENT) return { count: deleted, error: -result };
  }
  return { count: deleted, error: 0 };
}

export interface Batch {
  readonly keys: Buffer;
  readonly values: Buffer;
  readonly count: number;
}

/** Reads all entries. The buffers of a batch are used again for the next. */
export function* lookupBatches(
  fd: number,
  sizes: Sizes,
  maxEntries: number,
  fail: (errno: number) => BpfError,
): Generator<Batch, void, undefined> {
  const library = libbpf();
  const { keySize, valueSize } = sizes;
  let room = Math.min(BATCH_ENTRIES, Math.max(maxEntries, 1));
  let keys = Buffer.from(new ArrayBuffer(room * keySize));
  let values = Buffer.from(new ArrayBuffer(room * valueSize));
  // The position is opaque: a bucket number or a key.
  let position = Buffer.from(new ArrayBuffer(Math.max(keySize, 8)));
  let next = Buffer.from(new ArrayBuffer(Math.max(keySize, 8)));
  let first = true;
  for (let retries = 0; ; ) {
    counter.writeUInt32LE(room, 0);
    const result = library.bpf_map_lookup_batch(
      fd,
      first ? null : position,
      next,
      keys,
      values,
      counter,
      opts,
    );
    const count = counter.readUInt32LE(0);
    if (result < 0 && first && NO_BATCH.has(-result)) {
      yield* lookupEach(fd, sizes, fail);
      return;
    }
    if (result === -ENOSPC && room < maxEntries * 2) {
      // One hash bucket has more entries than the buffer: nothing was read, try with more room.
      room *= 2;
      keys = Buffer.from(new ArrayBuffer(room * keySize));
      values = Buffer.from(new ArrayBuffer(room * valueSize));
      continue;
    }
    if ((result === -EINTR || result === -EAGAIN) && count === 0 && retries++ < 100) continue;
    if (result < 0 && result !== -ENOENT && result !== -EINTR && result !== -EAGAIN) throw fail(-result);
    if (count > 0) yield { keys, values, count };
    else if (result < 0 && result !== -ENOENT) throw fail(-result);
    if (result === -ENOENT) return;
    [position, next] = [next, position];
    first = false;
  }
}

function* lookupEach(
  fd: number,
  { keySize, valueSize }: Sizes,
  fail: (errno: number) => BpfError,
): Generator<Batch, void, undefined> {
  const library = libbpf();
  let key = Buffer.from(new ArrayBuffer(keySize));
  let next = Buffer.from(new ArrayBuffer(keySize));
  const value = Buffer.from(new ArrayBuffer(valueSize));
  let result = library.bpf_map_get_next_key(fd, null, next);
  while (result >= 0) {
    [key, next] = [next, key];
    const found = library.bpf_map_lookup_elem(fd, key, value);
    if (found >= 0) yield { keys: key, values: value, count: 1 };
    else if (found !== -ENOENT) throw fail(-found);
    result = library.bpf_map_get_next_key(fd, key, next);
  }
  if (result !== -ENOENT) throw fail(-result);
}
