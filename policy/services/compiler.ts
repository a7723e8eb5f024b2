/** From services, slices and workloads to rows of the kernel's maps, incrementally. Pure. */
import { cidrContains, formatAddress, parseAddress, parseCidr } from '../address.js';
import { SluiceError } from '../errors.js';
import type { PortProtocol } from '../model/resources.js';
import type { IpFamily, ServicePort } from '../model/service.js';
import { type Categories, categorize, type Target } from './endpoints.js';
import { MemberFlag, ServiceFlag } from './flags.js';
import { type MaglevBackend, maglevSize, maglevTable, maglevTableNow } from './maglev.js';
import { NumberPool } from './numbers.js';
import { SlotSpace } from './slots.js';
import { EndpointSources } from './sources.js';
import type {
  AssignedService,
  BackendRow,
  FrontendKey,
  FrontendRow,
  ListedBackend,
  ListedPort,
  MemberKey,
  MemberRow,
  NodeContext,
  RangeKey,
  ServiceCapacity,
  ServiceDelta,
  ServiceInput,
} from './types.js';

/** A service with one of these labels is somebody else's (kube-proxy ignores it too). */
const NOT_OURS = ['service.kubernetes.io/service-proxy-name', 'service.kubernetes.io/headless'] as const;

const PROTOCOL_NUMBERS: Readonly<Record<PortProtocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };
const ANY_ADDRESS = { 4: '0.0.0.0', 6: '::' } as const;

/** Tables up to this size are built with the change, as long as the change has not built too many. */
const TABLE_NOW = 4096;
const TABLES_NOW = 65_536;

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

interface Range {
  readonly first: number;
  readonly count: number;
}

interface List extends Range {
  /** Numbers, in the order of the backends' texts. */
  readonly backends: readonly number[];
}

interface Table extends Range {
  /** Its backends with their weights. */
  readonly content: string;
}

/**
 * One port of a service in one family. There may be very many: what follows from the definitions is not kept but
 * found again, and keys of the maps are made from their texts.
 */
interface PortState {
  readonly id: string;
  readonly number: number;
  cluster: List | undefined;
  local: List | undefined;
  table: Table | undefined;
  /** Backend number -> flags. */
  readonly members: Map<number, number>;
  /** CIDR -> key; absent: everybody may use it. */
  ranges: Map<string, RangeKey> | undefined;
  readonly frontends: Map<string, FrontendRow>;
  /** Some node has an endpoint. */
  anywhere: boolean;
}

/** A table that is still to be built. */
interface Waiting {
  readonly service: string;
  readonly port: string;
}

interface Draft {
  readonly backends: Map<number, BackendRow>;
  readonly slots: { readonly first: number; readonly backends: ArrayLike<number> }[];
  readonly members: (readonly [MemberKey, MemberRow])[];
  readonly ranges: RangeKey[];
  readonly counters: number[];
  readonly frontends: Map<string, readonly [FrontendKey, FrontendRow]>;
  readonly gone: { frontends: Map<string, FrontendKey>; members: MemberKey[]; ranges: RangeKey[] };
  reevaluate: boolean;
  tables: number;
}

