/**
 * The typed model: what a definition means once it has been read and checked. All nodes are frozen
 * plain objects, told apart by `kind`.
 */
import type { HostPolicyResource } from './host-policy.js';
import type { EndpointSliceResource, ServiceResource } from './service.js';

/** Where a definition came from; `line` is 1-based. */
export interface Origin {
  readonly file: string;
  readonly line: number;
  /** Lines of fields that checks across documents refer to, by path such as `spec.networks[0].ipv4`. */
  readonly fields?: Readonly<Record<string, number>>;
}

export type Labels = Readonly<Record<string, string>>;

export interface ResourceBase {
  readonly name: string;
  readonly origin: Origin;
  /** The document as it was given, or its text: see `definitionOf` (policy/schema/kept-text.ts). */
  readonly source: unknown;
}

/** `chained`: its containers' devices are made by other CNI plugins; no definition has it. */
export type NetworkMode = 'routed' | 'bridge' | 'host' | 'none' | 'macvlan' | 'chained';

/** The addresses of one family of a network. */
export interface NetworkRange {
  /** Canonical text, such as `10.1.0.0/16`. */
  readonly cidr: string;
  readonly gateway: string;
  /** First and last address that are given out; absent: from the first to the last of `cidr`. */
  readonly first?: string;
  readonly last?: string;
}

/** `sluice.dev/v1alpha1` Network (not namespaced). */
export interface NetworkResource extends ResourceBase {
  readonly kind: 'Network';
  readonly mode: NetworkMode;
  readonly ipv4?: NetworkRange;
  readonly ipv6?: NetworkRange;
  /** Bytes; derived from the uplink when absent. */
  readonly mtu?: number;
  readonly masquerade: boolean;
  /** Its containers reach each other and their host, and nothing else. */
  readonly internal?: boolean;
  /** macvlan: the device that the containers' devices hang on. */
  readonly parent?: string;
}

/** The network namespace of a container. */
export type NamespaceRef =
  | { readonly type: 'name'; readonly name: string } // /run/netns/NAME
  | { readonly type: 'path'; readonly path: string }
  | { readonly type: 'pid'; readonly pid: number };

export interface ContainerNetwork {
  readonly network: string;
  /** Device name inside the container: eth0, eth1, … */
  readonly device: string;
  readonly ipv4?: string;
  readonly ipv6?: string;
  /** Lower case, colons. */
  readonly mac?: string;
  /** Further names of the container in this network. */
  readonly aliases?: readonly string[];
  /**
   * Of a container runtime that moves the device into the container itself, under a name of its own, and
   * configures it: the name that the container's side has on the host until then.
   */
  readonly handover?: string;
  /** Its runtime sets the default routes: the network's range is on the link, and there is no other route. */
  readonly runtimeRoutes?: true;
  /** Whether it gives the container its default routes; absent: if it is the first network. */
  readonly defaultRoute?: boolean;
  /** Further routes, through the network's gateway if they name none. */
  readonly routes?: readonly ContainerRoute[];
  readonly bandwidth?: Bandwidth;
  /** In a network of mode chained: the host side of the device. */
  readonly hostSide?: HostSide;
}

/** The host's end of a veth pair that another CNI plugin made. */
export interface HostSide {
  readonly name: string;
  readonly ifindex: number;
  readonly mac: string;
  readonly mtu: number;
}

/** A route inside a container. `destination` is canonical text of a CIDR. */
export interface ContainerRoute {
  readonly destination: string;
  readonly gateway?: string;
}

/** Limits of one attachment, as the container sees the directions. Absent: no limit. */
export interface Bandwidth {
  /** Towards the container. */
  readonly ingress?: RateLimit;
  readonly egress?: RateLimit;
}

export interface RateLimit {
  /** Bits a second. */
  readonly rate: number;
  /** Bits that may come at once. */
  readonly burst: number;
}

export type PortProtocol = 'TCP' | 'UDP' | 'SCTP';

export interface HostPort {
  readonly protocol: PortProtocol;
  /** Host address it is bound to; absent: every address of the host, both families. */
  readonly hostAddress?: string;
  readonly hostPort: number;
  readonly containerPort: number;
}

export interface ContainerPort {
  readonly name: string;
  readonly protocol: PortProtocol;
  readonly port: number;
}

/** `sluice.dev/v1alpha1` Container: a workload in a network namespace of this host. */
export interface ContainerResource extends ResourceBase {
  readonly kind: 'Container';
  readonly namespace: string;
  readonly labels: Labels;
  readonly netns?: NamespaceRef; // absent only in a network of mode host
  readonly networks: readonly ContainerNetwork[];
  readonly hostPorts: readonly HostPort[];
  /** Named ports, for policies that refer to a port by name. */
  readonly ports: readonly ContainerPort[];
}

