/** From services, slices and workloads to rows of the kernel's maps, incrementally. Pure. */
import { formatAddress } from '../address.js';
import { SluiceError } from '../errors.js';
import type { IpFamily } from '../model/service.js';
import { FrontendClaims } from './claims.js';
import { Draft } from './draft.js';
import { type Categories, categorize, type Target } from './endpoints.js';
import {
  endpointText,
  type Frontend,
  frontendsOf,
  isOurs,
  listsInUse,
  PROTOCOL_NUMBERS,
} from './frontends.js';
import { capacityError } from './full.js';
import { type MaglevBackend, maglevSize, maglevTable, maglevTableNow } from './maglev.js';
import { PortMembers } from './members.js';
import { NumberPool } from './numbers.js';
import { frontendRow } from './rows.js';
import { SourceRanges } from './source-ranges.js';
import { EndpointSources } from './sources.js';
import { indexOf, markPort, newPort, type PortState, type Range } from './state.js';
import { contentOf, maglevBackends, tableTargets } from './tables.js';
import type {
  AssignedService,
  BackendRow,
  EndpointText,
  FrontendKey,
  FrontendRow,
  MemberKey,
  MemberRow,
  NodeContext,
  ServiceCapacity,
  ServiceDelta,
  ServiceInput,
} from './types.js';
import { ServiceView } from './view.js';

/** Tables up to this size are built with the change, as long as the change has not built too many. */
const TABLE_NOW = 4096;

