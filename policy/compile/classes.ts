/**
 * Classes of peers: endpoints' identities that no rule for several namespaces and no CIDR tells apart. A set has one
 * entry for a class where it would need one for each identity; identities have entries of their own only where
 * a rule of one namespace, or a named port, makes them differ (see PolicySets).
 */
import { isEndpoint, selectsAll } from './kinds.js';
import type { Identity, PeerClass, PeerSelector } from './nodes.js';
import { CLASS_FIRST } from './types.js';
import type { Update } from './update.js';

/** Whether a selector looks into the namespaces of a namespaceSelector and tells endpoints apart. */
export function isWide(selector: PeerSelector): boolean {
  return selector.scope.selector !== undefined && !selectsAll(selector);
}

export class Classes {
  readonly #classes = new Map<string, PeerClass>();
  readonly #counter: { next: number };

  constructor(first: number) {
    this.#counter = { next: Math.max(first, CLASS_FIRST) };
  }

  get size(): number {
    return this.#classes.size;
  }

  /** Entries of `identity_class`. */
  *rows(): Generator<readonly [identity: number, peerClass: number]> {
    for (const { number, identities } of this.#classes.values())
      for (const identity of identities) yield [identity.number, number];
  }

  /** Gives the identities that are new or selected by others their classes. */
  assign(update: Update): void {
    const moves = new Map<PeerClass | undefined, Map<string, Identity[]>>();
    for (const identity of update.unclassified) {
      if (identity.dead || identity.claims.size === 0 || !isEndpoint(identity)) continue;
      const key = keyOf(identity);
      if (key === identity.class?.key) continue;
      const byKey = moves.get(identity.class) ?? new Map<string, Identity[]>();
      moves.set(identity.class, byKey);
      const members = byKey.get(key);
      if (members === undefined) byKey.set(key, [identity]);
      else members.push(identity);
    }
    for (const [from, byKey] of moves)
      for (const [key, members] of byKey) this.#moveAll(from, key, members, update);
  }

  /** The identity is dead. */
  leave(identity: Identity, update: Update): void {
    const from = identity.class;
    if (from === undefined) return;
    update.journal.remove(from.identities, identity);
    update.journal.assign(identity, 'class', undefined);
    update.idle.classes.add(from);
    update.recorder.peerClass(identity.number, from.number, undefined);
  }

  /** Removes a class without identities; the caller has removed its entries. */
  forget(peerClass: PeerClass, update: Update): void {
    update.journal.drop(this.#classes, peerClass.key);
    update.journal.assign(peerClass, 'dead', true);
  }

  #moveAll(from: PeerClass | undefined, key: string, members: readonly Identity[], update: Update): void {
    const [first] = members;
    if (first === undefined) return;
    const known = this.#classes.get(key);
    if (known === undefined && from !== undefined && members.length === from.identities.size) {
      this.#become(from, key, first, update);
      return;
    }
    const to = known ?? this.#create(key, first, update);
    if (differ(from, to)) {
      for (const { generation } of members)
        if (generation < update.generation) update.recorder.mustReevaluate = true;
    }
    for (const identity of members) {
      if (from !== undefined) update.journal.remove(from.identities, identity);
      update.journal.add(to.identities, identity);
      update.journal.assign(identity, 'class', to);
      update.recorder.peerClass(identity.number, from?.number, to.number);
    }
    if (from !== undefined) update.idle.classes.add(from);
  }

  #create(key: string, model: Identity, update: Update): PeerClass {
    const { journal } = update;
    const number = this.#counter.next;
    journal.assign(this.#counter, 'next', number + 1);
    const peerClass: PeerClass = {
      number,
      key,
      prefix: model.prefix,
      selectors: new Set(wideSelectors(model)),
      identities: new Set(),
      generation: update.generation,
      dead: false,
      class: undefined,
    };
    journal.put(this.#classes, key, peerClass);
    update.newPeer(peerClass);
    return peerClass;
  }

  /** All identities of a class changed alike: it keeps its number. */
  #become(peerClass: PeerClass, key: string, model: Identity, update: Update): void {
    const { journal } = update;
    journal.drop(this.#classes, peerClass.key);
    journal.assign(peerClass, 'key', key);
    journal.put(this.#classes, key, peerClass);
    journal.assign(peerClass, 'prefix', model.prefix);
    const wanted = new Set(wideSelectors(model));
    for (const selector of [...peerClass.selectors]) {
      if (wanted.has(selector)) continue;
      journal.remove(peerClass.selectors, selector);
      for (const set of selector.users.keys()) update.pair(peerClass, set);
    }
    for (const selector of wanted) {
      if (!journal.add(peerClass.selectors, selector)) continue;
      for (const set of selector.users.keys()) update.pair(peerClass, set);
    }
  }
}

function wideSelectors(identity: Identity): PeerSelector[] {
  return [...(identity.group?.selectors ?? [])].filter(isWide);
}

function keyOf(identity: Identity): string {
  const ids = wideSelectors(identity).map((selector) => selector.id);
  return `${identity.prefix.text} ${ids.sort((a, b) => a - b).join()}`;
}

/** Whether a set in force has rules about one of two classes and not about the other. */
function differ(a: PeerClass | undefined, b: PeerClass): boolean {
  const inUse = (one: PeerClass, other: PeerClass | undefined): boolean =>
    [...one.selectors].some((selector) => selector.users.size > 0 && other?.selectors.has(selector) !== true);
  return a === undefined || inUse(a, b) || inUse(b, a);
}
