import type { HostFlow, HostFlowKey } from '../../loader/abi/gen/types.gen.js';
import type { TcMethod } from '../../loader/link.js';
import type { Rtnetlink } from '../../loader/netlink/route.js';
import { formatAddress } from '../../policy/address.js';
import type { RuleDescription } from '../../policy/compile/types.js';
import { SluiceError } from '../../policy/errors.js';
import type { PrefixKey } from '../../policy/host/prefix.js';
import { comparePolicies, FIRST_HOST_RULE, HostRules } from '../../policy/host/rules.js';
import type { HostPeer, HostPolicyResource } from '../../policy/model/host-policy.js';
import type { AgentConfig } from '../config.js';
import type { Attachments } from '../dataplane/attachments.js';
import type { Expedite } from '../dataplane/expedite.js';
import type { Pins } from '../dataplane/pins.js';
import type { Rollback } from '../dataplane/rollback.js';
import type { Logger } from '../log.js';
import type { Edit, ObjectSet } from '../state/objects.js';
import { EarlyStep } from './early-step.js';
import { FailsafePorts } from './failsafe.js';
import { FolderWatch } from './folder-watch.js';
import { HostHooks, SOCKET_PROGRAMS } from './hooks.js';
import { readPanic } from './panic.js';
import { type Contents, type DomainChange, type HostEndpoint, HostPeers } from './peers.js';
import {
  closeHostPrograms,
  type HostLoaded,
  hostPins,
  hostStateDir,
  isHostPinned,
  loadHostPrograms,
  loadHostProgramsLater,
} from './programs.js';
import { HostStateMemory, type PanicMode } from './state.js';
import { SubjectNumbers } from './subject-numbers.js';
import {
  earlyDevices,
  folderAt,
  foldersToWatch,
  isHostDevice,
  numberKeys,
  ownersOf,
  type Placement,
  place,
  rulesOf,
  subjectsOf,
  subjectText,
  userId,
} from './subjects.js';
import { HostTables, type WantedTables } from './tables.js';

/** Between two looks at list files and cgroups. */
const POLL_MS = 250;
/** Looks between two searches for units that are not where they usually are. */
const SEARCH_EVERY = 8;

const NAME_LABEL = 'kubernetes.io/metadata.name';

export interface PendingHost {
  /** Removes what the change made unnecessary. */
  commit(): void;
}

/** What is in the kernel while there are HostPolicies. */
interface Running {
  readonly loaded: HostLoaded;
  readonly state: HostStateMemory;
  readonly tables: HostTables;
  readonly rules: HostRules;
  readonly numbers: SubjectNumbers;
}

/**
 * The host's own policy. Without a HostPolicy nothing of it is loaded or attached. While an agent is stopped the
 * programs and maps go on; the next one writes its own tables beside theirs and switches by one number.
 */
export class HostFirewall {
  readonly #config: AgentConfig;
  readonly #pins: Pins;
  readonly #hostPins: Pins;
  readonly #rtnl: Rtnetlink;
  readonly #objects: ObjectSet;
  readonly #attachments: Attachments;
  readonly #expedite: Expedite;
  readonly #log: Logger;
  readonly #exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  readonly #hooks: HostHooks;
  readonly #early: EarlyStep;
  readonly #peers: HostPeers;
  /** A unit that starts makes its cgroup: it has its policy as soon as the kernel tells of it. */
  readonly #watch = new FolderWatch(() => this.#look(true));
  #running: Running | undefined;
  #policies: readonly HostPolicyResource[] = [];
  #wanted: WantedTables = { subjects: new Map(), owners: [] };
  #placement = '';
  #cgroups: Placement['cgroups'] = [];
  #devices: Placement['devices'] = [];
  #panic: PanicMode = 'none';
  #problems: readonly SluiceError[] = [];
  #audit = false;
  #closed = false;

