/** The work list of one update: what has to be looked at again before it is finished. */

import type { Journal } from './journal.js';
import type {
  AddressNode,
  EndpointNode,
  Group,
  Identity,
  NamespaceNode,
  Peer,
  PeerClass,
  PeerSelector,
  PolicyPart,
  PolicySet,
  Prefix,
  Profile,
} from './nodes.js';
import { Recorder } from './recorder.js';

export class Update {
  readonly journal: Journal;
  readonly generation: number;
  readonly recorder: Recorder;
  /** Groups that are new or whose policies changed. */
  readonly groups = new Set<Group>();
  /** Endpoints whose numbers may have changed. */
  readonly endpoints = new Set<EndpointNode>();
  /** Identities and classes whose entries must be computed again, in those sets or in all. */
  readonly peers = new Map<Peer, Set<PolicySet> | 'all'>();
  /** Identities whose class may be another one. */
  readonly unclassified = new Set<Identity>();
  /** Sets made in this update. */
  readonly newSets = new Set<PolicySet>();
  /** CIDRs that are kept until the update is done, whoever else uses them. */
  readonly held: Prefix[] = [];
  /** What may have lost its last user. */
  readonly idle = {
    classes: new Set<PeerClass>(),
    groups: new Set<Group>(),
    identities: new Set<Identity>(),
    namespaces: new Set<NamespaceNode>(),
    parts: new Set<PolicyPart>(),
    profiles: new Set<Profile>(),
    selectors: new Set<PeerSelector>(),
    sets: new Set<PolicySet>(),
  };
  /** Group that an address belonged to before. */
  readonly #ownersBefore = new Map<AddressNode, Group | undefined>();

  constructor(journal: Journal, generation: number) {
    this.journal = journal;
    this.generation = generation;
    this.recorder = new Recorder(generation);
  }

  /** The peer is new: every set that has a rule about it needs an entry. */
  newPeer(peer: Peer): void {
    this.peers.set(peer, 'all');
  }

  /** The entry of a peer in a set may change. */
  pair(peer: Peer, set: PolicySet): void {
    const sets = this.peers.get(peer);
    if (sets === undefined) this.peers.set(peer, new Set([set]));
    else if (sets !== 'all') sets.add(set);
  }

  /** To be called before the owner of an address changes. */
  ownerChanges(address: AddressNode): void {
    if (!this.#ownersBefore.has(address)) this.#ownersBefore.set(address, ownerOf(address));
  }

  /**
   * Whether an address that was known now belongs to somebody else or to nobody, or one that was not turns
   * out to be that of a node or of a pod on another one, which may have been there for a while.
   */
  get ownersChanged(): boolean {
    for (const [address, before] of this.#ownersBefore) {
      if (before === ownerOf(address)) continue;
      if (before !== undefined || address.claims.at(-1)?.endpoint.peerOnly === true) return true;
    }
    return false;
  }
}

/** The group of the endpoint that has the address. */
function ownerOf(address: AddressNode): Group | undefined {
  return address.claims.at(-1)?.endpoint.group;
}