/** Rows to write; with an error, which is why the change was not taken in, none. */
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
  readonly #claims = new FrontendClaims();
  readonly #ranges = new SourceRanges();
  readonly #capacity: ServiceCapacity;
  readonly #members: PortMembers;
  readonly #numbers: NumberPool;
  readonly #hints: ReadonlyMap<EndpointText, number>;
  /** Of the change that is being worked out: the ports that it compiled, as they were. */
  readonly #marks = new Map<
    string,
    { readonly states: PortState[]; readonly back: readonly (() => void)[] }
  >();
  /** Ports whose table is still to be built. */
  readonly #waiting = new Set<PortState>();
  #node: NodeContext;
  #revision = 0;
  readonly view: ServiceView;

  constructor(capacity: ServiceCapacity, node: NodeContext, previous?: PreviousServices) {
    this.#capacity = capacity;
    this.#node = node;
    const rows = previous?.frontends ?? [];
    const backends = (previous?.members ?? []).map(([key, row]) => [textOf(key), row.backend] as const);
    this.#members = new PortMembers(capacity, listsOf(rows), new Map(backends));
    this.#hints = new Map(rows.map(([key, row]) => [textOf(key), row.number]));
    this.#numbers = new NumberPool(capacity.ports, 1, this.#hints.values());
    this.view = new ServiceView({
      sources: this.#sources,
      ports: this.#ports,
      owners: this.#claims.owners,
      losers: this.#claims.losers,
      node: () => this.#node,
    });
  }

  /** Frontends in force. */
  get size(): number {
    return this.#claims.owners.size;
  }

  /** Distinct backends in force. */
  get backendCount(): number {
    return this.#members.backendCount;
  }

  /** Entries of the list space that are in use. */
  get slotCount(): number {
    return this.#members.slotCount;
  }

  /** Another number after each change, also one that was refused. */
  get revision(): number {
    return this.#revision;
  }

  get memberCount(): number {
    return this.#members.size;
  }

  /** Ranges of sources in force, of all ports. */
  get rangeCount(): number {
    return this.#ranges.size;
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
    this.#revision++;
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
    const rollback = this.#mark();
    try {
      this.#compileAll(touched, draft);
      this.#checkCapacity();
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      this.#node = previousNode;
      for (const { kind, key } of added) this.#set(kind, key, undefined);
      for (const input of inverse) this.#set(input.kind, inputKey(input), input);
      rollback(touched);
      return { delta: new Draft().finish(this.size), inverse: { upsert: [], remove: [] }, error };
    }
    this.#marks.clear();
    return { delta: draft.finish(this.size), inverse: { upsert: inverse, remove: added } };
  }

  /** Returns what makes everything again what it is now, but for the inputs; it gets the services that were compiled. */
  #mark(): (touched: Iterable<string>) => void {
    this.#marks.clear();
    const waiting = [...this.#waiting];
    const claims = this.#claims.mark();
    return (touched) => {
      for (const key of touched) {
        for (const { texts } of this.#ports.get(key) ?? [])
          for (const text of texts) this.#claims.owners.delete(text);
        this.#ports.delete(key);
      }
      for (const [key, { states, back }] of this.#marks) {
        for (const undo of back) undo();
        this.#ports.set(key, states);
        for (const state of states) for (const text of state.texts) this.#claims.owners.set(text, state);
      }
      this.#marks.clear();
      claims();
      this.#waiting.clear();
      for (const state of waiting) this.#waiting.add(state);
      this.#ranges.rollback();
      this.#members.rollback();
      this.#numbers.rollback();
    };
  }

  /** Before the ports of a service change. */
  #markPorts(key: string): void {
    const states = this.#ports.get(key);
    if (states !== undefined && !this.#marks.has(key))
      this.#marks.set(key, { states: [...states], back: states.map(markPort) });
  }

  /**
   * Ranges and numbers that earlier changes gave up may be used again. The caller has seen to it that programs notice
   * (struct service_state, generation).
   */
  settle(): void {
    this.#ranges.settle();
    this.#members.settle();
    this.#numbers.settle();
  }

  /** After a restart, when the rows of the earlier agent that nobody wants are gone. */
  release(): void {
    this.#numbers.release();
    this.#members.release();
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
    const backends = this.#tableBackends(wanted, state);
    const size = maglevSize(backends, state.table?.count);
    const table = yield* maglevTable(backends, size);
    // A change may have come between: then that change has put this table on the list again, or it is not wanted.
    const inForce = this.#ports.get(state.service)?.includes(state) === true;
    if (!inForce || this.#waiting.has(state)) return undefined;
    this.settle();
    const draft = new Draft();
    this.#members.putTable(state, table, contentOf(wanted), draft);
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
    for (const key of touched) {
      this.#markPorts(key);
      this.#giveUp(key, draft);
    }
    const before = new Set(touched);
    for (const text of [...draft.free])
      for (const key of this.#claims.losers.get(text) ?? []) touched.add(key);
    for (const key of touched) {
      if (!before.has(key)) this.#markPorts(key);
      this.#compile(key, draft);
    }
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
        if (!wanted.some((frontend) => frontend.text === text)) this.#claims.drop(state, text, draft);
      return true;
    });
    if (left.length === 0) this.#ports.delete(key);
    else if (left.length < states.length) this.#ports.set(key, left);
  }

  #compile(key: string, draft: Draft): void {
    this.#claims.forget(key);
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
          state = newPort({ service: key, name, protocol, port, family, number });
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
    if (taken === undefined) throw capacityError('service ports', this.#capacity.ports, 'servicePortEntries');
    draft.port(taken.number, taken.again);
    return taken.number;
  }

  #removePort(state: PortState, draft: Draft): void {
    for (const text of [...state.texts]) this.#claims.drop(state, text, draft);
    this.#members.dropAll(state, draft);
    this.#ranges.dropAll(state, draft);
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
    const categories = this.#endpoints(assigned, state.service, index, state.family);
    state.anywhere = categories.any;
    const proto = PROTOCOL_NUMBERS[state.protocol];
    const uses = listsInUse(assigned, this.#node);
    const gone = this.#members.put(state, categories, proto, uses, draft);
    this.#table(assigned, state, categories, draft);
    this.#ranges.put(state, assigned.service.sourceRanges, draft);
    this.#putFrontends(assigned, state, frontends, draft);
    for (const member of gone) this.#members.drop(state, member, draft);
  }

  #table(assigned: AssignedService, state: PortState, categories: Categories, draft: Draft): void {
    const wanted = tableTargets(assigned, categories, this.#node);
    const before = state.table;
    this.#waiting.delete(state);
    const content = wanted === undefined ? undefined : contentOf(wanted);
    if (content === before?.content) return;
    if (wanted !== undefined && content !== undefined) {
      const backends = this.#tableBackends(wanted, state);
      const size = maglevSize(backends, before?.count);
      if (size <= TABLE_NOW && draft.hasTime(size)) {
        this.#members.putTable(state, maglevTableNow(backends, size), content, draft);
        return;
      }
      this.#waiting.add(state);
    }
    this.#members.dropTable(state);
  }

  #tableBackends(targets: readonly Target[], { protocol }: PortState): MaglevBackend[] {
    return maglevBackends(targets, PROTOCOL_NUMBERS[protocol], (text) => this.#members.backendNumber(text));
  }

  #putFrontends(
    assigned: AssignedService,
    state: PortState,
    frontends: readonly Frontend[],
    draft: Draft,
  ): void {
    const rowOf = (frontend: Frontend): FrontendRow => frontendRow(assigned, state, frontend, this.#node);
    this.#claims.put(state, frontends, rowOf, draft);
  }

  #checkCapacity(): void {
    const { frontends, members, ranges } = this.#capacity;
    if (this.size > frontends) throw capacityError('services', frontends, 'serviceEntries');
    if (this.#members.size > members) throw capacityError('service_members', members, 'backendEntries');
    if (this.#ranges.size > ranges) throw capacityError('service_ranges', ranges, 'serviceEntries');
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

/** Ranges of service_slots that rows refer to. */
function listsOf(rows: PreviousServices['frontends']): Range[] {
  const ranges = new Map<number, number>();
  const note = (first: number, count: number): void => {
    if (count > 0) ranges.set(first, Math.max(count, ranges.get(first) ?? 0));
  };
  for (const [, row] of rows) {
    note(row.firstInternal, row.countInternal);
    note(row.firstExternal, row.countExternal);
    note(row.firstLocal, row.countLocal);
  }
  return [...ranges].map(([first, count]) => ({ first, count }));
}
