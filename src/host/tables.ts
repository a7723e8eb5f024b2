import { HostOwnerKind, HostRuleFlag, Verdict } from '../../loader/abi/gen/types.gen.js';
import type { PortTableRow } from '../../policy/compile/ports.js';
import { SluiceError } from '../../policy/errors.js';
import { lengthOf, type PrefixKey, prefixBytes } from '../../policy/host/prefix.js';
import {
  type ClassChanges,
  type PeerChange,
  PrefixTable,
  type TableChange,
} from '../../policy/host/prefix-table.js';
import { type NumberedRule, resolveFor } from '../../policy/host/rules.js';
import type { HostLimit } from '../../policy/model/host-policy.js';
import { anchorOf, HostLines } from './lines.js';
import type { HostMaps } from './maps.js';
import type { HostStateMemory } from './state.js';

/** A device, cgroup, user or pair of them, and its number. */
export interface OwnerRow {
  readonly kind: keyof typeof HostOwnerKind;
  readonly id: bigint;
  readonly value: number;
}

/** Rules of one subject in one direction. */
export type RuleList = readonly NumberedRule[];

/** Everything that policies mean, but for the addresses behind their peers. */
export interface WantedTables {
  /** By number; a direction without a policy is absent. */
  readonly subjects: ReadonlyMap<number, { readonly ingress?: RuleList; readonly egress?: RuleList }>;
  readonly owners: readonly OwnerRow[];
}

interface LiveSet {
  readonly number: number;
  readonly rules: RuleList;
  /** By class; 0 is that of no prefix. What is like class 0 has no entry. */
  readonly entries: Map<number, Entry>;
}

interface LiveClass {
  /** In the kernel: small, because entries of lines have little room. */
  readonly number: number;
  /** How many prefixes have it. */
  prefixes: number;
}

interface Entry {
  readonly text: string;
  readonly verdict: number;
  readonly rule: number;
  readonly profile: number;
}

interface Profile {
  readonly number: number;
  readonly rows: readonly PortTableRow[];
  uses: number;
}

const NANOSECONDS = 1_000_000_000;
/** Bursts of a rule that names none: what comes in 20 ms, and at least a few. */
const BURSTS_A_SECOND = 50;
const MIN_BURST = 5;

/**
 * The host's policy in the kernel's maps. Changes keep every intermediate state consistent: what a prefix or a subject
 * will refer to is written first, then the reference, and only then what nobody refers to any more is removed.
 */
export class HostTables {
  readonly #maps: HostMaps;
  readonly #state: HostStateMemory;
  readonly #generation: number;
  readonly prefixes = new PrefixTable();
  readonly #lines: HostLines;
  /** Classes that prefixes have. */
  readonly #classes = new Map<number, LiveClass>();
  /** Numbers that are given out again, those that are free for the longest time first. */
  readonly #freeClasses: number[] = [];
  readonly #sets = new Map<string, LiveSet>();
  readonly #profiles = new Map<string, Profile>();
  readonly #peers = new Map<string, number>();
  readonly #names = new Map<number, string>();
  readonly #rules = new Set<number>();
  readonly #subjects = new Map<number, string>();
  readonly #owners = new Map<string, OwnerRow>();
  #nextSet: number;
  #nextProfile: number;
  #nextPeer = 1;
  #nextClass = 1;
  /** Until it is in force, an earlier agent's generation is. */
  #switched = false;

