/** The objects that the compiler keeps, and how they refer to each other. */
import type { Family } from '../address.js';
import type { ContainerPort, LabelSelector, Labels } from '../model/resources.js';
import type { CidrNode } from './cidr-tree.js';
import type { SelectorIndex } from './indexes.js';
import type { Decision, PortRange, PortTableRow } from './ports.js';
import type { Direction, EndpointNumbers, PolicyResource, PortKey, PortValue } from './types.js';

/**
 * A namespace that has labels of its own, endpoints or policies. One without a name, which no selector
 * selects, holds the addresses of nodes; another one those of domain names.
 */
export interface NamespaceNode {
  readonly name: string;
  labels: Labels;
  /** Whether there is a Namespace resource; without one it has only the label with its name. */
  declared: boolean;
  readonly groups: Set<Group>;
  /** Namespace selectors that select it. */
  readonly scopes: Set<Scope>;
  /** NetworkPolicies in this namespace, and their peers without namespaceSelector. */
  readonly own: Scope;
}

/** Endpoints that no policy can tell apart but by address: one namespace, labels and named ports. */
export interface Group {
  readonly key: string;
  readonly namespace: NamespaceNode;
  readonly labels: Labels;
  readonly ports: readonly ContainerPort[];
  readonly portsKey: string;
  readonly endpoints: Set<EndpointNode>;
  /** How many of them policies are enforced on: without any the group needs no sets. */
  locals: number;
  /** Peer selectors that select it. */
  readonly selectors: Set<PeerSelector>;
  /** Policies whose podSelector selects it. */
  readonly policies: Set<PolicyNode>;
  readonly identities: Set<Identity>;
  egress: PolicySet | undefined;
  ingress: PolicySet | undefined;
}

/** Where a selector of endpoints looks: the namespaces of a namespaceSelector, or one namespace. */
export interface Scope {
  readonly key: string;
  readonly selector: LabelSelector | undefined;
  readonly namespaces: Set<NamespaceNode>;
  readonly peers: SelectorIndex<PeerSelector>;
  /** Policies that have their subjects here. */
  readonly policies: SelectorIndex<PolicyNode>;
  /** How many peers and policies. */
  count: number;
}

/** A peer of type `pods`; equal ones of all policies are one. */
export interface PeerSelector {
  readonly id: number;
  readonly key: string;
  readonly scope: Scope;
  readonly pods: LabelSelector;
  readonly groups: Set<Group>;
  /** Sets with rules that have this peer, and which rules those are. */
  readonly users: Map<PolicySet, number[]>;
  /** Policy parts that use it. */
  references: number;
}

/** What is kept for a CIDR of some policy. */
export interface CidrData {
  /** Identities whose smallest CIDR this is, by group; undefined: addresses that are no endpoint. */
  readonly identities: Map<Group | undefined, Identity>;
  /** Addresses of endpoints whose smallest CIDR this is. */
  readonly addresses: Set<AddressNode>;
  /** Sets with rules that have this CIDR as ipBlock. */
  readonly users: Map<PolicySet, BlockUse[]>;
  /** Policy parts that use it as cidr or except. */
  references: number;
}

export type Prefix = CidrNode<CidrData>;

export interface BlockUse {
  readonly rule: number;
  readonly except: readonly Prefix[];
}

/** A number for all that policies cannot tell apart: one group (or none) and the CIDRs around it. */
export interface Identity {
  readonly number: number;
  readonly group: Group | undefined;
  prefix: Prefix;
  readonly claims: Set<Claim>;
  /** Undefined: an address that is no endpoint, or not sorted yet. */
  class: PeerClass | undefined;
  readonly generation: number;
  dead: boolean;
}

/** Identities of endpoints that no rule for several namespaces and no CIDR tells apart. */
export interface PeerClass {
  readonly number: number;
  key: string;
  prefix: Prefix;
  /** Selectors of several namespaces that select its identities. */
  readonly selectors: Set<PeerSelector>;
  readonly identities: Set<Identity>;
  readonly generation: number;
  dead: boolean;
  /** A class is in none. */
  readonly class: undefined;
}

/** What has an entry in a set. */
export type Peer = Identity | PeerClass;

