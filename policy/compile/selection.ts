/**
 * Who is selected by what: namespaces, groups of endpoints, the peers of rules and the subjects of
 * policies. The results are kept and corrected by each change, never computed again as a whole.
 */
import type { ContainerPort, LabelSelector, Labels } from '../model/resources.js';
import { anchorsOf, labelsKey, selectorKey, selects } from '../select.js';
import { isWide } from './classes.js';
import { LabelIndex, SelectorIndex } from './indexes.js';
import type { Group, NamedPort, NamespaceNode, PeerSelector, PolicyNode, Scope } from './nodes.js';
import type { PolicyResource } from './types.js';
import type { Update } from './update.js';

/** Label that every namespace has: its name. */
const NAME_LABEL = 'kubernetes.io/metadata.name';

/** With more namespaces than this, groups are found by their labels first. */
const FEW_NAMESPACES = 8;

/** Where the peers of a rule are: one namespace, those that a selector selects, the nodes, or addresses of names. */
export type PeerPlace =
  | { readonly namespace: string }
  | { readonly namespaces: LabelSelector }
  | { readonly nodes: true }
  | { readonly learned: true };

function newScope(key: string, selector: LabelSelector | undefined): Scope {
  return {
    key,
    selector,
    namespaces: new Set(),
    peers: new SelectorIndex((peer) => peer.pods),
    policies: new SelectorIndex((policy) => subjectOf(policy.resource)),
    count: 0,
  };
}

function newNamespace(name: string, labels: Labels, key = `=${name}`): NamespaceNode {
  const own = newScope(key, undefined);
  const namespace = {
    name,
    labels,
    declared: false,
    groups: new Set<Group>(),
    scopes: new Set<Scope>(),
    own,
  };
  own.namespaces.add(namespace);
  return namespace;
}

/** Which endpoints of its namespaces a policy applies to. */
function subjectOf(resource: PolicyResource): LabelSelector {
  return resource.kind === 'NetworkPolicy' ? resource.podSelector : resource.subject.podSelector;
}

/** Equal for policies that apply to the same endpoints. */
export function subjectKey(resource: PolicyResource): string {
  const scope =
    resource.kind === 'NetworkPolicy' ? resource.namespace : selectorKey(resource.subject.namespaceSelector);
  return JSON.stringify([resource.kind, scope, selectorKey(subjectOf(resource))]);
}

export function portsKey(ports: readonly ContainerPort[]): string {
  return ports
    .map((port) => `${port.name}/${port.protocol}=${port.port}`)
    .sort()
    .join();
}

export function namedKey({ name, protocol }: NamedPort): string {
  return `${name}/${protocol}`;
}

export class Selection {
  readonly #namespaces = new Map<string, NamespaceNode>();
  readonly #namespaceIndex = new LabelIndex<NamespaceNode>((namespace) => namespace.labels);
  readonly #scopes = new Map<string, Scope>();
  readonly #scopeIndex = new SelectorIndex<Scope>((scope) => scope.selector ?? { requirements: [] });
  readonly #selectors = new Map<string, PeerSelector>();
  readonly #groups = new Map<string, Group>();
  #lastGroup:
    | {
        readonly namespace: string;
        readonly labels: Labels;
        readonly ports: readonly ContainerPort[];
        readonly key: string;
      }
    | undefined;
  readonly #groupsByPort = new Map<string, Set<Group>>();
  readonly #groupIndex = new LabelIndex<Group>((group) => group.labels);
  /** Selectors of several namespaces without rules. */
  readonly #unused = new Set<PeerSelector>();
  readonly #counter = { next: 1 };
  readonly #nodes = newNamespace('', {});
  readonly #learned = newNamespace('', {}, '?');

