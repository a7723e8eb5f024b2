/** Policies into parts: one direction of one version of a policy, with its rules numbered. */
import { formatCidr, parseCidr } from '../address.js';
import type { ClusterPolicyRule, PolicyPeer, PolicyRule } from '../model/resources.js';
import type { Identities } from './identities.js';
import type { CompiledPeer, CompiledRule, NamedPort, PolicyPart, PolicySet } from './nodes.js';
import type { PortRange } from './ports.js';
import type { Selection } from './selection.js';
import { type Direction, type PolicyResource, PROTOCOL, type RuleDescription } from './types.js';
import type { Update } from './update.js';

/** The tiers in the order in which they are looked at. */
export const TIER = { Admin: 0, NetworkPolicy: 1, Baseline: 2 } as const;

export function tierOf(resource: PolicyResource): number {
  return resource.kind === 'NetworkPolicy' ? TIER.NetworkPolicy : TIER[resource.tier];
}

/** `namespace/name`, or the name of a ClusterNetworkPolicy. */
export function policyName(policy: { readonly namespace?: string; readonly name: string }): string {
  return policy.namespace === undefined ? policy.name : `${policy.namespace}/${policy.name}`;
}

const ACTIONS = { Accept: 'allow', Deny: 'deny', Pass: 'pass' } as const;

type RuleMeaning =
  | { readonly part: PolicyPart; readonly index: number }
  | { readonly parts: readonly PolicyPart[]; readonly direction: Direction };

export class Parts {
  readonly #selection: Selection;
  readonly #identities: Identities;
  readonly #parts = new Map<string, PolicyPart>();
  readonly #meanings = new Map<number, RuleMeaning>();
  readonly #expired = new Set<number>();
  readonly #counter: { next: number; part: number };

  constructor(selection: Selection, identities: Identities, firstRule: number) {
    this.#selection = selection;
    this.#identities = identities;
    this.#counter = { next: firstRule, part: 1 };
  }

