import type { HostMaps } from './maps.js';

/** Offsets in struct host_state (bpf/include/host_types.h), in words and in bytes. */
const EPOCH = 0;
const PANIC = 1;
const GENERATION = 2;
const COUNT = { 4: 3, 6: 4 } as const;
const ANCHORS = 5;
const LAST_LINE = 6;
const AUDIT = 8;
const WORDS = 9;
const LENGTHS = { 4: 36, 6: 69 } as const;

/** Numbers of enum host_panic. */
export const PANIC_MODES = { none: 0, open: 1, close: 2 } as const;
export type PanicMode = keyof typeof PANIC_MODES;

/** `host_state_map`: memory that is shared with the programs, so every step leaves a state that they can use. */
export class HostStateMemory {
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;

  constructor(map: HostMaps['host_state_map']) {
    const memory = map.mmap();
    this.#words = new Uint32Array(memory.buffer, memory.byteOffset, WORDS);
    this.#bytes = new Uint8Array(memory.buffer, memory.byteOffset, memory.length);
  }

  get epoch(): number {
    return this.#words[EPOCH] ?? 0;
  }

  /** Flows are decided again by their next packet. All maps must have been written. */
  nextEpoch(): void {
    Atomics.add(this.#words, EPOCH, 1);
  }

  get generation(): number {
    return this.#words[GENERATION] ?? 0;
  }

  /** From now on the entries with this generation count. */
  set generation(generation: number) {
    Atomics.store(this.#words, GENERATION, generation);
  }

  get panic(): PanicMode {
    const modes = Object.entries(PANIC_MODES) as [PanicMode, number][];
    return modes.find(([, number]) => number === this.#words[PANIC])?.[0] ?? 'none';
  }

  set panic(mode: PanicMode) {
    Atomics.store(this.#words, PANIC, PANIC_MODES[mode]);
  }

  /** Whether what policy would drop is logged, not dropped. */
  set audit(on: boolean) {
    Atomics.store(this.#words, AUDIT, on ? 1 : 0);
  }

  /** Anchors of prefixes in lines, as bits: added before the first prefix that has one is written. */
  addAnchors(bits: number): void {
    Atomics.or(this.#words, ANCHORS, bits);
  }

  /** Removes the anchors that no prefix has any more. */
  keepAnchors(bits: number): void {
    Atomics.and(this.#words, ANCHORS, bits);
  }

  /** Lines of a generation that are in use: a power of two. They must have been filled. */
  setLines(generation: number, lines: number): void {
    Atomics.store(this.#words, LAST_LINE + (generation & 1), lines - 1);
  }

  lengths(family: 4 | 6): number[] {
    const count = this.#words[COUNT[family]] ?? 0;
    return [...this.#bytes.subarray(LENGTHS[family], LENGTHS[family] + count)];
  }

  /** Adds prefix lengths: before the first prefix that has one is written. Longest first; none is ever missing. */
  addLengths(family: 4 | 6, wanted: Iterable<number>): void {
    const start = LENGTHS[family];
    for (const length of wanted) {
      const present = this.lengths(family);
      if (present.includes(length)) continue;
      const at = present.findIndex((other) => other < length);
      const position = at < 0 ? present.length : at;
      // From the end on: meanwhile one length is there twice.
      for (let i = present.length; i > position; i--) this.#bytes[start + i] = present[i - 1] ?? 0;
      if (position === present.length) this.#bytes[start + position] = length;
      Atomics.store(this.#words, COUNT[family], present.length + 1);
      this.#bytes[start + position] = length;
    }
  }

  /** Removes the lengths that no prefix has any more. */
  keepLengths(family: 4 | 6, wanted: ReadonlySet<number>): void {
    const start = LENGTHS[family];
    for (;;) {
      const present = this.lengths(family);
      const position = present.findIndex((length) => !wanted.has(length));
      if (position < 0) return;
      for (let i = position; i < present.length - 1; i++) this.#bytes[start + i] = present[i + 1] ?? 0;
      Atomics.store(this.#words, COUNT[family], present.length - 1);
    }
  }
}
