import type { Service, ServiceKey } from '../../loader/abi/gen/types.gen.js';
import type { PreviousServices } from '../../policy/services/compiler.js';
import type { FrontendKey, FrontendRow, ServiceDelta } from '../../policy/services/types.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';

const NOTHING_COUNTED = { connections: 0n, refused: 0n };

/** The maps of bpf/lib/service.h: writes what the compiler found out. */
export class ServiceMaps {
  readonly #maps: KernelMaps;
  /** struct service_state, shared with the kernel. */
  readonly #state: Uint32Array;
  /** Frontends of an earlier agent that nobody has set again. */
  readonly #stale = new Map<string, ServiceKey>();
  readonly #staleMembers = new Map<string, Parameters<KernelMaps['service_members']['delete']>[0]>();

  constructor(maps: KernelMaps) {
    this.#maps = maps;
    const memory = maps.service_state_map.mmap();
    this.#state = new Uint32Array(memory.buffer, memory.byteOffset, 2);
  }

  /** Reads what an earlier agent left; it stays in force until `sweep`. */
  load(): PreviousServices {
    const frontends: [FrontendKey, FrontendRow][] = [];
    for (const [key, row] of this.#maps.services.entries()) {
      frontends.push([key, row]);
      this.#stale.set(keyText(key), key);
    }
    const members = [...this.#maps.service_members.entries()];
    for (const [key] of members) this.#staleMembers.set(`${key.service} ${keyText(key)}`, key);
    return { frontends, members };
  }

  /**
   * Everything new and different, and the end of memberships: a UDP flow that is judged again in the new epoch must
   * not find its backend a member still. Nothing else that was there is removed.
   */
  write(delta: ServiceDelta): void {
    // What is written now may have been in use before: a program that is reading notices.
    this.#nextGeneration();
    if (delta.total > 0) Atomics.store(this.#state, 0, delta.total);
    const { maps } = { maps: this.#maps };
    if (delta.backends.length > 0) maps.backends.setBatch(delta.backends);
    if (delta.slots.length > 0) {
      const slots: [number, number][] = [];
      for (const { first, backends } of delta.slots)
        for (let i = 0; i < backends.length; i++) slots.push([first + i, backends[i] ?? 0]);
      maps.service_slots.setBatch(slots);
    }
    if (delta.members.length > 0) maps.service_members.setBatch(delta.members);
    for (const { service, addr, prefixLength } of delta.ranges)
      maps.service_ranges.set({ prefixlen: 32 + prefixLength, service, addr }, 1);
    for (const number of delta.counters) maps.service_counters.set(number, NOTHING_COUNTED);
    if (delta.frontends.length > 0) {
      maps.services.setBatch(delta.frontends.map(([key, row]) => [key, row satisfies Service]));
    }
    if (delta.gone.members.length > 0) maps.service_members.deleteBatch(delta.gone.members);
    this.#nextGeneration(); // XDP keeps what it read for a while, in its generation
    if (this.#stale.size > 0) for (const [key] of delta.frontends) this.#stale.delete(keyText(key));
    if (this.#staleMembers.size > 0)
      for (const [key] of delta.members) this.#staleMembers.delete(`${key.service} ${keyText(key)}`);
  }

  /** Removes what is gone. */
  remove({ gone, total }: ServiceDelta): void {
    if (gone.frontends.length > 0) this.#maps.services.deleteBatch(gone.frontends);
    for (const { service, addr, prefixLength } of gone.ranges)
      this.#maps.service_ranges.delete({ prefixlen: 32 + prefixLength, service, addr });
    if (this.#stale.size === 0) Atomics.store(this.#state, 0, total);
    if (gone.frontends.length + gone.ranges.length > 0) this.#nextGeneration();
  }

  /** Removes what an earlier agent left and nobody wants. */
  sweep(total: number): void {
    if (this.#stale.size > 0) this.#maps.services.deleteBatch([...this.#stale.values()]);
    if (this.#staleMembers.size > 0) this.#maps.service_members.deleteBatch([...this.#staleMembers.values()]);
    this.#stale.clear();
    this.#staleMembers.clear();
    Atomics.store(this.#state, 0, total);
    this.#nextGeneration();
  }

  #nextGeneration(): void {
    Atomics.add(this.#state, 1, 1);
  }
}

function keyText({ addr, port, proto }: FrontendKey): string {
  return `${Buffer.from(addr).toString('latin1')} ${port} ${proto}`;
}
