/** From services, slices and workloads to rows of the kernel's maps, incrementally. Pure. */
import { cidrContains, parseAddress, parseCidr } from '../address.js';
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

interface List {
  readonly first: number;
  readonly count: number;
  /** Keys of the backends, in order; for a table the sorted ones with weights. */
  readonly content: string;
}

interface HeldFrontend {
  readonly key: FrontendKey;
  readonly row: FrontendRow;
  readonly text: string;
}

/** One port of a service in one family. */
interface PortState {
  readonly id: string;
  readonly number: number;
  lists: {
    cluster?: List | undefined;
    local?: List | undefined;
    table?: List | undefined;
  };
  readonly members: Map<string, readonly [MemberKey, MemberRow]>;
  readonly ranges: Map<string, RangeKey>;
  readonly frontends: Map<string, HeldFrontend>;
  categories: Categories;
  targets: readonly Target[];
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
  readonly frontends: Map<string, readonly [FrontendKey, FrontendRow]>;
  readonly gone: { frontends: Map<string, FrontendKey>; members: MemberKey[]; ranges: RangeKey[] };
  reevaluate: boolean;
  tables: number;
}

/** Keeps the state of all services and turns each change into the rows that differ. */
export class ServiceCompiler {
  readonly #sources = new EndpointSources();
  readonly #ports = new Map<string, Map<string, PortState>>();
  /** Frontend -> the port that holds it: two services that claim one address are reported elsewhere, the first wins. */
  readonly #owners = new Map<string, string>();
  readonly #capacity: ServiceCapacity;
  readonly #slots: SlotSpace;
  readonly #numbers: NumberPool;
  readonly #backends: NumberPool;
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
    this.#hints = new Map(rows.map(([key, row]) => [frontendText(key), row.number]));
    this.#numbers = new NumberPool(capacity.ports, 1, this.#hints.values());
    this.#backendHints = new Map(
      (previous?.members ?? []).map(([key, row]) => [backendText(key), row.backend]),
    );
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
      for (const key of touched) this.#compile(key, draft);
      this.#checkCapacity();
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      this.#node = previousNode;
      for (const { kind, key } of added) for (const one of this.#set(kind, key, undefined)) touched.add(one);
      for (const input of inverse)
        for (const one of this.#set(input.kind, inputKey(input), input)) touched.add(one);
      this.settle();
      const back = newDraft();
      for (const key of touched) this.#compile(key, back);
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
    const wanted = this.#tableContent(assigned, state);
    if (wanted === undefined) return undefined;
    const { port } = partsOf(assigned, state.id);
    const backends = this.#maglevBackends(wanted, PROTOCOL_NUMBERS[port.protocol]);
    const size = maglevSize(backends, state.lists.table?.count);
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

  /** Every port of every service that is in force, with what is behind it. */
  *listPorts(): IterableIterator<ListedPort> {
    for (const [key, states] of this.#ports) {
      const assigned = this.#sources.service(key);
      if (assigned === undefined) continue;
      for (const state of states.values()) {
        const { port, family } = partsOf(assigned, state.id);
        yield {
          namespace: assigned.service.namespace,
          service: assigned.service.name,
          port: port.name === '' ? String(port.port) : port.name,
          protocol: port.protocol,
          family,
          number: state.number,
          ready: count(state.targets, (target) => target.ready),
          terminating: count(state.targets, (target) => target.terminating),
          local: state.categories.local.length,
        };
      }
    }
  }

  /** Every backend of every service. */
  *listBackends(): IterableIterator<ListedBackend> {
    for (const [key, states] of this.#ports) {
      const assigned = this.#sources.service(key);
      if (assigned === undefined) continue;
      for (const state of states.values()) {
        const { port } = partsOf(assigned, state.id);
        for (const target of state.targets) {
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

  /** Ready endpoints of a service on this node, each address once: what its health check says. */
  localReady(key: string): number {
    const addresses = new Set<string>();
    for (const { targets } of this.#ports.get(key)?.values() ?? []) {
      for (const target of targets) if (target.local && target.ready) addresses.add(target.address);
    }
    return addresses.size;
  }

  assigned(key: string): AssignedService | undefined {
    return this.#sources.service(key);
  }

  /** `namespace/name` and port of a service port's number. */
  describe(number: number): string | undefined {
    for (const [key, states] of this.#ports) {
      for (const state of states.values()) if (state.number === number) return key;
    }
    return undefined;
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

  #compile(key: string, draft: Draft): void {
    const assigned = this.#sources.service(key);
    const states = this.#ports.get(key) ?? new Map<string, PortState>();
    const wanted = new Set<string>();
    if (assigned !== undefined && isOurs(assigned)) {
      for (const [i, port] of assigned.service.ports.entries()) {
        for (const family of assigned.service.families) {
          if (!hasFrontend(assigned, i, family)) continue;
          const id = portId(port, family);
          wanted.add(id);
          const state = states.get(id) ?? this.#newPort(key, id, assigned, i, family);
          states.set(id, state);
          this.#ports.set(key, states);
          this.#compilePort(key, assigned, i, family, state, draft);
        }
      }
    }
    for (const [id, state] of [...states]) {
      if (wanted.has(id)) continue;
      this.#removePort(key, state, draft);
      states.delete(id);
    }
    if (states.size === 0) this.#ports.delete(key);
  }

  #newPort(key: string, id: string, assigned: AssignedService, index: number, family: IpFamily): PortState {
    const hint = frontendKeys(assigned, index, family)
      .map(({ key: frontend }) => this.#hints.get(frontendText(frontend)))
      .find((number) => number !== undefined);
    const taken = this.#numbers.take(`${key} ${id}`, hint);
    if (taken === undefined) throw full('service ports', this.#capacity.ports, 'servicePortEntries');
    return {
      id,
      number: taken.number,
      lists: {},
      members: new Map(),
      ranges: new Map(),
      frontends: new Map(),
      categories: { cluster: [], local: [], any: false },
      targets: [],
    };
  }

  #removePort(key: string, state: PortState, draft: Draft): void {
    for (const held of [...state.frontends.values()]) this.#dropFrontend(state, held, draft);
    for (const [text, [member]] of [...state.members]) this.#dropMember(state, text, member, draft);
    for (const [text, range] of [...state.ranges]) this.#dropRange(state, text, range, draft);
    for (const list of Object.values(state.lists))
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
    state.targets = this.#sources.targets(key, index, family, this.#node);
    state.categories = categorize(service, state.targets, this.#node);
    const { cluster, local } = state.categories;
    const flags = new Map<string, { target: Target; flags: number }>();
    const mark = (targets: readonly Target[], flag: number): void => {
      for (const target of targets) {
        const text = targetText(target, proto);
        const entry = flags.get(text) ?? { target, flags: 0 };
        entry.flags |= flag;
        flags.set(text, entry);
      }
    };
    mark(cluster, MemberFlag.Cluster);
    mark(local, MemberFlag.Local);
    for (const [text, entry] of flags) this.#putMember(state, text, entry.target, proto, entry.flags, draft);
    const uses = policies(assigned);
    state.lists.cluster = this.#putList(state.lists.cluster, uses.cluster ? cluster : [], proto, draft);
    state.lists.local = this.#putList(state.lists.local, uses.local ? local : [], proto, draft);
    this.#table(key, assigned, state, draft);
    this.#putRanges(state, service.sourceRanges, family, draft);
    this.#frontends(key, assigned, state, draft);
    for (const [text, [member]] of [...state.members]) {
      if (!flags.has(text)) this.#dropMember(state, text, member, draft);
    }
  }

  #putMember(
    state: PortState,
    text: string,
    target: Target,
    proto: number,
    flags: number,
    draft: Draft,
  ): void {
    const known = state.members.get(text);
    if (known !== undefined && known[1].flags === flags) return;
    let backend = known?.[1].backend;
    const addr = known?.[0].addr ?? parseAddress(target.address);
    if (backend === undefined) {
      const taken = this.#backends.take(text, this.#backendHints.get(text));
      if (taken === undefined) throw full('backends', this.#capacity.backends, 'backendEntries');
      backend = taken.number;
      if (taken.fresh) draft.backends.set(backend, { addr, port: target.port, proto });
      this.#memberCount++;
    }
    const entry = [
      { service: state.number, addr, port: target.port, proto },
      { backend, flags },
    ] as const;
    state.members.set(text, entry);
    draft.members.push(entry);
    draft.reevaluate = true;
  }

  #dropMember(state: PortState, text: string, member: MemberKey, draft: Draft): void {
    state.members.delete(text);
    this.#memberCount--;
    this.#backends.drop(text);
    draft.gone.members.push(member);
    draft.reevaluate = true;
  }

  #putList(
    before: List | undefined,
    targets: readonly Target[],
    proto: number,
    draft: Draft,
  ): List | undefined {
    const texts = targets.map((target) => targetText(target, proto)).sort();
    const content = texts.join(' ');
    if (before?.content === content) return before;
    const after = texts.length === 0 ? undefined : this.#take(texts.length, content);
    if (after !== undefined)
      draft.slots.push({ first: after.first, backends: texts.map((text) => this.#backends.get(text) ?? 0) });
    if (before !== undefined) this.#slots.free(before.first, before.count);
    return after;
  }

  #take(size: number, content: string): List {
    const first = this.#slots.take(size);
    if (first === undefined) throw full('service_slots', this.#capacity.slots, 'serviceSlotEntries');
    return { first, count: size, content };
  }

  /** What the Maglev table of a port has to hold; undefined: it needs none. */
  #tableContent(assigned: AssignedService, state: PortState): readonly Target[] | undefined {
    const { service } = assigned;
    if (!(service.maglev ?? this.#node.maglev) || !isExternal(assigned)) return undefined;
    const targets =
      service.externalTrafficPolicy === 'Local' ? state.categories.local : state.categories.cluster;
    return targets.length < 2 ? undefined : targets;
  }

  #table(key: string, assigned: AssignedService, state: PortState, draft: Draft): void {
    const wanted = this.#tableContent(assigned, state);
    const before = state.lists.table;
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
    delete state.lists.table;
  }

  #putTable(state: PortState, table: Uint32Array, content: string, draft: Draft): void {
    const list = this.#take(table.length, content);
    draft.slots.push({ first: list.first, backends: table });
    if (state.lists.table !== undefined) this.#slots.free(state.lists.table.first, state.lists.table.count);
    state.lists.table = list;
  }

  #maglevBackends(targets: readonly Target[], proto: number): MaglevBackend[] {
    return targets.map((target) => ({
      name: `${target.address} ${target.port}`,
      number: this.#backends.get(targetText(target, proto)) ?? 0,
      weight: target.weight,
    }));
  }

  #putRanges(state: PortState, ranges: readonly string[], family: IpFamily, draft: Draft): void {
    const wanted = new Map<string, RangeKey>();
    for (const text of ranges) {
      const cidr = parseCidr(text);
      if (cidr.family === family)
        wanted.set(text, { service: state.number, addr: cidr.address, prefixLength: cidr.prefixLength });
    }
    for (const [text, range] of wanted) {
      if (state.ranges.has(text)) continue;
      state.ranges.set(text, range);
      this.#rangeCount++;
      draft.ranges.push(range);
    }
    for (const [text, range] of [...state.ranges]) {
      if (!wanted.has(text)) this.#dropRange(state, text, range, draft);
    }
  }

  #dropRange(state: PortState, text: string, range: RangeKey, draft: Draft): void {
    state.ranges.delete(text);
    this.#rangeCount--;
    draft.gone.ranges.push(range);
  }

  #frontends(key: string, assigned: AssignedService, state: PortState, draft: Draft): void {
    const { port, family, index } = partsOf(assigned, state.id);
    const wanted = new Set<string>();
    for (const { key: frontend, kind } of frontendKeys(assigned, index, family)) {
      const text = frontendText(frontend);
      const owner = this.#owners.get(text);
      const id = `${key} ${portId(port, family)}`;
      if (owner !== undefined && owner !== id && !draft.gone.frontends.has(text)) continue;
      wanted.add(text);
      const row = this.#row(assigned, state, kind);
      const rowText = Object.values(row).join(' ');
      this.#owners.set(text, id);
      draft.gone.frontends.delete(text);
      if (state.frontends.get(text)?.text === rowText) continue;
      state.frontends.set(text, { key: frontend, row, text: rowText });
      draft.frontends.set(text, [frontend, row]);
      draft.reevaluate = true;
    }
    for (const held of [...state.frontends.values()]) {
      if (!wanted.has(frontendText(held.key))) this.#dropFrontend(state, held, draft);
    }
  }

  #dropFrontend(state: PortState, held: HeldFrontend, draft: Draft): void {
    const text = frontendText(held.key);
    state.frontends.delete(text);
    this.#owners.delete(text);
    draft.frontends.delete(text);
    draft.gone.frontends.set(text, held.key);
    draft.reevaluate = true;
  }

  #row(assigned: AssignedService, state: PortState, kind: FrontendKind): FrontendRow {
    const { service } = assigned;
    const { lists, categories } = state;
    const cluster = kind === 'cluster';
    const internalLocal = cluster && service.internalTrafficPolicy === 'Local';
    const externalLocal = cluster ? internalLocal : service.externalTrafficPolicy === 'Local';
    const plain = (local: boolean): List | undefined => (local ? lists.local : lists.cluster);
    const internal = plain(internalLocal);
    const table = cluster ? undefined : lists.table;
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
        flag(categories.any, ServiceFlag.Elsewhere) |
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

type FrontendKind = 'cluster' | 'external' | 'loadBalancer' | 'node';

function newDraft(): Draft {
  return {
    backends: new Map(),
    slots: [],
    members: [],
    ranges: [],
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

function partsOf(
  { service }: AssignedService,
  id: string,
): { readonly port: ServicePort; readonly index: number; readonly family: IpFamily } {
  for (const [index, port] of service.ports.entries()) {
    for (const family of [4, 6] as const) if (portId(port, family) === id) return { port, index, family };
  }
  throw new Error(`no port ${id} in ${service.namespace}/${service.name}`);
}

function familyOfText(address: string): IpFamily {
  return address.includes(':') ? 6 : 4;
}

function frontendKeys(
  { service, clusterIps, nodePorts }: AssignedService,
  index: number,
  family: IpFamily,
): { readonly key: FrontendKey; readonly kind: FrontendKind }[] {
  const port = service.ports[index] as ServicePort;
  const proto = PROTOCOL_NUMBERS[port.protocol];
  const node = nodePorts[index] ?? 0;
  const found: { key: FrontendKey; kind: FrontendKind }[] = [];
  const put = (kind: FrontendKind, address: string, number: number): void => {
    if (familyOfText(address) === family)
      found.push({ kind, key: { addr: parseAddress(address), port: number, proto } });
  };
  for (const address of clusterIps) put('cluster', address, port.port);
  for (const address of service.externalIps) put('external', address, port.port);
  for (const { address, mode } of service.loadBalancer)
    if (mode === 'VIP') put('loadBalancer', address, port.port);
  if (node > 0) put('node', ANY_ADDRESS[family], node);
  return found;
}

function hasFrontend(assigned: AssignedService, index: number, family: IpFamily): boolean {
  return frontendKeys(assigned, index, family).length > 0;
}

function frontendText({ addr, port, proto }: FrontendKey): string {
  return `${Buffer.from(addr).toString('latin1')} ${port} ${proto}`;
}

function backendText({ addr, port, proto }: BackendRow): string {
  return frontendText({ addr, port, proto });
}

const texts = new Map<string, string>();

/** The same text as of the row, from an address in text form. */
function targetText(target: Target, proto: number): string {
  let addr = texts.get(target.address);
  if (addr === undefined) {
    addr = Buffer.from(parseAddress(target.address)).toString('latin1');
    if (texts.size > 100_000) texts.clear();
    texts.set(target.address, addr);
  }
  return `${addr} ${target.port} ${proto}`;
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
