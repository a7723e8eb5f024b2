/** Backends of ports: their numbers, and the lists and Maglev tables of them in service_slots. */
import type { Draft } from './draft.js';
import type { Categories, Target } from './endpoints.js';
import { MemberFlag } from './flags.js';
import { capacityError } from './full.js';
import { SharedNumbers } from './numbers.js';
import { SlotSpace } from './slots.js';
import { backendOf, flagsOf, memberOf, type PortState, type Range } from './state.js';
import { targetText } from './tables.js';
import type { EndpointText, ServiceCapacity } from './types.js';

/** Which lists the frontends of a port use. */
export interface ListsInUse {
  readonly cluster: boolean;
  readonly local: boolean;
}

export class PortMembers {
  readonly #capacity: Pick<ServiceCapacity, 'slots' | 'backends'>;
  readonly #slots: SlotSpace;
  readonly #backends: SharedNumbers;
  #size = 0;
  #settledSize = 0;

  /** `ranges` and `backends`: those of an earlier agent. */
  constructor(
    capacity: Pick<ServiceCapacity, 'slots' | 'backends'>,
    ranges: readonly Range[],
    backends: ReadonlyMap<EndpointText, number>,
  ) {
    this.#capacity = capacity;
    this.#slots = new SlotSpace(capacity.slots, ranges);
    this.#backends = new SharedNumbers(capacity.backends, backends);
  }

  /** Members of all ports. */
  get size(): number {
    return this.#size;
  }

  /** Distinct backends. */
  get backendCount(): number {
    return this.#backends.size;
  }

  /** Entries of the list space that are in use. */
  get slotCount(): number {
    return this.#slots.used;
  }

  backendNumber(text: EndpointText): number | undefined {
    return this.#backends.get(text);
  }

  /** What was given up may be used again. */
  settle(): void {
    this.#slots.settle();
    this.#backends.settle();
    this.#settledSize = this.#size;
  }

  /** Takes back what was taken and given up since `settle`; the states of the ports are the caller's. */
  rollback(): void {
    this.#slots.rollback();
    this.#backends.rollback();
    this.#size = this.#settledSize;
  }

  /** What an earlier agent had and nobody took may be used. */
  release(): void {
    this.#backends.release();
  }

  /** Sets members and lists of a port. Returns the members of before that are none any more, for `drop`. */
  put(
    state: PortState,
    categories: Categories,
    proto: number,
    uses: ListsInUse,
    draft: Draft,
  ): readonly number[] {
    const before = state.members;
    const gone = this.#putMembers(state, memberFlags(categories, proto), draft);
    const list = (range: Range | undefined, used: boolean, flag: number): Range | undefined => {
      const backends = used ? withFlag(state.members, flag) : [];
      if (range !== undefined && sameNumbers(withFlag(before, flag), backends)) return range;
      return this.#replace(range, backends, draft);
    };
    state.cluster = list(state.cluster, uses.cluster, MemberFlag.Cluster);
    state.local = list(state.local, uses.local, MemberFlag.Local);
    return gone;
  }

  drop(state: PortState, member: number, draft: Draft): void {
    const backend = backendOf(member);
    draft.memberGone({ service: state.number, text: this.#backends.text(backend) });
    this.#size--;
    this.#backends.drop(backend);
  }

  /** Gives up all that a port has. */
  dropAll(state: PortState, draft: Draft): void {
    for (const member of state.members) this.drop(state, member, draft);
    for (const list of [state.cluster, state.local, state.table])
      if (list !== undefined) this.#slots.free(list.first, list.count);
  }

  /** The port's Maglev table; `content` as `contentOf` says. */
  putTable(state: PortState, table: Uint32Array, content: string, draft: Draft): void {
    const range = this.#replace(state.table, table, draft);
    state.table = range === undefined ? undefined : { ...range, content };
  }

  dropTable(state: PortState): void {
    if (state.table !== undefined) this.#slots.free(state.table.first, state.table.count);
    state.table = undefined;
  }

  #putMembers(state: PortState, wanted: ReadonlyMap<EndpointText, number>, draft: Draft): number[] {
    const before = state.members;
    const members: number[] = [];
    const gone: number[] = [];
    let at = 0;
    // Both are in the order of their texts.
    for (const text of [...wanted.keys()].sort()) {
      const flags = wanted.get(text) ?? 0;
      while (at < before.length && this.#textAt(before, at) < text) gone.push(before[at++] ?? 0);
      const known = at < before.length && this.#textAt(before, at) === text ? before[at++] : undefined;
      const backend = known === undefined ? this.#takeBackend(text, draft) : backendOf(known);
      members.push(memberOf(backend, flags));
      if (known === undefined || flagsOf(known) !== flags)
        draft.member({ service: state.number, text, backend, flags });
    }
    for (; at < before.length; at++) gone.push(before[at] ?? 0);
    state.members = members.slice(); // a copy has no room to grow
    return gone;
  }

  #textAt(members: readonly number[], at: number): EndpointText {
    return this.#backends.text(backendOf(members[at] ?? 0));
  }

  #takeBackend(text: EndpointText, draft: Draft): number {
    const taken = this.#backends.take(text);
    if (taken === undefined) throw capacityError('backends', this.#capacity.backends, 'backendEntries');
    if (taken.fresh) draft.backend(taken.number, text, taken.again);
    this.#size++;
    return taken.number;
  }

  /** A new range with these backends, none if there are none. The one before is free when this one is there. */
  #replace(before: Range | undefined, backends: ArrayLike<number>, draft: Draft): Range | undefined {
    const count = backends.length;
    const first = count === 0 ? undefined : this.#slots.take(count);
    if (first === undefined && count > 0)
      throw capacityError('service_slots', this.#capacity.slots, 'serviceSlotEntries');
    if (first !== undefined) draft.slots(first, backends);
    if (before !== undefined) this.#slots.free(before.first, before.count);
    return first === undefined ? undefined : { first, count };
  }
}

/** By backend, the flags that it has as a member. */
function memberFlags({ cluster, local, draining }: Categories, proto: number): Map<EndpointText, number> {
  const flags = new Map<EndpointText, number>();
  const add = (targets: readonly Target[], flag: number): void => {
    for (const target of targets) {
      const text = targetText(target, proto);
      flags.set(text, (flags.get(text) ?? 0) | flag);
    }
  };
  add(cluster, MemberFlag.Cluster);
  add(local, MemberFlag.Local);
  add(draining, MemberFlag.Draining);
  return flags;
}

/** Numbers of the backends among the members that have the flag. */
function withFlag(members: readonly number[], flag: number): number[] {
  const backends: number[] = [];
  for (const member of members) if ((flagsOf(member) & flag) !== 0) backends.push(backendOf(member));
  return backends;
}

function sameNumbers(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((number, i) => number === b[i]);
}
