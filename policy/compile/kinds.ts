/**
 * The two kinds of identities: endpoints, and addresses inside some CIDR that are nobody's or a node's. A
 * set may have an entry for all of a kind. The kernel reads the kind from the number: from
 * IDENTITY.First on, even ones are endpoints, odd ones networks (see bpf/lib/policy.h).
 */
import type { Identity, Peer, PeerEntry, PeerSelector, PolicySet } from './nodes.js';
import { IDENTITY } from './types.js';

/** Stands for all identities of a kind, or for any. */
export interface KindPeer {
  readonly number: number;
  readonly class: undefined;
  readonly dead: false;
  readonly generation: 0;
}

const kindPeer = (number: number): KindPeer => ({ number, class: undefined, dead: false, generation: 0 });
const ANY = kindPeer(IDENTITY.Any);
const ANY_ENDPOINT = kindPeer(IDENTITY.AnyEndpoint);
const ANY_NETWORK = kindPeer(IDENTITY.AnyNetwork);

/** Whether an identity stands for endpoints. */
export function isEndpoint({ group }: Pick<Identity, 'group'>): boolean {
  return group !== undefined && group.namespace.name !== '';
}

/** What holds for a peer where neither it nor its class has an entry. */
export function fallbackOf(set: PolicySet, peer: Peer | KindPeer): PeerEntry {
  const { anyEntry, endpointEntry, networkEntry } = set;
  if ('identities' in peer) return endpointEntry ?? anyEntry; // a class of endpoints
  if (!('group' in peer)) return anyEntry;
  return (isEndpoint(peer) ? endpointEntry : networkEntry) ?? anyEntry;
}

/** The entries of a set for kinds and for any peer. */
export function kindEntries(set: PolicySet): (readonly [KindPeer, PeerEntry])[] {
  const { anyEntry, endpointEntry, networkEntry } = set;
  return [
    [ANY, anyEntry],
    ...(endpointEntry === undefined ? [] : [[ANY_ENDPOINT, endpointEntry] as const]),
    ...(networkEntry === undefined ? [] : [[ANY_NETWORK, networkEntry] as const]),
  ];
}

/** Whether a peer selects every endpoint there is. */
export function selectsAll({ scope, pods }: PeerSelector): boolean {
  return scope.selector?.requirements.length === 0 && pods.requirements.length === 0;
}