/** Keeps the state of all services and turns each change into the rows that differ. */
export class ServiceCompiler {
  readonly #sources = new EndpointSources();
  readonly #ports = new Map<string, Map<string, PortState>>();
  /** Frontend -> the port that holds it: of two services that claim one address and port, the first one has it. */
  readonly #owners = new Map<string, PortState>();
  /** Frontend -> services that claim it too. */
  readonly #losers = new Map<string, Set<string>>();
  readonly #capacity: ServiceCapacity;
  readonly #slots: SlotSpace;
  readonly #numbers: NumberPool;
  readonly #backends: NumberPool;
  /** By number. */
  readonly #backendTexts: string[] = [];
  readonly #hints: ReadonlyMap<string, number>;
  readonly #backendHints: ReadonlyMap<string, number>;
  readonly #waiting = new Map<string, Waiting>();
  #node: NodeContext;
  #memberCount = 0;
  #rangeCount = 0;

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
    }
    this.#slots = new SlotSpace(
      capacity.slots,
      [...ranges].map(([first, count]) => ({ first, count })),
    );
    this.#hints = new Map(rows.map(([key, row]) => [textOf(key), row.number]));
    this.#numbers = new NumberPool(capacity.ports, 1, this.#hints.values());
    this.#backendHints = new Map((previous?.members ?? []).map(([key, row]) => [textOf(key), row.backend]));
    this.#backends = new NumberPool(capacity.backends, 0, this.#backendHints.values());
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
      this.#node = node;
      for (const key of this.#sources.services()) touched.add(key);
    }
    const set = (kind: ServiceInput['kind'], key: string, value: ServiceInput | undefined): void => {
      const before = this.#get(kind, key);
      if (before === undefined) added.push({ kind, key });
      else inverse.push(before);
      for (const service of this.#set(kind, key, value)) touched.add(service);
    };
    for (const { kind, key } of change.remove) set(kind, key, undefined);
    for (const input of change.upsert) set(input.kind, inputKey(input), input);
    const draft = newDraft();
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
      const back = newDraft();
      this.#compileAll(touched, back);
      return { delta: this.#finish(back), inverse: { upsert: [], remove: [] }, error };
    }
    return { delta: this.#finish(draft), inverse: { upsert: inverse, remove: added } };
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
    const [entry] = this.#waiting;
    if (entry === undefined) return undefined;
    const [id, waiting] = entry;
    this.#waiting.delete(id);
    const state = this.#ports.get(waiting.service)?.get(waiting.port);
    const assigned = this.#sources.service(waiting.service);
    if (state === undefined || assigned === undefined) return undefined;
    const { port, family, index } = partsOf(assigned, state.id);
    const { categories } = this.#endpoints(waiting.service, assigned, index, family);
    const wanted = this.#tableContent(assigned, categories);
    if (wanted === undefined) return undefined;
    const backends = this.#maglevBackends(wanted, PROTOCOL_NUMBERS[port.protocol]);
    const size = maglevSize(backends, state.table?.count);
    const table = yield* maglevTable(backends, size);
    // A change may have come between: then that change has put this table on the list again, or it is not wanted.
    if (this.#ports.get(waiting.service)?.get(waiting.port) !== state || this.#waiting.has(id))
      return undefined;
    this.settle();
    const draft = newDraft();
    this.#putTable(state, table, contentOf(wanted), draft);
    this.#frontends(waiting.service, assigned, state, draft);
    return this.#finish(draft);
  }

  /** Services in force. */
  get serviceCount(): number {
    return this.#ports.size;
  }

  /** Every port of every service that is in force: its service, and the number that its frontends have. */
  *portNumbers(): IterableIterator<{
    readonly service: string;
    readonly id: string;
    readonly number: number;
  }> {
    for (const [service, states] of this.#ports)
      for (const { id, number } of states.values()) yield { service, id, number };
  }

  /** A port of `portNumbers`, with what is behind it. */
  listPort(service: string, id: string): ListedPort | undefined {
    const assigned = this.#sources.service(service);
    const state = this.#ports.get(service)?.get(id);
    if (assigned === undefined || state === undefined) return undefined;
    const { port, family, index } = partsOf(assigned, id);
    const { targets, categories } = this.#endpoints(service, assigned, index, family);
    return {
      namespace: assigned.service.namespace,
      service: assigned.service.name,
      port: port.name === '' ? String(port.port) : port.name,
      protocol: port.protocol,
      family,
      number: state.number,
      ready: count(targets, (target) => target.ready),
      terminating: count(targets, (target) => target.terminating),
      local: categories.local.length,
    };
  }

  /** Every port of every service that is in force, with what is behind it. */
  *listPorts(): IterableIterator<ListedPort> {
    for (const { service, id } of this.portNumbers()) {
      const listed = this.listPort(service, id);
      if (listed !== undefined) yield listed;
    }
  }

  /** `namespace/name` of the service that has the address and port; of the node port if the address has none. */
  serviceAt(address: string, port: number, proto: number): string | undefined {
    const family = familyOfText(address);
    const state =
      this.#owners.get(`${address} ${port} ${proto}`) ??
      this.#owners.get(`${ANY_ADDRESS[family]} ${port} ${proto}`);
    return state === undefined ? undefined : this.#serviceOf(state);
  }

  /** Every backend of every service. */
  *listBackends(): IterableIterator<ListedBackend> {
    for (const [key, states] of this.#ports) {
      const assigned = this.#sources.service(key);
      if (assigned === undefined) continue;
      for (const state of states.values()) {
        const { port, family, index } = partsOf(assigned, state.id);
        for (const target of this.#sources.targets(key, index, family, this.#node)) {
          yield {
            namespace: assigned.service.namespace,
            service: assigned.service.name,
            port: port.name === '' ? String(port.port) : port.name,
            protocol: port.protocol,
            address: target.address,
            targetPort: target.port,
            state: target.terminating ? 'terminating' : target.ready ? 'ready' : 'not ready',
            local: target.local,
            weight: target.weight,
            ...(target.zone === undefined ? {} : { zone: target.zone }),
          };
        }
      }
    }
  }

  /** Addresses and ports that a service claims and another one has. */
  *conflicts(): IterableIterator<{
    readonly frontend: string;
    readonly service: string;
    readonly owner: string;
  }> {
    for (const [text, keys] of this.#losers) {
      const state = this.#owners.get(text);
      const owner = state === undefined ? undefined : this.#serviceOf(state);
      if (owner === undefined) continue;
      const [address, port] = text.split(' ');
      for (const service of keys) yield { frontend: `${address} port ${port}`, service, owner };
    }
  }

  /** Ready endpoints of a service on this node, each address once: what its health check says. */
  localReady(key: string): number {
    const addresses = new Set<string>();
    const assigned = this.#sources.service(key);
    if (assigned === undefined) return 0;
    for (const { id } of this.#ports.get(key)?.values() ?? []) {
      const { family, index } = partsOf(assigned, id);
      for (const target of this.#sources.targets(key, index, family, this.#node))
        if (target.local && target.ready) addresses.add(target.address);
    }
    return addresses.size;
  }

  assigned(key: string): AssignedService | undefined {
    return this.#sources.service(key);
  }

  #serviceOf(state: PortState): string | undefined {
    for (const [key, states] of this.#ports) if (states.get(state.id) === state) return key;
    return undefined;
  }

  #endpoints(
    key: string,
    { service }: AssignedService,
    index: number,
    family: IpFamily,
  ): { readonly targets: readonly Target[]; readonly categories: Categories } {
    const targets = this.#sources.targets(key, index, family, this.#node);
    return { targets, categories: categorize(service, targets, this.#node) };
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
    for (const key of [...touched]) this.#giveUp(key, draft);
    for (const text of draft.gone.frontends.keys())
      for (const key of this.#losers.get(text) ?? []) touched.add(key);
    for (const key of touched) this.#compile(key, draft);
  }

  #giveUp(key: string, draft: Draft): void {
    const states = this.#ports.get(key);
    if (states === undefined) return;
    const assigned = this.#sources.service(key);
    const ours = assigned !== undefined && isOurs(assigned) ? assigned : undefined;
    for (const [id, state] of [...states]) {
      const parts = ours === undefined ? undefined : findParts(ours, id);
      const wanted = new Set<string>();
      if (ours !== undefined && parts !== undefined)
        for (const { text } of frontendsOf(ours, parts.index, parts.family)) wanted.add(text);
      if (wanted.size === 0) {
        this.#removePort(key, state, draft);
        states.delete(id);
        continue;
      }
      for (const text of [...state.frontends.keys()])
        if (!wanted.has(text)) this.#dropFrontend(state, text, draft);
    }
    if (states.size === 0) this.#ports.delete(key);
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
    const states = this.#ports.get(key) ?? new Map<string, PortState>();
    for (const [i, port] of assigned.service.ports.entries()) {
      for (const family of assigned.service.families) {
        if (!hasFrontend(assigned, i, family)) continue;
        const id = portId(port, family);
        const state = states.get(id) ?? this.#newPort(key, id, assigned, i, family, draft);
        states.set(id, state);
        this.#ports.set(key, states);
        this.#compilePort(key, assigned, i, family, state, draft);
      }
    }
  }

  #newPort(
    key: string,
    id: string,
    assigned: AssignedService,
    index: number,
    family: IpFamily,
    draft: Draft,
  ): PortState {
    const hint =
      this.#hints.size === 0
        ? undefined
        : frontendsOf(assigned, index, family)
            .map(({ text }) => this.#hints.get(text))
            .find((number) => number !== undefined);
    const taken = this.#numbers.take(`${key} ${id}`, hint);
    if (taken === undefined) throw full('service ports', this.#capacity.ports, 'servicePortEntries');
    if (taken.again) draft.counters.push(taken.number);
    return {
      id,
      number: taken.number,
      cluster: undefined,
      local: undefined,
      table: undefined,
      members: new Map(),
      ranges: undefined,
      frontends: new Map(),
      anywhere: false,
    };
  }

  #removePort(key: string, state: PortState, draft: Draft): void {
    for (const text of [...state.frontends.keys()]) this.#dropFrontend(state, text, draft);
    for (const backend of [...state.members.keys()]) this.#dropMember(state, backend, draft);
    for (const [text, range] of [...(state.ranges ?? [])]) this.#dropRange(state, text, range, draft);
    for (const list of [state.cluster, state.local, state.table])
      if (list !== undefined) this.#slots.free(list.first, list.count);
    this.#numbers.drop(`${key} ${state.id}`);
    this.#waiting.delete(`${key} ${state.id}`);
    draft.reevaluate = true;
  }

  #compilePort(
    key: string,
    assigned: AssignedService,
    index: number,
    family: IpFamily,
    state: PortState,
    draft: Draft,
  ): void {
    const { service } = assigned;
    const port = service.ports[index] as ServicePort;
    const proto = PROTOCOL_NUMBERS[port.protocol];
    const { categories } = this.#endpoints(key, assigned, index, family);
    const { cluster, local } = categories;
    state.anywhere = categories.any;
    const flags = new Map<string, number>();
    const mark = (targets: readonly Target[], flag: number): void => {
      for (const target of targets) {
        const text = targetText(target, proto);
        flags.set(text, (flags.get(text) ?? 0) | flag);
      }
    };
    mark(cluster, MemberFlag.Cluster);
    mark(local, MemberFlag.Local);
    const wanted = new Set<number>();
    for (const [text, flag] of flags) wanted.add(this.#putMember(state, text, flag, draft));
    const uses = policies(assigned);
    state.cluster = this.#putList(state.cluster, uses.cluster ? cluster : [], proto, draft);
    state.local = this.#putList(state.local, uses.local ? local : [], proto, draft);
    this.#table(key, assigned, state, categories, draft);
    this.#putRanges(state, service.sourceRanges, family, draft);
    this.#frontends(key, assigned, state, draft);
    for (const backend of [...state.members.keys()])
      if (!wanted.has(backend)) this.#dropMember(state, backend, draft);
  }

  /** Returns the backend's number. */
  #putMember(state: PortState, text: string, flags: number, draft: Draft): number {
    let backend = this.#backends.get(text);
    const known = backend === undefined ? undefined : state.members.get(backend);
    if (backend !== undefined && known === flags) return backend;
    if (backend === undefined || known === undefined) {
      const taken = this.#backends.take(text, this.#backendHints.get(text));
      if (taken === undefined) throw full('backends', this.#capacity.backends, 'backendEntries');
      backend = taken.number;
      this.#backendTexts[backend] = text;
      if (taken.fresh) draft.backends.set(backend, rowOf(text));
      this.#memberCount++;
    }
    state.members.set(backend, flags);
    draft.members.push([
      { service: state.number, ...rowOf(text) },
      { backend, flags },
    ]);
    draft.reevaluate = true;
    return backend;
  }

  #dropMember(state: PortState, backend: number, draft: Draft): void {
    const text = this.#backendTexts[backend] ?? '';
    state.members.delete(backend);
    this.#memberCount--;
    this.#backends.drop(text);
    draft.gone.members.push({ service: state.number, ...rowOf(text) });
    draft.reevaluate = true;
  }

  #putList(
    before: List | undefined,
    targets: readonly Target[],
    proto: number,
    draft: Draft,
  ): List | undefined {
    const texts = targets.map((target) => targetText(target, proto)).sort();
    const backends = texts.map((text) => this.#backends.get(text) ?? 0);
    if (before?.count === backends.length && backends.every((number, i) => number === before.backends[i]))
      return before;
    const first = backends.length === 0 ? undefined : this.#take(backends.length);
    if (before !== undefined) this.#slots.free(before.first, before.count);
    if (first === undefined) return undefined;
    draft.slots.push({ first, backends });
    return { first, count: backends.length, backends };
  }

  #take(size: number): number {
    const first = this.#slots.take(size);
    if (first === undefined) throw full('service_slots', this.#capacity.slots, 'serviceSlotEntries');
    return first;
  }

  /** What the Maglev table of a port has to hold; undefined: it needs none. */
  #tableContent(assigned: AssignedService, categories: Categories): readonly Target[] | undefined {
    const { service } = assigned;
    if (!(service.maglev ?? this.#node.maglev) || !isExternal(assigned)) return undefined;
    const targets = service.externalTrafficPolicy === 'Local' ? categories.local : categories.cluster;
    return targets.length < 2 ? undefined : targets;
  }

  #table(
    key: string,
    assigned: AssignedService,
    state: PortState,
    categories: Categories,
    draft: Draft,
  ): void {
    const wanted = this.#tableContent(assigned, categories);
    const before = state.table;
    const id = `${key} ${state.id}`;
    this.#waiting.delete(id);
    const content = wanted === undefined ? undefined : contentOf(wanted);
    if (content === before?.content) return;
    if (wanted !== undefined && content !== undefined) {
      const { port } = partsOf(assigned, state.id);
      const backends = this.#maglevBackends(wanted, PROTOCOL_NUMBERS[port.protocol]);
      const size = maglevSize(backends, before?.count);
      if (size <= TABLE_NOW && draft.tables + size <= TABLES_NOW) {
        draft.tables += size;
        this.#putTable(state, maglevTableNow(backends, size), content, draft);
        return;
      }
      this.#waiting.set(id, { service: key, port: state.id });
    }
    if (before !== undefined) this.#slots.free(before.first, before.count);
    state.table = undefined;
  }

  #putTable(state: PortState, table: Uint32Array, content: string, draft: Draft): void {
    const first = this.#take(table.length);
    draft.slots.push({ first, backends: table });
    if (state.table !== undefined) this.#slots.free(state.table.first, state.table.count);
    state.table = { first, count: table.length, content };
  }

  #maglevBackends(targets: readonly Target[], proto: number): MaglevBackend[] {
    return targets.map((target) => ({
      name: `${target.address} ${target.port}`,
      number: this.#backends.get(targetText(target, proto)) ?? 0,
      weight: target.weight,
    }));
  }

  #putRanges(state: PortState, ranges: readonly string[], family: IpFamily, draft: Draft): void {
    if (ranges.length === 0 && state.ranges === undefined) return;
    const wanted = new Map<string, RangeKey>();
    for (const text of ranges) {
      const cidr = parseCidr(text);
      if (cidr.family === family)
        wanted.set(text, { service: state.number, addr: cidr.address, prefixLength: cidr.prefixLength });
    }
    const held = state.ranges ?? new Map<string, RangeKey>();
    state.ranges = held;
    for (const [text, range] of wanted) {
      if (held.has(text)) continue;
      held.set(text, range);
      this.#rangeCount++;
      draft.ranges.push(range);
    }
    for (const [text, range] of [...held]) {
      if (!wanted.has(text)) this.#dropRange(state, text, range, draft);
    }
  }

  #dropRange(state: PortState, text: string, range: RangeKey, draft: Draft): void {
    state.ranges?.delete(text);
    this.#rangeCount--;
    draft.gone.ranges.push(range);
  }

  #frontends(key: string, assigned: AssignedService, state: PortState, draft: Draft): void {
    const { family, index } = partsOf(assigned, state.id);
    for (const { text, kind } of frontendsOf(assigned, index, family)) {
      const owner = this.#owners.get(text);
      if (owner !== undefined && owner !== state) {
        const losers = this.#losers.get(text);
        if (losers === undefined) this.#losers.set(text, new Set([key]));
        else losers.add(key);
        continue;
      }
      const row = this.#row(assigned, state, kind);
      const before = state.frontends.get(text);
      this.#owners.set(text, state);
      draft.gone.frontends.delete(text);
      if (before !== undefined && sameRow(before, row)) continue;
      state.frontends.set(text, row);
      draft.frontends.set(text, [rowOf(text), row]);
      draft.reevaluate = true;
    }
  }

  #dropFrontend(state: PortState, text: string, draft: Draft): void {
    state.frontends.delete(text);
    this.#owners.delete(text);
    draft.frontends.delete(text);
    draft.gone.frontends.set(text, rowOf(text));
    draft.reevaluate = true;
  }

  #row(assigned: AssignedService, state: PortState, kind: FrontendKind): FrontendRow {
    if (kind === 'address') return { ...NOTHING, number: state.number };
    const { service } = assigned;
    const cluster = kind === 'cluster';
    const internalLocal = cluster && service.internalTrafficPolicy === 'Local';
    const externalLocal = cluster ? internalLocal : service.externalTrafficPolicy === 'Local';
    const plain = (local: boolean): Range | undefined => (local ? state.local : state.cluster);
    const internal = plain(internalLocal);
    const table = cluster ? undefined : state.table;
    const external = table ?? plain(externalLocal);
    const ranges = kind === 'loadBalancer' && service.sourceRanges.length > 0;
    const flag = (on: boolean, value: number): number => (on ? value : 0);
    const balancing = service.balancing ?? this.#node.balancing;
    return {
      number: state.number,
      flags:
        flag(service.affinitySeconds > 0, ServiceFlag.Affinity) |
        flag(table !== undefined, ServiceFlag.Maglev) |
        flag(!externalLocal || cluster, ServiceFlag.Snat) |
        flag(ranges, ServiceFlag.Ranges) |
        flag(ranges && this.#hostAllowed(service.sourceRanges), ServiceFlag.HostAllowed) |
        flag(internalLocal, ServiceFlag.LocalInternal) |
        flag(externalLocal, ServiceFlag.LocalExternal) |
        flag(state.anywhere, ServiceFlag.Elsewhere) |
        flag(kind === 'node', ServiceFlag.Nodeport) |
        flag(balancing === 'least-connections', ServiceFlag.Least) |
        flag(!cluster && (service.dsr ?? this.#node.dsr), ServiceFlag.Dsr),
      firstInternal: internal?.first ?? 0,
      countInternal: internal?.count ?? 0,
      firstExternal: external?.first ?? 0,
      countExternal: external?.count ?? 0,
      affinity: service.affinitySeconds,
    };
  }

  #hostAllowed(ranges: readonly string[]): boolean {
    const cidrs = ranges.map((text) => parseCidr(text));
    return this.#node.addresses.some((address) => {
      const bytes = parseAddress(address);
      return cidrs.some((cidr) => cidrContains(cidr, bytes));
    });
  }

  #checkCapacity(): void {
    const { frontends, members, ranges } = this.#capacity;
    if (this.#owners.size > frontends) throw full('services', frontends, 'serviceEntries');
    if (this.#memberCount > members) throw full('service_members', members, 'backendEntries');
    if (this.#rangeCount > ranges) throw full('service_ranges', ranges, 'serviceEntries');
  }

  #finish(draft: Draft): ServiceDelta {
    return {
      backends: [...draft.backends],
      slots: draft.slots,
      members: draft.members,
      ranges: draft.ranges,
      counters: draft.counters,
      frontends: [...draft.frontends.values()],
      gone: {
        frontends: [...draft.gone.frontends.values()],
        members: draft.gone.members,
        ranges: draft.gone.ranges,
      },
      total: this.#owners.size,
      mustReevaluate: draft.reevaluate,
    };
  }
}

