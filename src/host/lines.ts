import { lengthOf } from '../../policy/host/prefix.js';
import type { HostMaps } from './maps.js';
import type { HostStateMemory } from './state.js';

/** As in bpf/include/host_types.h. */
const ANCHORS = 4;
const ANCHOR_BITS = 8;
const HASH_MASK = 2 ** 26 - 1;
const UNTAGGED_BITS = 14;
const TAG_SHIFT = 20;
const CLASS_BITS = 11;
const ENTRIES = 15;
/** 32-bit words of a line, and where the number of spilled prefixes is. */
const LINE_WORDS = 16;
const SPILLED = 15;
/** Classes that an entry has room for. */
const CLASS_MASK = 2 ** CLASS_BITS - 1;
/** With fewer lines the tag of an entry would not tell its anchor. */
const MIN_LINES = 2 ** UNTAGGED_BITS;
/** Prefixes for each line, on average, above which there have to be more lines: one in 25 has no room then. */
const PER_LINE = 10;

/** Room for lines of one generation, for this many prefixes in two: a power of two. */
export function linesFor(prefixEntries: number): number {
  return enoughLines(prefixEntries / 2);
}

function enoughLines(prefixes: number): number {
  let lines = MIN_LINES;
  while (lines * PER_LINE < prefixes) lines *= 2;
  return lines;
}

/** The anchor of a prefix, as a bit of host_state.anchors4. */
export function anchorOf(length: number): number {
  return Math.max(0, ANCHORS - 1 - (length >> 3));
}

/**
 * `host_lines`, memory that is shared with the programs: each step leaves a line that they can use. Keys are those of
 * IPv4 prefixes (policy/host/prefix.ts). As few lines are used as do: what the caches hold is found faster.
 */
export class HostLines {
  readonly #words: Uint32Array;
  readonly #state: HostStateMemory;
  readonly #generation: number;
  readonly #room: number;
  readonly #first: number;
  /** Keys that found no room. */
  readonly #spilled = new Set<number>();
  #lines = MIN_LINES;

  /** Empties the lines of the generation. */
  constructor(map: HostMaps['host_lines'], state: HostStateMemory, generation: number) {
    const memory = map.mmap();
    this.#words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length / 4);
    this.#state = state;
    this.#generation = generation;
    this.#room = map.maxEntries / 2;
    this.#first = (generation & 1) * this.#room;
    this.#words.fill(0, this.#first * LINE_WORDS, (this.#first + this.#room) * LINE_WORDS);
    state.setLines(generation, this.#lines);
  }

  /** Prefixes that found no room in their line: `host_prefixes` has them. */
  get spilled(): ReadonlySet<number> {
    return this.#spilled;
  }

  /** Uses as many lines as so many prefixes want, if there are that many. */
  reserve(prefixes: number): void {
    const wanted = Math.min(enoughLines(prefixes), this.#room);
    while (this.#lines < wanted) this.#double();
  }

  /**
   * Gives a prefix its class. False: it has no room here (any more). Then an entry that it has here stays until
   * `delete`, and counts until `host_prefixes` has it.
   */
  set(key: number, peerClass: number): boolean {
    if (this.#spilled.has(key)) return false;
    const [line, prefix] = this.#place(key);
    let free = -1;
    let at = line;
    for (; at < line + ENTRIES; at++) {
      const found = this.#words[at] ?? 0;
      if (found === 0) free = free < 0 ? at : free;
      else if ((found & ~CLASS_MASK) >>> 0 === prefix) break;
    }
    if (at === line + ENTRIES) at = free;
    if (at < 0 || peerClass > CLASS_MASK) {
      this.#spilled.add(key);
      Atomics.add(this.#words, line + SPILLED, 1);
      return false;
    }
    Atomics.store(this.#words, at, (prefix | peerClass) >>> 0);
    return true;
  }

  /** Removes the entry of a prefix, if it has one. */
  delete(key: number): void {
    const [line, prefix] = this.#place(key);
    for (let at = line; at < line + ENTRIES; at++) {
      const found = this.#words[at] ?? 0;
      if (found !== 0 && (found & ~CLASS_MASK) >>> 0 === prefix) Atomics.store(this.#words, at, 0);
    }
  }

  /** A prefix that found no room is nowhere any more. */
  forget(key: number): void {
    if (this.#spilled.delete(key)) Atomics.sub(this.#words, this.#place(key)[0] + SPILLED, 1);
  }

  /**
   * One more bit of the hash says which line it is. The new lines are filled before the programs look there; what has
   * moved is removed from the old ones after.
   */
  #double(): void {
    const [words, step] = [this.#words, this.#lines * LINE_WORDS];
    const [from, to] = [this.#first * LINE_WORDS, this.#first * LINE_WORDS + step];
    // The bit of the hash is one of the tag.
    const moves = 2 ** (TAG_SHIFT - UNTAGGED_BITS) * this.#lines;
    for (let at = from; at < to; at++) {
      if (at % LINE_WORDS !== SPILLED && ((words[at] ?? 0) & moves) !== 0) words[at + step] = words[at] ?? 0;
    }
    const spilled = [...this.#spilled].map((key) => this.#place(key)[0]);
    this.#lines *= 2;
    const now = [...this.#spilled].map((key) => this.#place(key)[0]);
    for (const line of now) if (line >= to) Atomics.add(words, line + SPILLED, 1);
    this.#state.setLines(this.#generation, this.#lines);
    for (const [i, line] of spilled.entries()) if (now[i] !== line) Atomics.sub(words, line + SPILLED, 1);
    for (let at = from; at < to; at++) {
      if (at % LINE_WORDS !== SPILLED && ((words[at] ?? 0) & moves) !== 0) Atomics.store(words, at, 0);
    }
  }

  /** Where the words of the line of a prefix begin, and its entry with class 0. */
  #place(key: number): [line: number, prefix: number] {
    const address = Math.floor(key / 64);
    const length = lengthOf(key);
    const anchor = anchorOf(length);
    const shift = ANCHOR_BITS * anchor;
    const hash = lineHash((anchor << 24) | (anchor === ANCHORS - 1 ? 0 : address >>> (shift + ANCHOR_BITS)));
    const rest = (address >>> shift) & 0xff;
    // The bits after the anchor, a 1, zeros.
    const end = 1 << (CLASS_BITS + ANCHOR_BITS - (length - ANCHOR_BITS * (ANCHORS - 1 - anchor)));
    const line = this.#first + (hash & (this.#lines - 1));
    return [
      line * LINE_WORDS,
      (((hash >>> UNTAGGED_BITS) << TAG_SHIFT) | (rest << (CLASS_BITS + 1)) | end) >>> 0,
    ];
  }
}

/** As line_hash in bpf/lib/host_class.h. */
function lineHash(x: number): number {
  let h = Math.imul(x ^ (x >>> 13), 0x2c1b3c6d) & HASH_MASK;
  h = Math.imul(h ^ (h >>> 14), 0x297a2d39) & HASH_MASK;
  return h ^ (h >>> 15);
}
