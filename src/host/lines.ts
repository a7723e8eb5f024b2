import type { HostMaps } from './maps.js';

/** As in bpf/include/host_types.h. */
const ANCHORS = 4;
const ANCHOR_BITS = 8;
const ENTRIES = 7;
/** 32-bit words of a line, of an entry in it, and where the number of spilled prefixes is. */
const LINE_WORDS = 16;
const SPILLED = 14;
const CLASS_BITS = 26;
/** Classes that an entry has room for. */
const MAX_CLASS = 2 ** CLASS_BITS - 1;
/** Prefixes for each line, if it were full everywhere. */
const PER_LINE = 8;

/** Lines of one generation for this many prefixes in two: a power of two. */
export function linesFor(prefixEntries: number): number {
  let lines = 64;
  while (lines * PER_LINE * 2 < prefixEntries) lines *= 2;
  return lines;
}

/** The anchor of a prefix, as a bit of host_state.anchors4. */
export function anchorOf(length: number): number {
  return Math.max(0, ANCHORS - 1 - (length >> 3));
}

/**
 * `host_lines`, memory that is shared with the programs: each step leaves a line that they can use. Keys are those of
 * IPv4 prefixes (policy/host/prefix.ts).
 */
export class HostLines {
  readonly #words: Uint32Array;
  readonly #lines: number;
  readonly #first: number;

  /** Empties the lines of the generation. */
  constructor(map: HostMaps['host_lines'], generation: number) {
    const memory = map.mmap();
    this.#words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length / 4);
    this.#lines = map.maxEntries / 2;
    this.#first = (generation & 1) * this.#lines;
    this.#words.fill(0, this.#first * LINE_WORDS, (this.#first + this.#lines) * LINE_WORDS);
  }

  /** Gives a prefix its class. False: it is not there and has no room. */
  set(key: number, peerClass: number): boolean {
    if (peerClass > MAX_CLASS) return false;
    const words = this.#words;
    const [address, length] = parts(key);
    const line = this.#line(address, length);
    let free = -1;
    for (let at = line; at < line + ENTRIES * 2; at += 2) {
      const found = words[at + 1] ?? 0;
      if (found === 0) {
        if (free < 0) free = at;
      } else if (found >>> CLASS_BITS === length && words[at] === address) {
        Atomics.store(words, at + 1, entryOf(length, peerClass));
        return true;
      }
    }
    if (free < 0) return false;
    words[free] = address;
    // The programs read both halves at once: they see nothing before this.
    Atomics.store(words, free + 1, entryOf(length, peerClass));
    return true;
  }

  /** False: it is not there. */
  delete(key: number): boolean {
    const words = this.#words;
    const [address, length] = parts(key);
    const line = this.#line(address, length);
    for (let at = line; at < line + ENTRIES * 2; at += 2) {
      const found = words[at + 1] ?? 0;
      if (found === 0 || found >>> CLASS_BITS !== length || words[at] !== address) continue;
      Atomics.store(words, at + 1, 0);
      return true;
    }
    return false;
  }

  /** One prefix more (1) or less (-1) that belongs to its line and is elsewhere. */
  spill(key: number, by: 1 | -1): void {
    Atomics.add(this.#words, this.#line(...parts(key)) + SPILLED, by);
  }

  /** Where the words of the line begin. */
  #line(address: number, length: number): number {
    const anchor = anchorOf(length);
    const shift = ANCHOR_BITS * (anchor + 1);
    const bits = shift === 32 ? 0 : address >>> shift;
    return (this.#first + (lineHash((bits | (anchor << 24)) >>> 0) & (this.#lines - 1))) * LINE_WORDS;
  }
}

function parts(key: number): [address: number, length: number] {
  return [Math.floor(key / 64), key % 64];
}

function entryOf(length: number, peerClass: number): number {
  return ((length << CLASS_BITS) | peerClass) >>> 0;
}

/** As line_hash in bpf/lib/host_class.h. */
function lineHash(x: number): number {
  let h = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}