/** An address of an endpoint. Two endpoints may have one for a moment; the later one counts. */
export interface AddressNode {
  readonly text: string;
  readonly family: Family;
  /** IPv4: the address as a number; IPv6: 0. */
  readonly ipv4: number;
  prefix: Prefix;
  /** Oldest first. */
  claims: readonly Claim[];
}

export interface Claim {
  readonly endpoint: EndpointNode;
  readonly address: AddressNode;
  identity: Identity;
}

export interface EndpointNode {
  readonly id: string;
  /** An address of a node, or a pod on another one: it has an identity, and no policy is enforced on it here. */
  readonly peerOnly: boolean;
  group: Group;
  claim4: Claim | undefined;
  claim6: Claim | undefined;
  /** As of the last update; undefined: not told to anybody yet. */
  published: EndpointNumbers | undefined;
}

export interface PolicyNode {
  /** `namespace/name`, or the name of a ClusterNetworkPolicy. */
  readonly key: string;
  scope: Scope;
  resource: PolicyResource;
  readonly groups: Set<Group>;
  egress: PolicyPart | undefined;
  ingress: PolicyPart | undefined;
}

/** One direction of a policy in one version. */
export interface PolicyPart {
  readonly id: number;
  readonly key: string;
  /** `namespace/name` of the policy, or the name of a ClusterNetworkPolicy. */
  readonly policy: string;
  readonly tier: number;
  readonly direction: Direction;
  readonly rules: readonly CompiledRule[];
  /** The resource with the current positions of the rules. */
  resource: PolicyResource;
  /** The policy itself and the sets that it is part of. */
  references: number;
}

export interface NamedPort {
  readonly name: string;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
}

export interface CompiledRule {
  /** Its number in the maps. */
  readonly number: number;
  /** Rules of a lower tier come first; see RankedRule. */
  readonly tier: number;
  readonly action: 'allow' | 'deny' | 'pass';
  /** Undefined: every peer. */
  readonly peers: readonly CompiledPeer[] | undefined;
  readonly ports: 'all' | readonly PortRange[];
  readonly named: readonly NamedPort[];
}

export type CompiledPeer =
  | { readonly type: 'pods'; readonly selector: PeerSelector }
  | { readonly type: 'block'; readonly cidr: Prefix; readonly except: readonly Prefix[] };

/** A rule in a set; in ingress its named ports are resolved. */
export interface SetRule {
  readonly rule: CompiledRule;
  readonly ports: 'all' | readonly PortRange[];
  /** Egress: to be resolved on each peer. */
  readonly named: readonly NamedPort[];
}

/** What applies to some endpoints in one direction. */
export interface PolicySet {
  readonly number: number;
  readonly key: string;
  readonly direction: Direction;
  readonly parts: readonly PolicyPart[];
  readonly rules: readonly SetRule[];
  /** Rules without peers. */
  readonly anyRules: readonly number[];
  /** Those, and the ones that have every endpoint as a peer. */
  readonly endpointRules: readonly number[];
  readonly hasNamed: boolean;
  /** What holds where no rule decides: isolated endpoints deny under a rule number of its own, others allow. */
  readonly fallback: Decision;
  readonly generation: number;
  readonly groups: Set<Group>;
  readonly anyEntry: PeerEntry;
  /** For every endpoint; undefined: as anyEntry. */
  readonly endpointEntry: PeerEntry | undefined;
  /** For every other address inside a CIDR; undefined: as anyEntry. */
  readonly networkEntry: PeerEntry | undefined;
  /** Entries of peers that differ from those that they would fall back to, see PolicySets. */
  readonly entries: Map<Peer, PeerEntry>;
  readonly memo: Map<string, PeerEntry>;
  retired: boolean;
}

/** Value of policy_peers, shared by the identities of a set that match the same rules. */
export interface PeerEntry {
  readonly verdict: number;
  readonly rule: number;
  /** What a packet needs; equal tables are one profile. Empty: the verdict holds for every port. */
  readonly rows: readonly PortTableRow[];
  readonly rowsKey: string;
  /** Key in the set's memo. */
  readonly key: string;
  /** Set while the entry is in use. */
  profile: Profile | undefined;
  /** Identities with it. */
  uses: number;
}

/** A port table; equal ones are one. */
export interface Profile {
  readonly number: number;
  readonly key: string;
  readonly rows: readonly (readonly [PortKey, PortValue])[];
  references: number;
}
