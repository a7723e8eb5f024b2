/** Collects what an update does to the maps and reduces it to the least that has to be written. */
import { fallbackOf } from './classes.js';
import type { Identity, PeerEntry, PolicySet, Profile } from './nodes.js';
import {
  type CompileDelta,
  type EndpointNumbers,
  IDENTITY,
  type IdentityRow,
  type PeerRow,
  type PeerValue,
  type PortKey,
  type PortRow,
} from './types.js';

interface Change<V> {
  readonly before: V | undefined;
  now: V | undefined;
}

interface PeerChange extends Change<PeerEntry> {
  /** The last value that it had. */
  last: PeerEntry | undefined;
}

/** Stands for the identities of a class, or for any. */
export interface ClassPeer {
  readonly number: number;
  readonly group: undefined;
  readonly dead: false;
  readonly generation: 0;
}

const classPeer = (number: number): ClassPeer => ({ number, group: undefined, dead: false, generation: 0 });
const ANY = classPeer(IDENTITY.Any);
const ANY_ENDPOINT = classPeer(IDENTITY.AnyEndpoint);
const ANY_NETWORK = classPeer(IDENTITY.AnyNetwork);

/** The entries of a set that hold for more than one identity. */
export function classEntries(set: PolicySet): (readonly [ClassPeer, PeerEntry])[] {
  const { anyEntry, endpointEntry, networkEntry } = set;
  return [
    [ANY, anyEntry],
    ...(endpointEntry === undefined ? [] : [[ANY_ENDPOINT, endpointEntry] as const]),
    ...(networkEntry === undefined ? [] : [[ANY_NETWORK, networkEntry] as const]),
  ];
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
  readonly #peers = new Map<PolicySet, Map<Identity | ClassPeer, PeerChange>>();
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

  profile(profile: Profile, exists: boolean): void {
    note(this.#profiles, profile, exists ? undefined : true, exists ? true : undefined);
  }

  /** For sets that are not new. */
  peer(
    set: PolicySet,
    identity: Identity | ClassPeer,
    before: PeerEntry | undefined,
    now: PeerEntry | undefined,
  ): void {
    let changes = this.#peers.get(set);
    if (changes === undefined) {
      changes = new Map();
      this.#peers.set(set, changes);
    }
    const change = changes.get(identity);
    if (change === undefined) {
      changes.set(identity, { before, now, last: now });
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
      for (const [peer, entry] of classEntries(set))
        peers.set.push([set.number, peer.number, peerValue(entry)]);
      for (const [identity, entry] of set.entries) {
        peers.set.push([set.number, identity.number, peerValue(entry)]);
      }
    }
    const passing = new Set<Profile>();
    for (const [set, changes] of this.#peers) {
      for (const [identity, change] of changes) this.#finishPeer(set, identity, change, peers, passing);
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
      peers,
      ports,
      endpoints,
      mustReevaluate: this.mustReevaluate,
    };
  }

  /** One entry of a set that was there before this update. */
  #finishPeer(
    set: PolicySet,
    identity: Identity | ClassPeer,
    { before, now, last }: PeerChange,
    rows: PeerRows,
    passing: Set<Profile>,
  ): void {
    const { number, generation } = identity;
    const lives = !set.retired && !identity.dead;
    if (now !== undefined) {
      if (before !== undefined && sameEntry(before, now)) return;
      rows.set.push([set.number, number, peerValue(now)]);
      if (generation < this.#generation) this.mustReevaluate = true;
    } else if (before !== undefined && lives) {
      // A set in force must not lose an entry before the epoch changes, and not keep its verdict after.
      const fallback = fallbackOf(set, identity);
      rows.transient.push([set.number, number, peerValue(fallback)]);
      if (!sameEntry(before, fallback)) this.mustReevaluate = true;
    } else if (before !== undefined) {
      rows.delete.push([set.number, number]);
    } else if (last !== undefined && set.retired && !identity.dead) {
      // The old set stays in force for a moment and meets the new identity.
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

function reduce(changes: ReadonlyMap<string, Change<number>>): {
  readonly set: IdentityRow[];
  readonly delete: string[];
} {
  const set: IdentityRow[] = [];
  const gone: string[] = [];
  for (const [text, { before, now }] of changes) {
    if (before === now) continue;
    if (now === undefined) gone.push(text);
    else set.push([text, now]);
  }
  return { set, delete: gone };
}
