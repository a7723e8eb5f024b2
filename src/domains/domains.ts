import { FlowFlag } from '../../loader/abi/gen/types.gen.js';
import type { SockDiag } from '../../loader/netlink/sock-diag.js';
import { formatAddress, parseAddress } from '../../policy/address.js';
import type { CompilerChange, NodeInput } from '../../policy/compile/types.js';
import { matchingPatterns } from '../../policy/domains.js';
import type {
  ClusterNetworkPolicyResource,
  ContainerResource,
  NetworkPolicyResource,
} from '../../policy/model/resources.js';
import { selects } from '../../policy/select.js';
import type { Kernel } from '../dataplane/kernel.js';
import type { Rollback } from '../dataplane/rollback.js';
import type { DnsAnswer, DnsQuestion, HostPorts, NameWatcher } from '../dns/watch.js';
import { FLOW_IF } from '../explain/flow-if.js';
import { PROTOCOLS } from '../flows/protocols.js';
import type { DomainChange } from '../host/peers.js';
import type { Logger } from '../log.js';
import type { AttachmentSpec } from '../state/desired.js';
import type { Edit, ObjectSet } from '../state/objects.js';
import { HostServers } from './host-servers.js';
import type { Learned } from './learned.js';

const SWEEP_MS = 30_000;
const DNS_PORT = 53;
const NAMESPACE_LABEL = 'kubernetes.io/metadata.name';

interface Parts {
  readonly kernel: Kernel;
  readonly objects: ObjectSet;
  readonly learned: Learned;
  readonly log: Logger;
  readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  /** Brings inputs of the compiler into force, and what `write` does with them; all or nothing. */
  readonly change: (change: CompilerChange, write: (undo: Rollback) => void) => void;
  /** The kernel's socket diagnosis, for the host. */
  readonly openDiag: () => SockDiag;
  /** The rules of the host itself. */
  readonly host: {
    /** Addresses that join and leave patterns; they are in force when this returns. */
    changeDomains(changes: ReadonlyMap<string, DomainChange>): void;
    /** Addresses that the host has open flows with. */
    openPeers(): ReadonlySet<string>;
  };
}

interface Waiting {
  readonly answer: DnsAnswer;
  readonly done: () => void;
}

/** Kinds whose rules may have names. */
const WITH_NAMES: ReadonlySet<string> = new Set(['NetworkPolicy', 'ClusterNetworkPolicy', 'HostPolicy']);

type PolicyWithNames = NetworkPolicyResource | ClusterNetworkPolicyResource;

/**
 * Names in rules. Whose policy has some asks through the agent (EP_NAMES): an answer goes on when its addresses are in
 * the maps. An address is an input of the compiler whose labels are the patterns that its names match.
 */
