/** Rules of HostPolicies with their numbers in the maps, and what they say of a class of peers. */
import { type Decision, type RankedRule, type Resolution, resolveRules } from '../compile/ports.js';
import { type RuleDescription, VERDICT } from '../compile/types.js';
import type { HostLimit, HostPeer, HostPolicyResource, HostRule } from '../model/host-policy.js';
import { selectorKey } from '../select.js';

/** Rule numbers of HostPolicies; those of the other policies are below. */
export const FIRST_HOST_RULE = 0x80000000;

const TIERS = { Admin: 0, Baseline: 1 } as const;
const ACTIONS = { Accept: 'allow', Deny: 'deny', Pass: 'pass' } as const;

export type HostDirection = 'ingress' | 'egress';

export interface NumberedRule {
  readonly number: number;
  readonly tier: number;
  readonly action: RankedRule['action'];
  /** Keys of its peers (see `peerKey`); undefined: every peer. */
  readonly peers: readonly string[] | undefined;
  readonly ports: RankedRule['ports'];
  readonly limit: HostLimit | undefined;
  readonly log: boolean;
  readonly description: RuleDescription;
}

/** Equal for peers that stand for the same addresses. */
export function peerKey(peer: HostPeer): string {
  switch (peer.type) {
    case 'networks':
      return `networks ${[...peer.cidrs].sort().join()}`;
    case 'list':
      return `list ${peer.path}`;
    case 'pods':
      return `pods ${selectorKey(peer.namespaceSelector)} ${selectorKey(peer.podSelector)}`;
    case 'domain':
      return `domain ${peer.name}`;
  }
}

/** Whether a peer's key is that of containers. */
export function isPodsKey(key: string): boolean {
  return key.startsWith('pods ');
}

/** In which order policies are looked at. */
export function comparePolicies(a: HostPolicyResource, b: HostPolicyResource): number {
  return TIERS[a.tier] - TIERS[b.tier] || a.priority - b.priority || (a.name < b.name ? -1 : 1);
}

/** Gives rules their numbers; a rule that stays the same keeps its own. */
export class HostRules {
  #rules = new Map<string, NumberedRule>();
  #described = new Map<number, RuleDescription>();
  #next: number;

  constructor(first: number = FIRST_HOST_RULE + 1) {
    this.#next = Math.max(first, FIRST_HOST_RULE + 1);
  }

  /** The rules of all policies, by policy and direction. Numbers of rules that are gone are still described once. */
  number(
    policies: readonly HostPolicyResource[],
  ): (policy: HostPolicyResource, direction: HostDirection) => NumberedRule[] {
    const before = this.#rules;
    const now = new Map<string, NumberedRule>();
    const lists = new Map<string, NumberedRule[]>();
    for (const policy of policies) {
      for (const direction of ['ingress', 'egress'] as const) {
        const list = policy[direction].map((rule): NumberedRule => {
          const key = ruleKey(policy, direction, rule);
          const number = before.get(key)?.number ?? this.#next++;
          const numbered: NumberedRule = {
            number,
            tier: TIERS[policy.tier],
            action: ACTIONS[rule.action],
            peers: rule.peers.length === 0 ? undefined : rule.peers.map(peerKey),
            ports: rule.ports,
            limit: rule.limit,
            log: rule.log,
            description: describe(policy, direction, rule),
          };
          now.set(key, numbered);
          return numbered;
        });
        lists.set(`${direction} ${policy.name}`, list);
      }
    }
    this.#rules = now;
    const described = new Map<number, RuleDescription>();
    for (const { number, description } of [...before.values(), ...now.values()])
      described.set(number, description);
    this.#described = described;
    return (policy, direction) => lists.get(`${direction} ${policy.name}`) ?? [];
  }

  describe(rule: number): RuleDescription | undefined {
    return this.#described.get(rule);
  }
}

function ruleKey(policy: HostPolicyResource, direction: HostDirection, rule: HostRule): string {
  const { index, action, peers, ports, limit, log } = rule;
  return JSON.stringify([
    policy.name,
    policy.tier,
    direction,
    index,
    action,
    peers.map(peerKey),
    ports,
    limit,
    log,
  ]);
}

function describe(policy: HostPolicyResource, direction: HostDirection, rule: HostRule): RuleDescription {
  return {
    kind: 'HostPolicy',
    tier: policy.tier,
    direction,
    policy: policy.name,
    index: rule.index,
    ...(rule.name === undefined ? {} : { name: rule.name }),
    action: rule.action,
    file: rule.origin.file,
    line: rule.origin.line,
  };
}

const ALLOWED = { verdict: VERDICT.Allow, rule: 0 } as const;

/** What rules, in their order, say of who is in these peers. Nothing decided: allowed, with rule 0. */
export function resolveFor(rules: readonly NumberedRule[], peers: ReadonlySet<string>): Resolution {
  const matching = rules.filter((rule) => rule.peers?.some((peer) => peers.has(peer)) ?? true);
  return resolveRules(
    matching.map(({ tier, action, ports, number }) => ({ tier, action, ports, rule: number })),
    ALLOWED,
  );
}

/** What a resolution says of a port, as the kernel finds it: the longest prefix. ICMP: type * 256 + code. */
export function verdictOf({ decision, rows }: Resolution, protocol: number, port: number): Decision {
  let best: (typeof rows)[number] | undefined;
  for (const row of rows) {
    const shift = 64 - Math.max(row.prefixLength, 48);
    const matches =
      row.prefixLength === 32 || (row.protocol === protocol && port >> shift === row.port >> shift);
    if (matches && (best === undefined || row.prefixLength > best.prefixLength)) best = row;
  }
  return best ?? decision;
}
