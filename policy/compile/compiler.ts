/** The policy compiler: resources and endpoints in, changes of the kernel's maps out. Pure and incremental. */
import { canonicalAddress } from '../address.js';
import { Classes } from './classes.js';
import { Identities, numberOf } from './identities.js';
import { Journal } from './journal.js';
import { kindEntries } from './kinds.js';
import type { Claim, EndpointNode, Group, PolicyNode } from './nodes.js';
import { cidrsOf, Parts, policyName } from './parts.js';
import { peerValue } from './recorder.js';
import { Selection, subjectKey } from './selection.js';
import { PolicySets } from './sets.js';
import {
  CLASS_FIRST,
  type CompileDelta,
  type CompiledState,
  type CompilerChange,
  type CompilerKey,
  type CompilerOptions,
  type EndpointInput,
  type EndpointNumbers,
  IDENTITY,
  type IdentityListing,
  type IdentityRow,
  type NodeInput,
  type PeerRow,
  type PolicyResource,
  type PortRow,
  type RuleDescription,
  type SetListing,
} from './types.js';
import { Update } from './update.js';

export type * from './types.js';

const DIRECTIONS = ['egress', 'ingress'] as const;

export class PolicyCompiler {
  readonly #journal = new Journal();
  readonly #selection = new Selection();
  readonly #identities: Identities;
  readonly #classes: Classes;
  readonly #parts: Parts;
  readonly #sets: PolicySets;
  readonly #policies = new Map<string, PolicyNode>();
  readonly #endpoints = new Map<string, EndpointNode>();
  /** By name; one for each address. */
  readonly #nodes = new Map<string, readonly EndpointNode[]>();
  readonly #counter = { generation: 0 };

  constructor(options: CompilerOptions = {}) {
    const { firstIdentity = IDENTITY.First, firstSet = 1, firstProfile = 1, firstRule = 1 } = options;
    this.#classes = new Classes(options.firstClass ?? CLASS_FIRST);
    this.#identities = new Identities(Math.max(firstIdentity, IDENTITY.First));
    this.#parts = new Parts(this.#selection, this.#identities, firstRule);
    this.#sets = new PolicySets(this.#selection, this.#parts, this.#identities, firstSet, firstProfile);
  }

