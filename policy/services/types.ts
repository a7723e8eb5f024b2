/** What goes into the service compiler and what comes out of it. */
import type { AddressBytes } from '../address.js';
import type { Labels, PortProtocol } from '../model/resources.js';
import type { Balancing, EndpointSliceResource, IpFamily, ServiceResource } from '../model/service.js';

/** A container of this node, as a backend of services that select it. Addresses as text. */
export interface Workload {
  readonly kind: 'Workload';
  readonly id: string;
  readonly namespace: string;
  readonly labels: Labels;
  readonly ports: readonly {
    readonly name: string;
    readonly protocol: PortProtocol;
    readonly port: number;
  }[];
  readonly ipv4?: string;
  readonly ipv6?: string;
}

/** A service with everything chosen that its definition leaves open. */
export interface AssignedService {
  readonly kind: 'Service';
  readonly service: ServiceResource;
  /** Cluster addresses, canonical text; empty: headless or ExternalName. */
  readonly clusterIps: readonly string[];
  /** Node ports in the order of service.ports; 0: none. */
  readonly nodePorts: readonly number[];
}

export type ServiceInput = AssignedService | EndpointSliceResource | Workload;

/** What the compiler has to know of this node. */
export interface NodeContext {
  readonly name: string;
  readonly zone: string;
  /** Addresses of this node, text: may its own processes use a service with source ranges, and is a port theirs first? */
  readonly addresses: readonly string[];
  readonly balancing: Balancing;
  readonly maglev: boolean;
  /** Direct server return, unless the service says otherwise; it needs the overlay. */
  readonly directReturn: boolean;
  readonly overlay: boolean;
}

/** Address, port and protocol number; node ports have the family's address 0. */
export interface FrontendKey {
  readonly addr: AddressBytes;
  readonly port: number;
  readonly proto: number;
}

/** A row of `services` (struct service). */
export interface FrontendRow {
  readonly number: number;
  readonly flags: number;
  readonly firstInternal: number;
  readonly countInternal: number;
  readonly firstExternal: number;
  readonly countExternal: number;
  readonly affinity: number;
  readonly firstLocal: number;
  readonly countLocal: number;
}

export interface BackendRow {
  readonly addr: AddressBytes;
  readonly port: number;
  readonly proto: number;
}

export interface MemberKey extends BackendRow {
  readonly service: number;
}

export interface MemberRow {
  readonly backend: number;
  readonly flags: number;
}

/** `ADDRESS PORT PROTOCOL`, the address canonical, the protocol a number: a frontend or a backend. */
export type EndpointText = string;

/** A backend of the service port with this number. */
export interface GoneMember {
  readonly service: number;
  readonly text: EndpointText;
}

export interface MemberEntry extends GoneMember, MemberRow {}

/** Longest-prefix entry; `prefixLength` is that of the 16 byte address. */
export interface RangeKey {
  readonly service: number;
  readonly addr: AddressBytes;
  readonly prefixLength: number;
}

/**
 * Changes of the kernel's maps. Write in this order: backends, slots, members, ranges, frontends; remove the members
 * that are gone; then let open flows be judged again; then remove the rest.
 */
export interface ServiceDelta {
  readonly backends: readonly (readonly [number: number, text: EndpointText])[];
  /** Numbers of backends that another one had before: what counts for them goes. */
  readonly loads: readonly number[];
  readonly slots: readonly { readonly first: number; readonly backends: ArrayLike<number> }[];
  readonly members: readonly MemberEntry[];
  readonly ranges: readonly RangeKey[];
  /** Numbers of service ports that another one had before: what it counted goes. */
  readonly counters: readonly number[];
  readonly frontends: ReadonlyMap<EndpointText, FrontendRow>;
  readonly gone: {
    readonly frontends: ReadonlySet<EndpointText>;
    readonly members: readonly GoneMember[];
    readonly ranges: readonly RangeKey[];
  };
  /** How many frontends there are after it. */
  readonly total: number;
  /** Open flows may go elsewhere now. */
  readonly mustReevaluate: boolean;
}

/** Sizes of the maps. */
export interface ServiceCapacity {
  readonly frontends: number;
  readonly slots: number;
  readonly backends: number;
  readonly members: number;
  readonly ranges: number;
  /** Service ports (counters). */
  readonly ports: number;
}

/** A backend of one service port, for people. */
export interface ListedBackend {
  readonly namespace: string;
  readonly service: string;
  readonly port: string;
  readonly protocol: PortProtocol;
  readonly address: string;
  readonly targetPort: number;
  readonly state: 'ready' | 'terminating' | 'not ready';
  readonly local: boolean;
  readonly zone?: string;
  readonly weight: number;
}

/** One service port of one family, for people, health checks and metrics. */
export interface ListedPort {
  readonly namespace: string;
  readonly service: string;
  readonly port: string;
  readonly protocol: PortProtocol;
  readonly family: IpFamily;
  readonly number: number;
  readonly ready: number;
  readonly terminating: number;
  readonly local: number;
}