export class Domains implements NameWatcher {
  readonly #parts: Parts;
  /** Patterns of all rules. */
  #patterns: ReadonlySet<string> = new Set();
  #policies: readonly PolicyWithNames[] = [];
  /** Labels that each address has in the compiler. */
  readonly #inForce = new Map<string, string>();
  /** Attachments whose questions go through the agent. */
  #marked: ReadonlySet<string> = new Set();
  /** Patterns of HostPolicies, and those of each address that are in force there. */
  #hostPatterns: ReadonlySet<string> = new Set();
  readonly #onHost = new Map<string, string>();
  #watchHost: (wanted: boolean) => Promise<void> = () => Promise.resolve();
  readonly #servers: HostServers;
  #watch: (clients: readonly string[]) => Promise<void> = () => Promise.resolve();
  #queue: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;
  #warned = false;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#servers = new HostServers(parts.kernel.loaded.maps, parts.openDiag);
  }

  /** What was learned before, in force before any policy is: the objects are staged. */
  restore(): void {
    this.#readPolicies();
    try {
      this.#put(this.#parts.learned.addresses());
      this.#putOnHost(this.#parts.learned.addresses());
    } catch (err) {
      this.#parts.log.error({ err }, 'addresses of names are not in force; names have to be asked for again');
    }
  }

  start(onError: (error: unknown) => void): void {
    this.#timer = setInterval(() => {
      void this.#parts.exclusive(async () => this.#sweep()).catch(onError);
    }, SWEEP_MS).unref();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#servers.close();
    for (const { done } of this.#queue.splice(0)) done();
    this.#parts.learned.close();
  }

  /** Whether questions of the attachment go through the agent. */
  marks(spec: Pick<AttachmentSpec, 'container'>): boolean {
    if (this.#policies.length === 0) return false;
    const container = this.#parts.objects.get(`Container ${spec.container}`);
    return (
      container?.kind === 'Container' && this.#policies.some((policy) => this.#applies(policy, container))
    );
  }

  /** For a trial: what the compiler gets of names, by the policies that are staged now. */
  *inputs(): Generator<NodeInput> {
    const patterns = patternsOf(this.#withNames());
    for (const address of this.#parts.learned.addresses()) {
      const labels = this.#labels(address, patterns);
      if (labels !== undefined) yield input(address, labels);
    }
  }

  /** Addresses of a name or pattern that were learned, whether a policy has it or not. */
  *addressesOf(name: string): Generator<string> {
    const { learned } = this.#parts;
    const patterns = new Set([name]);
    for (const address of learned.addresses())
      for (const known of learned.namesOf(address))
        if (matchingPatterns(patterns, known).length > 0) {
          yield address;
          break;
        }
  }

  /** Addresses that were learned. */
  addresses(): IterableIterator<string> {
    return this.#inForce.keys();
  }

  /** Definitions changed and are in force: rules with other names, other subjects. */
  async changed(edits: readonly Edit[]): Promise<void> {
    const before = this.#patterns;
    const beforeOnHost = this.#hostPatterns;
    // There may be thousands of policies, and containers come and go.
    if (edits.some(({ before, after }) => WITH_NAMES.has((after ?? before)?.kind ?? '')))
      this.#readPolicies();
    if (!sameSet(beforeOnHost, this.#hostPatterns)) {
      this.#putOnHost(new Set([...this.#parts.learned.addresses(), ...this.#onHost.keys()]));
      await this.#watchHost(this.#hostPatterns.size > 0);
    }
    if (this.#policies.length === 0 && this.#marked.size === 0) return;
    const { attachments, node } = this.#parts.kernel;
    if (!sameSet(before, this.#patterns)) {
      this.#put(this.#parts.learned.addresses());
      node.nextEpoch();
    }
    const marked = new Set(
      [...attachments.values()].filter(({ spec }) => this.marks(spec)).map(({ spec }) => spec.id),
    );
    const wrong = [...attachments.values()].filter(
      ({ spec }) => marked.has(spec.id) !== this.#marked.has(spec.id),
    );
    this.#marked = marked;
    await this.#watch(this.#clients());
    for (const { spec, policy } of wrong) attachments.setPolicy(spec.id, policy);
  }

  /** NameWatcher */
  async onClients(watch: (clients: readonly string[]) => Promise<void>): Promise<void> {
    this.#watch = watch;
    await watch(this.#clients());
  }

  /** NameWatcher */
  async onHost(watch: (wanted: boolean) => Promise<void>): Promise<void> {
    this.#watchHost = watch;
    await watch(this.#hostPatterns.size > 0);
  }

  /** NameWatcher */
  hostPorts(ports: HostPorts): void {
    this.#servers.ports = ports;
  }

  /** NameWatcher: the flow's entry knows whom the container has asked, and the socket whom the host has. */
  serverOf(question: DnsQuestion): string | undefined {
    const { gateway, client, port, tcp } = question;
    if (isLoopback(gateway)) return this.#servers.serverOf(question);
    const entry = this.#parts.kernel.loaded.maps.flows.get({
      saddr: parseAddress(gateway),
      daddr: parseAddress(client),
      sport: DNS_PORT,
      dport: port,
      ifindex: FLOW_IF.host,
      proto: tcp ? PROTOCOLS.TCP : PROTOCOLS.UDP,
    });
    if (entry === undefined || (entry.flags & FlowFlag.Reply) === 0) return undefined;
    const asked = formatAddress(entry.saddr);
    return asked === gateway ? undefined : asked;
  }

  /** NameWatcher: resolves when the addresses are in the maps, or cannot be. Never rejects. */
  learn(answer: DnsAnswer): Promise<void> {
    const names = answer.names.filter((name) => this.#wants(name));
    if (names.length === 0 || answer.addresses.length === 0 || this.#known(names, answer.addresses))
      return Promise.resolve();
    return new Promise((done) => {
      this.#queue.push({ answer: { names, addresses: answer.addresses }, done });
      if (this.#queue.length > 1) return;
      void this.#parts
        .exclusive(async () => this.#take())
        .catch((err: unknown) => {
          this.#parts.log.error({ err }, 'addresses of names were not learned');
          for (const { done: finish } of this.#queue.splice(0)) finish();
        });
    });
  }

  /** Whether all of it is in force; then it is good for longer, and no change is needed. */
  #known(names: readonly string[], addresses: DnsAnswer['addresses']): boolean {
    const { learned, log } = this.#parts;
    const isFor = (patterns: ReadonlySet<string>): boolean =>
      names.some((name) => matchingPatterns(patterns, name).length > 0);
    const [forContainers, forHost] = [isFor(this.#patterns), isFor(this.#hostPatterns)];
    const inForce = addresses.every(
      ({ address }) =>
        (!forContainers || this.#inForce.has(address)) &&
        (!forHost || this.#onHost.has(address)) &&
        names.every((name) => learned.has(name, address)),
    );
    if (!inForce) return false;
    try {
      learned.learn(names, addresses, Date.now());
    } catch (err) {
      log.error({ err }, 'addresses of names are not on disk');
    }
    return true;
  }

  /** All answers that wait, as one change. */
  async #take(): Promise<void> {
    const { learned, log } = this.#parts;
    const taken = this.#queue;
    this.#queue = [];
    const now = Date.now();
    const refused = learned.refused;
    try {
      const changed = new Set<string>();
      for (const { answer } of taken) {
        const addresses = answer.addresses.filter(({ address }) => this.#isOutside(address));
        for (const address of learned.learn(answer.names, addresses, now)) changed.add(address);
      }
      this.#put(changed);
      this.#putOnHost(changed);
    } finally {
      for (const { done } of taken) done();
    }
    if (learned.refused > refused && !this.#warned) {
      this.#warned = true;
      log.warn(learned.sizes, 'no more addresses of names are kept: raise addressEntries');
    }
  }

  /** Whether some rule has the name. */
  #wants(name: string): boolean {
    return [this.#patterns, this.#hostPatterns].some(
      (patterns) => matchingPatterns(patterns, name).length > 0,
    );
  }

  /** Addresses of containers, pods, nodes and the host are known by what they are, and no name changes that. */
  #isOutside(address: string): boolean {
    const { addresses, cidrs } = this.#parts.kernel;
    if (/^(0\.|127\.|169\.254\.|22[4-9]\.|2[3-5]\d\.|::$|::1$|fe[89ab]|ff)/.test(address)) return false;
    return (
      addresses.placeOf(address) === undefined &&
      !addresses.isHost(address) &&
      addresses.remoteOf(address) === undefined &&
      cidrs.networkAround(parseAddress(address)) === 0
    );
  }

  #sweep(): void {
    const { learned, kernel } = this.#parts;
    let used: Set<string> | undefined;
    let usedByHost: ReadonlySet<string> | undefined;
    const inUse = (address: string): boolean => {
      used ??= openDestinations(kernel);
      usedByHost ??= this.#parts.host.openPeers();
      return used.has(address) || usedByHost.has(address);
    };
    const changed = learned.sweep(Date.now(), inUse, (name) => this.#wants(name));
    if (changed.size === 0) return;
    this.#put(changed);
    this.#putOnHost(changed);
    kernel.node.nextEpoch();
  }

  /** Brings what is known of these addresses into force. */
  #put(addresses: Iterable<string>): void {
    const upsert: NodeInput[] = [];
    const gone: string[] = [];
    for (const address of addresses) {
      const labels = this.#labels(address, this.#patterns);
      const text = labels === undefined ? undefined : JSON.stringify(labels);
      if (this.#inForce.get(address) === text) continue;
      if (labels === undefined) gone.push(address);
      else upsert.push(input(address, labels));
    }
    if (upsert.length + gone.length === 0) return;
    const { kernel, change } = this.#parts;
    const remove = gone.map((address) => ({ kind: 'Node' as const, name: nameOf(address) }));
    change({ upsert, remove }, (undo) => {
      for (const {
        addresses: [address = ''],
      } of upsert)
        undo.push(kernel.addresses.setLearned(address, true));
      for (const address of gone) undo.push(kernel.addresses.setLearned(address, false));
    });
    for (const {
      addresses: [address = ''],
      labels,
    } of upsert)
      this.#inForce.set(address, JSON.stringify(Object.keys(labels)));
    for (const address of gone) this.#inForce.delete(address);
  }

  /** The same for the rules of the host, which have sets of addresses by pattern. */
  #putOnHost(addresses: Iterable<string>): void {
    const changes = new Map<string, { added: string[]; removed: string[] }>();
    const changeOf = (pattern: string): { added: string[]; removed: string[] } => {
      const change = changes.get(pattern) ?? { added: [], removed: [] };
      changes.set(pattern, change);
      return change;
    };
    const now = new Map<string, string>();
    for (const address of addresses) {
      const patterns = this.#labels(address, this.#hostPatterns) ?? [];
      const before = this.#onHost.get(address)?.split(' ') ?? [];
      for (const pattern of patterns) if (!before.includes(pattern)) changeOf(pattern).added.push(address);
      for (const pattern of before) if (!patterns.includes(pattern)) changeOf(pattern).removed.push(address);
      now.set(address, patterns.join(' '));
    }
    if (changes.size > 0) this.#parts.host.changeDomains(changes);
    for (const [address, patterns] of now) {
      if (patterns === '') this.#onHost.delete(address);
      else this.#onHost.set(address, patterns);
    }
  }

  /** Patterns that the names of an address match; undefined: none. */
  #labels(address: string, patterns: ReadonlySet<string>): string[] | undefined {
    const found = new Set<string>();
    for (const name of this.#parts.learned.namesOf(address))
      for (const pattern of matchingPatterns(patterns, name)) found.add(pattern);
    return found.size === 0 ? undefined : [...found].sort();
  }

  #readPolicies(): void {
    this.#policies = this.#withNames();
    this.#patterns = patternsOf(this.#policies);
    const patterns = new Set<string>();
    for (const { ingress, egress } of this.#parts.objects.ofKind('HostPolicy'))
      for (const { peers } of [...ingress, ...egress])
        for (const peer of peers) if (peer.type === 'domain') patterns.add(peer.name);
    this.#hostPatterns = patterns;
  }

  #withNames(): PolicyWithNames[] {
    const { objects } = this.#parts;
    return [...objects.ofKind('NetworkPolicy'), ...objects.ofKind('ClusterNetworkPolicy')].filter((policy) =>
      policy.egress?.some(({ peers }) => peers.some(({ type }) => type === 'domain')),
    );
  }

  #applies(policy: PolicyWithNames, { namespace, labels }: ContainerResource): boolean {
    if (policy.kind === 'NetworkPolicy')
      return policy.namespace === namespace && selects(policy.podSelector, labels);
    const { namespaceSelector, podSelector } = policy.subject;
    const declared = this.#parts.objects.get(`Namespace ${namespace}`);
    const own = declared?.kind === 'Namespace' ? declared.labels : {};
    return (
      selects(namespaceSelector, { ...own, [NAMESPACE_LABEL]: namespace }) && selects(podSelector, labels)
    );
  }

  #clients(): string[] {
    const { attachments } = this.#parts.kernel;
    return [...this.#marked].flatMap((id) => {
      const spec = attachments.get(id)?.spec;
      return [spec?.ipv4?.address, spec?.ipv6?.address].filter((address) => address !== undefined);
    });
  }
}

function patternsOf(policies: readonly PolicyWithNames[]): Set<string> {
  const patterns = new Set<string>();
  for (const { egress = [] } of policies)
    for (const { peers } of egress)
      for (const peer of peers) if (peer.type === 'domain') patterns.add(peer.pattern);
  return patterns;
}

/** Where the name service answers the host itself. */
function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

/** No node has such a name. */
function nameOf(address: string): string {
  return `name of ${address}`;
}

function input(address: string, patterns: readonly string[]): NodeInput {
  const labels = Object.fromEntries(patterns.map((pattern) => [pattern, '']));
  return { kind: 'Node', name: nameOf(address), labels, addresses: [address], learned: true };
}

function sameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  return a.size === b.size && [...a].every((entry) => b.has(entry));
}

/** Destinations outside of the flows that are open, after translation. */
function openDestinations({ loaded }: Kernel): Set<string> {
  const found = new Set<string>();
  for (const [, flow] of loaded.maps.flows.entries())
    if ((flow.flags & FlowFlag.Reply) === 0 && flow.peerIfindex === FLOW_IF.uplink)
      found.add(formatAddress(flow.daddr));
  return found;
}
