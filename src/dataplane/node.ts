import type { KernelMaps } from './kernel-maps.js';

/** `node_map`: one struct node in memory that is shared with the kernel (bpf/include/types.h). */
/** Index of `half_open` among the words of struct node: the first of its second cache line. */
const HALF_OPEN = 16;
/** Index of `log_slot`. */
const LOG_SLOT = 8;
/** Index of `tunnel` and, behind it, `tunnel_id`. */
const TUNNEL = 9;

export class NodeState {
  readonly #words: Uint32Array;

  constructor(map: KernelMaps['node_map']) {
    const memory = map.mmap();
    this.#words = new Uint32Array(memory.buffer, memory.byteOffset, HALF_OPEN + 1);
  }

  get epoch(): number {
    return this.#words[0] ?? 0;
  }

  /** Flows decided before are decided again by their next packet. All maps must have been written. */
  nextEpoch(): void {
    Atomics.add(this.#words, 0, 1);
  }

  /** Whether TCP flows may begin without a SYN: for a while after the flow table was lost under open connections. */
  set pickup(on: boolean) {
    Atomics.store(this.#words, 2, on ? 1 : 0);
  }

  /** Whether there are host ports. True before the first is written, false after the last is gone. */
  set published(on: boolean) {
    Atomics.store(this.#words, 3, on ? 1 : 0);
  }

  /**
   * Half-open TCP flows in the flow table. The programs count as they go; what they lose in races between CPUs is
   * put right by the pass of the expiry program that looked at every entry.
   */
  set halfOpen(count: number) {
    Atomics.store(this.#words, HALF_OPEN, count);
  }

  /** Which half of the flow log the programs write: 0 or 1. */
  get logSlot(): number {
    return (this.#words[LOG_SLOT] ?? 0) & 1;
  }

  set logSlot(slot: number) {
    Atomics.store(this.#words, LOG_SLOT, slot);
  }

  /** Device of the overlay (0: there is none) and its VXLAN network identifier. */
  set overlay({ ifindex, id }: { readonly ifindex: number; readonly id: number }) {
    Atomics.store(this.#words, TUNNEL + 1, id);
    Atomics.store(this.#words, TUNNEL, ifindex);
  }

  /** Whether allowed first packets are reported too. */
  set trace(on: boolean) {
    Atomics.store(this.#words, 1, on ? 1 : 0);
  }
}