/** `address`: a cluster address as such, port and protocol 0; what no other frontend takes is refused there. */
type FrontendKind = 'cluster' | 'external' | 'loadBalancer' | 'node' | 'address';

const NOTHING: FrontendRow = {
  number: 0,
  flags: 0,
  firstInternal: 0,
  countInternal: 0,
  firstExternal: 0,
  countExternal: 0,
  affinity: 0,
};

function newDraft(): Draft {
  return {
    backends: new Map(),
    slots: [],
    members: [],
    ranges: [],
    counters: [],
    frontends: new Map(),
    gone: { frontends: new Map(), members: [], ranges: [] },
    reevaluate: false,
    tables: 0,
  };
}

/** Key of an input among those of its kind. */
export function inputKey(input: ServiceInput): string {
  if (input.kind === 'Workload') return input.id;
  const { namespace, name } = input.kind === 'Service' ? input.service : input;
  return `${namespace}/${name}`;
}

/** Whether this node serves the service at all: not headless, not ExternalName, not somebody else's. */
function isOurs({ service, clusterIps }: AssignedService): boolean {
  if (service.type === 'ExternalName' || service.clusterIps === 'None' || clusterIps.length === 0)
    return false;
  return !NOT_OURS.some((label) => label in service.labels);
}

function isExternal({ service }: AssignedService): boolean {
  return service.type !== 'ClusterIP' || service.externalIps.length > 0;
}