  constructor(parts: {
    readonly config: AgentConfig;
    readonly pins: Pins;
    readonly rtnl: Rtnetlink;
    readonly method: TcMethod;
    readonly objects: ObjectSet;
    readonly attachments: Attachments;
    readonly expedite: Expedite;
    readonly log: Logger;
    /** Runs work between two changes. */
    readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  }) {
    this.#config = parts.config;
    this.#pins = parts.pins;
    this.#rtnl = parts.rtnl;
    this.#objects = parts.objects;
    this.#attachments = parts.attachments;
    this.#expedite = parts.expedite;
    this.#log = parts.log;
    this.#exclusive = parts.exclusive;
    const folder = hostStateDir(parts.config.stateDir);
    this.#hostPins = hostPins(parts.pins.root);
    this.#hooks = new HostHooks(this.#hostPins, parts.method, folder);
    this.#early = new EarlyStep(parts.pins);
    this.#peers = new HostPeers(folder);
  }

  get problems(): SluiceError[] {
    const panic = readPanic(this.#config.stateDir);
    return [
      ...(panic === undefined ? [] : [SluiceError.of(panic.mode === 'open' ? 'SLU7013' : 'SLU7014', panic)]),
      ...this.#problems,
      ...this.#peers.problems.values(),
    ];
  }

  describeRule(rule: number): RuleDescription | undefined {
    return this.#running?.rules.describe(rule);
  }

  /** In audit, what the policies would drop is logged, not dropped. */
  set audit(on: boolean) {
    if (on === this.#audit) return;
    this.#audit = on;
    if (this.#running === undefined) return;
    this.#running.state.audit = on;
    this.#running.state.nextEpoch();
  }

  /** Puts the HostPolicies of a change into force. Throws SluiceError; `undo` gets what takes it back. */
  async prepare(edits: readonly Edit[], lenient: boolean, undo: Rollback): Promise<PendingHost> {
    const touches = edits.some(({ before, after }) => (after ?? before)?.kind === 'HostPolicy');
    if (!touches) return { commit: () => this.#followEndpoints() };
    const before = this.#policies;
    const policies = [...this.#objects.ofKind('HostPolicy')].sort(comparePolicies);
    this.#check(policies, lenient);
    undo.push(() => {
      if (before.length > 0) this.#apply(before, true);
      else this.#policies = before;
      this.#finish();
    });
    if (policies.length > 0) {
      if (this.#running === undefined) await this.#loadAndRead(policies);
      this.#apply(policies, lenient);
    } else {
      this.#policies = policies;
    }
    return { commit: () => this.#finish() };
  }

  /** After the first full sync: what an earlier agent left and nobody wants is removed. */
  sweep(): void {
    if (this.#policies.length === 0) this.#stop();
  }

  /** Starts looking at list files and cgroups. */
  start(): NodeJS.Timeout {
    let looks = 0;
    return setInterval(() => this.#look(++looks % SEARCH_EVERY === 0), POLL_MS).unref();
  }

  /** `search`: for units anywhere in the hierarchy, which takes a walk through it. */
  #look(search: boolean): void {
    if (this.#closed) return;
    try {
      if (!this.#isDue(search)) return;
    } catch (err) {
      this.#log.error({ err }, 'looking at the subjects of host policies failed');
      return;
    }
    void this.#exclusive(async () => this.#poll()).catch((err: unknown) =>
      this.#log.error({ err }, 'following lists and cgroups of host policies failed'),
    );
  }

  /** Devices came or went, or their names changed. */
  devicesChanged(): void {
    if (this.#policies.length > 0) this.#replace();
    else if (this.#running !== undefined) this.#stop();
  }

  /** Addresses join and leave names in rules. They are in the kernel when this returns. */
  changeDomains(changes: ReadonlyMap<string, DomainChange>): void {
    this.#write(this.#peers.changeDomains(changes));
  }

  /** Addresses that the host has open flows with. */
  openPeers(): Set<string> {
    const found = new Set<string>();
    if (this.#running === undefined) return found;
    const { host_flows, host_fresh } = this.#running.loaded.maps;
    for (const map of [host_flows, host_fresh])
      for (const [{ remote }] of map.entries()) found.add(formatAddress(remote));
    return found;
  }

  /** Addresses behind a peer of rules that need not be in force; see HostPeers. */
  addressesOf(peer: HostPeer, learned: (name: string) => Iterable<string>): Iterable<PrefixKey> {
    return this.#peers.addressesOf(peer, () => this.#endpoints(), learned);
  }

  /** Flows that are known in the kernel. */
  *flows(): Generator<readonly [HostFlowKey, HostFlow]> {
    if (this.#running === undefined) return;
    const { host_flows, host_fresh } = this.#running.loaded.maps;
    yield* host_flows.entries();
    yield* host_fresh.entries();
  }

  /** The subject with a number, as the flow log names it. */
  subjectOf(number: number): string | undefined {
    const key = this.#running?.numbers.keyOf(number);
    return key === undefined ? undefined : subjectText(key);
  }

  /** Leaves the kernel as it is. */
  close(): void {
    this.#closed = true;
    this.#watch.close();
    if (this.#running !== undefined) closeHostPrograms(this.#running.loaded);
    this.#running = undefined;
  }

  #check(policies: readonly HostPolicyResource[], lenient: boolean): void {
    const problems: SluiceError[] = [];
    for (const { subject, origin, egress } of policies) {
      const { type } = subject;
      if (this.#config.cgroupRoot === '' && (type === 'unit' || type === 'cgroup' || type === 'user'))
        problems.push(SluiceError.of('SLU7003', { what: type }, origin));
      else if (type === 'user' && userId(subject.user) === undefined)
        problems.push(SluiceError.of('SLU7004', { user: subject.user }, origin));
      // A rule that never matches would look as if it were in force.
      for (const rule of this.#config.dns && this.#config.cgroupRoot !== '' ? [] : egress) {
        const name = rule.peers.find((peer) => peer.type === 'domain')?.name;
        if (name !== undefined) problems.push(SluiceError.of('SLU7015', { name }, rule.origin));
      }
    }
    const [first] = problems;
    if (first !== undefined && !lenient) throw first;
    this.#problems = problems;
  }

  /** While the kernel looks at the programs, the lists are read. */
  async #loadAndRead(policies: readonly HostPolicyResource[]): Promise<void> {
    const loading = loadHostProgramsLater(this.#config, this.#pins, policies.some(isAtSocket));
    try {
      this.#peers.readAhead(policies);
    } finally {
      await loading.then(
        (loaded) => {
          this.#running = this.#start(loaded);
        },
        () => undefined,
      );
    }
    await loading;
  }

  #start(loaded: HostLoaded): Running {
    const { maps } = loaded;
    const state = new HostStateMemory(maps.host_state_map);
    this.#panic = readPanic(this.#config.stateDir)?.mode ?? 'none';
    state.panic = this.#panic;
    state.audit = this.#audit;
    new FailsafePorts(maps.host_failsafe).set(this.#config);
    return {
      loaded,
      state,
      tables: new HostTables(maps, state),
      rules: new HostRules(Math.max(HostTables.highestRule(maps), FIRST_HOST_RULE) + 1),
      numbers: new SubjectNumbers(hostStateDir(this.#config.stateDir)),
    };
  }

  #load(policies: readonly HostPolicyResource[]): Running {
    return this.#start(loadHostPrograms(this.#config, this.#pins, policies.some(isAtSocket)));
  }

  /** The programs for cgroups come with the first policy that needs them. */
  #withSockets(running: Running, policies: readonly HostPolicyResource[]): Running {
    const { programs, maps } = running.loaded;
    if (!policies.some(isAtSocket) || SOCKET_PROGRAMS.every((name) => programs.has(name))) return running;
    const more = loadHostPrograms(this.#config, this.#pins, true);
    closeHostPrograms({ programs, maps: more.maps });
    return { ...running, loaded: { programs: more.programs, maps } };
  }

  #apply(policies: readonly HostPolicyResource[], lenient: boolean): void {
    this.#running = this.#withSockets(this.#running ?? this.#load(policies), policies);
    const { tables, rules } = this.#running;
    const contents = this.#peers.add(policies, () => this.#endpoints(), lenient);
    tables.change(this.#changes(contents));
    const numbered = rules.number(policies);
    this.#bringIntoForce(policies, numbered);
    this.#policies = policies;
  }

  #bringIntoForce(policies: readonly HostPolicyResource[], numbered: ReturnType<HostRules['number']>): void {
    const running = this.#running;
    if (running === undefined) return;
    const { tables, loaded, numbers } = running;
    const { cgroupRoot } = this.#config;
    const links = this.#rtnl.links();
    const placement = place(policies, links, cgroupRoot);
    const subjects = subjectsOf(policies, placement, cgroupRoot);
    const assigned = numbers.assign(numberKeys(subjects, placement));
    const rules = new Map(
      subjects.map((subject) => {
        const ingress = rulesOf(subject, 'ingress', numbered);
        const egress = rulesOf(subject, 'egress', numbered);
        return [
          subject.key,
          { ...(ingress === undefined ? {} : { ingress }), ...(egress === undefined ? {} : { egress }) },
        ];
      }),
    );
    const early = earlyDevices(placement, links, (subject) => rules.get(subject)?.ingress);
    this.#wanted = {
      subjects: new Map([...rules].map(([key, lists]) => [assigned.get(key) ?? 0, lists])),
      owners: ownersOf(placement, assigned, early),
    };
    tables.apply(this.#wanted);
    this.#early.set(early.size > 0 ? loaded.programs : undefined);
    this.#expedite.during(() =>
      this.#hooks.set(loaded.programs, this.#devicesFor(placement), placement.attach),
    );
    this.#placement = placementText(placement);
    this.#cgroups = placement.cgroups;
    this.#devices = placement.devices;
    this.#watch.set(foldersToWatch(placement.cgroups, cgroupRoot));
  }

  /** A closed host is closed on every device. */
  #devicesFor({ devices }: Pick<Placement, 'devices'>): number[] {
    if (this.#panic !== 'close') return devices.map(({ ifindex }) => ifindex);
    return this.#rtnl
      .links()
      .filter(isHostDevice)
      .map(({ index }) => index);
  }

  /** Subjects are elsewhere now. */
  #replace(): void {
    const running = this.#running;
    if (running === undefined || this.#policies.length === 0) return;
    this.#bringIntoForce(this.#policies, running.rules.number(this.#policies));
    running.tables.sweep(this.#wanted, this.#peers.keys);
  }

  #finish(): void {
    if (this.#policies.length === 0) {
      this.#stop();
      return;
    }
    const keys = HostPeers.keysOf(this.#policies);
    this.#running?.tables.sweep(this.#wanted, keys);
    this.#peers.keep(keys);
    this.#peers.save();
    this.#followEndpoints();
  }

  /** No policy: nothing is attached or pinned, unless somebody has closed the host. */
  #stop(): void {
    this.#peers.keep(new Set());
    this.#problems = [];
    const isClosed = readPanic(this.#config.stateDir)?.mode === 'close';
    if (!isClosed && !isHostPinned(this.#hostPins)) return;
    const running = this.#running ?? this.#load([]);
    if (isClosed) {
      this.#running = running;
      this.#wanted = { subjects: new Map(), owners: [] };
      running.tables.apply(this.#wanted);
      running.tables.sweep(this.#wanted, new Set());
      this.#early.set(undefined);
      this.#expedite.during(() =>
        this.#hooks.set(running.loaded.programs, this.#devicesFor({ devices: [] }), []),
      );
      return;
    }
    this.#early.set(undefined);
    this.#expedite.during(() => this.#hooks.removeAll());
    this.#watch.set([]);
    closeHostPrograms(running.loaded);
    this.#running = undefined;
    this.#hostPins.removeAll();
  }

  #followEndpoints(): void {
    if (this.#running === undefined || !this.#peers.selectsEndpoints) return;
    this.#write(this.#peers.updateEndpoints(this.#endpoints()));
    const { devices } = place(this.#policies, this.#rtnl.links(), '');
    if (JSON.stringify(devices) !== JSON.stringify(this.#devices)) this.#replace();
  }

  #isDue(search: boolean): boolean {
    const { cgroupRoot, stateDir } = this.#config;
    const panic = readPanic(stateDir)?.mode ?? 'none';
    if (panic !== this.#panic && (this.#running !== undefined || panic === 'close')) return true;
    // Left by a command that closed the host and opened it again.
    if (this.#running === undefined) return this.#policies.length === 0 && isHostPinned(this.#hostPins);
    if (this.#peers.listsChanged) return true;
    if (cgroupRoot === '' || !this.#policies.some(isAtSocket)) return false;
    if (this.#cgroups.some(({ path, folder }) => folderAt(cgroupRoot, path)?.id !== folder?.id)) return true;
    return (
      search &&
      placementText(place(this.#policies, [], cgroupRoot), false) !== withoutDevices(this.#placement)
    );
  }

  #poll(): void {
    if (this.#closed) return;
    this.#followPanic();
    if (this.#policies.length === 0) this.#stop();
    if (this.#running === undefined) return;
    const started = performance.now();
    const contents = this.#peers.reloadLists();
    this.#write(contents);
    for (const { key, added, removed } of contents) {
      const milliseconds = Math.round((performance.now() - started) * 10) / 10;
      this.#log.info(
        { list: key.slice('list '.length), added: added.length, removed: removed.length, milliseconds },
        'a list changed',
      );
    }
    for (const problem of this.#peers.problems.values()) this.#log.error(problem.toLine());
    this.#peers.save();
    const { cgroupRoot } = this.#config;
    if (placementText(place(this.#policies, [], cgroupRoot), false) !== withoutDevices(this.#placement))
      this.#replace();
  }

  /** Somebody opened or closed the host, or ended that: the command has done it in the kernel already. */
  #followPanic(): void {
    const panic = readPanic(this.#config.stateDir)?.mode ?? 'none';
    if (panic === this.#panic) return;
    this.#log.warn({ panic }, 'the host was opened or closed by a command');
    this.#panic = panic;
    if (this.#running !== undefined) this.#running.state.panic = panic;
    if (this.#policies.length > 0) this.#replace();
    else this.#stop();
  }

  #write(contents: readonly Contents[]): void {
    if (contents.length > 0) this.#running?.tables.change(this.#changes(contents));
  }

  #changes(contents: readonly Contents[]) {
    const { tables } = this.#running as Running;
    return contents.map(({ key, added, removed }) => ({ peer: tables.peer(key), added, removed }));
  }

  /** Containers of this node with their addresses. */
  #endpoints(): HostEndpoint[] {
    const namespaces = new Map([...this.#objects.ofKind('Namespace')].map((one) => [one.name, one.labels]));
    const out: HostEndpoint[] = [];
    for (const { spec } of this.#attachments.values()) {
      const container = this.#objects.get(`Container ${spec.container}`);
      if (container?.kind !== 'Container') continue;
      const { namespace, labels } = container;
      out.push({
        labels,
        namespaceLabels: { [NAME_LABEL]: namespace, ...namespaces.get(namespace) },
        addresses: [spec.ipv4?.address, spec.ipv6?.address].filter((address) => address !== undefined),
      });
    }
    return out;
  }
}

function isAtSocket({ subject: { type } }: HostPolicyResource): boolean {
  return type === 'unit' || type === 'cgroup' || type === 'user';
}

/** Equal while the subjects are where they were; devices in the first line. */
function placementText({ devices, cgroups, users }: ReturnType<typeof place>, withDevices = true): string {
  const sockets = JSON.stringify([cgroups.map(({ path, folder }) => [path, String(folder?.id)]), users]);
  return `${withDevices ? JSON.stringify(devices) : ''}\n${sockets}`;
}

function withoutDevices(text: string): string {
  return text.slice(text.indexOf('\n'));
}
