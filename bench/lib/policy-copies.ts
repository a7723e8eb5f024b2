/** What the compiled policy would take if every endpoint had a table of its own. */
import type { CompiledState, PeerValue } from '../../policy/compile/compiler.js';
import { IDENTITY, VERDICT } from '../../policy/compile/types.js';

/** Class that the kernel falls back to for an identity without an entry (identity_class of bpf/lib/policy.h). */
function classOf(identity: number): number {
  return identity % 2 === 0 ? IDENTITY.AnyEndpoint : IDENTITY.AnyNetwork;
}

/**
 * Entries of all the tables {remote identity, direction, protocol, port} -> verdict, one table for each endpoint: our
 * rows with the lists of ports written out for each peer, and with an entry for each identity of a class.
 */
export function copiedEntries({ addresses, cidrs, peers, ports, endpoints }: CompiledState): number {
  const rows = new Map<number, number>();
  for (const [{ profile }] of ports) rows.set(profile, (rows.get(profile) ?? 0) + 1);
  const rowsOf = (value: PeerValue): number =>
    value.verdict === VERDICT.Ports ? (rows.get(value.profile) ?? 0) : 1;

  const members = new Map<number, number>();
  for (const identity of new Set([...addresses, ...cidrs].map(([, number]) => number))) {
    if (identity < IDENTITY.First) continue;
    members.set(classOf(identity), (members.get(classOf(identity)) ?? 0) + 1);
  }

  const sets = new Map<number, [identity: number, value: PeerValue][]>();
  for (const [set, identity, value] of peers) {
    const entries = sets.get(set);
    if (entries === undefined) sets.set(set, [[identity, value]]);
    else entries.push([identity, value]);
  }
  const written = new Map<number, number>();
  for (const [set, entries] of sets) {
    const rest = new Map(members);
    for (const [identity] of entries) {
      const peerClass = classOf(identity);
      if (identity >= IDENTITY.First) rest.set(peerClass, (rest.get(peerClass) ?? 0) - 1);
    }
    const count = (identity: number): number => rest.get(identity) ?? 1;
    written.set(
      set,
      entries.reduce((sum, [identity, value]) => sum + rowsOf(value) * count(identity), 0),
    );
  }
  let total = 0;
  for (const { setEgress, setIngress } of endpoints)
    total += (written.get(setEgress) ?? 0) + (written.get(setIngress) ?? 0);
  return total;
}
