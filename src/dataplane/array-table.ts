import type { Codec } from '../../loader/abi/codec.js';
import { u32Codec } from '../../loader/abi/codec.js';
import { BpfMap } from '../../loader/map.js';
import type { KernelMap } from './synced-map.js';

/**
 * An array map as a table of the slots that are in use (any byte is not 0): a deleted slot is written
 * with the empty value.
 */
export function arrayTable<V>(map: BpfMap<number, V>, empty: V): KernelMap<number, V> {
  return {
    name: map.name,
    maxEntries: map.maxEntries,
    set: (index, value) => map.set(index, value),
    delete: (index) => {
      map.set(index, empty);
      return true;
    },
    *entries() {
      for (const index of usedSlots(map)) {
        const value = map.get(index);
        if (value !== undefined) yield [index, value] as const;
      }
    },
  };
}

/** Indexes of the slots that are not all 0, without decoding the values. */
function usedSlots<V>(map: BpfMap<number, V>): number[] {
  const zero = Buffer.alloc(map.info.valueSize);
  const used: Codec<boolean> = {
    size: zero.length,
    encode: () => {
      throw new TypeError('this view only reads');
    },
    decode: (from, offset) => from.compare(zero, 0, zero.length, offset, offset + zero.length) !== 0,
  };
  const view = BpfMap.fromFd(map.fd, map.name, u32Codec, used);
  try {
    return [...view.entries()].filter(([, inUse]) => inUse).map(([index]) => index);
  } finally {
    view.close();
  }
}