/** `v1` Namespace: labels for namespaceSelector. `kubernetes.io/metadata.name` is always present. */
export interface NamespaceResource extends ResourceBase {
  readonly kind: 'Namespace';
  readonly labels: Labels;
}

export type SelectorOperator = 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';

/** A Kubernetes label selector; with no requirement at all it selects everything. */
export interface LabelSelector {
  readonly requirements: readonly {
    readonly key: string;
    readonly operator: SelectorOperator;
    readonly values: readonly string[];
  }[];
}

/** One entry of `from` or `to`. */
export type PolicyPeer =
  | {
      readonly type: 'pods';
      /** Absent: the policy's own namespace. */
      readonly namespaceSelector?: LabelSelector;
      readonly podSelector: LabelSelector;
    }
  | { readonly type: 'ipBlock'; readonly cidr: string; readonly except: readonly string[] }
  /** Addresses of nodes; only in ClusterNetworkPolicies. */
  | { readonly type: 'nodes'; readonly nodeSelector: LabelSelector }
  /** Addresses that a domain name has, by the answers of name servers; only in egress. See policy/domains.ts. */
  | { readonly type: 'domain'; readonly pattern: string };

export interface PolicyPort {
  /** Absent: every protocol (only together with an absent port). */
  readonly protocol?: PortProtocol;
  /** A number, a named port, or absent for every port. */
  readonly port?: number | string;
  readonly endPort?: number;
}

export interface PolicyRule {
  /** Position in `ingress` or `egress`, from 0. */
  readonly index: number;
  readonly origin: Origin;
  /** Empty: every peer. */
  readonly peers: readonly PolicyPeer[];
  /** Empty: every protocol and port. */
  readonly ports: readonly PolicyPort[];
}

/** `networking.k8s.io/v1` NetworkPolicy. A direction that is absent is not isolated by this policy. */
export interface NetworkPolicyResource extends ResourceBase {
  readonly kind: 'NetworkPolicy';
  readonly namespace: string;
  readonly podSelector: LabelSelector;
  readonly ingress?: readonly PolicyRule[];
  readonly egress?: readonly PolicyRule[];
}

export type PolicyTier = 'Admin' | 'Baseline';

export type PolicyAction = 'Accept' | 'Deny' | 'Pass';

/** A rule of a ClusterNetworkPolicy; it always has peers. */
export interface ClusterPolicyRule extends PolicyRule {
  readonly action: PolicyAction;
  readonly name?: string;
}

/**
 * `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy (not namespaced). Rules are looked at in order,
 * policies of a tier by priority, the lowest number first. A direction without rules is not affected.
 */
export interface ClusterNetworkPolicyResource extends ResourceBase {
  readonly kind: 'ClusterNetworkPolicy';
  readonly tier: PolicyTier;
  /** 0 to 1000. */
  readonly priority: number;
  readonly subject: { readonly namespaceSelector: LabelSelector; readonly podSelector: LabelSelector };
  readonly ingress: readonly ClusterPolicyRule[];
  readonly egress: readonly ClusterPolicyRule[];
}

/** `v1` Node: a host that runs an agent, this one included. */
export interface NodeResource extends ResourceBase {
  readonly kind: 'Node';
  readonly labels: Labels;
  /**
   * Canonical text, from `status.addresses` (those that are addresses and not names), InternalIP first: of each family
   * the first is where other nodes send what its pods get.
   */
  readonly addresses: readonly string[];
  /** Ranges that its pods have their addresses from, canonical text (`spec.podCIDRs`). */
  readonly podCidrs: readonly string[];
  /** WireGuard public key that its agent has told, base64 (annotation `sluice.dev/wireguard-public-key`). */
  readonly publicKey?: string;
}

/** `v1` Pod; what other nodes and policies can see of it. Pods of this node come from container runtimes. */
export interface PodResource extends ResourceBase {
  readonly kind: 'Pod';
  /** `Pod namespace/name`, where it is kept: of a hundred thousand pods one text each, not one for each use. */
  readonly key?: string;
  readonly namespace: string;
  readonly labels: Labels;
  /** Absent: not scheduled (yet). */
  readonly nodeName?: string;
  /** It has the addresses of its node; policies do not apply to it. */
  readonly hostNetwork: boolean;
  /** It has ended (phase Succeeded or Failed): its addresses may be another pod's by now. */
  readonly ended?: boolean;
  /** Named ports of its containers. */
  readonly ports: readonly ContainerPort[];
  /** Canonical text; at most one of a family. */
  readonly ipv4?: string;
  readonly ipv6?: string;
}

/** What an agent takes. */
export type Resource =
  | NetworkResource
  | ContainerResource
  | NamespaceResource
  | NetworkPolicyResource
  | ClusterNetworkPolicyResource
  | HostPolicyResource
  | ServiceResource
  | EndpointSliceResource
  | NodeResource
  | PodResource;
export type ResourceKind = Resource['kind'];

/** What a policy test takes. */
export type TestResource = Resource;
