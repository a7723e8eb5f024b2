import type { Member, MemberKey, Service, ServiceKey } from '../../loader/abi/gen/types.gen.js';
import type { Rows } from '../../loader/map.js';
import { formatAddress, parseAddress } from '../../policy/address.js';
import type { PreviousServices } from '../../policy/services/compiler.js';
import { endpointText } from '../../policy/services/frontends.js';
import type {
  EndpointText,
  FrontendKey,
  FrontendRow,
  GoneMember,
  ServiceDelta,
} from '../../policy/services/types.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';

const NOTHING_COUNTED = { connections: 0n, refused: 0n, packets: 0n, bytes: 0n };

/** The maps of bpf/lib/service.h: writes what the compiler found out. */
export class ServiceMaps {
  readonly #maps: KernelMaps;
  /** struct service_state, shared with the kernel. */
  readonly #state: Uint32Array;
  /** Frontends of an earlier agent that nobody has set again. */
  readonly #stale = new Map<string, ServiceKey>();
  readonly #staleMembers = new Map<string, Parameters<KernelMaps['service_members']['delete']>[0]>();
  readonly #staleRanges = new Map<string, RangeEntry>();
  /** See struct backend_load; not one that an earlier agent is likely to have had. */
  #use = Date.now() >>> 0;

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
    for (const [key] of this.#maps.service_ranges.entries()) this.#staleRanges.set(rangeText(key), key);
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
    const maps = this.#maps;
    if (delta.loads.length > 0) {
      this.#use = (this.#use + 1) >>> 0;
      const load = { sockets: 0, use: this.#use };
      maps.backend_loads.setBatch(delta.loads.map((number) => [number, load]));
    }
    if (delta.backends.length > 0)
      maps.backends.setEach(delta.backends.length, (rows) => putBackends(delta, rows));
    if (delta.slots.length > 0) {
      const total = delta.slots.reduce((sum, { backends }) => sum + backends.length, 0);
      maps.service_slots.setEach(total, (rows) => putSlots(delta, rows));
    }
    if (delta.members.length > 0)
      maps.service_members.setEach(delta.members.length, (rows) => putMembers(delta, rows));
    for (const range of delta.ranges) {
      const key = rangeEntry(range);
      maps.service_ranges.set(key, 1);
      if (this.#staleRanges.size > 0) this.#staleRanges.delete(rangeText(key));
    }
    if (delta.counters.length > 0)
      maps.service_counters.setBatch(delta.counters.map((number) => [number, NOTHING_COUNTED]));
    if (delta.frontends.size > 0)
      maps.services.setEach(delta.frontends.size, (rows) => putFrontends(delta, rows));
    if (delta.gone.members.length > 0) maps.service_members.deleteBatch(delta.gone.members.map(memberKey));
    this.#nextGeneration(); // XDP keeps what it read for a while, in its generation
    if (this.#stale.size > 0)
      for (const text of delta.frontends.keys()) this.#stale.delete(keyText(keyOf(text)));
    if (this.#staleMembers.size > 0)
      for (const { service, text } of delta.members)
        this.#staleMembers.delete(`${service} ${keyText(keyOf(text))}`);
  }

  /** Removes what is gone. */
  remove({ gone, total }: ServiceDelta): void {
    if (gone.frontends.size > 0) this.#maps.services.deleteBatch([...gone.frontends].map(keyOf));
    for (const range of gone.ranges) this.#maps.service_ranges.delete(rangeEntry(range));
    if (this.#stale.size === 0) Atomics.store(this.#state, 0, total);
    if (gone.frontends.size + gone.ranges.length > 0) this.#nextGeneration();
  }

  /** Removes what an earlier agent left and nobody wants. Returns the backends that ports of services have no more. */
  sweep(total: number): GoneMember[] {
    const gone = [...this.#staleMembers.values()].map(
      ({ service, addr, port, proto }): GoneMember => ({
        service,
        text: endpointText(formatAddress(addr), port, proto),
      }),
    );
    if (this.#stale.size > 0) this.#maps.services.deleteBatch([...this.#stale.values()]);
    if (this.#staleMembers.size > 0) this.#maps.service_members.deleteBatch([...this.#staleMembers.values()]);
    for (const key of this.#staleRanges.values()) this.#maps.service_ranges.delete(key);
    this.#stale.clear();
    this.#staleMembers.clear();
    this.#staleRanges.clear();
    Atomics.store(this.#state, 0, total);
    this.#nextGeneration();
    return gone;
  }

  #nextGeneration(): void {
    Atomics.add(this.#state, 1, 1);
  }
}

type RangeEntry = Parameters<KernelMaps['service_ranges']['delete']>[0];

function rangeEntry({ service, addr, prefixLength }: ServiceDelta['ranges'][number]): RangeEntry {
  return { prefixlen: 32 + prefixLength, service, addr };
}

function rangeText({ prefixlen, service, addr }: RangeEntry): string {
  return `${service} ${Buffer.from(addr).toString('hex')} ${prefixlen}`;
}

// One object for all rows of a map: 40,000 backends would be as many objects that live for a moment.

function putBackends({ backends }: ServiceDelta, rows: Rows<number, ServiceKey>): void {
  const row = { addr: new Uint8Array(16), port: 0, proto: 0 };
  for (const entry of backends) {
    read(entry[1], row);
    rows.put(entry[0], row);
  }
}

function putSlots({ slots }: ServiceDelta, rows: Rows<number, number>): void {
  for (const { first, backends } of slots)
    for (let i = 0; i < backends.length; i++) rows.put(first + i, backends[i] ?? 0);
}

function putMembers({ members }: ServiceDelta, rows: Rows<MemberKey, Member>): void {
  const key = { service: 0, addr: new Uint8Array(16), port: 0, proto: 0 };
  const row = { backend: 0, flags: 0 };
  for (const { service, text, backend, flags } of members) {
    key.service = service;
    read(text, key);
    row.backend = backend;
    row.flags = flags;
    rows.put(key, row);
  }
}

function putFrontends({ frontends }: ServiceDelta, rows: Rows<ServiceKey, Service>): void {
  const key = { addr: new Uint8Array(16), port: 0, proto: 0 };
  frontends.forEach((row, text) => {
    read(text, key);
    rows.put(key, row);
  });
}

interface Key {
  addr: Uint8Array;
  port: number;
  proto: number;
}

const SPACE = 0x20;
const DOT = 0x2e;

/** Reads the text into the key. Its address is canonical, so a dotted one is plain numbers. */
function read(text: EndpointText, key: Key): void {
  const end = text.indexOf(' ');
  const { addr } = key;
  if (text.indexOf(':') >= 0) addr.set(parseAddress(text.slice(0, end)));
  else {
    for (let i = 0; i < 10; i++) addr[i] = 0;
    addr[10] = 0xff;
    addr[11] = 0xff;
    let at = 12;
    let number = 0;
    for (let i = 0; i < end; i++) {
      const code = text.charCodeAt(i);
      if (code !== DOT) number = number * 10 + code - 0x30;
      else {
        addr[at++] = number;
        number = 0;
      }
    }
    addr[at] = number;
  }
  let number = 0;
  for (let i = end + 1; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code !== SPACE) number = number * 10 + code - 0x30;
    else {
      key.port = number;
      number = 0;
    }
  }
  key.proto = number;
}

function keyOf(text: EndpointText): ServiceKey {
  const key = { addr: new Uint8Array(16), port: 0, proto: 0 };
  read(text, key);
  return key;
}

function memberKey({ service, text }: GoneMember) {
  return { service, ...keyOf(text) };
}

function keyText({ addr, port, proto }: FrontendKey): string {
  return `${Buffer.from(addr).toString('latin1')} ${port} ${proto}`;
}
