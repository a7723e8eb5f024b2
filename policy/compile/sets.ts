/**
 * Policy sets: what applies to endpoints in one direction, and the entries that say it to the kernel.
 * A class of identities has an entry in a set where it differs from the entry for any endpoint, an endpoint's
 * identity only where rules match it that do not match its class, and a network where it differs from the entry
 * for any network. Those for any endpoint and any network differ from the one for any peer.
 */
import { isWithin } from './cidr-tree.js';
import { isWide } from './classes.js';
import type { Identities } from './identities.js';
import { fallbackOf, isEndpoint, kindEntries, selectsAll } from './kinds.js';
import type {
  BlockUse,
  CompiledRule,
  Group,
  Identity,
  NamedPort,
  Peer,
  PeerClass,
  PeerEntry,
  PolicyNode,
  PolicyPart,
  PolicySet,
  Prefix,
  SetRule,
} from './nodes.js';
import { type Parts, TIER, tierOf } from './parts.js';
import { type Decision, type PortRange, type RankedRule, resolveRules } from './ports.js';
import { Profiles } from './profiles.js';
import { sameEntry } from './recorder.js';
import { namedKey, type Selection } from './selection.js';
import { type Direction, type PolicyResource, PROTOCOL, VERDICT } from './types.js';
import type { Update } from './update.js';

const NO_RULES: readonly number[] = [];
const NO_SETS: ReadonlySet<PolicySet> = new Set();

/** What no policy decides. */
const ALLOW: Decision = { verdict: VERDICT.Allow, rule: 0 };

export class PolicySets {
  readonly profiles: Profiles;
  readonly #selection: Selection;
  readonly #parts: Parts;
  readonly #identities: Identities;
  readonly #sets = new Map<string, PolicySet>();
  /** `name/protocol` -> sets with egress rules for every peer that has such a port. */
  readonly #namedUsers = new Map<string, Map<PolicySet, number[]>>();
  /** Sets with an entry for networks, which each network that it does not hold for must differ from. */
  readonly #withNetworks = new Set<PolicySet>();
  readonly #counter: { next: number };

  constructor(
    selection: Selection,
    parts: Parts,
    identities: Identities,
    firstSet: number,
    firstProfile: number,
  ) {
    this.#selection = selection;
    this.#parts = parts;
    this.#identities = identities;
    this.profiles = new Profiles(firstProfile);
    this.#counter = { next: firstSet };
  }

  get size(): number {
    return this.#sets.size;
  }

  all(): Iterable<PolicySet> {
    return this.#sets.values();
  }

  /** Puts a group into the set that its policies make, or into none. */
  assign(group: Group, direction: Direction, update: Update): void {
    const parts = applicable(group, direction);
    const before = group[direction];
    const now = parts.length === 0 ? undefined : this.#find(parts, direction, group, update);
    if (now === before) return;
    if (now !== undefined) update.journal.add(now.groups, group);
    if (before !== undefined) this.leave(group, direction, update);
    update.journal.assign(group, direction, now);
    for (const endpoint of group.endpoints) update.endpoints.add(endpoint);
  }

  leave(group: Group, direction: Direction, update: Update): void {
    const set = group[direction];
    if (set === undefined) return;
    update.journal.remove(set.groups, group);
    update.idle.sets.add(set);
    update.journal.assign(group, direction, undefined);
  }

