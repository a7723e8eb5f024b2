/**
 * Every policy that applies to one side of a connection, rule by rule. It says what a person wants to know
 * beside the decision; the decision itself and the rule that made it come from the BPF program.
 */
import type { Direction, PolicyResource } from '../compile/types.js';
import type { ClusterPolicyRule, PolicyRule } from '../model/resources.js';
import { selects } from '../select.js';
import { missingPeer, missingPort } from './match.js';
import type { AppliedPolicy, Connection, Party, RuleMatch } from './types.js';

export type * from './types.js';

/**
 * Policies that apply to the sender (egress) or the receiver (ingress), in the order in which they are looked at:
 * tier, priority, name. A NetworkPolicy leaves nothing to the Baseline tier.
 */
export function appliedPolicies(
  policies: Iterable<PolicyResource>,
  direction: Direction,
  connection: Connection,
): AppliedPolicy[] {
  const { source, destination } = connection;
  const [subject, peer] = direction === 'egress' ? [source, destination] : [destination, source];
  const applied: AppliedPolicy[] = [];
  for (const policy of policies) {
    if (hasDirection(policy, direction) && isSubject(policy, subject))
      applied.push(explainPolicy(policy, direction, peer, connection));
  }
  const isolated = applied.some(({ kind }) => kind === 'NetworkPolicy');
  return applied.filter(({ tier }) => !(isolated && tier === 'Baseline')).sort(byPrecedence);
}

function hasDirection(policy: PolicyResource, direction: Direction): boolean {
  const rules = policy[direction];
  return rules !== undefined && (policy.kind === 'NetworkPolicy' || rules.length > 0);
}

function isSubject(policy: PolicyResource, { endpoint }: Party): boolean {
  if (endpoint === undefined) return false;
  if (policy.kind === 'NetworkPolicy')
    return endpoint.namespace === policy.namespace && selects(policy.podSelector, endpoint.labels);
  const { namespaceSelector, podSelector } = policy.subject;
  return selects(namespaceSelector, endpoint.namespaceLabels) && selects(podSelector, endpoint.labels);
}

function byPrecedence(a: AppliedPolicy, b: AppliedPolicy): number {
  return rank(a) - rank(b) || (a.priority ?? 0) - (b.priority ?? 0) || (a.name < b.name ? -1 : 1);
}

function rank({ tier }: AppliedPolicy): number {
  return tier === undefined ? 1 : tier === 'Admin' ? 0 : 2;
}

function explainPolicy(
  policy: PolicyResource,
  direction: Direction,
  peer: Party,
  connection: Connection,
): AppliedPolicy {
  const namespace = policy.kind === 'NetworkPolicy' ? policy.namespace : undefined;
  const rules: readonly (PolicyRule | ClusterPolicyRule)[] = policy[direction] ?? [];
  return {
    kind: policy.kind,
    ...(policy.kind === 'NetworkPolicy'
      ? { namespace: policy.namespace }
      : { tier: policy.tier, priority: policy.priority }),
    name: policy.name,
    origin: policy.origin,
    rules: rules.map((rule): RuleMatch => {
      const missing = [...missingPeer(rule.peers, namespace, peer), ...missingPort(rule.ports, connection)];
      return {
        index: rule.index,
        ...('name' in rule && rule.name !== undefined ? { name: rule.name } : {}),
        action: 'action' in rule ? rule.action : 'Accept',
        origin: rule.origin,
        matches: missing.length === 0,
        missing,
      };
    }),
  };
}