/** Which lists some frontend of the service refers to. */
function policies(assigned: AssignedService): { readonly cluster: boolean; readonly local: boolean } {
  const { service } = assigned;
  const external = isExternal(assigned);
  return {
    // From inside, external addresses lead to all endpoints whatever the external policy.
    cluster: service.internalTrafficPolicy === 'Cluster' || external,
    local:
      service.internalTrafficPolicy === 'Local' || (external && service.externalTrafficPolicy === 'Local'),
  };
}

function portId(port: ServicePort, family: IpFamily): string {
  return `${port.name}/${port.protocol}/${port.port}/${family}`;
}

interface PortParts {
  readonly port: ServicePort;
  readonly index: number;
  readonly family: IpFamily;
}

function findParts({ service }: AssignedService, id: string): PortParts | undefined {
  for (const [index, port] of service.ports.entries()) {
    for (const family of [4, 6] as const) if (portId(port, family) === id) return { port, index, family };
  }
  return undefined;
}

function partsOf(assigned: AssignedService, id: string): PortParts {
  const parts = findParts(assigned, id);
  if (parts !== undefined) return parts;
  throw new Error(`no port ${id} in ${assigned.service.namespace}/${assigned.service.name}`);
}

function familyOfText(address: string): IpFamily {
  return address.includes(':') ? 6 : 4;
}

