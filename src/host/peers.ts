import { join } from 'node:path';
import { parseAddress, parseCidr } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import { type PrefixKey, prefixKey } from '../../policy/host/prefix.js';
import { peerKey } from '../../policy/host/rules.js';
import type { HostPeer, HostPolicyResource } from '../../policy/model/host-policy.js';
import type { Labels } from '../../policy/model/resources.js';
import { selects } from '../../policy/select.js';
import { type ListChange, ListFile } from './list-file.js';

/** An endpoint that `pods` can select. */
export interface HostEndpoint {
  readonly labels: Labels;
  readonly namespaceLabels: Labels;
  /** Canonical text. */
  readonly addresses: readonly string[];
}

export interface Contents {
  readonly key: string;
  readonly added: readonly PrefixKey[];
  readonly removed: readonly PrefixKey[];
}

/** Addresses that join and leave a name or pattern, canonical text. */
export interface DomainChange {
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

/** The addresses behind the peers of all rules, and how they change: definitions, list files, containers, names. */
export class HostPeers {
  readonly #folder: string;
  readonly #peers = new Map<string, HostPeer>();
  readonly #lists = new Map<string, ListFile>();
  /** Lists that were read before they were asked for. */
  readonly #ahead = new Map<string, { readonly list: ListFile; readonly change: ListChange }>();
  /** Addresses of peers that select containers. */
  readonly #contents = new Map<string, ReadonlySet<PrefixKey>>();
  readonly #domains = new Map<string, Set<string>>();
  readonly problems = new Map<string, SluiceError>();

  constructor(folder: string) {
    this.#folder = join(folder, 'lists');
  }

