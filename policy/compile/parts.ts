/** Policies into parts: one direction of one version of a policy, with its rules numbered. */
import { formatCidr, parseCidr } from '../address.js';
import type { NetworkPolicyResource, PolicyPeer, PolicyRule } from '../model/resources.js';
import type { Identities } from './identities.js';
import type { CompiledPeer, CompiledRule, NamedPort, PolicyPart, PolicySet } from './nodes.js';
import type { PortRange } from './ports.js';
import type { Selection } from './selection.js';
import { type Direction, PROTOCOL, type RuleDescription } from './types.js';
import type { Update } from './update.js';

/** Tier of NetworkPolicy rules; tiers with priorities go below and above. */
const NETWORK_POLICY_TIER = 1;

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

  /** The part for a direction; undefined if the policy does not isolate it. Equal rules give the same part. */
  acquire(resource: NetworkPolicyResource, direction: Direction, update: Update): PolicyPart | undefined {
    const rules = resource[direction];
    if (rules === undefined) return undefined;
    const policy = `${resource.namespace}/${resource.name}`;
    const key = JSON.stringify([direction, policy, rules.map(({ peers, ports }) => [peers, ports])]);
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
      direction,
      rules: rules.map((rule) => this.#rule(rule, resource.namespace, update)),
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
    update.journal.add(this.#expired, set.defaultRule);
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
      const { namespace, name, origin } = part.resource;
      const { file, line } = part.resource[part.direction]?.[index]?.origin ?? origin;
      return { kind: 'NetworkPolicy', namespace, direction: part.direction, policy: name, index, file, line };
    }
    const resources = meaning.parts.map((part) => part.resource);
    const { namespace = '', origin = { file: '', line: 0 } } = resources[0] ?? {};
    return {
      kind: 'NetworkPolicy',
      namespace,
      direction: meaning.direction,
      policy: resources.map((resource) => resource.name).join(', '),
      index: 'default deny',
      file: origin.file,
      line: origin.line,
    };
  }

  #number(update: Update): number {
    const number = this.#counter.next;
    update.journal.assign(this.#counter, 'next', number + 1);
    return number;
  }

  #rule(rule: PolicyRule, namespace: string, update: Update): CompiledRule {
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
      tier: NETWORK_POLICY_TIER,
      action: 'allow',
      peers:
        rule.peers.length === 0 ? undefined : rule.peers.map((peer) => this.#peer(peer, namespace, update)),
      ports: all ? 'all' : ranges,
      named: all ? [] : named,
    };
  }

  #peer(peer: PolicyPeer, namespace: string, update: Update): CompiledPeer {
    if (peer.type === 'pods') {
      return {
        type: 'pods',
        selector: this.#selection.acquire(namespace, peer.namespaceSelector, peer.podSelector, update),
      };
    }
    return {
      type: 'block',
      cidr: this.#identities.acquire(canonical(peer.cidr), update),
      except: peer.except.map((text) => this.#identities.acquire(canonical(text), update)),
    };
  }
}

/** The spelling that prefixes are kept under. */
export function canonical(cidr: string): string {
  return formatCidr(parseCidr(cidr, 'clear'));
}
