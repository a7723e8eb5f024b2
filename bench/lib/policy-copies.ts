/** What the compiled policy would take if every endpoint had a table of its own. */
import type { CompiledState } from '../../policy/compile/compiler.js';
import { VERDICT } from '../../policy/compile/types.js';

/**
 * Entries of all the tables {remote identity, direction, protocol, port} -> verdict, one table for each endpoint: the
 * same rows as ours, the lists of ports written out for each peer.
 */
export function copiedEntries({ peers, ports, endpoints }: CompiledState): number {
  const rows = new Map<number, number>();
  for (const [{ profile }] of ports) rows.set(profile, (rows.get(profile) ?? 0) + 1);
  const entries = new Map<number, number>();
  for (const [set, , value] of peers) {
    const count = value.verdict === VERDICT.Ports ? (rows.get(value.profile) ?? 0) : 1;
    entries.set(set, (entries.get(set) ?? 0) + count);
  }
  let total = 0;
  for (const { setEgress, setIngress } of endpoints)
    total += (entries.get(setEgress) ?? 0) + (entries.get(setIngress) ?? 0);
  return total;
}
