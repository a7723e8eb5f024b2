/** What the compiled policy would take if every endpoint had a table of its own. */
import type { CompiledState, PeerValue } from '../../policy/compile/compiler.js';
import { IDENTITY, VERDICT } from '../../policy/compile/types.js';

type Entries = ReadonlyMap<number, PeerValue>;

/**
 * Entries of all the tables {remote identity, direction, protocol, port} -> verdict, one table for each endpoint: our
 * rows with the lists of ports written out for each peer, and with an entry for each identity of a class or kind.
 */
export function copiedEntries(state: CompiledState): number {
  const { addresses, cidrs, classes, peers, ports, endpoints } = state;
  const rows = new Map<number, number>();
  for (const [{ profile }] of ports) rows.set(profile, (rows.get(profile) ?? 0) + 1);
  const rowsOf = (value: PeerValue): number =>
    value.verdict === VERDICT.Ports ? (rows.get(value.profile) ?? 0) : 1;

  // What the kernel tries after the identity itself, but for the entry for any peer (bpf/lib/policy.h).
  const classOf = new Map(classes);
  const kindOf = (identity: number): number =>
    identity % 2 === 0 ? IDENTITY.AnyEndpoint : IDENTITY.AnyNetwork;
  const groupOf = (identity: number): number => classOf.get(identity) ?? kindOf(identity);
  const kindOfGroup = new Map<number, number>();
  const members = new Map<number, number>();
  for (const identity of new Set([...addresses, ...cidrs].map(([, number]) => number))) {
    if (identity < IDENTITY.First) continue;
    const group = groupOf(identity);
    kindOfGroup.set(group, kindOf(identity));
    members.set(group, (members.get(group) ?? 0) + 1);
  }

  const countTable = (entries: Entries): number => {
    let count = 1; // for any other peer
    const rest = new Map(members);
    for (const [identity, value] of entries) {
      const group = groupOf(identity);
      const left = rest.get(group);
      if (identity < IDENTITY.First || left === undefined || members.has(identity)) continue;
      rest.set(group, left - 1);
      count += rowsOf(value);
    }
    for (const [group, left] of rest) {
      const value = entries.get(group) ?? entries.get(kindOfGroup.get(group) ?? IDENTITY.Any);
      if (value !== undefined) count += left * rowsOf(value);
    }
    return count;
  };
  const sets = new Map<number, Map<number, PeerValue>>();
  for (const [set, identity, value] of peers) {
    const entries = sets.get(set) ?? new Map<number, PeerValue>();
    sets.set(set, entries.set(identity, value));
  }
  const counted = new Map([...sets].map(([set, entries]) => [set, countTable(entries)]));
  let total = 0;
  for (const { setEgress, setIngress } of endpoints)
    total += (counted.get(setEgress) ?? 0) + (counted.get(setIngress) ?? 0);
  return total;
}