  /**
   * Takes in a change and returns what it means for the maps; the cost follows the change. An object
   * that is both removed and upserted is replaced; removing an unknown one does nothing. Throws only
   * for addresses that are none (SLU1201), and then nothing has happened. `recording` false: it can't be taken back,
   * which takes less memory; after an error the compiler is of no use then.
   */
  update(change: CompilerChange, recording = true): CompileDelta {
    return this.#run(recording, (update) => {
      this.#parts.dropExpired(update);
      this.#reserve(change, update);
      const upserted = new Set(change.upsert.map(inputKey));
      for (const key of change.remove) if (!upserted.has(removalKey(key))) this.#remove(key, update);
      for (const input of change.upsert) {
        if (input.kind === 'Namespace') this.#selection.declare(input.name, input.labels, update);
        else if (input.kind === 'Endpoint') this.#upsertEndpoint(input, update);
        else if (input.kind === 'Node') this.#upsertNode(input, update);
        else this.#upsertPolicy(input, update);
      }
    });
  }

  /**
   * Cleans up what updates had to leave because sets in force still referred to it: CIDRs and selectors that
   * no policy uses any more. No verdict changes. To be called when the delta of `update` has been applied; it is a
   * delta of its own because in one with new sets, packets would meet them with the old CIDRs.
   */
  settle(): CompileDelta {
    return this.#run(true, (update) => {
      this.#selection.settle(update);
      this.#identities.settle(update);
    });
  }

  /** Whether `settle` would find something to do. */
  get unsettled(): boolean {
    return this.#identities.unsettled || this.#selection.unsettled;
  }

  /** The last `update` or `settle` stays: frees what taking it back would need. */
  accept(): void {
    this.#journal.begin();
  }

  /** Takes back the last `update` or `settle`, numbers included, as if it had not been. */
  rollback(): void {
    this.#journal.rollback();
  }

  /** What a rule number in the maps, a flow or an event means. Just removed ones are still known. */
  describeRule(rule: number): RuleDescription | undefined {
    return this.#parts.describe(rule);
  }

  /** Identity of an address of an endpoint; undefined: nobody's. */
  identityOf(address: string): number | undefined {
    const node = this.#identities.address(address);
    return node === undefined ? undefined : numberOf(node);
  }

  /** Sizes, for metrics: cheaper than the listings. */
  get counts(): {
    readonly identities: number;
    readonly sets: number;
    readonly endpoints: number;
    readonly policies: number;
  } {
    return {
      identities: this.#identities.size,
      sets: this.#sets.size,
      endpoints: this.#endpoints.size,
      policies: this.#policies.size,
    };
  }

  identities(): IdentityListing[] {
    const found: IdentityListing[] = [];
    for (const { number, group, prefix, claims } of this.#identities.inside(this.#identities.tree.root)) {
      found.push({
        number,
        ...(group === undefined || group.namespace.name === '' ? {} : { namespace: group.namespace.name }),
        labels: group?.labels ?? {},
        ...(prefix.text === '' ? {} : { cidr: prefix.text }),
        endpoints: new Set([...claims].map((claim) => claim.endpoint)).size,
      });
    }
    return found.sort((a, b) => a.number - b.number);
  }

  sets(): SetListing[] {
    return [...this.#sets.all()]
      .map((set) => ({
        number: set.number,
        direction: set.direction,
        policies: set.parts.map((part) => part.policy),
        endpoints: [...set.groups].reduce((sum, group) => sum + group.locals, 0),
        entries: set.entries.size + kindEntries(set).length,
      }))
      .sort((a, b) => a.number - b.number);
  }

  /** All entries, for a start with empty maps and for tests. */
  fullState(): CompiledState {
    const addresses: IdentityRow[] = [];
    for (const address of this.#identities.addresses())
      addresses.push([address.text, numberOf(address) ?? 0]);
    const peers: PeerRow[] = [];
    for (const set of this.#sets.all()) {
      for (const [peer, entry] of [...kindEntries(set), ...set.entries])
        peers.push([set.number, peer.number, peerValue(entry)]);
    }
    const ports: PortRow[] = [];
    for (const profile of this.#sets.profiles.all()) ports.push(...profile.rows);
    const endpoints = [...this.#endpoints.values()].filter((endpoint) => !endpoint.peerOnly).map(numbers);
    const cidrs = [...this.#identities.cidrRows()];
    return { addresses, cidrs, classes: [...this.#classes.rows()], peers, ports, endpoints };
  }

  #run(recording: boolean, change: (update: Update) => void): CompileDelta {
    this.#journal.begin(recording);
    try {
      this.#journal.assign(this.#counter, 'generation', this.#counter.generation + 1);
      const update = new Update(this.#journal, this.#counter.generation);
      change(update);
      return this.#finish(update);
    } catch (error) {
      this.#journal.rollback();
      throw error;
    }
  }

  /** Lets the CIDRs of new policies in first, the wide ones before the narrow ones. */
  #reserve(change: CompilerChange, update: Update): void {
    const texts = new Set<string>();
    for (const input of change.upsert) {
      if (input.kind === 'NetworkPolicy' || input.kind === 'ClusterNetworkPolicy')
        for (const text of cidrsOf(input)) texts.add(text);
    }
    const length = (text: string): number => Number(text.slice(text.indexOf('/') + 1));
    const held = [...texts]
      .sort((a, b) => length(a) - length(b))
      .map((text) => this.#identities.acquire(text, update));
    update.held.push(...held);
  }

  #remove(key: CompilerKey, update: Update): void {
    if (key.kind === 'Namespace') {
      this.#selection.declare(key.name, undefined, update);
    } else if (key.kind === 'Node') {
      for (const address of this.#nodes.get(key.name) ?? []) this.#dropAddress(address, update);
      this.#journal.drop(this.#nodes, key.name);
    } else if (key.kind !== 'Endpoint') {
      const policy = this.#policies.get(policyName(key));
      if (policy === undefined) return;
      this.#journal.drop(this.#policies, policy.key);
      this.#selection.removePolicy(policy, update);
      for (const direction of DIRECTIONS) this.#setPart(policy, direction, undefined, update);
    } else {
      const endpoint = this.#endpoints.get(key.id);
      if (endpoint === undefined) return;
      this.#journal.drop(this.#endpoints, key.id);
      this.#dropAddress(endpoint, update);
      if (endpoint.published !== undefined) update.recorder.mustReevaluate = true;
    }
  }

  /** Forgets an endpoint or an address of a node that its map no longer has. */
  #dropAddress(endpoint: EndpointNode, update: Update): void {
    this.#leaveGroup(endpoint, update);
    for (const claim of [endpoint.claim4, endpoint.claim6])
      if (claim !== undefined) this.#identities.unclaim(claim, update);
    update.endpoints.delete(endpoint);
  }

  #upsertPolicy(resource: PolicyResource, update: Update): void {
    const key = policyName(resource);
    let policy = this.#policies.get(key);
    let reordered = false;
    if (policy === undefined) {
      const scope = this.#selection.scopeOf(resource, update);
      policy = { key, scope, resource, groups: new Set(), egress: undefined, ingress: undefined };
      this.#journal.put(this.#policies, key, policy);
      this.#selection.addPolicy(policy, update);
    } else {
      const before = policy.resource;
      const moves = subjectKey(before) !== subjectKey(resource);
      reordered = priorityOf(before) !== priorityOf(resource);
      if (moves) this.#selection.removePolicy(policy, update);
      this.#journal.assign(policy, 'resource', resource);
      if (moves) {
        this.#journal.assign(policy, 'scope', this.#selection.scopeOf(resource, update));
        this.#selection.addPolicy(policy, update);
      }
    }
    for (const direction of DIRECTIONS) {
      const part = this.#parts.acquire(resource, direction, update);
      const changed = reordered || part !== policy[direction];
      this.#setPart(policy, direction, part, update);
      if (changed) for (const group of policy.groups) update.groups.add(group);
    }
  }

  /** The policy gives up the part that it had; `part` is already counted as used. */
  #setPart(
    policy: PolicyNode,
    direction: 'egress' | 'ingress',
    part: PolicyNode['egress'],
    update: Update,
  ): void {
    const before = policy[direction];
    this.#journal.assign(policy, direction, part);
    if (before !== undefined) this.#parts.release(before, update);
  }

  #upsertEndpoint(input: EndpointInput, update: Update): void {
    const group = this.#selection.group(input.namespace, input.labels, input.ports, update);
    const known = this.#endpoints.get(input.id);
    const endpoint = known ?? newEndpoint(input.id, group, input.remote === true);
    if (known === undefined) {
      this.#journal.put(this.#endpoints, input.id, endpoint);
      this.#enterGroup(endpoint, group, update);
    } else if (known.group !== group) {
      this.#regroup(known, group, update);
    }
    this.#setAddress(endpoint, 'claim4', input.ipv4, update);
    this.#setAddress(endpoint, 'claim6', input.ipv6, update);
    update.endpoints.add(endpoint);
  }

  #upsertNode(input: NodeInput, update: Update): void {
    const { labels, learned } = input;
    const group =
      learned === true
        ? this.#selection.learnedGroup(labels, update)
        : this.#selection.nodeGroup(labels, update);
    const before = new Map((this.#nodes.get(input.name) ?? []).map((address) => [address.id, address]));
    const now = [...new Set(input.addresses.map(canonicalAddress))].map((text) => {
      const id = `node ${input.name} ${text}`;
      const known = before.get(id);
      before.delete(id);
      if (known !== undefined) {
        if (known.group !== group) this.#regroup(known, group, update);
        return known;
      }
      const address = newEndpoint(id, group, true);
      this.#enterGroup(address, group, update);
      this.#setAddress(address, text.includes(':') ? 'claim6' : 'claim4', text, update);
      return address;
    });
    for (const address of before.values()) this.#dropAddress(address, update);
    this.#journal.put(this.#nodes, input.name, now);
  }

  #regroup(endpoint: EndpointNode, group: Group, update: Update): void {
    for (const claim of [endpoint.claim4, endpoint.claim6])
      if (claim !== undefined) this.#identities.regroup(claim, group, update);
    this.#leaveGroup(endpoint, update);
    this.#journal.assign(endpoint, 'group', group);
    this.#enterGroup(endpoint, group, update);
  }

  #enterGroup(endpoint: EndpointNode, group: Group, update: Update): void {
    this.#journal.add(group.endpoints, endpoint);
    if (endpoint.peerOnly) return;
    if (group.locals === 0) update.groups.add(group);
    this.#journal.assign(group, 'locals', group.locals + 1);
  }

  #setAddress(
    endpoint: EndpointNode,
    field: 'claim4' | 'claim6',
    text: string | undefined,
    update: Update,
  ): void {
    const wanted = text === undefined ? undefined : canonicalAddress(text);
    const before: Claim | undefined = endpoint[field];
    if (before?.address.text === wanted) return;
    if (before !== undefined) this.#identities.unclaim(before, update);
    const claim =
      wanted === undefined ? undefined : this.#identities.claim(endpoint, endpoint.group, wanted, update);
    this.#journal.assign(endpoint, field, claim);
  }

  #leaveGroup(endpoint: EndpointNode, update: Update): void {
    const { group } = endpoint;
    this.#journal.remove(group.endpoints, endpoint);
    if (!endpoint.peerOnly) this.#journal.assign(group, 'locals', group.locals - 1);
    update.idle.groups.add(group);
  }

  #finish(update: Update): CompileDelta {
    const { journal, recorder, idle } = update;
    for (const prefix of update.held) this.#identities.release(prefix, update);
    this.#classes.assign(update);
    const isEmpty = (group: Group): boolean => group.endpoints.size === 0;
    for (const group of update.groups) {
      if (group.locals > 0) for (const direction of DIRECTIONS) this.#sets.assign(group, direction, update);
    }
    for (const set of update.newSets) this.#sets.build(set, update);
    for (const [peer, sets] of update.peers) this.#sets.refresh(peer, sets, update);

    for (const group of idle.groups)
      if (group.locals === 0) for (const direction of DIRECTIONS) this.#sets.leave(group, direction, update);
    for (const set of idle.sets) if (set.groups.size === 0) this.#sets.retire(set, update);
    for (const identity of idle.identities) {
      if (identity.dead || (identity.group !== undefined && identity.claims.size > 0)) continue;
      this.#sets.removePeer(identity, update);
      this.#classes.leave(identity, update);
      this.#identities.forget(identity, update);
    }
    for (const peerClass of idle.classes) {
      if (peerClass.dead || peerClass.identities.size > 0) continue;
      this.#sets.removePeer(peerClass, update);
      this.#classes.forget(peerClass, update);
    }
    for (const group of idle.groups) if (isEmpty(group)) this.#selection.removeGroup(group, update);
    for (const part of idle.parts) if (part.references === 0) this.#parts.remove(part, update);
    for (const selector of idle.selectors)
      if (selector.references === 0) this.#selection.dropSelector(selector, update);
    for (const profile of idle.profiles) this.#sets.profiles.removeIfIdle(profile, update);
    for (const namespace of idle.namespaces) this.#selection.removeIfIdle(namespace, update);

    if (update.ownersChanged) recorder.mustReevaluate = true;
    const endpoints: EndpointNumbers[] = [];
    for (const endpoint of update.endpoints) {
      if (endpoint.peerOnly) continue;
      const now = numbers(endpoint);
      const before = endpoint.published;
      const setsChanged = before?.setEgress !== now.setEgress || before.setIngress !== now.setIngress;
      if (!setsChanged && before.identity4 === now.identity4 && before.identity6 === now.identity6) continue;
      if (before !== undefined && setsChanged) recorder.mustReevaluate = true;
      journal.assign(endpoint, 'published', now);
      endpoints.push(now);
    }
    return recorder.finish(endpoints, update.newSets);
  }
}

function numbers(endpoint: EndpointNode): EndpointNumbers {
  const { id, group, claim4, claim6 } = endpoint;
  return {
    id,
    setEgress: group.egress?.number ?? 0,
    setIngress: group.ingress?.number ?? 0,
    identity4: claim4?.identity.number ?? 0,
    identity6: claim6?.identity.number ?? 0,
  };
}

function newEndpoint(id: string, group: Group, peerOnly: boolean): EndpointNode {
  return { id, peerOnly, group, claim4: undefined, claim6: undefined, published: undefined };
}

/** What places a policy among others of its tier. */
function priorityOf(resource: PolicyResource): string {
  return resource.kind === 'NetworkPolicy' ? '' : `${resource.tier} ${resource.priority}`;
}

function inputKey(input: CompilerChange['upsert'][number]): string {
  return input.kind === 'Endpoint' ? `Endpoint ${input.id}` : removalKey(input);
}

function removalKey(key: CompilerKey): string {
  if (key.kind === 'Endpoint') return `Endpoint ${key.id}`;
  return `${key.kind} ${policyName(key)}`;
}
