import type { HostSocket } from '../../loader/netlink/sock-diag.js';
import { formatAddress } from '../../policy/address.js';
import { VERDICT } from '../../policy/compile/types.js';
import { SluiceError } from '../../policy/errors.js';
import type { PrefixKey } from '../../policy/host/prefix.js';
import {
  comparePolicies,
  type HostDirection,
  HostRules,
  isPodsKey,
  type NumberedRule,
  peerKey,
  resolveFor,
  verdictOf,
} from '../../policy/host/rules.js';
import type { HostPeer, HostPolicyResource } from '../../policy/model/host-policy.js';
import type { AgentConfig } from '../config.js';
import { type FlowChange, flowChange, type Judgement } from '../diff/diff.js';
import type { FlowRecord } from '../flowlog/record.js';
import { ruleText } from '../flows/events.js';
import { PROTOCOLS, protocolName } from '../flows/protocols.js';
import type { ObjectSet } from '../state/objects.js';
import type { HostEvidence } from '../suggest/host.js';
import { AddressSets } from './address-sets.js';
import { failsafePorts } from './failsafe.js';
import { cgroupsBelow, isInside, type ProcessSubject, parseSubject, unitPath, userId } from './subjects.js';

/** Flows that are asked about, the latest first. */
const MAX_FLOWS = 10_000;
const DHCP_PORTS: ReadonlySet<number> = new Set([67, 68, 546, 547]);
const LOOPBACK = /^(127\.|::1$)/;

interface Parts {
  readonly config: AgentConfig;
  readonly objects: ObjectSet;
  /** Addresses behind a peer of a rule. Throws SluiceError for a list that cannot be read. */
  readonly addressesOf: (peer: HostPeer) => Iterable<PrefixKey>;
  /** Open sockets of the host. */
  readonly sockets: () => readonly HostSocket[];
  /** Names of devices by the addresses that they have. */
  readonly devices: () => ReadonlyMap<string, string>;
  readonly ownerOf: (address: Uint8Array) => string;
}

/** What is known of the processes of a flow; undefined: nothing. */
type Owner = { readonly cgroup: bigint; readonly user: number } | ProcessSubject;

interface HostFlow {
  readonly direction: HostDirection;
  readonly local: string;
  readonly remote: string;
  readonly protocol: number;
  /** Of the receiver; ICMP: type * 256 + code. */
  readonly port: number;
  readonly owner: Owner | undefined;
  /** Judged where it passes a device. */
  readonly onDevice: boolean;
  /** The other side is a container of this node. */
  readonly container: boolean;
  readonly record: Pick<FlowRecord, 'from' | 'to' | 'protocol' | 'port' | 'last'> & { flows: number };
}

export interface HostDiff {
  readonly flows: readonly FlowChange[];
  readonly asked: number;
  readonly otherRule: number;
  readonly skipped: number;
  /** Rules with a limit of rates that come, go or change. */
  readonly limits: number;
}

const NOTHING: HostDiff = { flows: [], asked: 0, otherRule: 0, skipped: 0, limits: 0 };

/**
 * Which flows of the host a change of HostPolicies would judge in another way: the recorded ones, and those of sockets
 * that are open, also when nothing is recorded because there is no HostPolicy yet. The rules are resolved by what
 * writes them into the kernel's maps; limits of rates are not foreseen.
 */
