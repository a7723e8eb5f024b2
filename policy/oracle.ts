/**
 * A slow and obvious evaluator of policy, for tests alone. It reads the resources the way the API
 * documentation of Kubernetes describes them, one probe at a time, and shares nothing with the
 * compiler but the typed model.
 */
import { cidrContains, tryParseAddress, tryParseCidr } from './address.js';
import type {
  ClusterNetworkPolicyResource,
  ClusterPolicyRule,
  ContainerPort,
  LabelSelector,
  Labels,
  NamespaceResource,
  NetworkPolicyResource,
  NodeResource,
  PolicyPeer,
  PolicyRule,
  PolicyTier,
} from './model/resources.js';

/** An endpoint as the oracle sees it. */
export interface OraclePod {
  readonly id: string;
  readonly namespace: string;
  readonly labels: Labels;
  readonly ports: readonly ContainerPort[];
  readonly ipv4?: string;
  readonly ipv6?: string;
}

export interface OracleWorld {
  readonly namespaces: readonly NamespaceResource[];
  readonly policies: readonly (NetworkPolicyResource | ClusterNetworkPolicyResource)[];
  readonly pods: readonly OraclePod[];
  readonly nodes?: readonly Pick<NodeResource, 'labels' | 'addresses'>[];
}

/** A new connection. `port` means nothing for protocols without ports. */
export interface Probe {
  /** An endpoint by its id, or an address of nobody. */
  readonly from: { readonly pod: string } | { readonly address: string };
  readonly to: { readonly pod: string } | { readonly address: string };
  readonly family: 4 | 6;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP' | 'ICMP';
  readonly port: number;
}

/** What one side of a connection says. */
export interface SideVerdict {
  readonly allowed: boolean;
  /** NetworkPolicies (`namespace/name`, sorted by name) that decided; none: not isolated, or decided before. */
  readonly isolatedBy: readonly string[];
  /** The rule that decided, as `namespace/name#index` or, of a ClusterNetworkPolicy, `name#index`. */
  readonly rule?: string;
}

export interface OracleVerdict {
  readonly allowed: boolean;
  readonly egress: SideVerdict;
  readonly ingress: SideVerdict;
}

interface Party {
  readonly pod?: OraclePod;
  readonly address: string;
}

const OPEN: SideVerdict = { allowed: true, isolatedBy: [] };

/** The verdict on a new connection. */
export function evaluate(world: OracleWorld, probe: Probe): OracleVerdict {
  const from = party(world, probe.from, probe.family);
  const to = party(world, probe.to, probe.family);
  if (from.pod !== undefined && from.pod === to.pod) return { allowed: true, egress: OPEN, ingress: OPEN };
  const egress = from.pod === undefined ? OPEN : side(world, 'egress', from.pod, to, to, probe);
  const ingress = to.pod === undefined ? OPEN : side(world, 'ingress', to.pod, from, to, probe);
  return { allowed: egress.allowed && ingress.allowed, egress, ingress };
}

function party(world: OracleWorld, end: Probe['from'], family: 4 | 6): Party {
  if ('pod' in end) {
    const pod = world.pods.find((candidate) => candidate.id === end.pod);
    const address = family === 4 ? pod?.ipv4 : pod?.ipv6;
    if (pod === undefined || address === undefined)
      throw new Error(`pod ${end.pod} has no IPv${family} address`);
    return { pod, address };
  }
  // The last one that took the address has it.
  const pod = world.pods.findLast(
    (candidate) => candidate.ipv4 === end.address || candidate.ipv6 === end.address,
  );
  return pod === undefined ? { address: end.address } : { pod, address: end.address };
}

function side(
  world: OracleWorld,
  direction: 'egress' | 'ingress',
  subject: OraclePod,
  peer: Party,
  destination: Party,
  probe: Probe,
): SideVerdict {
  return (
    tier(world, 'Admin', direction, subject, peer, destination, probe) ??
    isolation(world, direction, subject, peer, destination, probe) ??
    tier(world, 'Baseline', direction, subject, peer, destination, probe) ??
    OPEN
  );
}

