/** From services, slices and workloads to rows of the kernel's maps, incrementally. Pure. */
import { formatAddress, parseCidr } from '../address.js';
import { SluiceError } from '../errors.js';
import type { IpFamily } from '../model/service.js';
import { Draft } from './draft.js';
import { type Categories, categorize, type Target } from './endpoints.js';
import { MemberFlag } from './flags.js';
import {
  endpointText,
  type Frontend,
  frontendsOf,
  isOurs,
  listsInUse,
  PROTOCOL_NUMBERS,
} from './frontends.js';
import { maglevSize, maglevTable, maglevTableNow } from './maglev.js';
import { NumberPool, SharedNumbers } from './numbers.js';
import { frontendRow, sameRow } from './rows.js';
import { SlotSpace } from './slots.js';
import { EndpointSources } from './sources.js';
import { backendOf, flagsOf, indexOf, memberOf, type PortState, type Range } from './state.js';
import { contentOf, maglevBackends, tableTargets, targetText } from './tables.js';
import type {
  AssignedService,
  BackendRow,
  EndpointText,
  FrontendKey,
  FrontendRow,
  MemberKey,
  MemberRow,
  NodeContext,
  RangeKey,
  ServiceCapacity,
  ServiceDelta,
  ServiceInput,
} from './types.js';
import { ServiceView } from './view.js';

/** Tables up to this size are built with the change, as long as the change has not built too many. */
const TABLE_NOW = 4096;

/** Rows to write; with an error, which is why the change was not taken in, those that put back what was before. */
export interface ServiceUpdate {
  readonly delta: ServiceDelta;
  /** The change that takes this one back. */
  readonly inverse: ServiceChange;
  readonly error?: SluiceError;
}

/** Inputs of one change: what is new or different, and what is gone. */
export interface ServiceChange {
  readonly upsert: readonly ServiceInput[];
  readonly remove: readonly { readonly kind: ServiceInput['kind']; readonly key: string }[];
}

/** Rows of an earlier agent, which this one takes over. */
export interface PreviousServices {
  readonly frontends: readonly (readonly [FrontendKey, FrontendRow])[];
  readonly members: readonly (readonly [MemberKey, MemberRow])[];
}

/** Keeps the state of all services and turns each change into the rows that differ. */
export class ServiceCompiler {
  readonly #sources = new EndpointSources();
  /** By service; ports that are in force. */
  readonly #ports = new Map<string, PortState[]>();
  /** Frontend -> the port that holds it: of two services that claim one address and port, the first one has it. */
  readonly #owners = new Map<EndpointText, PortState>();
  /** Frontend -> services that claim it too. */
  readonly #losers = new Map<EndpointText, Set<string>>();
  readonly #capacity: ServiceCapacity;
  readonly #slots: SlotSpace;
  readonly #numbers: NumberPool;
  readonly #backends: SharedNumbers;
  readonly #hints: ReadonlyMap<EndpointText, number>;
  /** Ports whose table is still to be built. */
  readonly #waiting = new Set<PortState>();
  #node: NodeContext;
  #memberCount = 0;
  #rangeCount = 0;
  readonly view: ServiceView;