export class HostForesight {
  readonly #parts: Parts;
  readonly #failsafe: ReadonlySet<string>;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#failsafe = new Set(
      failsafePorts(parts.config).map(({ direction, proto, port }) => `${direction} ${proto} ${port}`),
    );
  }

  /** The HostPolicies as the objects have them now. */
  policies(): readonly HostPolicyResource[] {
    return [...this.#parts.objects.ofKind('HostPolicy')].sort(comparePolicies);
  }

  /** Throws SluiceError (70xx) for a list that cannot be read. */
  compare(
    records: readonly FlowRecord[],
    before: readonly HostPolicyResource[],
    after: readonly HostPolicyResource[],
  ): HostDiff {
    if (before.length === after.length && before.every((policy, i) => policy === after[i])) return NOTHING;
    const sets = this.#sets([...before, ...after]);
    const { flows, skipped } = this.#distinct(records, [...before, ...after]);
    const [was, willBe] = [this.#judge(before, sets), this.#judge(after, sets)];
    const changed: FlowChange[] = [];
    let otherRule = 0;
    for (const flow of flows) {
      const [old, now] = [was(flow), willBe(flow)];
      if (old.verdict !== now.verdict) changed.push(changeOf(flow, old, now));
      else if (old.rules.join() !== now.rules.join()) otherRule++;
    }
    return { flows: changed, asked: flows.length, otherRule, skipped, limits: changedLimits(before, after) };
  }

  /** Flows of sockets that are open, for a suggestion. */
  openFlows(): HostEvidence[] {
    const flows = new Map<string, HostEvidence & { flows: number }>();
    for (const { direction, local, remote, onDevice, record } of this.#open()) {
      if (!onDevice) continue;
      const [source, destination] = direction === 'ingress' ? [remote, local] : [local, remote];
      const key = `${source} ${destination} ${record.protocol} ${record.port}`;
      const known = flows.get(key);
      if (known !== undefined) known.flows++;
      else flows.set(key, { ...record, source, destination, verdict: 'allow', packets: 0, replyPackets: 0 });
    }
    return [...flows.values()];
  }

  #sets(policies: readonly HostPolicyResource[]): AddressSets {
    const sets = new AddressSets();
    for (const { origin, ingress, egress } of policies) {
      for (const { peers, origin: ruleOrigin } of [...ingress, ...egress]) {
        for (const peer of peers) {
          const key = peerKey(peer);
          if (sets.has(key)) continue;
          try {
            sets.define(key, this.#parts.addressesOf(peer));
          } catch (error) {
            if (!(error instanceof SluiceError)) throw error;
            throw error.at({ file: origin.file, line: ruleOrigin.line });
          }
        }
      }
    }
    return sets;
  }

  /** Flows that differ in whom, port or process. */
  #distinct(
    records: readonly FlowRecord[],
    policies: readonly HostPolicyResource[],
  ): { flows: HostFlow[]; skipped: number } {
    const flows = new Map<string, HostFlow>();
    const ofSockets = new Set<string>();
    let skipped = 0;
    const add = (key: string, flow: HostFlow): void => {
      const known = flows.get(key);
      if (known !== undefined) known.record.flows += flow.record.flows;
      else if (flows.size >= MAX_FLOWS) skipped++;
      else flows.set(key, flow);
    };
    for (const flow of this.#open()) {
      ofSockets.add(textOf(flow));
      add(`${textOf(flow)} ${ownerText(flow.owner)}`, flow);
    }
    const types = policies.some(({ ingress, egress }) =>
      [...ingress, ...egress].some(({ ports }) => ports !== 'all' && ports.some(isIcmp)),
    );
    for (const record of records) {
      const flow = flowOf(record, types);
      if (flow === undefined) continue;
      if (flow === 'unknown') skipped++;
      else if (flow.owner !== undefined || !ofSockets.has(textOf(flow)))
        add(`${textOf(flow)} ${ownerText(flow.owner)}`, flow);
    }
    return { flows: [...flows.values()], skipped };
  }

  /** Flows of the sockets that are open. */
  *#open(): Generator<HostFlow> {
    const now = Date.now();
    const sockets = this.#parts.sockets();
    const served = new Set(
      sockets
        .filter(({ state }) => state === 'listen')
        .map(({ protocol, local }) => `${protocol} ${local.port}`),
    );
    for (const { state, protocol, local, remote, user, cgroup } of sockets) {
      if (state !== 'open') continue;
      const incoming = served.has(`${protocol} ${local.port}`);
      const other = this.#parts.ownerOf(remote.address);
      const port = incoming ? local.port : remote.port;
      const [localText, remoteText] = [formatAddress(local.address), formatAddress(remote.address)];
      yield {
        direction: incoming ? 'ingress' : 'egress',
        local: localText,
        remote: remoteText,
        protocol,
        port,
        owner: { cgroup, user },
        onDevice: !LOOPBACK.test(remoteText) && other !== 'host',
        container: isContainer(other),
        record: {
          from: incoming ? other : 'host',
          to: incoming ? 'host' : other,
          protocol: protocolName(protocol),
          port,
          flows: 1,
          last: now,
        },
      };
    }
  }

  #judge(policies: readonly HostPolicyResource[], sets: AddressSets): (flow: HostFlow) => Judgement {
    const rules = new HostRules();
    const numbered = rules.number(policies);
    const rulesOf = (some: readonly HostPolicyResource[], direction: HostDirection): NumberedRule[] =>
      some.flatMap((policy) => numbered(policy, direction));
    const around = new Map<string, ReadonlySet<string>>();
    const below = new Map<string, ReadonlySet<bigint>>();
    const onInterface = policies.some(({ subject }) => subject.type === 'interface');
    const devices = onInterface ? this.#parts.devices() : new Map<string, string>();
    const decide = (list: readonly NumberedRule[], flow: HostFlow): { allowed: boolean; rule: number } => {
      const peers = around.get(flow.remote) ?? sets.around(flow.remote);
      around.set(flow.remote, peers);
      const { verdict, rule } = verdictOf(resolveFor(list, peers), flow.protocol, flow.port);
      return { allowed: verdict === VERDICT.Allow, rule };
    };
    return (flow) => {
      const { direction, container } = flow;
      if (this.#isAlwaysOpen(flow)) return { verdict: 'allow', reason: 'forwarded', rules: [] };
      const lists: NumberedRule[][] = [];
      if (flow.onDevice) {
        const device = devices.get(flow.local);
        const onDevice = policies.filter(
          ({ subject }) =>
            subject.type === 'host' ||
            (!container && subject.type === 'interface' && subject.name === device),
        );
        const list = rulesOf(onDevice, direction);
        lists.push(container ? list.filter(({ peers }) => peers?.some(isPodsKey) === true) : list);
      }
      if (flow.owner !== undefined) {
        const { owner } = flow;
        lists.push(
          rulesOf(
            policies.filter((policy) => this.#isOf(policy, owner, below)),
            direction,
          ),
        );
      }
      const decisions = lists.filter((list) => list.length > 0).map((list) => decide(list, flow));
      const denied = decisions.filter(({ allowed }) => !allowed);
      const deciding = (denied.length > 0 ? denied.slice(0, 1) : decisions).filter(({ rule }) => rule !== 0);
      return {
        verdict: denied.length > 0 ? 'deny' : 'allow',
        reason: denied.length > 0 ? 'host_policy' : 'forwarded',
        rules: deciding.flatMap(({ rule }) => rules.describe(rule) ?? []).map(ruleText),
      };
    };
  }

  #isAlwaysOpen({ direction, protocol, port }: HostFlow): boolean {
    if (protocol === PROTOCOLS.UDP && DHCP_PORTS.has(port)) return true;
    return this.#failsafe.has(`${direction === 'ingress' ? 0 : 1} ${protocol} ${port}`);
  }

  /** Whether the processes of a flow are the subject of a policy, or below it. */
  #isOf({ subject }: HostPolicyResource, owner: Owner, below: Map<string, ReadonlySet<bigint>>): boolean {
    if (subject.type === 'user') return owner.user !== undefined && userId(subject.user) === owner.user;
    const { cgroupRoot } = this.#parts.config;
    if ((subject.type !== 'unit' && subject.type !== 'cgroup') || cgroupRoot === '') return false;
    const path = subject.type === 'cgroup' ? subject.path : unitPath(cgroupRoot, subject.name);
    if ('path' in owner)
      return owner.path === path || (owner.path !== undefined && isInside(owner.path, path));
    const ids = below.get(path) ?? cgroupsBelow(cgroupRoot, path);
    below.set(path, ids);
    return ids.has(owner.cgroup);
  }
}

