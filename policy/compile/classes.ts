/**
 * Classes of identities. Besides the entry for any peer a set may have one for every endpoint and one
 * for every address inside some CIDR; an identity has an entry of its own only where it differs. The
 * kernel reads the class from the number: from IDENTITY.First on, even ones are endpoints, odd ones are
 * not (see identity_class in bpf/lib/policy.h).
 */
import type { Identity, PeerEntry, PeerSelector, PolicySet } from './nodes.js';

/** Whether it stands for endpoints; others are addresses of nobody, or of nodes. */
export function isEndpoint({ group }: Pick<Identity, 'group'>): boolean {
  return group !== undefined && group.namespace.name !== '';
}

/** What holds for an identity without an entry of its own. */
export function fallbackOf(set: PolicySet, identity: Pick<Identity, 'group'>): PeerEntry {
  return (isEndpoint(identity) ? set.endpointEntry : set.networkEntry) ?? set.anyEntry;
}

/** Whether a peer selects every endpoint there is. */
export function selectsAll({ scope, pods }: PeerSelector): boolean {
  return scope.selector?.requirements.length === 0 && pods.requirements.length === 0;
}
