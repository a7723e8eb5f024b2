import {
  type PolicyPeer,
  type PolicyPeerKey,
  type PolicyPort,
  type PolicyPortKey,
  ReservedIdentity,
} from '../../loader/abi/gen/types.gen.js';
import type { CompileDelta, PeerRow, PortKey, PortRow } from '../../policy/compile/types.js';
import { SluiceError } from '../../policy/errors.js';
import type { KernelMaps } from './kernel-maps.js';
import { SIZE_SETTINGS } from './kernel-maps.js';
import type { Rollback } from './rollback.js';

/** Highest numbers that are in the kernel; a new compiler starts above them. */
export interface NumbersInUse {
  readonly identity: number;
  readonly peerClass: number;
  readonly set: number;
  readonly profile: number;
  readonly rule: number;
}

/**
 * `policy_peers` and `policy_ports`. Additions are written before anything refers to them and removals
 * after nothing does; `check` says beforehand whether the additions fit.
 */
export class PolicyMaps {
  readonly #peers: KernelMaps['policy_peers'];
  readonly #ports: KernelMaps['policy_ports'];
  readonly #peerKeys = new Map<number, Set<number>>(); // set -> identities
  readonly #portKeys = new Set<string>();
  /** Keys that an earlier agent left. */
  readonly #stalePeers = new Map<number, Set<number>>();
  #stalePorts: PolicyPortKey[] = [];
  #peerCount = 0;
  #staleCount = 0;

  constructor(maps: Pick<KernelMaps, 'policy_peers' | 'policy_ports'>) {
    this.#peers = maps.policy_peers;
    this.#ports = maps.policy_ports;
  }

  /** Reads what an earlier agent left; it stays in force until `sweep`. */
  load(): NumbersInUse {
    const top = { identity: 0, peerClass: 0, set: 0, profile: 0, rule: 0 };
    for (const [key, value] of this.#peers.entries()) {
      this.#addStale(key);
      top.set = Math.max(top.set, key.set);
      if (key.identity >= ReservedIdentity.Class) top.peerClass = Math.max(top.peerClass, key.identity);
      else top.identity = Math.max(top.identity, key.identity);
      top.profile = Math.max(top.profile, value.profile);
      top.rule = Math.max(top.rule, value.rule);
    }
    for (const [key, value] of this.#ports.entries()) {
      this.#stalePorts.push(key);
      top.profile = Math.max(top.profile, key.profile);
      top.rule = Math.max(top.rule, value.rule);
    }
    return top;
  }

  get peerEntries(): number {
    return this.#peerCount + this.#staleCount;
  }

  get portEntries(): number {
    return this.#portKeys.size + this.#stalePorts.length;
  }

  /** Whether something of an earlier agent is still there. */
  get hasLeftOver(): boolean {
    return this.#staleCount > 0;
  }

  /** Number of policy sets that are in the kernel. */
  get sets(): number {
    return this.#peerKeys.size;
  }