/** ClusterNetworkPolicies of a tier: the first rule that matches decides, or passes on to the next tier. */
function tier(
  world: OracleWorld,
  wanted: PolicyTier,
  direction: 'egress' | 'ingress',
  subject: OraclePod,
  peer: Party,
  destination: Party,
  probe: Probe,
): SideVerdict | undefined {
  const ordered = world.policies
    .filter((policy) => policy.kind === 'ClusterNetworkPolicy')
    .filter((policy) => policy.tier === wanted)
    .filter(({ subject: { namespaceSelector, podSelector } }) => {
      const inNamespace = matches(namespaceSelector, namespaceLabels(world, subject.namespace));
      return inNamespace && matches(podSelector, subject.labels);
    })
    .sort((a, b) => a.priority - b.priority || (a.name < b.name ? -1 : 1));
  for (const policy of ordered) {
    const rules: readonly ClusterPolicyRule[] = policy[direction];
    for (const rule of rules) {
      if (!peerMatches(world, policy, rule, peer) || !portMatches(rule, destination, probe)) continue;
      if (rule.action === 'Pass') return undefined;
      return {
        allowed: rule.action === 'Accept',
        isolatedBy: [],
        rule: `${policy.name}#${rule.index}`,
      };
    }
  }
  return undefined;
}

/** NetworkPolicies: undefined if none isolates the subject, else a verdict. */
function isolation(
  world: OracleWorld,
  direction: 'egress' | 'ingress',
  subject: OraclePod,
  peer: Party,
  destination: Party,
  probe: Probe,
): SideVerdict | undefined {
  const applying = world.policies
    .filter((policy) => policy.kind === 'NetworkPolicy')
    .filter((policy) => policy[direction] !== undefined)
    .filter((policy) => policy.namespace === subject.namespace && matches(policy.podSelector, subject.labels))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const isolatedBy = applying.map((policy) => `${policy.namespace}/${policy.name}`);
  if (applying.length === 0) return undefined;
  for (const policy of applying) {
    for (const rule of policy[direction] ?? []) {
      if (peerMatches(world, policy, rule, peer) && portMatches(rule, destination, probe)) {
        return { allowed: true, isolatedBy, rule: `${policy.namespace}/${policy.name}#${rule.index}` };
      }
    }
  }
  return { allowed: false, isolatedBy };
}

function peerMatches(
  world: OracleWorld,
  policy: NetworkPolicyResource | ClusterNetworkPolicyResource,
  rule: PolicyRule,
  peer: Party,
): boolean {
  if (rule.peers.length === 0) return true;
  return rule.peers.some((wanted) => onePeerMatches(world, policy, wanted, peer));
}

function onePeerMatches(
  world: OracleWorld,
  policy: NetworkPolicyResource | ClusterNetworkPolicyResource,
  wanted: PolicyPeer,
  peer: Party,
): boolean {
  if (wanted.type === 'ipBlock')
    return inside(wanted.cidr, peer.address) && !wanted.except.some((part) => inside(part, peer.address));
  if (wanted.type === 'domain') return false; // no name is resolved in a test
  if (wanted.type === 'nodes') {
    const nodes = (world.nodes ?? []).filter((node) => matches(wanted.nodeSelector, node.labels));
    return peer.pod === undefined && nodes.some((node) => node.addresses.includes(peer.address));
  }
  if (peer.pod === undefined) return false;
  if (wanted.namespaceSelector === undefined) {
    if (policy.kind !== 'NetworkPolicy' || peer.pod.namespace !== policy.namespace) return false;
  } else if (!matches(wanted.namespaceSelector, namespaceLabels(world, peer.pod.namespace))) {
    return false;
  }
  return matches(wanted.podSelector, peer.pod.labels);
}

function portMatches(rule: PolicyRule, destination: Party, probe: Probe): boolean {
  if (rule.ports.length === 0) return true;
  return rule.ports.some(({ protocol, port, endPort }) => {
    if (protocol === undefined && port === undefined) return true;
    if (probe.protocol !== (protocol ?? 'TCP')) return false;
    if (port === undefined) return true;
    if (typeof port === 'number') return probe.port >= port && probe.port <= (endPort ?? port);
    return (destination.pod?.ports ?? []).some(
      (named) => named.name === port && named.protocol === probe.protocol && named.port === probe.port,
    );
  });
}

function namespaceLabels(world: OracleWorld, name: string): Labels {
  const declared = world.namespaces.find((namespace) => namespace.name === name);
  return { ...declared?.labels, 'kubernetes.io/metadata.name': name };
}

function matches(selector: LabelSelector, labels: Labels): boolean {
  const has = new Map(Object.entries(labels));
  for (const { key, operator, values } of selector.requirements) {
    const value = has.get(key);
    if (operator === 'In' && (value === undefined || !values.includes(value))) return false;
    if (operator === 'NotIn' && value !== undefined && values.includes(value)) return false;
    if (operator === 'Exists' && value === undefined) return false;
    if (operator === 'DoesNotExist' && value !== undefined) return false;
  }
  return true;
}

function inside(cidr: string, address: string): boolean {
  const prefix = tryParseCidr(cidr);
  const bytes = tryParseAddress(address);
  return prefix !== undefined && bytes !== undefined && cidrContains(prefix, bytes);
}
