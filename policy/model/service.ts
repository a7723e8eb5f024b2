/** Services and their endpoints, as the API of Kubernetes has them. */
import type { Labels, PortProtocol, ResourceBase } from './resources.js';

export type ServiceType = 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName';
export type IpFamily = 4 | 6;
export type TrafficPolicy = 'Cluster' | 'Local';

export interface ServicePort {
  /** '' for the only port of a service. */
  readonly name: string;
  readonly protocol: PortProtocol;
  readonly port: number;
  /** A number, or the name of a port of the workloads. */
  readonly targetPort: number | string;
  /** 0: to be chosen (NodePort, LoadBalancer), or none. */
  readonly nodePort: number;
}

export interface LoadBalancerAddress {
  readonly address: string;
  /** Proxy: the load balancer must see the traffic, so nothing is translated here. */
  readonly mode: 'VIP' | 'Proxy';
}

/** How a backend is chosen; `undefined` leaves it to the node's setting. */
export type Balancing = 'random' | 'least-connections';

/** `v1` Service. */
export interface ServiceResource extends ResourceBase {
  readonly kind: 'Service';
  readonly namespace: string;
  readonly labels: Labels;
  readonly type: ServiceType;
  /** Absent or empty: its endpoints come from EndpointSlices alone. */
  readonly selector?: Labels;
  readonly ports: readonly ServicePort[];
  /** `None`: headless. Empty: to be chosen. Canonical addresses, the first is the main one. */
  readonly clusterIps: readonly string[] | 'None';
  readonly families: readonly IpFamily[];
  readonly familyPolicy: 'SingleStack' | 'PreferDualStack' | 'RequireDualStack';
  readonly externalIps: readonly string[];
  readonly loadBalancer: readonly LoadBalancerAddress[];
  /** Canonical CIDRs; empty: everybody. */
  readonly sourceRanges: readonly string[];
  /** Seconds that a client keeps its backend; 0: no affinity. */
  readonly affinitySeconds: number;
  readonly internalTrafficPolicy: TrafficPolicy;
  readonly externalTrafficPolicy: TrafficPolicy;
  /** Of a load balancer: ports that name no node port have none (allocateLoadBalancerNodePorts: false). */
  readonly givenNodePortsOnly?: boolean;
  /** 0: none. */
  readonly healthCheckNodePort: number;
  readonly publishNotReady: boolean;
  readonly trafficDistribution?: string;
  readonly balancing?: Balancing;
  /** Consistent hashing for traffic from outside; `undefined` leaves it to the node's setting. */
  readonly maglev?: boolean;
  /** Whether backends answer clients outside themselves; `undefined` leaves it to the node's setting. */
  readonly directReturn?: boolean;
}

export interface SlicePort {
  readonly name: string;
  readonly protocol: PortProtocol;
  readonly port: number;
}

export interface SliceEndpoint {
  /** Canonical; the API says that only the first address counts. */
  readonly address: string;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly nodeName?: string;
  readonly zone?: string;
  /** Zones that this endpoint is meant for; absent: no hint. */
  readonly hintZones?: readonly string[];
  /** Nodes that this endpoint is meant for; absent: no hint. */
  readonly hintNodes?: readonly string[];
  /** Share of new connections in Maglev tables, from the annotation of its slice; default 1. */
  readonly weight?: number;
}

/** `discovery.k8s.io/v1` EndpointSlice. A slice of names (addressType FQDN) has no endpoints here. */
export interface EndpointSliceResource extends ResourceBase {
  readonly kind: 'EndpointSlice';
  readonly namespace: string;
  /** Name of the service in its namespace; absent: nobody's. */
  readonly service?: string;
  readonly family?: IpFamily;
  readonly ports: readonly SlicePort[];
  readonly endpoints: readonly SliceEndpoint[];
}