  /** The namespace, which has only the label with its name until it is declared. */
  namespace(name: string, update: Update): NamespaceNode {
    const known = this.#namespaces.get(name);
    if (known !== undefined) return known;
    const { journal } = update;
    const namespace = newNamespace(name, { [NAME_LABEL]: name });
    journal.put(this.#namespaces, name, namespace);
    this.#namespaceIndex.add(namespace, journal);
    for (const scope of this.#scopeIndex.matching(namespace.labels)) this.#enter(scope, namespace, update);
    update.idle.namespaces.add(namespace);
    return namespace;
  }

  /** Sets the labels of a namespace; undefined: it is not declared any more. */
  declare(name: string, labels: Labels | undefined, update: Update): void {
    const { journal } = update;
    const namespace = this.namespace(name, update);
    const wanted = { ...labels, [NAME_LABEL]: name };
    journal.assign(namespace, 'declared', labels !== undefined);
    update.idle.namespaces.add(namespace);
    if (labelsKey(wanted) === labelsKey(namespace.labels)) return;
    this.#namespaceIndex.remove(namespace, journal);
    journal.assign(namespace, 'labels', wanted);
    this.#namespaceIndex.add(namespace, journal);
    const scopes = new Set(this.#scopeIndex.matching(wanted));
    for (const scope of [...namespace.scopes]) if (!scopes.has(scope)) this.#leave(scope, namespace, update);
    for (const scope of scopes) if (!namespace.scopes.has(scope)) this.#enter(scope, namespace, update);
  }

  /** The group of endpoints with these properties. */
  group(namespaceName: string, labels: Labels, ports: readonly ContainerPort[], update: Update): Group {
    const key = this.#groupKey(namespaceName, labels, ports);
    return (
      this.#groups.get(key) ??
      this.#newGroup(key, this.namespace(namespaceName, update), labels, ports, update)
    );
  }

  /** Endpoints of one deployment come one after the other, often with the same objects: their key is made once. */
  #groupKey(namespace: string, labels: Labels, ports: readonly ContainerPort[]): string {
    const last = this.#lastGroup;
    if (last?.labels === labels && last.ports === ports && last.namespace === namespace) return last.key;
    const key = JSON.stringify([namespace, labelsKey(labels), portsKey(ports)]);
    this.#lastGroup = { namespace, labels, ports, key };
    return key;
  }

  /** The group of nodes with these labels. */
  nodeGroup(labels: Labels, update: Update): Group {
    const key = JSON.stringify([this.#nodes.name, labelsKey(labels)]);
    return this.#groups.get(key) ?? this.#newGroup(key, this.#nodes, labels, [], update);
  }

  /** The group of addresses whose names match these patterns. */
  learnedGroup(labels: Labels, update: Update): Group {
    const key = JSON.stringify(['', 'learned', labelsKey(labels)]);
    return this.#groups.get(key) ?? this.#newGroup(key, this.#learned, labels, [], update);
  }

  #newGroup(
    key: string,
    namespace: NamespaceNode,
    labels: Labels,
    ports: readonly ContainerPort[],
    update: Update,
  ): Group {
    const { journal } = update;
    const group: Group = {
      key,
      namespace,
      labels,
      ports,
      portsKey: portsKey(ports),
      endpoints: new Set(),
      locals: 0,
      selectors: new Set(),
      policies: new Set(),
      identities: new Set(),
      egress: undefined,
      ingress: undefined,
    };
    journal.put(this.#groups, key, group);
    journal.add(namespace.groups, group);
    this.#groupIndex.add(group, journal);
    for (const port of ports) journal.addTo(this.#groupsByPort, namedKey(port), group);
    for (const scope of [namespace.own, ...namespace.scopes]) {
      for (const selector of scope.peers.matching(labels)) this.#link(selector, group, update);
      for (const policy of scope.policies.matching(labels)) this.#subject(policy, group, update);
    }
    update.groups.add(group);
    update.idle.groups.add(group);
    return group;
  }

  /** Groups whose endpoints have a port of that name. */
  groupsWithPort(port: NamedPort): Iterable<Group> {
    return this.#groupsByPort.get(namedKey(port)) ?? [];
  }

  removeGroup(group: Group, update: Update): void {
    const { journal } = update;
    for (const selector of [...group.selectors]) journal.remove(selector.groups, group);
    for (const policy of [...group.policies]) journal.remove(policy.groups, group);
    journal.drop(this.#groups, group.key);
    journal.remove(group.namespace.groups, group);
    this.#groupIndex.remove(group, journal);
    for (const port of group.ports) journal.removeFrom(this.#groupsByPort, namedKey(port), group);
    update.idle.namespaces.add(group.namespace);
  }

  /** Where the subjects of a policy are; to be given to `addPolicy` in its node. */
  scopeOf(resource: PolicyResource, update: Update): Scope {
    return this.#place(
      resource.kind === 'NetworkPolicy'
        ? { namespace: resource.namespace }
        : { namespaces: resource.subject.namespaceSelector },
      update,
    );
  }

  /** Finds the endpoints that a policy applies to; its node must have the resource already. */
  addPolicy(policy: PolicyNode, update: Update): void {
    const { scope, resource } = policy;
    scope.policies.add(policy, update.journal);
    update.journal.assign(scope, 'count', scope.count + 1);
    for (const group of this.#candidates(scope, subjectOf(resource))) this.#subject(policy, group, update);
  }

  removePolicy(policy: PolicyNode, update: Update): void {
    const { journal } = update;
    policy.scope.policies.remove(policy, journal);
    this.#leaveScope(policy.scope, update);
    for (const group of [...policy.groups]) this.#unsubject(policy, group, update);
  }

  /** A peer of a rule; every `acquire` needs its `release`. */
  acquire(place: PeerPlace, pods: LabelSelector, update: Update): PeerSelector {
    const { journal } = update;
    const scope = this.#place(place, update);
    const key = JSON.stringify([scope.key, selectorKey(pods)]);
    const known = this.#selectors.get(key);
    if (known !== undefined) {
      journal.assign(known, 'references', known.references + 1);
      journal.remove(this.#unused, known);
      return known;
    }
    const id = this.#counter.next;
    journal.assign(this.#counter, 'next', id + 1);
    const selector: PeerSelector = {
      id,
      key,
      scope,
      pods,
      groups: new Set(),
      users: new Map(),
      references: 1,
    };
    journal.put(this.#selectors, key, selector);
    scope.peers.add(selector, journal);
    journal.assign(scope, 'count', scope.count + 1);
    for (const group of this.#candidates(scope, pods)) this.#link(selector, group, update);
    return selector;
  }

  release(selector: PeerSelector, update: Update): void {
    update.journal.assign(selector, 'references', selector.references - 1);
    if (selector.references === 0) update.idle.selectors.add(selector);
  }

  /** A selector without rules goes; one of several namespaces stays until `settle`, because classes depend on it. */
  dropSelector(selector: PeerSelector, update: Update): void {
    if (isWide(selector)) update.journal.add(this.#unused, selector);
    else this.#removeSelector(selector, update);
  }

  /** Whether selectors wait for `settle`. */
  get unsettled(): boolean {
    return this.#unused.size > 0;
  }

  /** Removes selectors without rules: classes that only they told apart become one. */
  settle(update: Update): void {
    for (const selector of [...this.#unused]) {
      update.journal.remove(this.#unused, selector);
      this.#removeSelector(selector, update);
    }
  }

  #removeSelector(selector: PeerSelector, update: Update): void {
    const { journal } = update;
    const { scope } = selector;
    for (const group of selector.groups) {
      journal.remove(group.selectors, selector);
      this.#classesChange(selector, group, update);
    }
    journal.drop(this.#selectors, selector.key);
    scope.peers.remove(selector, journal);
    this.#leaveScope(scope, update);
  }

  /** Forgets a namespace that nothing refers to. */
  removeIfIdle(namespace: NamespaceNode, update: Update): void {
    const { declared, groups, own } = namespace;
    if (
      namespace === this.#nodes ||
      namespace === this.#learned ||
      declared ||
      groups.size > 0 ||
      own.count > 0
    )
      return;
    const { journal } = update;
    journal.drop(this.#namespaces, namespace.name);
    this.#namespaceIndex.remove(namespace, journal);
    for (const scope of namespace.scopes) journal.remove(scope.namespaces, namespace);
  }

  #place(place: PeerPlace, update: Update): Scope {
    if ('nodes' in place) return this.#nodes.own;
    if ('learned' in place) return this.#learned.own;
    if ('namespace' in place) return this.namespace(place.namespace, update).own;
    const selector = place.namespaces;
    const key = `~${selectorKey(selector)}`;
    const known = this.#scopes.get(key);
    if (known !== undefined) return known;
    const { journal } = update;
    const scope = newScope(key, selector);
    journal.put(this.#scopes, key, scope);
    this.#scopeIndex.add(scope, journal);
    for (const namespace of this.#namespaceIndex.matching(selector)) {
      journal.add(scope.namespaces, namespace);
      journal.add(namespace.scopes, scope);
    }
    return scope;
  }

  /** A peer or policy less; nobody needs a scope without any. */
  #leaveScope(scope: Scope, update: Update): void {
    const { journal } = update;
    journal.assign(scope, 'count', scope.count - 1);
    if (scope.count > 0) return;
    if (scope.selector === undefined) {
      for (const namespace of scope.namespaces) update.idle.namespaces.add(namespace);
      return;
    }
    journal.drop(this.#scopes, scope.key);
    this.#scopeIndex.remove(scope, journal);
    for (const namespace of scope.namespaces) journal.remove(namespace.scopes, scope);
  }

  #candidates(scope: Scope, pods: LabelSelector): Group[] {
    if (scope.namespaces.size > FEW_NAMESPACES && anchorsOf(pods) !== undefined) {
      return this.#groupIndex.matching(pods).filter((group) => scope.namespaces.has(group.namespace));
    }
    const found: Group[] = [];
    for (const { groups } of scope.namespaces)
      for (const group of groups) if (selects(pods, group.labels)) found.push(group);
    return found;
  }

  #enter(scope: Scope, namespace: NamespaceNode, update: Update): void {
    update.journal.add(scope.namespaces, namespace);
    update.journal.add(namespace.scopes, scope);
    for (const group of namespace.groups) {
      for (const selector of scope.peers.matching(group.labels)) this.#link(selector, group, update);
      for (const policy of scope.policies.matching(group.labels)) this.#subject(policy, group, update);
    }
  }

  #leave(scope: Scope, namespace: NamespaceNode, update: Update): void {
    update.journal.remove(scope.namespaces, namespace);
    update.journal.remove(namespace.scopes, scope);
    for (const group of namespace.groups) {
      for (const selector of [...group.selectors]) {
        if (selector.scope !== scope) continue;
        update.journal.remove(selector.groups, group);
        update.journal.remove(group.selectors, selector);
        this.#peersChange(selector, group, update);
        this.#classesChange(selector, group, update);
      }
      for (const policy of [...group.policies])
        if (policy.scope === scope) this.#unsubject(policy, group, update);
    }
  }

  #link(selector: PeerSelector, group: Group, update: Update): void {
    update.journal.add(selector.groups, group);
    update.journal.add(group.selectors, selector);
    this.#peersChange(selector, group, update);
    this.#classesChange(selector, group, update);
  }

  #classesChange(selector: PeerSelector, group: Group, update: Update): void {
    if (isWide(selector)) for (const identity of group.identities) update.unclassified.add(identity);
  }

  /** The entries of the group's identities change in the sets that have this peer. */
  #peersChange(selector: PeerSelector, group: Group, update: Update): void {
    for (const set of selector.users.keys())
      for (const identity of group.identities) update.pair(identity, set);
  }

  #subject(policy: PolicyNode, group: Group, update: Update): void {
    update.journal.add(policy.groups, group);
    update.journal.add(group.policies, policy);
    update.groups.add(group);
  }

  #unsubject(policy: PolicyNode, group: Group, update: Update): void {
    update.journal.remove(policy.groups, group);
    update.journal.remove(group.policies, policy);
    update.groups.add(group);
  }
}
