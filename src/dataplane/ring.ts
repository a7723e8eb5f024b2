import type { Codec } from '../../loader/abi/codec.js';
import { BpfMap } from '../../loader/map.js';
import { RingReader } from '../../loader/ring.js';
import { RING } from './kernel-maps.js';
import type { Pins } from './pins.js';

/** A ring buffer has neither keys nor values. */
const NOTHING: Codec<undefined> = { size: 0, encode: () => undefined, decode: () => undefined };

/** Opens the pinned ring buffer of events. */
export function openRing(pins: Pins): RingReader {
  const map = BpfMap.openPinned(pins.map(RING), NOTHING, NOTHING);
  try {
    return RingReader.open(map.fd, map.maxEntries);
  } finally {
    map.close();
  }
}