  constructor(maps: HostMaps, state: HostStateMemory) {
    this.#maps = maps;
    this.#state = state;
    this.#generation = (state.generation + 1) >>> 0;
    // An agent that ended before it switched may have left something of this generation.
    const own = [...maps.host_prefixes.entries()].filter(([key]) => key.generation === this.#generation);
    maps.host_prefixes.deleteBatch(own.map(([key]) => key));
    this.#lines = new HostLines(maps.host_lines, state, this.#generation);
    let [set, profile] = [0, 0];
    for (const [key, value] of maps.host_peers.entries()) {
      set = Math.max(set, key.set);
      profile = Math.max(profile, value.profile);
    }
    this.#nextSet = set + 1;
    this.#nextProfile = profile + 1;
  }

  /** The highest rule number in the maps, of an earlier agent. */
  static highestRule(maps: HostMaps): number {
    let highest = 0;
    for (const [, value] of maps.host_peers.entries()) highest = Math.max(highest, value.rule);
    for (const [, value] of maps.host_ports.entries()) highest = Math.max(highest, value.rule);
    for (const [rule] of maps.host_rules.entries()) highest = Math.max(highest, rule);
    return highest;
  }

  get sets(): number {
    return this.#sets.size;
  }

  /** Number of the peer with this key. */
  peer(key: string): number {
    let number = this.#peers.get(key);
    if (number === undefined) {
      number = this.#nextPeer++;
      this.#peers.set(key, number);
      this.#names.set(number, key);
    }
    return number;
  }

  /** Addresses that join and leave peers. Throws SLU7006 before anything is written. */
  change(changes: readonly PeerChange[]): void {
    const more = changes.reduce((sum, { added }) => sum + added.length, 0);
    // A starting agent needs room for a second copy.
    const wanted = (this.prefixes.size + more) * 2;
    const capacity = this.#maps.host_prefixes.maxEntries;
    if (wanted > capacity) throw SluiceError.of('SLU7006', { capacity: capacity / 2, wanted: wanted / 2 });
    this.#writePrefixes(this.prefixes.update(changes));
  }

  /** Puts rules, subjects and owners into force. What is not wanted any more goes with `sweep`. */
  apply(wanted: WantedTables): void {
    const slots = new Map<number, { ingress: number; egress: number }>();
    for (const [number, { ingress, egress }] of wanted.subjects) {
      slots.set(number, {
        ingress: ingress === undefined ? 0 : this.#set(ingress).number,
        egress: egress === undefined ? 0 : this.#set(egress).number,
      });
    }
    for (const [number, slot] of slots) {
      const text = JSON.stringify(slot);
      if (this.#subjects.get(number) === text) continue;
      this.#maps.host_subjects.set(this.#slot(number), slot);
      this.#subjects.set(number, text);
    }
    for (const row of wanted.owners) {
      const key = `${row.kind} ${row.id}`;
      if (this.#owners.get(key)?.value === row.value) continue;
      this.#maps.host_owners.set(this.#ownerKey(row), row.value);
      this.#owners.set(key, row);
    }
    if (!this.#switched) {
      this.#state.generation = this.#generation;
      this.#switched = true;
      this.#removeOthers();
    }
    this.#state.nextEpoch();
  }

  /** Removes what these tables do not need. `peers`: keys of those that rules have. */
  sweep(wanted: WantedTables, peers: ReadonlySet<string>): void {
    const owners = new Set(wanted.owners.map((row) => `${row.kind} ${row.id}`));
    for (const [key, row] of this.#owners) {
      if (owners.has(key)) continue;
      this.#maps.host_owners.delete(this.#ownerKey(row));
      this.#owners.delete(key);
    }
    for (const number of this.#subjects.keys()) {
      if (wanted.subjects.has(number)) continue;
      this.#maps.host_subjects.set(this.#slot(number), { ingress: 0, egress: 0 });
      this.#subjects.delete(number);
    }
    const lists = new Set<string>();
    for (const { ingress, egress } of wanted.subjects.values())
      for (const rules of [ingress, egress]) if (rules !== undefined) lists.add(setKey(rules));
    for (const [key, set] of this.#sets) {
      if (lists.has(key)) continue;
      for (const [peerClass, entry] of set.entries) this.#dropEntry(set, peerClass, entry);
      this.#sets.delete(key);
    }
    const rules = new Set<number>();
    for (const set of this.#sets.values()) for (const { number } of set.rules) rules.add(number);
    for (const number of this.#rules) {
      if (rules.has(number)) continue;
      this.#maps.host_rules.delete(number);
      this.#rules.delete(number);
    }
    const gone = [...this.#peers].filter(([key]) => !peers.has(key));
    if (gone.length === 0) return;
    const numbers = new Set(gone.map(([, number]) => number));
    const removed = new Map<number, PrefixKey[]>();
    for (const [prefix, peerClass] of this.prefixes.entries()) {
      for (const peer of this.prefixes.combinations.members(peerClass)) {
        if (!numbers.has(peer)) continue;
        const list = removed.get(peer);
        if (list === undefined) removed.set(peer, [prefix]);
        else list.push(prefix);
      }
    }
    this.#writePrefixes(
      this.prefixes.update([...removed].map(([peer, list]) => ({ peer, added: [], removed: list }))),
    );
    for (const [key, number] of gone) {
      this.#peers.delete(key);
      this.#names.delete(number);
    }
  }

  #slot(subject: number): number {
    return subject * 2 + (this.#generation & 1);
  }

  #ownerKey({ kind, id }: OwnerRow) {
    return { id, kind: HostOwnerKind[kind], generation: this.#generation };
  }

  #set(rules: RuleList): LiveSet {
    const key = setKey(rules);
    const known = this.#sets.get(key);
    if (known !== undefined) return known;
    for (const rule of rules) this.#writeRule(rule);
    const set: LiveSet = { number: this.#nextSet++, rules, entries: new Map() };
    this.#addEntry(set, 0);
    for (const peerClass of this.#classes.keys()) this.#addEntry(set, peerClass);
    this.#sets.set(key, set);
    return set;
  }

  #writeRule({ number, limit, log }: NumberedRule): void {
    if (this.#rules.has(number) || (limit === undefined && !log)) return;
    const { packetsPerSecond, connectionsPerSecond, perSource } = limit ?? { perSource: false };
    this.#maps.host_rules.set(number, {
      flags:
        (log ? HostRuleFlag.Log : 0) |
        (perSource ? HostRuleFlag.PerSource : 0) |
        (packetsPerSecond === undefined ? 0 : HostRuleFlag.Packets) |
        (connectionsPerSecond === undefined ? 0 : HostRuleFlag.Connections),
      packets: rateLimit(packetsPerSecond, limit),
      connections: rateLimit(connectionsPerSecond, limit),
    });
    this.#rules.add(number);
  }

  /** What a set says of a class, unless that is what it says of everybody. */
  #addEntry(set: LiveSet, peerClass: number): void {
    const names = this.prefixes.combinations.members(peerClass).map((peer) => this.#names.get(peer) ?? '');
    const { decision, rows } = resolveFor(set.rules, new Set(names));
    const rowsText = JSON.stringify(rows);
    const text = `${decision.verdict} ${decision.rule} ${rowsText}`;
    if (set.entries.has(peerClass)) return;
    if (peerClass !== 0 && set.entries.get(0)?.text === text) return;
    const profile = rows.length === 0 ? 0 : this.#profile(rowsText, rows);
    const verdict = rows.length === 0 ? decision.verdict : Verdict.Ports;
    this.#maps.host_peers.set(
      { set: set.number, identity: this.#classNumber(peerClass) },
      { profile, rule: decision.rule, verdict },
    );
    set.entries.set(peerClass, { text, verdict, rule: decision.rule, profile });
  }

  #dropEntry(set: LiveSet, peerClass: number, entry: Entry): void {
    this.#maps.host_peers.delete({ set: set.number, identity: this.#classNumber(peerClass) });
    set.entries.delete(peerClass);
    if (entry.profile === 0) return;
    for (const [key, profile] of this.#profiles) {
      if (profile.number !== entry.profile || --profile.uses > 0) continue;
      for (const row of profile.rows) this.#maps.host_ports.delete(portKey(profile.number, row));
      this.#profiles.delete(key);
    }
  }

  /** 0: of no prefix. */
  #classNumber(peerClass: number): number {
    return this.#classes.get(peerClass)?.number ?? 0;
  }

  #profile(key: string, rows: readonly PortTableRow[]): number {
    let profile = this.#profiles.get(key);
    if (profile === undefined) {
      profile = { number: this.#nextProfile++, rows, uses: 0 };
      for (const row of rows)
        this.#maps.host_ports.set(portKey(profile.number, row), { rule: row.rule, verdict: row.verdict });
      this.#profiles.set(key, profile);
    }
    profile.uses++;
    return profile.number;
  }

  #writePrefixes({ v4, v6 }: TableChange): void {
    if (v4.keys.length + v6.keys.length === 0) return;
    for (const { now } of [v4, v6]) this.#addClasses(now);
    const rest = [...this.#writeToLines(v4), ...v6.keys.map((key, i) => [key, v6.now[i] ?? 0] as const)];
    const lengths: Record<4 | 6, Set<number>> = { 4: new Set(), 6: new Set() };
    const set = rest.filter(([, now]) => now !== 0);
    const gone = rest.filter(([, now]) => now === 0);
    for (const [key] of set) lengths[typeof key === 'number' ? 4 : 6].add(lengthOf(key));
    for (const family of [4, 6] as const) this.#state.addLengths(family, lengths[family]);
    const { host_prefixes } = this.#maps;
    if (set.length > 0)
      host_prefixes.setBatch(set.map(([key, now]) => [this.#prefixKey(key), this.#classNumber(now)]));
    for (const [key] of set) if (typeof key === 'number') this.#lines.delete(key);
    if (gone.length > 0) host_prefixes.deleteBatch(gone.map(([key]) => this.#prefixKey(key)));
    for (const changes of [v4, v6]) this.#dropClasses(changes);
    if (!this.#switched) return;
    if (v4.now.includes(0) || v6.now.includes(0)) this.#keepLengths();
    this.#state.nextEpoch();
  }

  /** Every set has an entry for a class before the first prefix has it. */
  #addClasses(now: readonly number[]): void {
    let last = 0;
    let count = 0;
    const add = (): void => {
      const known = this.#classes.get(last);
      if (known !== undefined) known.prefixes += count;
    };
    for (const peerClass of now) {
      if (peerClass === last) {
        count++;
        continue;
      }
      add();
      [last, count] = [peerClass, 1];
      if (peerClass === 0 || this.#classes.has(peerClass)) continue;
      const number = this.#freeClasses.shift() ?? this.#nextClass++;
      this.#classes.set(peerClass, { number, prefixes: 0 });
      for (const live of this.#sets.values()) this.#addEntry(live, peerClass);
    }
    add();
  }

  /** Classes that prefixes had before, and perhaps none has now. */
  #dropClasses({ before }: ClassChanges<PrefixKey>): void {
    for (const peerClass of before) {
      const known = this.#classes.get(peerClass);
      if (known === undefined || --known.prefixes > 0) continue;
      for (const live of this.#sets.values()) {
        const entry = live.entries.get(peerClass);
        if (entry !== undefined) this.#dropEntry(live, peerClass, entry);
      }
      this.#classes.delete(peerClass);
      this.#freeClasses.push(known.number);
    }
  }

  /** Returns what has no room in its line, which `host_prefixes` has to have. */
  #writeToLines({ keys, now }: ClassChanges<number>): (readonly [number, number])[] {
    let anchors = 0;
    for (const key of keys) anchors |= 1 << anchorOf(lengthOf(key));
    this.#state.addAnchors(anchors);
    this.#lines.reserve(this.prefixes.size);
    const { spilled } = this.#lines;
    const rest: [number, number][] = [];
    let last = 0;
    let number = 0;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] ?? 0;
      const peerClass = now[i] ?? 0;
      if (peerClass !== last) {
        last = peerClass;
        number = this.#classNumber(peerClass);
      }
      if (peerClass !== 0) {
        if (!this.#lines.set(key, number)) rest.push([key, peerClass]);
      } else if (spilled.has(key)) {
        rest.push([key, 0]);
        this.#lines.forget(key);
      } else {
        this.#lines.delete(key);
      }
    }
    return rest;
  }

  #prefixKey(key: PrefixKey) {
    return { addr: prefixBytes(key), length: lengthOf(key), generation: this.#generation };
  }

  /** Anchors and prefix lengths that are not in use any more cost no look-ups. */
  #keepLengths(): void {
    let anchors = 0;
    for (const length of this.prefixes.lengths(4)) anchors |= 1 << anchorOf(length);
    this.#state.keepAnchors(anchors);
    this.#state.keepLengths(4, new Set([...this.#lines.spilled].map(lengthOf)));
    this.#state.keepLengths(6, new Set(this.prefixes.lengths(6)));
  }

  /** Removes everything that an earlier agent left. */
  #removeOthers(): void {
    const { host_prefixes, host_owners, host_peers, host_ports, host_rules, host_subjects } = this.#maps;
    const old = <K extends { readonly generation: number }>(entries: Iterable<readonly [K, unknown]>): K[] =>
      [...entries].filter(([key]) => key.generation !== this.#generation).map(([key]) => key);
    host_owners.deleteBatch(old(host_owners.entries()));
    const slots = new Set([...this.#subjects.keys()].map((number) => this.#slot(number)));
    for (const [slot, value] of [...host_subjects.entries()])
      if (!slots.has(slot) && (value.ingress !== 0 || value.egress !== 0))
        host_subjects.set(slot, { ingress: 0, egress: 0 });
    const sets = new Set([...this.#sets.values()].map((set) => set.number));
    host_peers.deleteBatch([...host_peers.entries()].map(([key]) => key).filter((key) => !sets.has(key.set)));
    const profiles = new Set([...this.#profiles.values()].map((profile) => profile.number));
    for (const [key] of [...host_ports.entries()]) if (!profiles.has(key.profile)) host_ports.delete(key);
    host_rules.deleteBatch(
      [...host_rules.entries()].map(([rule]) => rule).filter((rule) => !this.#rules.has(rule)),
    );
    host_prefixes.deleteBatch(old(host_prefixes.entries()));
    this.#keepLengths();
  }
}

/** Size of the array of subjects, for who gives out numbers. */
export const MAX_SUBJECTS = 2047;

function setKey(rules: RuleList): string {
  return rules.map(({ number }) => number).join();
}

function portKey(profile: number, { prefixLength, protocol, port }: PortTableRow) {
  return { prefixlen: prefixLength, profile, proto: protocol, port };
}

function rateLimit(perSecond: number | undefined, limit: HostLimit | undefined) {
  if (perSecond === undefined) return { cost: 0n, tolerance: 0n, next: 0n };
  const cost = NANOSECONDS / perSecond;
  const burst = limit?.burst ?? Math.max(MIN_BURST, Math.floor(perSecond / BURSTS_A_SECOND));
  return {
    cost: BigInt(Math.max(1, Math.round(cost))),
    tolerance: BigInt(Math.round(cost * (burst - 1))),
    next: 0n,
  };
}