  constructor(capacity: ServiceCapacity, node: NodeContext, previous?: PreviousServices) {
    this.#capacity = capacity;
    this.#node = node;
    const rows = previous?.frontends ?? [];
    const ranges = new Map<number, number>();
    const note = (first: number, count: number): void => {
      if (count > 0) ranges.set(first, Math.max(count, ranges.get(first) ?? 0));
    };
    for (const [, row] of rows) {
      note(row.firstInternal, row.countInternal);
      note(row.firstExternal, row.countExternal);
      note(row.firstLocal, row.countLocal);
    }
    this.#slots = new SlotSpace(
      capacity.slots,
      [...ranges].map(([first, count]) => ({ first, count })),
    );
    this.#hints = new Map(rows.map(([key, row]) => [textOf(key), row.number]));
    this.#numbers = new NumberPool(capacity.ports, 1, this.#hints.values());
    const backends = (previous?.members ?? []).map(([key, row]) => [textOf(key), row.backend] as const);
    this.#backends = new SharedNumbers(capacity.backends, new Map(backends));
    this.view = new ServiceView({
      sources: this.#sources,
      ports: this.#ports,
      owners: this.#owners,
      losers: this.#losers,
      node: () => this.#node,
    });
  }

  /** Frontends in force. */
  get size(): number {
    return this.#owners.size;
  }

  /** Distinct backends in force. */
  get backendCount(): number {
    return this.#backends.size;
  }

  /** Entries of the list space that are in use. */
  get slotCount(): number {
    return this.#slots.used;
  }

  get memberCount(): number {
    return this.#memberCount;
  }

  /** Whether tables are still to be built (`nextTable`). */
  get hasWaitingTables(): boolean {
    return this.#waiting.size > 0;
  }

  /**
   * Takes a change in, or nothing of it when a map would overflow (SLU3601). What it replaces is remembered by the
   * caller, who takes it back with another change.
   */
  update(change: ServiceChange, node: NodeContext = this.#node): ServiceUpdate {
    this.settle();
    const inverse: ServiceInput[] = [];
    const added: { kind: ServiceInput['kind']; key: string }[] = [];
    const touched = new Set<string>();
    const previousNode = this.#node;
    if (node !== this.#node) {
      const isElse = !sameButAddresses(node, previousNode);
      this.#node = node;
      for (const key of this.#sources.services())
        if (isElse || asksForHost(this.#sources.service(key))) touched.add(key);
    }
    const set = (kind: ServiceInput['kind'], key: string, value: ServiceInput | undefined): void => {
      const before = this.#get(kind, key);
      if (before === undefined) added.push({ kind, key });
      else inverse.push(before);
      for (const service of this.#set(kind, key, value)) touched.add(service);
    };
    for (const { kind, key } of change.remove) set(kind, key, undefined);
    for (const input of change.upsert) set(input.kind, inputKey(input), input);
    const draft = new Draft();
    try {
      this.#compileAll(touched, draft);
      this.#checkCapacity();
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      this.#node = previousNode;
      for (const { kind, key } of added) for (const one of this.#set(kind, key, undefined)) touched.add(one);
      for (const input of inverse)
        for (const one of this.#set(input.kind, inputKey(input), input)) touched.add(one);
      this.settle();
      const back = new Draft();
      this.#compileAll(touched, back);
      return { delta: back.finish(this.size), inverse: { upsert: [], remove: [] }, error };
    }
    return { delta: draft.finish(this.size), inverse: { upsert: inverse, remove: added } };
  }

  /**
   * Ranges and numbers that earlier changes gave up may be used again. The caller has seen to it that programs notice
   * (struct service_state, generation).
   */
  settle(): void {
    this.#slots.settle();
    this.#numbers.settle();
    this.#backends.settle();
  }

  /** After a restart, when the rows of the earlier agent that nobody wants are gone. */
  release(): void {
    this.#numbers.release();
    this.#backends.release();
  }

  /** Builds the next Maglev table in slices. The last value is what it changes, if it is still wanted. */
  *nextTable(): Generator<undefined, ServiceDelta | undefined, undefined> {
    const [state] = this.#waiting;
    if (state === undefined) return undefined;
    this.#waiting.delete(state);
    const assigned = this.#sources.service(state.service);
    const index = assigned === undefined ? -1 : indexOf(assigned, state);
    if (assigned === undefined || index < 0) return undefined;
    const wanted = tableTargets(
      assigned,
      this.#endpoints(assigned, state.service, index, state.family),
      this.#node,
    );
    if (wanted === undefined) return undefined;
    const backends = maglevBackends(wanted, PROTOCOL_NUMBERS[state.protocol], (text) =>
      this.#backends.get(text),
    );
    const size = maglevSize(backends, state.table?.count);
    const table = yield* maglevTable(backends, size);
    // A change may have come between: then that change has put this table on the list again, or it is not wanted.
    const inForce = this.#ports.get(state.service)?.includes(state) === true;
    if (!inForce || this.#waiting.has(state)) return undefined;
    this.settle();
    const draft = new Draft();
    this.#putTable(state, table, contentOf(wanted), draft);
    this.#putFrontends(assigned, state, frontendsOf(assigned, indexOf(assigned, state), state.family), draft);
    return draft.finish(this.size);
  }

  assigned(key: string): AssignedService | undefined {
    return this.#sources.service(key);
  }

  #endpoints(assigned: AssignedService, key: string, index: number, family: IpFamily): Categories {
    const targets = this.#sources.targets(key, index, family, this.#node);
    return categorize(assigned.service, targets, this.#node);
  }

  #get(kind: ServiceInput['kind'], key: string): ServiceInput | undefined {
    if (kind === 'Service') return this.#sources.service(key);
    return kind === 'EndpointSlice' ? this.#sources.slice(key) : this.#sources.workload(key);
  }

  #set(kind: ServiceInput['kind'], key: string, value: ServiceInput | undefined): string[] {
    switch (kind) {
      case 'Service':
        this.#sources.setService(key, value?.kind === 'Service' ? value : undefined);
        return [key];
      case 'EndpointSlice':
        return this.#sources.setSlice(key, value?.kind === 'EndpointSlice' ? value : undefined);
      case 'Workload':
        return this.#sources.setWorkload(key, value?.kind === 'Workload' ? value : undefined);
    }
  }

  /** First gives up what is not wanted any more, so that another port or service can have it in the same change. */
  #compileAll(touched: Set<string>, draft: Draft): void {
    for (const key of touched) this.#giveUp(key, draft);
    for (const text of [...draft.free]) for (const key of this.#losers.get(text) ?? []) touched.add(key);
    for (const key of touched) this.#compile(key, draft);
  }

  #giveUp(key: string, draft: Draft): void {
    const states = this.#ports.get(key);
    if (states === undefined) return;
    const assigned = this.#sources.service(key);
    const ours = assigned !== undefined && isOurs(assigned) ? assigned : undefined;
    const left = states.filter((state) => {
      const index = ours?.service.families.includes(state.family) === true ? indexOf(ours, state) : -1;
      const wanted = ours === undefined || index < 0 ? [] : frontendsOf(ours, index, state.family);
      if (wanted.length === 0) {
        this.#removePort(state, draft);
        return false;
      }
      for (const text of [...state.texts])
        if (!wanted.some((frontend) => frontend.text === text)) this.#dropFrontend(state, text, draft);
      return true;
    });
    if (left.length === 0) this.#ports.delete(key);
    else if (left.length < states.length) this.#ports.set(key, left);
  }

  #forgetClaims(key: string): void {
    if (this.#losers.size === 0) return;
    for (const [text, keys] of this.#losers)
      if (keys.delete(key) && keys.size === 0) this.#losers.delete(text);
  }

  #compile(key: string, draft: Draft): void {
    this.#forgetClaims(key);
    const assigned = this.#sources.service(key);
    if (assigned === undefined || !isOurs(assigned)) return;
    for (const [index, { name, protocol, port }] of assigned.service.ports.entries()) {
      for (const family of assigned.service.families) {
        const frontends = frontendsOf(assigned, index, family);
        if (frontends.length === 0) continue;
        const states = this.#ports.get(key);
        let state = states?.find((one) => one.family === family && indexOf(assigned, one) === index);
        if (state === undefined) {
          const number = this.#takeNumber(frontends, draft);
          state = {
            service: key,
            name,
            protocol,
            port,
            family,
            number,
            cluster: undefined,
            local: undefined,
            table: undefined,
            members: [],
            ranges: undefined,
            texts: [],
            rows: [],
            anywhere: false,
          };
          if (states === undefined) this.#ports.set(key, [state]);
          else states.push(state);
        }
        this.#compilePort(assigned, index, state, frontends, draft);
      }
    }
  }

  #takeNumber(frontends: readonly Frontend[], draft: Draft): number {
    let hint: number | undefined;
    if (this.#hints.size > 0) for (const { text } of frontends) hint ??= this.#hints.get(text);
    const taken = this.#numbers.take(hint);
    if (taken === undefined) throw full('service ports', this.#capacity.ports, 'servicePortEntries');
    draft.port(taken.number, taken.again);
    return taken.number;
  }

  #removePort(state: PortState, draft: Draft): void {
    for (const text of [...state.texts]) this.#dropFrontend(state, text, draft);
    for (const member of state.members) this.#dropMember(state, member, draft);
    for (const [text, range] of [...(state.ranges ?? [])]) this.#dropRange(state, text, range, draft);
    for (const list of [state.cluster, state.local, state.table])
      if (list !== undefined) this.#slots.free(list.first, list.count);
    this.#numbers.give(state.number);
    this.#waiting.delete(state);
    draft.reevaluate = true;
  }

  #compilePort(
    assigned: AssignedService,
    index: number,
    state: PortState,
    frontends: readonly Frontend[],
    draft: Draft,
  ): void {
    const proto = PROTOCOL_NUMBERS[state.protocol];
    const categories = this.#endpoints(assigned, state.service, index, state.family);
    const { cluster, local, draining } = categories;
    state.anywhere = categories.any;
    const flags = new Map<EndpointText, number>();
    for (const target of cluster) flags.set(targetText(target, proto), MemberFlag.Cluster);
    const more = (target: Target, flag: number): void => {
      const text = targetText(target, proto);
      flags.set(text, (flags.get(text) ?? 0) | flag);
    };
    for (const target of local) more(target, MemberFlag.Local);
    for (const target of draining) more(target, MemberFlag.Draining);
    const before = state.members;
    const gone = this.#putMembers(state, flags, draft);
    const uses = listsInUse(assigned, this.#node);
    state.cluster = this.#putList(
      state.cluster,
      before,
      state.members,
      uses.cluster,
      MemberFlag.Cluster,
      draft,
    );
    state.local = this.#putList(state.local, before, state.members, uses.local, MemberFlag.Local, draft);
    this.#table(assigned, state, categories, draft);
    this.#putRanges(state, assigned.service.sourceRanges, draft);
    this.#putFrontends(assigned, state, frontends, draft);
    for (const member of gone) this.#dropMember(state, member, draft);
  }

  /** Sets the members; returns those before that are none any more, for `dropMember`. */
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
    if (taken === undefined) throw full('backends', this.#capacity.backends, 'backendEntries');
    if (taken.fresh) draft.backend(taken.number, text, taken.again);
    this.#memberCount++;
    return taken.number;
  }

  #dropMember(state: PortState, member: number, draft: Draft): void {
    const backend = backendOf(member);
    draft.memberGone({ service: state.number, text: this.#backends.text(backend) });
    this.#memberCount--;
    this.#backends.drop(backend);
  }

  /** The list of the members with a flag, if it is used; where it was when it is the same. */
  #putList(
    range: Range | undefined,
    before: readonly number[],
    members: readonly number[],
    used: boolean,
    flag: number,
    draft: Draft,
  ): Range | undefined {
    const backends = used ? withFlag(members, flag) : [];
    if (range !== undefined && sameNumbers(withFlag(before, flag), backends)) return range;
    const first = backends.length === 0 ? undefined : this.#take(backends.length);
    if (range !== undefined) this.#slots.free(range.first, range.count);
    if (first === undefined) return undefined;
    draft.slots(first, backends);
    return { first, count: backends.length };
  }

  #take(size: number): number {
    const first = this.#slots.take(size);
    if (first === undefined) throw full('service_slots', this.#capacity.slots, 'serviceSlotEntries');
    return first;
  }

  #table(assigned: AssignedService, state: PortState, categories: Categories, draft: Draft): void {
    const wanted = tableTargets(assigned, categories, this.#node);
    const before = state.table;
    this.#waiting.delete(state);
    const content = wanted === undefined ? undefined : contentOf(wanted);
    if (content === before?.content) return;
    if (wanted !== undefined && content !== undefined) {
      const backends = maglevBackends(wanted, PROTOCOL_NUMBERS[state.protocol], (text) =>
        this.#backends.get(text),
      );
      const size = maglevSize(backends, before?.count);
      if (size <= TABLE_NOW && draft.hasTime(size)) {
        this.#putTable(state, maglevTableNow(backends, size), content, draft);
        return;
      }
      this.#waiting.add(state);
    }
    if (before !== undefined) this.#slots.free(before.first, before.count);
    state.table = undefined;
  }

  #putTable(state: PortState, table: Uint32Array, content: string, draft: Draft): void {
    const first = this.#take(table.length);
    draft.slots(first, table);
    if (state.table !== undefined) this.#slots.free(state.table.first, state.table.count);
    state.table = { first, count: table.length, content };
  }

  #putRanges(state: PortState, ranges: readonly string[], draft: Draft): void {
    if (ranges.length === 0 && state.ranges === undefined) return;
    const wanted = new Map<string, RangeKey>();
    for (const text of ranges) {
      const cidr = parseCidr(text);
      if (cidr.family === state.family)
        wanted.set(text, { service: state.number, addr: cidr.address, prefixLength: cidr.prefixLength });
    }
    const held = state.ranges ?? new Map<string, RangeKey>();
    state.ranges = held;
    for (const [text, range] of wanted) {
      if (held.has(text)) continue;
      held.set(text, range);
      this.#rangeCount++;
      draft.range(range);
    }
    for (const [text, range] of [...held]) {
      if (!wanted.has(text)) this.#dropRange(state, text, range, draft);
    }
  }

  #dropRange(state: PortState, text: string, range: RangeKey, draft: Draft): void {
    state.ranges?.delete(text);
    this.#rangeCount--;
    draft.rangeGone(range);
  }

  #putFrontends(
    assigned: AssignedService,
    state: PortState,
    frontends: readonly Frontend[],
    draft: Draft,
  ): void {
    const texts: EndpointText[] = [];
    const rows: FrontendRow[] = [];
    for (const frontend of frontends) {
      const { text } = frontend;
      const owner = this.#owners.get(text);
      if (owner !== undefined && owner !== state) {
        const losers = this.#losers.get(text);
        if (losers === undefined) this.#losers.set(text, new Set([state.service]));
        else losers.add(state.service);
        continue;
      }
      const row = frontendRow(assigned, state, frontend, this.#node);
      const before = owner === undefined ? undefined : state.rows[state.texts.indexOf(text)];
      const same = before !== undefined && sameRow(before, row);
      if (owner === undefined) this.#owners.set(text, state);
      draft.frontend(text, same ? undefined : row);
      texts.push(text);
      rows.push(same ? before : row);
    }
    // What it held before and does not want any more was dropped by `giveUp`.
    state.texts = texts.slice();
    state.rows = rows.slice();
  }

  #dropFrontend(state: PortState, text: EndpointText, draft: Draft): void {
    const at = state.texts.indexOf(text);
    state.texts.splice(at, 1);
    state.rows.splice(at, 1);
    this.#owners.delete(text);
    draft.frontendGone(text);
  }

  #checkCapacity(): void {
    const { frontends, members, ranges } = this.#capacity;
    if (this.#owners.size > frontends) throw full('services', frontends, 'serviceEntries');
    if (this.#memberCount > members) throw full('service_members', members, 'backendEntries');
    if (this.#rangeCount > ranges) throw full('service_ranges', ranges, 'serviceEntries');
  }
}

/** Key of an input among those of its kind. */
export function inputKey(input: ServiceInput): string {
  if (input.kind === 'Workload') return input.id;
  const { namespace, name } = input.kind === 'Service' ? input.service : input;
  return [namespace, name].join('/'); // flat: a template would be kept in pieces
}

/** Whether the addresses of the node make a difference: to its source ranges, or because one is the service's too. */
function asksForHost(assigned: AssignedService | undefined): boolean {
  if (assigned === undefined) return false;
  const { sourceRanges, externalIps, loadBalancer } = assigned.service;
  return sourceRanges.length + externalIps.length + loadBalancer.length > 0;
}

function sameButAddresses(a: NodeContext, b: NodeContext): boolean {
  return JSON.stringify({ ...a, addresses: [] }) === JSON.stringify({ ...b, addresses: [] });
}

function textOf({ addr, port, proto }: BackendRow): EndpointText {
  return endpointText(formatAddress(addr), port, proto);
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

function full(map: string, capacity: number, setting: string): SluiceError {
  return SluiceError.of('SLU3601', { map, capacity, setting });
}
