/** Why a policy does or does not let a connection pass: commentary on what the BPF program decided. */
import type { ContainerPort, Labels, Origin, PolicyAction, PolicyTier } from '../model/resources.js';

/** One end of a connection as policies see it. `endpoint` is absent for addresses that are no container. */
export interface Party {
  readonly address: string;
  readonly endpoint?: {
    readonly namespace: string;
    readonly name: string;
    readonly labels: Labels;
    /** Labels of its namespace, `kubernetes.io/metadata.name` included. */
    readonly namespaceLabels: Labels;
    readonly ports: readonly ContainerPort[];
  };
}

/** A new connection, after translation of its destination. `port` is 0 for ICMP. */
export interface Connection {
  readonly source: Party;
  readonly destination: Party;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP' | 'ICMP';
  readonly port: number;
}

/** A rule against a connection. */
export interface RuleMatch {
  /** Position in `ingress` or `egress`, from 0. */
  readonly index: number;
  readonly name?: string;
  /** `Accept` for every rule of a NetworkPolicy. */
  readonly action: PolicyAction;
  readonly origin: Origin;
  readonly matches: boolean;
  /** What would have had to be otherwise, for the nearest of the rule's peers; empty if it matches. */
  readonly missing: readonly string[];
}

/** A policy that selects the endpoint and has rules for the direction, or isolates it. */
export interface AppliedPolicy {
  readonly kind: 'NetworkPolicy' | 'ClusterNetworkPolicy';
  /** Absent: a ClusterNetworkPolicy. */
  readonly namespace?: string;
  readonly name: string;
  /** Only of a ClusterNetworkPolicy. */
  readonly tier?: PolicyTier;
  readonly priority?: number;
  readonly origin: Origin;
  readonly rules: readonly RuleMatch[];
}
