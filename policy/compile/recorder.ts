/** Collects what an update does to the maps and reduces it to the least that has to be written. */
import { fallbackOf, type KindPeer, kindEntries } from './kinds.js';
import type { Peer, PeerEntry, PolicySet, Profile } from './nodes.js';
import type { CompileDelta, EndpointNumbers, PeerRow, PeerValue, PortKey, PortRow } from './types.js';

interface Change<V> {
  readonly before: V | undefined;
  now: V | undefined;
}

interface PeerChange extends Change<PeerEntry> {
  /** The last value that it had. */
  last: PeerEntry | undefined;
}

interface PeerRows {
  readonly set: PeerRow[];
  readonly delete: (readonly [number, number])[];
  readonly transient: PeerRow[];
}

export function peerValue(entry: PeerEntry): PeerValue {
  return { profile: entry.profile?.number ?? 0, rule: entry.rule, verdict: entry.verdict };
}

export function sameEntry(a: PeerEntry | undefined, b: PeerEntry | undefined): boolean {
  return a === b || (a?.verdict === b?.verdict && a?.rule === b?.rule && a?.rowsKey === b?.rowsKey);
}

export class Recorder {
  /** Set by whoever knows that flows may be judged differently. */
  mustReevaluate = false;
  readonly #generation: number;
  readonly #addresses = new Map<string, Change<number>>();
  readonly #cidrs = new Map<string, Change<number>>();
  readonly #classes = new Map<number, Change<number>>();
  readonly #peers = new Map<PolicySet, Map<Peer | KindPeer, PeerChange>>();
  readonly #profiles = new Map<Profile, Change<true>>();

  /** `generation`: of this update, to tell what is new in it. */
  constructor(generation: number) {
    this.#generation = generation;
  }

  address(text: string, before: number | undefined, now: number | undefined): void {
    note(this.#addresses, text, before, now);
  }

  cidr(text: string, before: number | undefined, now: number | undefined): void {
    note(this.#cidrs, text, before, now);
  }

  /** The class of an identity. */
  peerClass(identity: number, before: number | undefined, now: number | undefined): void {
    note(this.#classes, identity, before, now);
  }

  profile(profile: Profile, exists: boolean): void {
    note(this.#profiles, profile, exists ? undefined : true, exists ? true : undefined);
  }

  /** For sets that are not new. */
  peer(
    set: PolicySet,
    peer: Peer | KindPeer,
    before: PeerEntry | undefined,
    now: PeerEntry | undefined,
  ): void {
    let changes = this.#peers.get(set);
    if (changes === undefined) {
      changes = new Map();
      this.#peers.set(set, changes);
    }
    const change = changes.get(peer);
    if (change === undefined) {
      changes.set(peer, { before, now, last: now });
    } else {
      change.now = now;
      change.last = now ?? change.last;
    }
  }

  /** The delta; to be called when nothing changes any more. */
  finish(endpoints: readonly EndpointNumbers[], newSets: Iterable<PolicySet>): CompileDelta {
    const peers: PeerRows = { set: [], delete: [], transient: [] };
    for (const set of newSets) {
      if (set.retired) continue;
      for (const [peer, entry] of [...kindEntries(set), ...set.entries])
        peers.set.push([set.number, peer.number, peerValue(entry)]);
    }
    const passing = new Set<Profile>();
    for (const [set, changes] of this.#peers) {
      for (const [peer, change] of changes) this.#finishPeer(set, peer, change, peers, passing);
    }
    const ports: { set: PortRow[]; delete: PortKey[] } = { set: [], delete: [] };
    for (const [profile, { before, now }] of this.#profiles) {
      const visits = before === undefined && now === undefined && passing.has(profile);
      if (visits || (before === undefined && now === true)) ports.set.push(...profile.rows);
      if (visits || (before === true && now === undefined)) {
        ports.delete.push(...profile.rows.map(([key]) => key));
      }
    }
    return {
      addresses: reduce(this.#addresses),
      cidrs: reduce(this.#cidrs),
      classes: reduce(this.#classes),
      peers,
      ports,
      endpoints,
      mustReevaluate: this.mustReevaluate,
    };
  }

  /** One entry of a set that was there before this update. */
  #finishPeer(
    set: PolicySet,
    peer: Peer | KindPeer,
    { before, now, last }: PeerChange,
    rows: PeerRows,
    passing: Set<Profile>,
  ): void {
    const { number } = peer;
    const lives = !set.retired && !peer.dead;
    if (now !== undefined) {
      if (before !== undefined && sameEntry(before, now)) return;
      rows.set.push([set.number, number, peerValue(now)]);
      if (peer.generation < this.#generation) this.mustReevaluate = true;
    } else if (before !== undefined && lives) {
      // A set in force must not lose an entry before the epoch changes, and not keep its verdict after.
      const after = (peer.class && set.entries.get(peer.class)) ?? fallbackOf(set, peer);
      if (sameEntry(before, after)) {
        rows.delete.push([set.number, number]);
        return;
      }
      rows.transient.push([set.number, number, peerValue(after)]);
      this.mustReevaluate = true;
    } else if (before !== undefined) {
      rows.delete.push([set.number, number]);
    } else if (last !== undefined && set.retired && !peer.dead) {
      // The old set stays in force for a moment and meets the new peer.
      rows.transient.push([set.number, number, peerValue(last)]);
      if (last.profile !== undefined) passing.add(last.profile);
    }
  }
}

function note<K, V>(changes: Map<K, Change<V>>, key: K, before: V | undefined, now: V | undefined): void {
  const change = changes.get(key);
  if (change === undefined) changes.set(key, { before, now });
  else change.now = now;
}

function reduce<K>(changes: ReadonlyMap<K, Change<number>>): {
  readonly set: (readonly [K, number])[];
  readonly delete: K[];
} {
  const set: (readonly [K, number])[] = [];
  const gone: K[] = [];
  for (const [key, { before, now }] of changes) {
    if (before === now) continue;
    if (now === undefined) gone.push(key);
    else set.push([key, now]);
  }
  return { set, delete: gone };
}
