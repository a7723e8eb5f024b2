/** What `sluice explain` asks and answers. */
import type { PolicyAction, PolicyTier } from '../../policy/model/resources.js';
import type { ProbeProtocol } from '../probe/packet.js';

/** `from` and `to`: `namespace/name` or `name`, both with `@network` if wanted, an address, `host` or `world`. */
export interface ExplainRequest {
  readonly from: string;
  readonly to: string;
  readonly protocol: ProbeProtocol;
  /** 0 for ICMP. */
  readonly port: number;
  /** Absent: IPv4 if both have it. */
  readonly family?: 4 | 6;
}

export interface ExplainedEnd {
  /** `namespace/name`, `host` or `world`. */
  readonly name: string;
  readonly address: string;
  /** Of a container. */
  readonly network?: string;
  /** Number under which policies know the address, as in `sluice get identities`. */
  readonly identity: number;
}

/** A rule of a policy that applies. */
export interface ExplainedRule {
  /** Position in the policy's list, from 0. */
  readonly index: number;
  readonly name?: string;
  readonly action: PolicyAction;
  readonly file: string;
  readonly line: number;
  readonly matches: boolean;
  /** The program decided by this one. */
  readonly decides: boolean;
  /** What would have had to be otherwise for the rule to match; empty if it matches. */
  readonly missing: readonly string[];
}

export interface ExplainedPolicy {
  readonly kind: string;
  /** Absent: a ClusterNetworkPolicy. */
  readonly namespace?: string;
  readonly name: string;
  /** Only of a ClusterNetworkPolicy. */
  readonly tier?: PolicyTier;
  readonly priority?: number;
  readonly file: string;
  readonly line: number;
  readonly rules: readonly ExplainedRule[];
}

/** What decided one side: a rule, or the isolation by the policies named. */
export interface DecidingRule {
  readonly kind: string;
  /** Absent: a ClusterNetworkPolicy. */
  readonly namespace?: string;
  readonly policy: string;
  readonly index: number | 'default deny';
  readonly file: string;
  readonly line: number;
  /** All of it in words. */
  readonly text: string;
}

/** The sender's or the receiver's policies. */
export interface ExplainedSide {
  readonly direction: 'egress' | 'ingress';
  /** The container, `namespace/name`. */
  readonly container: string;
  /** `not asked`: something else ended it before. `audit`: denied by the rule, and let through by the audit. */
  readonly verdict: 'allow' | 'audit' | 'deny' | 'not asked';
  /** Why no rule was needed; absent if one decided. */
  readonly because?: string;
  readonly rule?: DecidingRule;
  /** Every policy that applies, in the order of evaluation. */
  readonly policies: readonly ExplainedPolicy[];
}

/** The tuple before and after; only of what is translated. */
export interface Translation {
  /**
   * `masquerade`: the source becomes the host's. `hostPort`: a published port leads to a container. `service`: the
   * destination becomes one of the backends of a service.
   */
  readonly by: readonly ('masquerade' | 'hostPort' | 'service')[];
  /** `namespace/name` of the service. */
  readonly service?: string;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

export interface Explanation {
  readonly from: ExplainedEnd;
  readonly to: ExplainedEnd;
  readonly protocol: ProbeProtocol;
  /** 0 for ICMP. */
  readonly port: number;
  readonly family: 4 | 6;
  readonly verdict: 'allow' | 'deny';
  /** `forwarded`, a drop reason (as in metrics and `sluice drops`), or `not_judged`. */
  readonly reason: string;
  /** The reason in words. */
  readonly text: string;
  readonly sides: readonly ExplainedSide[];
  readonly translation?: Translation;
  /** What else one has to know. */
  readonly notes: readonly string[];
  /** Time that the agent took, milliseconds. */
  readonly milliseconds: number;
}
