/** `sluice.dev/v1alpha1` HostPolicy: rules for the host itself, its interfaces, its services and its users. */
import type { PortRange } from '../compile/ports.js';
import type { LabelSelector, Origin, PolicyAction, PolicyTier, ResourceBase } from './resources.js';

/** Whose traffic a HostPolicy is about. */
export type HostSubject =
  /** The host, on every device but the loopback and those of containers. */
  | { readonly type: 'host' }
  | { readonly type: 'interface'; readonly name: string }
  /** A systemd unit, such as `nginx.service`. */
  | { readonly type: 'unit'; readonly name: string }
  /** A cgroup, by its path below the root of the hierarchy, such as `/system.slice/nginx.service`. */
  | { readonly type: 'cgroup'; readonly path: string }
  /** A user, by number or name. */
  | { readonly type: 'user'; readonly user: number | string };

/** One entry of `from` or `to`. */
export type HostPeer =
  /** Canonical text of CIDRs. */
  | { readonly type: 'networks'; readonly cidrs: readonly string[] }
  /** A file with one address or CIDR a line. */
  | { readonly type: 'list'; readonly path: string }
  /** Containers and pods. */
  | { readonly type: 'pods'; readonly namespaceSelector: LabelSelector; readonly podSelector: LabelSelector }
  /** Addresses that the name, or the names of the pattern, were resolved to. */
  | { readonly type: 'domain'; readonly name: string };

/** Packets or connections a second; `burst` is how many may come at once. */
export interface HostLimit {
  readonly packetsPerSecond?: number;
  readonly connectionsPerSecond?: number;
  readonly burst?: number;
  /** The limit is for each peer address, not for all together. */
  readonly perSource: boolean;
}

export interface HostRule {
  /** Position in `ingress` or `egress`, from 0. */
  readonly index: number;
  readonly origin: Origin;
  readonly name?: string;
  readonly action: PolicyAction;
  /** Empty: every peer. */
  readonly peers: readonly HostPeer[];
  /** 'all': every protocol and port. Of ICMP and ICMPv6 a "port" is type * 256 + code. */
  readonly ports: 'all' | readonly PortRange[];
  readonly limit?: HostLimit;
  /** Report what it allows; what is denied is always reported. */
  readonly log: boolean;
}

/** Rules are looked at in order, policies of a tier by priority, the lowest first. What none decides is allowed. */
export interface HostPolicyResource extends ResourceBase {
  readonly kind: 'HostPolicy';
  readonly tier: PolicyTier;
  /** 0 to 1000. */
  readonly priority: number;
  readonly subject: HostSubject;
  readonly ingress: readonly HostRule[];
  readonly egress: readonly HostRule[];
}