/** Undefined: no flow of the host. `types`: what rules say of ICMP depends on the message. */
function flowOf(record: FlowRecord, types: boolean): HostFlow | 'unknown' | undefined {
  const { from, to, source, destination, icmp, subject } = record;
  const isIncoming = to === 'host' && from !== 'host';
  if (!isIncoming && from !== 'host' && subject === undefined) return undefined;
  const direction = subject === undefined ? (isIncoming ? 'ingress' : 'egress') : record.direction;
  const protocol = PROTOCOL_NUMBERS.get(record.protocol);
  if (protocol === undefined) return types ? 'unknown' : undefined;
  const isMessage = protocol === PROTOCOLS.ICMP || protocol === PROTOCOLS.ICMPv6;
  if (isMessage && icmp === undefined && types) return 'unknown';
  const [local, remote] = direction === 'ingress' ? [destination, source] : [source, destination];
  return {
    direction,
    local,
    remote,
    protocol,
    port: isMessage ? (icmp ?? 0) : record.port,
    owner: subject === undefined ? undefined : parseSubject(subject),
    onDevice: subject === undefined,
    container: isContainer(direction === 'ingress' ? from : to),
    record: { ...record },
  };
}

const PROTOCOL_NUMBERS: ReadonlyMap<string, number> = new Map(Object.entries(PROTOCOLS));

function isIcmp({ protocol }: { readonly protocol: number }): boolean {
  return protocol === PROTOCOLS.ICMP || protocol === PROTOCOLS.ICMPv6;
}

function isContainer(name: string): boolean {
  return name.includes('/');
}

/** Equal for flows of the same ends to the same port. */
function textOf({ direction, local, remote, protocol, port }: HostFlow): string {
  return `${direction} ${local} ${remote} ${protocol} ${port}`;
}

function ownerText(owner: Owner | undefined): string {
  if (owner === undefined) return '';
  return 'cgroup' in owner ? `${owner.cgroup} ${owner.user}` : `${owner.path} ${owner.user}`;
}

function changeOf(
  { direction, local, remote, record }: HostFlow,
  before: Judgement,
  after: Judgement,
): FlowChange {
  const [source, destination] = direction === 'ingress' ? [remote, local] : [local, remote];
  return flowChange({ ...record, source, destination }, before, after);
}

function changedLimits(before: readonly HostPolicyResource[], after: readonly HostPolicyResource[]): number {
  const [old, now] = [limitsOf(before), limitsOf(after)];
  return [...new Set([...old.keys(), ...now.keys()])].filter((rule) => old.get(rule) !== now.get(rule))
    .length;
}

/** What the rules with limits say, by policy and place. */
function limitsOf(policies: readonly HostPolicyResource[]): Map<string, string> {
  const limits = new Map<string, string>();
  for (const { name, subject, ingress, egress } of policies)
    for (const [direction, rules] of Object.entries({ ingress, egress }))
      for (const { origin: _, ...rule } of rules)
        if (rule.limit !== undefined)
          limits.set(`${name} ${direction} ${rule.index}`, JSON.stringify([subject, rule]));
  return limits;
}