/** Frontends of a port as texts, see `textOf`. */
function frontendsOf(
  { service, clusterIps, nodePorts }: AssignedService,
  index: number,
  family: IpFamily,
): { readonly text: string; readonly kind: FrontendKind }[] {
  const port = service.ports[index] as ServicePort;
  const proto = PROTOCOL_NUMBERS[port.protocol];
  const node = nodePorts[index] ?? 0;
  const found: { text: string; kind: FrontendKind }[] = [];
  const put = (kind: FrontendKind, address: string, number: number): void => {
    if (familyOfText(address) === family) found.push({ kind, text: `${address} ${number} ${proto}` });
  };
  for (const address of clusterIps) put('cluster', address, port.port);
  for (const address of service.externalIps) put('external', address, port.port);
  for (const { address, mode } of service.loadBalancer)
    if (mode === 'VIP') put('loadBalancer', address, port.port);
  if (node > 0) put('node', ANY_ADDRESS[family], node);
  if (index === 0) {
    for (const address of clusterIps)
      if (familyOfText(address) === family) found.push({ kind: 'address', text: `${address} 0 0` });
  }
  return found;
}

function hasFrontend(assigned: AssignedService, index: number, family: IpFamily): boolean {
  return frontendsOf(assigned, index, family).length > 0;
}

