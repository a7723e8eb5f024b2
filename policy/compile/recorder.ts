/** Collects what an update does to the maps and reduces it to the least that has to be written. */
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
  readonly set: PolicySet;
  /** Undefined: the entry for any peer. */
  readonly identity: Identity | undefined;
  /** The last value that it had. */
  last: PeerEntry | undefined;
}

export function peerValue(entry: PeerEntry): PeerValue {
  return { profile: entry.profile?.number ?? 0, rule: entry.rule, verdict: entry.verdict };
}

export function sameEntry(a: PeerEntry | undefined, b: PeerEntry | undefined): boolean {
  return a === b || (a?.verdict === b?.verdict && a?.rule === b?.rule && a?.rowsKey === b?.rowsKey);
}

export class Recorder {
  readonly #addresses = new Map<string, Change<number>>();
  readonly #cidrs = new Map<string, Change<number>>();
  readonly #peers = new Map<string, PeerChange>();
  readonly #profiles = new Map<Profile, Change<true>>();
  /** Set by whoever knows that flows may be judged differently. */
  mustReevaluate = false;

  address(text: string, before: number | undefined, now: number | undefined): void {
    note(this.#addresses, text, before, now);
  }

  cidr(text: string, before: number | undefined, now: number | undefined): void {
    note(this.#cidrs, text, before, now);
  }

  peer(
    set: PolicySet,
    identity: Identity | undefined,
    before: PeerEntry | undefined,
    now: PeerEntry | undefined,
  ): void {
    const key = `${set.number} ${identity?.number ?? IDENTITY.Any}`;
    const change = this.#peers.get(key);
    if (change === undefined) {
      this.#peers.set(key, { set, identity, before, now, last: now });
    } else {
      change.now = now;
      change.last = now ?? change.last;
    }
  }

  profile(profile: Profile, exists: boolean): void {
    const change = this.#profiles.get(profile);
    if (change === undefined)
      this.#profiles.set(profile, { before: exists ? undefined : true, now: exists ? true : undefined });
    else change.now = exists ? true : undefined;
  }

  /** The delta; to be called when nothing changes any more. */
  finish(endpoints: readonly EndpointNumbers[], generation: number): CompileDelta {
    const passing = new Set<Profile>();
    const peers = this.#finishPeers(generation, passing);
    const ports: { set: PortRow[]; delete: PortKey[] } = { set: [], delete: [] };
    for (const [profile, { before, now }] of this.#profiles) {
      const visits = before === undefined && now === undefined && passing.has(profile);
      if (visits || (before === undefined && now === true)) ports.set.push(...profile.rows);
      if (visits || (before === true && now === undefined))
        ports.delete.push(...profile.rows.map(([key]) => key));
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

  #finishPeers(generation: number, passing: Set<Profile>): CompileDelta['peers'] {
    const set: PeerRow[] = [];
    const gone: (readonly [number, number])[] = [];
    const transient: PeerRow[] = [];
    for (const { set: owner, identity, before, now, last } of this.#peers.values()) {
      const number = identity?.number ?? IDENTITY.Any;
      const lives = !owner.retired && identity?.dead !== true;
      const old =
        owner.generation < generation && (identity === undefined || identity.generation < generation);
      if (now !== undefined) {
        if (before !== undefined && sameEntry(before, now)) continue;
        set.push([owner.number, number, peerValue(now)]);
        if (old) this.mustReevaluate = true;
      } else if (before !== undefined) {
        // A set in force must not lose an entry before the epoch changes, and not keep its verdict after.
        if (lives) {
          transient.push([owner.number, number, peerValue(owner.anyEntry)]);
          if (!sameEntry(before, owner.anyEntry)) this.mustReevaluate = true;
        } else {
          gone.push([owner.number, number]);
        }
      } else if (
        last !== undefined &&
        owner.retired &&
        owner.generation < generation &&
        identity?.dead !== true
      ) {
        // The old set stays in force for a moment and meets the new identity.
        transient.push([owner.number, number, peerValue(last)]);
        if (last.profile !== undefined) passing.add(last.profile);
      }
    }
    return { set, delete: gone, transient };
  }
}

function note<V>(
  changes: Map<string, Change<V>>,
  key: string,
  before: V | undefined,
  now: V | undefined,
): void {
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
