/** What goes into the compiler and what comes out. */
import type { PolicyPeer as PeerValue, PolicyPort as PortValue } from '../../loader/abi/gen/types.gen.js';
import type {
  ClusterNetworkPolicyResource,
  ContainerPort,
  Labels,
  NamespaceResource,
  NetworkPolicyResource,
  NodeResource,
  PolicyAction,
  PolicyTier,
} from '../model/resources.js';

export type { PeerValue, PortValue };

/** enum verdict of bpf/include/types.h. */
export const VERDICT = { Allow: 1, Deny: 2, Ports: 3 } as const;

/** enum reserved_identity of bpf/include/types.h. */
export const IDENTITY = {
  Any: 0,
  Host: 1,
  World: 2,
  AnyEndpoint: 3,
  AnyNetwork: 4,
  First: 256,
} as const;

/** First number of a class of identities in `policy_peers`; see IDENTITY_CLASS in bpf/include/types.h. */
export const CLASS_FIRST = 0x40000000;

/** IP protocol numbers (IANA). */
export const PROTOCOL = { TCP: 6, UDP: 17, SCTP: 132, ICMP: 1, ICMPv6: 58 } as const;

export type Direction = 'egress' | 'ingress';

/** One attachment of a container to a network. */
export interface EndpointInput {
  readonly kind: 'Endpoint';
  /** Unique; names the attachment in deltas. */
  readonly id: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly ports: readonly ContainerPort[];
  readonly ipv4?: string;
  readonly ipv6?: string;
  /** It is on another node: others see it as a peer, no policy is enforced on it here. It stays so. */
  readonly remote?: boolean;
}

/** A node of the cluster, for peers that select nodes; its addresses get identities of their own. */
export type NodeInput = Pick<NodeResource, 'kind' | 'name' | 'labels' | 'addresses'> & {
  /** It is no node: addresses that names have; labels are the patterns that the names match. It stays so. */
  readonly learned?: true;
};

export type PolicyResource = NetworkPolicyResource | ClusterNetworkPolicyResource;

export type CompilerInput = NamespaceResource | PolicyResource | NodeInput | EndpointInput;

export type CompilerKey =
  | { readonly kind: 'Namespace' | 'ClusterNetworkPolicy' | 'Node'; readonly name: string }
  | { readonly kind: 'NetworkPolicy'; readonly namespace: string; readonly name: string }
  | { readonly kind: 'Endpoint'; readonly id: string };

export interface CompilerChange {
  readonly upsert: readonly CompilerInput[];
  readonly remove: readonly CompilerKey[];
}

/** Key of policy_ports, in host byte order: see struct policy_port_key for the prefix lengths. */
export interface PortKey {
  readonly profile: number;
  /** IP protocol number; 0 with prefix length 32. */
  readonly protocol: number;
  readonly port: number;
  readonly prefixLength: number;
}

export type PeerRow = readonly [set: number, identity: number, value: PeerValue];
export type PortRow = readonly [key: PortKey, value: PortValue];
export type IdentityRow = readonly [text: string, identity: number];
export type ClassRow = readonly [identity: number, peerClass: number];

/** Numbers for the slot of an endpoint; set 0: not isolated, identity 0: no address of the family. */
export interface EndpointNumbers {
  readonly id: string;
  readonly setEgress: number;
  readonly setIngress: number;
  readonly identity4: number;
  readonly identity6: number;
}

/**
 * A change of the maps. To be applied in this order, so that no packet is judged by a mixture:
 * `ports.set`, `peers.set` and `peers.transient`; `classes.set`; `cidrs.set`, `addresses.set`;
 * `endpoints`; the epoch; then `addresses.delete`, `cidrs.delete`, `classes.delete`; `peers.delete` and
 * the keys of `peers.transient`; `ports.delete`.
 */
export interface CompileDelta {
  readonly addresses: { readonly set: readonly IdentityRow[]; readonly delete: readonly string[] };
  readonly cidrs: { readonly set: readonly IdentityRow[]; readonly delete: readonly string[] };
  readonly classes: { readonly set: readonly ClassRow[]; readonly delete: readonly number[] };
  readonly peers: {
    readonly set: readonly PeerRow[];
    readonly delete: readonly (readonly [set: number, identity: number])[];
    /** Needed only while the change is being applied: written with `set`, removed with `delete`. */
    readonly transient: readonly PeerRow[];
  };
  readonly ports: { readonly set: readonly PortRow[]; readonly delete: readonly PortKey[] };
  /** Endpoints whose numbers are new or changed. */
  readonly endpoints: readonly EndpointNumbers[];
  /** Whether an existing flow could be judged differently. */
  readonly mustReevaluate: boolean;
}

/** All entries that belong in the maps. */
export interface CompiledState {
  readonly addresses: readonly IdentityRow[];
  readonly cidrs: readonly IdentityRow[];
  readonly classes: readonly ClassRow[];
  readonly peers: readonly PeerRow[];
  readonly ports: readonly PortRow[];
  readonly endpoints: readonly EndpointNumbers[];
}

/** What a rule number means. */
export interface RuleDescription {
  readonly kind: PolicyResource['kind'] | 'HostPolicy';
  /** Absent: a ClusterNetworkPolicy or HostPolicy. */
  readonly namespace?: string;
  /** Not of a NetworkPolicy. */
  readonly tier?: PolicyTier;
  readonly direction: Direction;
  /** The policy with the rule; for `default deny` those that isolate, joined by ", ". */
  readonly policy: string;
  /** Position in `ingress` or `egress`, from 0; `default deny`: isolated and no rule allows it. */
  readonly index: number | 'default deny';
  /** Name of the rule, if it has one. */
  readonly name?: string;
  /** What the rule does with what it matches; `Accept` for every rule of a NetworkPolicy. */
  readonly action: PolicyAction;
  /** Of the rule, or of the first isolating policy. */
  readonly file: string;
  readonly line: number;
}

/** First numbers to give out, so that a new compiler stays clear of what is in the maps. */
export interface CompilerOptions {
  readonly firstIdentity?: number;
  readonly firstClass?: number;
  readonly firstSet?: number;
  readonly firstProfile?: number;
  readonly firstRule?: number;
}

export interface IdentityListing {
  readonly number: number;
  /** Absent for addresses that are no endpoint. */
  readonly namespace?: string;
  readonly labels: Labels;
  /** The smallest CIDR of a policy around the addresses. */
  readonly cidr?: string;
  readonly endpoints: number;
}

export interface SetListing {
  readonly number: number;
  readonly direction: Direction;
  /** `namespace/name`, or the name of a ClusterNetworkPolicy; in the order in which they are looked at. */
  readonly policies: readonly string[];
  readonly endpoints: number;
  /** Entries in policy_peers, those for whole classes of peers included. */
  readonly entries: number;
}