  /**
   * The part for a direction; undefined if the policy does nothing there: a NetworkPolicy that does not
   * isolate it, a ClusterNetworkPolicy without rules. Equal rules give the same part.
   */
  acquire(resource: PolicyResource, direction: Direction, update: Update): PolicyPart | undefined {
    const rules: readonly (PolicyRule | ClusterPolicyRule)[] | undefined = resource[direction];
    const tier = tierOf(resource);
    if (rules === undefined || (rules.length === 0 && tier !== TIER.NetworkPolicy)) return undefined;
    const policy = policyName(resource);
    const key = JSON.stringify([
      direction,
      policy,
      tier,
      rules.map((rule) => [rule.peers, rule.ports, 'action' in rule ? rule.action : 0]),
    ]);
    const known = this.#parts.get(key);
    if (known !== undefined) {
      this.retain(known, update);
      if (known.resource !== resource) update.journal.assign(known, 'resource', resource);
      return known;
    }
    const id = this.#counter.part;
    update.journal.assign(this.#counter, 'part', id + 1);
    const part: PolicyPart = {
      id,
      key,
      policy,
      tier,
      direction,
      rules: rules.map((rule) => this.#rule(rule, resource, update)),
      resource,
      references: 1,
    };
    part.rules.forEach((rule, index) => {
      update.journal.put(this.#meanings, rule.number, { part, index });
    });
    update.journal.put(this.#parts, key, part);
    return part;
  }

  retain(part: PolicyPart, update: Update): void {
    update.journal.assign(part, 'references', part.references + 1);
  }

  release(part: PolicyPart, update: Update): void {
    update.journal.assign(part, 'references', part.references - 1);
    if (part.references === 0) update.idle.parts.add(part);
  }

  /** Forgets a part without users. */
  remove(part: PolicyPart, update: Update): void {
    update.journal.drop(this.#parts, part.key);
    for (const rule of part.rules) {
      update.journal.add(this.#expired, rule.number);
      for (const peer of rule.peers ?? []) {
        if (peer.type === 'pods') this.#selection.release(peer.selector, update);
        else for (const prefix of [peer.cidr, ...peer.except]) this.#identities.release(prefix, update);
      }
    }
  }

  /** Number of the rule "isolated by these, and none allows it". */
  defaultRule(parts: readonly PolicyPart[], direction: Direction, update: Update): number {
    const number = this.#number(update);
    update.journal.put(this.#meanings, number, { parts, direction });
    return number;
  }

  removeDefaultRule(set: PolicySet, update: Update): void {
    if (set.fallback.rule !== 0) update.journal.add(this.#expired, set.fallback.rule);
  }

  /** Meanings of removed rules are kept for one update, for events that are on their way. */
  dropExpired(update: Update): void {
    for (const number of [...this.#expired]) {
      update.journal.drop(this.#meanings, number);
      update.journal.remove(this.#expired, number);
    }
  }

  describe(number: number): RuleDescription | undefined {
    const meaning = this.#meanings.get(number);
    if (meaning === undefined) return undefined;
    if ('part' in meaning) {
      const { part, index } = meaning;
      const { resource, direction } = part;
      const rule: PolicyRule | ClusterPolicyRule | undefined = resource[direction]?.[index];
      const { file, line } = rule?.origin ?? resource.origin;
      const ruleName = rule !== undefined && 'name' in rule ? rule.name : undefined;
      return {
        kind: resource.kind,
        ...(resource.kind === 'NetworkPolicy' ? { namespace: resource.namespace } : { tier: resource.tier }),
        direction,
        policy: resource.name,
        index,
        ...(ruleName === undefined ? {} : { name: ruleName }),
        action: rule !== undefined && 'action' in rule ? rule.action : 'Accept',
        file,
        line,
      };
    }
    const resources = meaning.parts.map((part) => part.resource);
    const first = resources[0];
    return {
      kind: 'NetworkPolicy',
      ...(first?.kind === 'NetworkPolicy' ? { namespace: first.namespace } : {}),
      direction: meaning.direction,
      policy: resources.map((resource) => resource.name).join(', '),
      index: 'default deny',
      action: 'Deny',
      file: first?.origin.file ?? '',
      line: first?.origin.line ?? 0,
    };
  }

  #number(update: Update): number {
    const number = this.#counter.next;
    update.journal.assign(this.#counter, 'next', number + 1);
    return number;
  }

  #rule(rule: PolicyRule | ClusterPolicyRule, resource: PolicyResource, update: Update): CompiledRule {
    const ranges: PortRange[] = [];
    const named: NamedPort[] = [];
    let all = rule.ports.length === 0;
    for (const { protocol, port, endPort } of rule.ports) {
      if (protocol === undefined && port === undefined) all = true;
      else if (typeof port === 'string') named.push({ name: port, protocol: protocol ?? 'TCP' });
      else
        ranges.push({
          protocol: PROTOCOL[protocol ?? 'TCP'],
          low: port ?? 0,
          high: endPort ?? port ?? 65535,
        });
    }
    return {
      number: this.#number(update),
      tier: tierOf(resource),
      action: 'action' in rule ? ACTIONS[rule.action] : 'allow',
      peers: isForAll(rule.peers) ? undefined : rule.peers.map((peer) => this.#peer(peer, resource, update)),
      ports: all ? 'all' : ranges,
      named: all ? [] : named,
    };
  }

  #peer(peer: PolicyPeer, resource: PolicyResource, update: Update): CompiledPeer {
    if (peer.type === 'nodes') {
      return { type: 'pods', selector: this.#selection.acquire({ nodes: true }, peer.nodeSelector, update) };
    }
    if (peer.type === 'domain') {
      const requirements = [{ key: peer.pattern, operator: 'Exists' as const, values: [] }];
      return { type: 'pods', selector: this.#selection.acquire({ learned: true }, { requirements }, update) };
    }
    if (peer.type === 'pods') {
      const place =
        peer.namespaceSelector !== undefined
          ? { namespaces: peer.namespaceSelector }
          : { namespace: resource.kind === 'NetworkPolicy' ? resource.namespace : '' };
      return { type: 'pods', selector: this.#selection.acquire(place, peer.podSelector, update) };
    }
    return {
      type: 'block',
      cidr: this.#identities.acquire(canonical(peer.cidr), update),
      except: peer.except.map((text) => this.#identities.acquire(canonical(text), update)),
    };
  }
}

/** Whether a rule is for every peer: it names none, or all addresses of both families. */
function isForAll(peers: readonly PolicyPeer[]): boolean {
  const whole = (cidr: string): boolean =>
    peers.some(
      (peer) => peer.type === 'ipBlock' && peer.except.length === 0 && canonical(peer.cidr) === cidr,
    );
  return peers.length === 0 || (whole('0.0.0.0/0') && whole('::/0'));
}

/** The CIDRs that the parts of a policy will acquire, each once. */
export function cidrsOf(resource: PolicyResource): Set<string> {
  const texts = new Set<string>();
  const rules: readonly PolicyRule[] = [...(resource.ingress ?? []), ...(resource.egress ?? [])];
  for (const { peers } of rules) {
    if (isForAll(peers)) continue;
    for (const peer of peers) {
      if (peer.type !== 'ipBlock') continue;
      for (const text of [peer.cidr, ...peer.except]) texts.add(canonical(text));
    }
  }
  return texts;
}

/** The spelling that prefixes are kept under. */
export function canonical(cidr: string): string {
  return formatCidr(parseCidr(cidr, 'clear'));
}