  /** All entries of a new set. */
  build(set: PolicySet, update: Update): void {
    const matches = new Map<Peer, number[]>();
    const match = (peer: Peer, rule: number): void => {
      if (isGone(peer)) return;
      const rules = matches.get(peer);
      if (rules === undefined) matches.set(peer, [rule]);
      else if (rules[rules.length - 1] !== rule) rules.push(rule);
    };
    set.rules.forEach(({ rule, named }, index) => {
      const matchClass = (identity: Identity): void => {
        if (identity.class !== undefined && !isGone(identity)) match(identity.class, index);
        if (named.length > 0) match(identity, index);
      };
      for (const peer of rule.peers ?? []) {
        if (peer.type === 'block') {
          for (const identity of this.#identities.inside(peer.cidr, peer.except)) {
            if (isEndpoint(identity)) matchClass(identity);
            else match(identity, index);
          }
        } else if (!selectsAll(peer.selector)) {
          const wide = isWide(peer.selector);
          for (const { identities } of peer.selector.groups) {
            for (const identity of identities) {
              if (wide) matchClass(identity);
              else match(identity, index);
            }
          }
        }
      }
    });
    set.rules.forEach(({ rule, named }, index) => {
      if (!isBase(rule)) return;
      for (const port of named) {
        for (const group of this.#selection.groupsWithPort(port))
          for (const identity of group.identities) match(identity, index);
      }
    });
    for (const [peer, rules] of matches) {
      const inherited = peer.class === undefined ? undefined : matches.get(peer.class);
      this.#write(set, peer, rules, inherited ?? NO_RULES, update);
    }
    if (set.networkEntry === undefined) return;
    for (const identity of this.#identities.networks)
      if (!matches.has(identity)) this.#write(set, identity, NO_RULES, NO_RULES, update);
  }

  /** Computes the entries of an identity or a class again, in those sets that are given. */
  refresh(peer: Peer, wanted: Set<PolicySet> | 'all', update: Update): void {
    if (update.newSets.size === this.#sets.size) return;
    const matches = this.#matches(peer, update.newSets);
    for (const set of wanted === 'all' ? this.#concerned(peer, matches) : wanted) {
      if (update.newSets.has(set)) continue;
      this.#write(set, peer, matches.get(set) ?? NO_RULES, inheritedRules(set, peer), update);
    }
  }

  /** The sets in which a peer may have an entry of its own. */
  #concerned(peer: Peer, matches: ReadonlyMap<PolicySet, unknown>): Iterable<PolicySet> {
    if (isClass(peer) || isEndpoint(peer)) return matches.keys();
    return new Set([...matches.keys(), ...this.#withNetworks]);
  }

  /** Removes the entries of an identity or a class that nothing has any more. */
  removePeer(peer: Peer, update: Update): void {
    for (const set of this.#concerned(peer, this.#matches(peer, NO_SETS)))
      this.#replace(set, peer, undefined, update);
  }

  /** Removes a set without endpoints. */
  retire(set: PolicySet, update: Update): void {
    const { journal, recorder } = update;
    journal.assign(set, 'retired', true);
    journal.drop(this.#sets, set.key);
    if (set.generation < update.generation) {
      for (const [peer, entry] of [...kindEntries(set), ...set.entries])
        recorder.peer(set, peer, entry, undefined);
    }
    for (const [, entry] of kindEntries(set)) this.profiles.release(entry, update);
    for (const entry of set.memo.values()) this.profiles.release(entry, update);
    journal.remove(this.#withNetworks, set);
    this.#eachUse(set, (users) => journal.drop(users, set));
    this.#parts.removeDefaultRule(set, update);
    for (const part of set.parts) this.#parts.release(part, update);
  }

  #find(parts: readonly PolicyPart[], direction: Direction, group: Group, update: Update): PolicySet {
    // Named ports of ingress rules are those of the subject, so they are part of what a set is.
    const subject =
      direction === 'ingress' && parts.some((part) => part.rules.some((rule) => rule.named.length > 0))
        ? group.portsKey
        : '';
    const key = `${direction} ${parts.map((part) => part.id).join()} ${subject}`;
    const known = this.#sets.get(key);
    if (known !== undefined) return known;
    const rules = parts.flatMap((part) => part.rules.map((rule) => resolveSubject(rule, direction, group)));
    const { journal } = update;
    const number = this.#counter.next;
    journal.assign(this.#counter, 'next', number + 1);
    const isolating = parts.filter((part) => part.tier === TIER.NetworkPolicy);
    const fallback: Decision =
      isolating.length === 0
        ? ALLOW
        : { verdict: VERDICT.Deny, rule: this.#parts.defaultRule(isolating, direction, update) };
    const indexes = (of: (rule: CompiledRule) => boolean): number[] =>
      rules.flatMap(({ rule }, index) => (of(rule) ? [index] : []));
    const anyRules = indexes(isForAll);
    const endpointRules = indexes(isBase);
    const anyEntry = newEntry({ rules, fallback }, anyRules, undefined, 'any');
    const kindEntry = (indexes: readonly number[]): PeerEntry | undefined => {
      if (indexes.length === anyRules.length) return undefined;
      const entry = newEntry({ rules, fallback }, indexes, undefined, 'kind');
      return sameEntry(entry, anyEntry) ? undefined : entry;
    };
    const wide = WIDEST.map((cidr) => indexes((rule) => isForAll(rule) || hasBlock(rule, cidr)));
    const set: PolicySet = {
      number,
      key,
      direction,
      parts,
      rules,
      anyRules,
      endpointRules,
      hasNamed: rules.some((rule) => rule.named.length > 0),
      fallback,
      generation: update.generation,
      groups: new Set(),
      anyEntry,
      endpointEntry: kindEntry(endpointRules),
      networkEntry: kindEntry(wide.find((indexes) => indexes.length > anyRules.length) ?? anyRules),
      entries: new Map(),
      memo: new Map(),
      retired: false,
    };
    for (const [, entry] of kindEntries(set)) this.profiles.acquire(entry, update);
    if (set.networkEntry !== undefined) journal.add(this.#withNetworks, set);
    for (const part of parts) this.#parts.retain(part, update);
    journal.put(this.#sets, key, set);
    this.#register(set, update);
    update.newSets.add(set);
    update.idle.sets.add(set);
    return set;
  }

  /** Makes the set known to the peers of its rules, so that a change of theirs finds it. */
  #register(set: PolicySet, update: Update): void {
    const { journal } = update;
    const push = <V>(users: Map<PolicySet, V[]>, value: V): void => {
      const values = users.get(set);
      if (values === undefined) journal.put(users, set, [value]);
      else values.push(value); // made just now by the line above
    };
    set.rules.forEach(({ rule, named }, index) => {
      for (const peer of rule.peers ?? []) {
        if (peer.type === 'block') push(peer.cidr.data.users, { rule: index, except: peer.except });
        else if (!selectsAll(peer.selector)) push(peer.selector.users, index);
      }
      if (!isBase(rule)) return;
      for (const port of named) {
        const key = namedKey(port);
        const users = this.#namedUsers.get(key) ?? new Map<PolicySet, number[]>();
        if (users.size === 0) journal.put(this.#namedUsers, key, users);
        push(users, index);
      }
    });
  }

  #eachUse(set: PolicySet, visit: (users: Map<PolicySet, unknown>) => void): void {
    for (const { rule, named } of set.rules) {
      for (const peer of rule.peers ?? [])
        visit(peer.type === 'pods' ? peer.selector.users : peer.cidr.data.users);
      for (const port of isBase(rule) ? named : []) {
        const users = this.#namedUsers.get(namedKey(port));
        if (users !== undefined) visit(users);
      }
    }
  }

  /**
   * Sets with rules about a peer, and those rules (beside the ones for any peer). Of an identity with a class,
   * only those that can make it differ from its class.
   */
  #matches(peer: Peer, skip: ReadonlySet<PolicySet>): Map<PolicySet, number[]> {
    const found = new Map<PolicySet, number[]>();
    const add = (set: PolicySet, rules: readonly number[]): void => {
      if (skip.has(set) || rules.length === 0) return;
      const known = found.get(set);
      if (known === undefined) found.set(set, [...rules]);
      else known.push(...rules);
    };
    const group = isClass(peer) ? undefined : peer.group;
    const own = !isClass(peer) && isEndpoint(peer);
    for (const selector of isClass(peer) ? peer.selectors : (group?.selectors ?? [])) {
      for (const [set, rules] of selector.users)
        add(set, own && isWide(selector) ? withNamedPorts(set, rules) : rules);
    }
    for (const prefix of around(peer.prefix)) {
      for (const [set, uses] of prefix.data.users) {
        const rules = blockRules(uses, peer.prefix);
        add(set, own ? withNamedPorts(set, rules) : rules);
      }
    }
    for (const { name, protocol } of group?.ports ?? []) {
      for (const [set, rules] of this.#namedUsers.get(namedKey({ name, protocol })) ?? []) add(set, rules);
    }
    return found;
  }

  /** `inherited`: rules that match the peer's class. */
  #write(
    set: PolicySet,
    peer: Peer,
    matched: readonly number[],
    inherited: readonly number[],
    update: Update,
  ): void {
    const endpoint = isClass(peer) || isEndpoint(peer);
    const fallback = fallbackOf(set, peer);
    const idle = matched.length === 0 && (endpoint || fallback === set.anyEntry);
    if (idle || isGone(peer)) {
      this.#replace(set, peer, undefined, update);
      return;
    }
    const base = endpoint ? set.endpointRules : set.anyRules;
    const alone = matched.length === 1 && inherited.length === 0 && base.length === 0;
    const rules = alone ? matched : [...new Set([...matched, ...inherited, ...base])].sort((a, b) => a - b);
    const named = set.hasNamed && rules.some((index) => hasNamed(set, index));
    if (!named && inherited.length > 0 && matched.every((rule) => inherited.includes(rule))) {
      this.#replace(set, peer, undefined, update); // the class's entry says it
      return;
    }
    const group = isClass(peer) ? undefined : peer.group;
    const key = named ? `${rules.join()}|${group?.portsKey ?? ''}` : rules.join();
    const entry = set.memo.get(key) ?? newEntry(set, rules, group, key);
    const same = inherited.length === 0 && sameEntry(entry, fallback);
    this.#replace(set, peer, same ? undefined : entry, update);
  }

  #replace(set: PolicySet, peer: Peer, now: PeerEntry | undefined, update: Update): void {
    const before = set.entries.get(peer);
    if (before === now) return;
    const { journal, recorder } = update;
    // What belongs to a new set goes with it when the update is taken back, and is recorded as a whole.
    const isNew = set.generation === update.generation;
    if (now !== undefined) {
      if (now.uses === 0) {
        this.profiles.acquire(now, update);
        if (isNew) set.memo.set(now.key, now);
        else journal.put(set.memo, now.key, now);
      }
      if (isNew) set.entries.set(peer, now);
      else journal.put(set.entries, peer, now);
      journalUses(now, 1, isNew, update);
    } else {
      journal.drop(set.entries, peer);
    }
    if (before !== undefined) {
      journalUses(before, -1, isNew, update);
      if (before.uses === 0) {
        journal.drop(set.memo, before.key);
        this.profiles.release(before, update);
      }
    }
    if (!isNew) recorder.peer(set, peer, before, now);
  }
}

/** The CIDRs that a network is inside of if it is in any: the first one that a set has a rule for counts. */
const WIDEST = ['0.0.0.0/0', '::/0'];

function isForAll(rule: CompiledRule): boolean {
  return rule.peers === undefined;
}

/** Whether a rule holds for every endpoint; it is not kept with each of them. */
function isBase({ peers }: CompiledRule): boolean {
  return peers?.some((peer) => peer.type === 'pods' && selectsAll(peer.selector)) ?? true;
}

function hasBlock({ peers }: CompiledRule, cidr: string): boolean {
  return peers?.some((peer) => peer.type === 'block' && peer.cidr.text === cidr) ?? false;
}

function isClass(peer: Peer): peer is PeerClass {
  return 'identities' in peer;
}

/** An identity of endpoints that no endpoint has any more. */
function isGone(peer: Peer): boolean {
  return !isClass(peer) && peer.group !== undefined && peer.claims.size === 0;
}

function hasNamed(set: PolicySet, rule: number): boolean {
  return (set.rules[rule]?.named.length ?? 0) > 0;
}

/** Those of the rules whose ports depend on the peer. */
function withNamedPorts(set: PolicySet, rules: readonly number[]): readonly number[] {
  return set.hasNamed ? rules.filter((rule) => hasNamed(set, rule)) : NO_RULES;
}

/** A prefix and those around it. */
function* around(prefix: Prefix): Generator<Prefix> {
  for (let at: Prefix | undefined = prefix; at !== undefined; at = at.parent) yield at;
}

function blockRules(uses: readonly BlockUse[], inside: Prefix): readonly number[] {
  return uses.filter((use) => !use.except.some((except) => isWithin(inside, except))).map((use) => use.rule);
}

/** Rules of a set that match the class of a peer. */
function inheritedRules(set: PolicySet, { class: peerClass }: Peer): readonly number[] {
  if (peerClass === undefined) return NO_RULES;
  const rules: number[] = [];
  for (const { users } of peerClass.selectors) rules.push(...(users.get(set) ?? NO_RULES));
  for (const prefix of around(peerClass.prefix))
    rules.push(...blockRules(prefix.data.users.get(set) ?? [], peerClass.prefix));
  return rules;
}

function journalUses(entry: PeerEntry, by: number, isNew: boolean, update: Update): void {
  if (isNew) entry.uses += by;
  else update.journal.assign(entry, 'uses', entry.uses + by);
}

/**
 * The parts that apply, in the order of precedence: the tiers, in a tier of ClusterNetworkPolicies the
 * priority, and where that is equal the name. A NetworkPolicy leaves nothing to the Baseline tier.
 */
function applicable(group: Group, direction: Direction): PolicyPart[] {
  const policies = [...group.policies].filter((policy) => policy[direction] !== undefined).sort(byPrecedence);
  const isolated = policies.some(({ resource }) => resource.kind === 'NetworkPolicy');
  return policies.flatMap((policy) =>
    isolated && tierOf(policy.resource) > TIER.NetworkPolicy ? [] : (policy[direction] ?? []),
  );
}

function byPrecedence(a: PolicyNode, b: PolicyNode): number {
  return (
    tierOf(a.resource) - tierOf(b.resource) ||
    priorityOf(a.resource) - priorityOf(b.resource) ||
    (a.key < b.key ? -1 : 1)
  );
}

function priorityOf(resource: PolicyResource): number {
  return resource.kind === 'NetworkPolicy' ? 0 : resource.priority;
}

/** Ports of that name and protocol on an endpoint. */
function resolveNamed(named: readonly NamedPort[], group: Group | undefined): PortRange[] {
  if (group === undefined) return [];
  return named.flatMap(({ name, protocol }) =>
    group.ports
      .filter((port) => port.name === name && port.protocol === protocol)
      .map(({ port }) => ({ protocol: PROTOCOL[protocol], low: port, high: port })),
  );
}

function resolveSubject(rule: CompiledRule, direction: Direction, subject: Group): SetRule {
  if (rule.ports === 'all' || rule.named.length === 0) return { rule, ports: rule.ports, named: [] };
  if (direction === 'egress') return { rule, ports: rule.ports, named: rule.named };
  return { rule, ports: [...rule.ports, ...resolveNamed(rule.named, subject)], named: [] };
}

/** The entry for a peer that those rules match; `group` is the peer's. */
function newEntry(
  set: Pick<PolicySet, 'rules' | 'fallback'>,
  rules: readonly number[],
  group: Group | undefined,
  key: string,
): PeerEntry {
  const ranked: RankedRule[] = [];
  for (const index of rules) {
    const setRule = set.rules[index];
    if (setRule === undefined) continue;
    const { rule, ports, named } = setRule;
    const resolved =
      ports === 'all' || named.length === 0 ? ports : [...ports, ...resolveNamed(named, group)];
    ranked.push({ tier: rule.tier, action: rule.action, ports: resolved, rule: rule.number });
  }
  const { decision, rows } = resolveRules(ranked, set.fallback);
  return {
    verdict: rows.length === 0 ? decision.verdict : VERDICT.Ports,
    rule: decision.rule,
    rows,
    rowsKey: rows
      .map((row) => `${row.protocol}:${row.port}/${row.prefixLength}=${row.verdict},${row.rule}`)
      .join(';'),
    key,
    profile: undefined,
    uses: 0,
  };
}