/** Address, port and protocol number as one text; addresses are canonical. */
function textOf({ addr, port, proto }: BackendRow): string {
  return `${formatAddress(addr)} ${port} ${proto}`;
}

function rowOf(text: string): BackendRow {
  const [address = '', port, proto] = text.split(' ');
  return { addr: parseAddress(address), port: Number(port), proto: Number(proto) };
}

function targetText({ address, port }: Target, proto: number): string {
  return `${address} ${port} ${proto}`;
}

function sameRow(a: FrontendRow, b: FrontendRow): boolean {
  return (
    a.number === b.number &&
    a.flags === b.flags &&
    a.firstInternal === b.firstInternal &&
    a.countInternal === b.countInternal &&
    a.firstExternal === b.firstExternal &&
    a.countExternal === b.countExternal &&
    a.affinity === b.affinity
  );
}

function contentOf(targets: readonly Target[]): string {
  return targets
    .map(({ address, port, weight }) => `${address} ${port} ${weight}`)
    .sort()
    .join(',');
}

function count(targets: readonly Target[], test: (target: Target) => boolean): number {
  let total = 0;
  for (const target of targets) if (test(target)) total++;
  return total;
}

function full(map: string, capacity: number, setting: string): SluiceError {
  return SluiceError.of('SLU3601', { map, capacity, setting });
}