  get keys(): ReadonlySet<string> {
    return new Set(this.#peers.keys());
  }

  /** Keys of the peers of these policies. */
  static keysOf(policies: readonly HostPolicyResource[]): Set<string> {
    return new Set(peersOf(policies).map(({ peer }) => peerKey(peer)));
  }

  /** Whether a change of containers or namespaces means anything here. */
  get selectsEndpoints(): boolean {
    return [...this.#peers.values()].some((peer) => peer.type === 'pods');
  }

  /** Reads the lists that come with these policies, which `add` would read. It tells what is wrong with them. */
  readAhead(policies: readonly HostPolicyResource[]): void {
    this.#ahead.clear();
    for (const { peer } of peersOf(policies)) {
      const key = peerKey(peer);
      if (peer.type !== 'list' || this.#peers.has(key) || this.#ahead.has(key)) continue;
      const list = new ListFile(peer.path, this.#folder);
      try {
        this.#ahead.set(key, { list, change: list.reload() });
      } catch (error) {
        if (!(error instanceof SluiceError)) throw error;
      }
    }
  }

  /**
   * Peers that come with these policies. Throws SluiceError (70xx) at the rule that names a list which cannot be read;
   * then nothing has changed. `lenient` (at the start): the last good version will do, or an empty list, and it is a
   * problem.
   */
  add(
    policies: readonly HostPolicyResource[],
    endpoints: () => readonly HostEndpoint[],
    lenient: boolean,
  ): Contents[] {
    const lists = new Map<string, ListFile>();
    const contents: Contents[] = [];
    const peers = new Map<string, HostPeer>();
    for (const { peer, policy, line } of peersOf(policies)) {
      const key = peerKey(peer);
      if (this.#peers.has(key) || peers.has(key)) continue;
      peers.set(key, peer);
      if (peer.type === 'list') {
        const ahead = this.#ahead.get(key);
        const list = ahead?.list ?? new ListFile(peer.path, this.#folder);
        try {
          contents.push({ key, ...(ahead?.change ?? this.#load(list, lenient)) });
        } catch (error) {
          if (!(error instanceof SluiceError)) throw error;
          throw error.at({ file: policy.origin.file, line });
        }
        lists.set(key, list);
      } else {
        contents.push({ key, added: [...this.#addressesOf(peer, endpoints)], removed: [] });
      }
    }
    this.#ahead.clear();
    for (const [key, peer] of peers) this.#peers.set(key, peer);
    for (const [key, list] of lists) this.#lists.set(key, list);
    for (const { key, added } of contents)
      if (peers.get(key)?.type === 'pods') this.#contents.set(key, new Set(added));
    return contents;
  }

  /**
   * Addresses behind a peer of rules that need not be in force. `learned`: addresses of a name or pattern. Throws
   * SluiceError (70xx) for a list that cannot be read.
   */
  addressesOf(
    peer: HostPeer,
    endpoints: () => readonly HostEndpoint[],
    learned: (name: string) => Iterable<string>,
  ): Iterable<PrefixKey> {
    if (peer.type === 'domain') return [...learned(peer.name)].map(hostPrefix);
    if (peer.type !== 'list') return this.#addressesOf(peer, endpoints);
    const known = this.#lists.get(peerKey(peer));
    if (known !== undefined) return known.prefixes;
    const list = new ListFile(peer.path, this.#folder);
    list.reload();
    return list.prefixes;
  }

  /** Forgets peers that no rule has. */
  keep(keys: ReadonlySet<string>): void {
    for (const key of [...this.#peers.keys()]) {
      if (keys.has(key)) continue;
      this.#peers.delete(key);
      this.#contents.delete(key);
      this.#lists.delete(key);
      this.problems.delete(key);
    }
  }

  get listsChanged(): boolean {
    for (const list of this.#lists.values()) if (list.isChanged) return true;
    return false;
  }

  /** Lists whose files have changed. A file that cannot be used is a problem; what was read before stays. */
  reloadLists(): Contents[] {
    const out: Contents[] = [];
    for (const [key, list] of this.#lists) {
      if (!list.isChanged) continue;
      try {
        out.push({ key, ...list.reload() });
        this.problems.delete(key);
      } catch (error) {
        if (!(error instanceof SluiceError)) throw error;
        this.problems.set(key, error);
      }
    }
    return out;
  }

  /** Keeps the lists as they are for the next start. */
  save(): void {
    for (const list of this.#lists.values()) list.save(this.#folder);
  }

  /** What the endpoints of now mean for peers that select some. */
  updateEndpoints(endpoints: readonly HostEndpoint[]): Contents[] {
    return [...this.#peers].flatMap(([key, peer]) =>
      peer.type === 'pods'
        ? this.#replace(
            key,
            this.#addressesOf(peer, () => endpoints),
          )
        : [],
    );
  }

  /** What addresses that join and leave names or patterns mean for the peers that there are. */
  changeDomains(changes: ReadonlyMap<string, DomainChange>): Contents[] {
    const out: Contents[] = [];
    for (const [name, { added, removed }] of changes) {
      const addresses = this.#domains.get(name) ?? new Set<string>();
      this.#domains.set(name, addresses);
      const come = added.filter((address) => !addresses.has(address));
      const gone = removed.filter((address) => addresses.has(address));
      for (const address of come) addresses.add(address);
      for (const address of gone) addresses.delete(address);
      if (addresses.size === 0) this.#domains.delete(name);
      const key = peerKey({ type: 'domain', name });
      if (!this.#peers.has(key)) continue;
      out.push({ key, added: come.map(hostPrefix), removed: gone.map(hostPrefix) });
    }
    return out;
  }

  #load(list: ListFile, lenient: boolean): { added: readonly PrefixKey[]; removed: readonly PrefixKey[] } {
    try {
      return list.reload();
    } catch (error) {
      if (!lenient || !(error instanceof SluiceError)) throw error;
      this.problems.set(`list ${list.path}`, error);
      return list.restore() ?? { added: [], removed: [] };
    }
  }

  #replace(key: string, now: Iterable<PrefixKey>): Contents[] {
    const before = this.#contents.get(key) ?? new Set();
    const after = new Set(now);
    this.#contents.set(key, after);
    const added = [...after].filter((prefix) => !before.has(prefix));
    const removed = [...before].filter((prefix) => !after.has(prefix));
    return added.length + removed.length === 0 ? [] : [{ key, added, removed }];
  }

  #addressesOf(peer: HostPeer, endpoints: () => readonly HostEndpoint[]): Iterable<PrefixKey> {
    switch (peer.type) {
      case 'networks':
        return peer.cidrs.map((text) => prefixKey(parseCidr(text)));
      case 'domain':
        return [...(this.#domains.get(peer.name) ?? [])].map(hostPrefix);
      case 'pods':
        return endpoints()
          .filter(
            ({ labels, namespaceLabels }) =>
              selects(peer.namespaceSelector, namespaceLabels) && selects(peer.podSelector, labels),
          )
          .flatMap(({ addresses }) => addresses.map(hostPrefix));
      case 'list':
        return [];
    }
  }
}

function peersOf(
  policies: readonly HostPolicyResource[],
): { readonly peer: HostPeer; readonly policy: HostPolicyResource; readonly line: number }[] {
  return policies.flatMap((policy) =>
    [...policy.ingress, ...policy.egress].flatMap((rule) =>
      rule.peers.map((peer) => ({ peer, policy, line: rule.origin.line })),
    ),
  );
}

function hostPrefix(text: string): PrefixKey {
  return prefixKey({ address: parseAddress(text), prefixLength: 128, family: text.includes(':') ? 6 : 4 });
}