  /** Throws SLU3301 if the additions do not fit beside what is there now. */
  check(delta: CompileDelta): void {
    const newPeers = [...delta.peers.set, ...delta.peers.transient].filter(
      ([set, identity]) => !this.#peerKeys.get(set)?.has(identity),
    ).length;
    const newPorts = delta.ports.set.filter(([key]) => !this.#portKeys.has(portText(key))).length;
    fits('policy_peers', this.peerEntries + newPeers, this.#peers.maxEntries);
    fits('policy_ports', this.portEntries + newPorts, this.#ports.maxEntries);
  }

  /** Writes what is new; ports first, because peers refer to them. Taking it back restores what was there. */
  add(delta: CompileDelta, undo: Rollback): void {
    this.#addPorts(delta.ports.set, undo);
    this.#addPeers([...delta.peers.set, ...delta.peers.transient], undo);
  }

  #addPorts(rows: readonly PortRow[], undo: Rollback): void {
    if (rows.length === 0) return;
    const entries = rows.map(([key, value]): [PolicyPortKey, PolicyPort] => [kernelKey(key), value]);
    const fresh = rows.filter(([key]) => !this.#portKeys.has(portText(key))).map(([key]) => key);
    const before = rows
      .filter(([key]) => this.#portKeys.has(portText(key)))
      .flatMap(([key]): [PolicyPortKey, PolicyPort][] => {
        const value = this.#ports.get(kernelKey(key));
        return value === undefined ? [] : [[kernelKey(key), value]];
      });
    undo.push(() => {
      this.#ports.deleteBatch(fresh.map(kernelKey));
      for (const key of fresh) this.#portKeys.delete(portText(key));
      if (before.length > 0) this.#ports.setBatch(before);
    });
    this.#ports.setBatch(entries);
    for (const key of fresh) this.#portKeys.add(portText(key));
  }

  #addPeers(rows: readonly PeerRow[], undo: Rollback): void {
    if (rows.length === 0) return;
    const entries = rows.map(([set, identity, value]): [PolicyPeerKey, PolicyPeer] => [
      { set, identity },
      value,
    ]);
    const known = ({ set, identity }: PolicyPeerKey): boolean =>
      this.#peerKeys.get(set)?.has(identity) === true;
    const keys = entries.map(([key]) => key);
    const fresh = keys.filter((key) => !known(key));
    const before = keys.filter(known).flatMap((key): [PolicyPeerKey, PolicyPeer][] => {
      const value = this.#peers.get(key);
      return value === undefined ? [] : [[key, value]];
    });
    undo.push(() => {
      this.#peers.deleteBatch(fresh);
      for (const key of fresh) this.#forgetPeer(key);
      if (before.length > 0) this.#peers.setBatch(before);
    });
    this.#peers.setBatch(entries);
    for (const { set, identity } of fresh) {
      const identities = this.#peerKeys.get(set) ?? new Set();
      this.#peerKeys.set(set, identities);
      if (!identities.has(identity)) this.#peerCount++;
      identities.add(identity);
    }
  }

  #forgetPeer({ set, identity }: PolicyPeerKey): void {
    const identities = this.#peerKeys.get(set);
    if (identities?.delete(identity) === true) this.#peerCount--;
    if (identities?.size === 0) this.#peerKeys.delete(set);
  }

  /**
   * After a restart: the sets of an earlier agent, in force until the endpoints are switched, get the
   * verdicts of its identities for the new numbers of the same addresses. So every lookup answers as
   * before while addresses and endpoints are switched one by one. The copies go with `sweep`. `classOf`: class
   * that an earlier agent gave an identity.
   */
  bridge(
    pairs: readonly (readonly [before: number, after: number])[],
    classOf: (identity: number) => number | undefined,
  ): void {
    const copies: [PolicyPeerKey, PolicyPeer][] = [];
    for (const [set, identities] of this.#stalePeers) {
      for (const [before, after] of pairs) {
        if (identities.has(after)) continue;
        const held = identities.has(before) ? before : classOf(before);
        const peer =
          held === undefined || !identities.has(held) ? undefined : this.#peers.get({ set, identity: held });
        if (peer === undefined) continue;
        copies.push([{ set, identity: after }, peer]);
        this.#addStale({ set, identity: after });
      }
    }
    if (copies.length > 0) this.#peers.setBatch(copies);
  }

  #addStale(key: PolicyPeerKey): void {
    const identities = this.#stalePeers.get(key.set) ?? new Set();
    this.#stalePeers.set(key.set, identities);
    if (!identities.has(key.identity)) this.#staleCount++;
    identities.add(key.identity);
  }

  /** Removes what nothing refers to any more. */
  remove(delta: CompileDelta): void {
    const rows = [
      ...delta.peers.delete,
      ...delta.peers.transient.map(([set, identity]) => [set, identity] as const),
    ];
    const peers = rows.map(([set, identity]): PolicyPeerKey => ({ set, identity }));
    if (peers.length > 0) this.#peers.deleteBatch(peers);
    for (const key of peers) this.#forgetPeer(key);
    const ports = delta.ports.delete.map(kernelKey);
    if (ports.length > 0) this.#ports.deleteBatch(ports);
    for (const key of delta.ports.delete) this.#portKeys.delete(portText(key));
  }

  /** Removes what an earlier agent left and nobody wrote again. */
  sweep(): void {
    const peers: PolicyPeerKey[] = [];
    for (const [set, identities] of this.#stalePeers) {
      for (const identity of identities) {
        if (this.#peerKeys.get(set)?.has(identity) !== true) peers.push({ set, identity });
      }
    }
    const ports = this.#stalePorts.filter(
      (key) => !this.#portKeys.has(`${key.profile} ${key.proto} ${key.port} ${key.prefixlen}`),
    );
    if (peers.length > 0) this.#peers.deleteBatch(peers);
    if (ports.length > 0) this.#ports.deleteBatch(ports);
    this.#stalePeers.clear();
    this.#staleCount = 0;
    this.#stalePorts = [];
  }
}

function kernelKey(key: PortKey): PolicyPortKey {
  return { prefixlen: key.prefixLength, profile: key.profile, proto: key.protocol, port: key.port };
}

function portText(key: PortKey): string {
  return `${key.profile} ${key.protocol} ${key.port} ${key.prefixLength}`;
}

/** Throws SLU3301 when a map would need more entries than it has. */
export function fits(map: keyof typeof SIZE_SETTINGS, wanted: number, capacity: number): void {
  if (wanted <= capacity) return;
  throw SluiceError.of('SLU3301', { map, capacity, wanted, setting: SIZE_SETTINGS[map] ?? map });
}
