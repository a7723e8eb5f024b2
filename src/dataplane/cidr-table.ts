import type { IpAddr } from '../../loader/abi/codec.js';
import { AddrFlag, type AddrInfo, type CidrKey, ReservedIdentity } from '../../loader/abi/gen/types.gen.js';
import {
  type AddressBytes,
  type Cidr,
  cidrContains,
  cidrContainsCidr,
  formatCidr,
  maskAddress,
  parseCidr,
} from '../../policy/address.js';
import { NO_ADDRESS } from './endpoints.js';
import type { SyncedMap } from './synced-map.js';

interface Reserved {
  readonly cidr: Cidr;
  readonly network: number;
}

/** A range of addresses of the cluster that are not on this node. */
export interface RemoteRange {
  /** Address of the node that has the range, 16 bytes; zero: not known, or not needed to get there. */
  readonly node: IpAddr;
}

interface Owner {
  readonly length: number;
  readonly network: number;
  readonly flags: number;
  readonly node: IpAddr;
}

const NOBODY: Owner = { length: -1, network: 0, flags: 0, node: NO_ADDRESS };

/**
 * `cidrs`: prefixes, of which the kernel uses the longest that matches. Three things meet here: the
 * identities that the policy compiler gives to the CIDRs of policies; the ranges of container
 * networks, in which an address that `addrs` does not know is nobody's (RESERVED); and the ranges of
 * other nodes. A policy's prefix is RESERVED or a node's like the longest range around it, and a
 * range has the identity of the policy prefix around it.
 */
export class CidrTable {
  readonly #map: SyncedMap<CidrKey, AddrInfo>;
  readonly #identities = new Map<string, number>();
  readonly #parsed = new Map<string, Cidr>(); // the keys of #identities
  readonly #reserved = new Map<string, Reserved>();
  readonly #remote = new Map<string, { readonly cidr: Cidr; readonly range: RemoteRange }>();
  /** Of each prefix length, how many remote ranges have it (IPv4 ranges count as v4-mapped ones). */
  readonly #remoteLengths = new Map<number, number>();

  constructor(map: SyncedMap<CidrKey, AddrInfo>) {
    this.#map = map;
  }

  get size(): number {
    return this.#map.size;
  }

  get capacity(): number {
    return this.#map.capacity;
  }

  setIdentity(cidr: string, identity: number): () => void {
    return this.#changeIdentity(cidr, identity);
  }

  deleteIdentity(cidr: string): () => void {
    return this.#changeIdentity(cidr, undefined);
  }

  /** Identity that the kernel gives to addresses of the prefix now (those that no longer prefix covers). */
  identityInKernel(text: string): number {
    const { address, prefixLength, family } = parseCidr(text);
    const shortest = family === 4 ? 96 : 0;
    for (let prefixlen = prefixLength; prefixlen >= shortest; prefixlen--) {
      const held = this.#map.get({ prefixlen, addr: maskAddress(address, prefixlen) });
      if (held !== undefined) return held.identity;
    }
    return ReservedIdentity.World;
  }

  /** The range belongs to a container network from now on. */
  reserve(cidr: string, network: number): () => void {
    return this.#changeReserved(cidr, { cidr: parseCidr(cidr), network });
  }

  release(cidr: string): () => void {
    return this.#changeReserved(cidr, undefined);
  }

  /** The range is on another node from now on. */
  setRemote(cidr: string, range: RemoteRange): () => void {
    return this.#changeRemote(cidr, range);
  }

  deleteRemote(cidr: string): () => void {
    return this.#changeRemote(cidr, undefined);
  }

  /** Number of the network of this node whose range contains an address, 0: none. */
  networkAround(address: AddressBytes): number {
    for (const { cidr, network } of this.#reserved.values()) if (cidrContains(cidr, address)) return network;
    return 0;
  }

  #changeIdentity(text: string, identity: number | undefined): () => void {
    const before = this.#identities.get(text);
    const cidr = parseCidr(text);
    put(this.#identities, text, identity);
    put(this.#parsed, text, identity === undefined ? undefined : cidr);
    const around = new Set([text]);
    for (const [key, reserved] of this.#reserved) if (contains(cidr, reserved)) around.add(key);
    for (const [key, remote] of this.#remote) if (cidrContainsCidr(cidr, remote.cidr)) around.add(key);
    return this.#write(around, () => {
      put(this.#identities, text, before);
      put(this.#parsed, text, before === undefined ? undefined : cidr);
    });
  }

  #changeReserved(text: string, reserved: Reserved | undefined): () => void {
    const before = this.#reserved.get(text);
    put(this.#reserved, text, reserved);
    const range = parseCidr(text);
    const inside = new Set(this.#inside(text));
    for (const [key, remote] of this.#remote) if (cidrContainsCidr(range, remote.cidr)) inside.add(key);
    return this.#write(inside, () => put(this.#reserved, text, before));
  }

  #changeRemote(text: string, range: RemoteRange | undefined): () => void {
    const before = this.#remote.get(text)?.range;
    const cidr = parseCidr(text);
    const { prefixLength } = cidr;
    const change = (from: RemoteRange | undefined, to: RemoteRange | undefined): void => {
      put(this.#remote, text, to === undefined ? undefined : { cidr, range: to });
      const step = (to === undefined ? 0 : 1) - (from === undefined ? 0 : 1);
      const count = (this.#remoteLengths.get(prefixLength) ?? 0) + step;
      if (count === 0) this.#remoteLengths.delete(prefixLength);
      else this.#remoteLengths.set(prefixLength, count);
    };
    change(before, range);
    return this.#write(this.#inside(text), () => change(range, before));
  }

  /** The range, and the prefixes of policies and networks inside it. */
  #inside(text: string): ReadonlySet<string> {
    const range = parseCidr(text);
    const found = new Set([text]);
    for (const [key, cidr] of this.#parsed) if (cidrContainsCidr(range, cidr)) found.add(key);
    for (const [key, { cidr }] of this.#reserved) if (cidrContainsCidr(range, cidr)) found.add(key);
    return found;
  }

  #write(prefixes: Iterable<string>, undo: () => void): () => void {
    const undos = [undo];
    try {
      for (const text of prefixes) undos.push(this.#writeOne(text));
    } catch (error) {
      for (const step of undos.reverse()) step();
      throw error;
    }
    return () => {
      for (const step of undos.reverse()) step();
    };
  }

  #writeOne(text: string): () => void {
    const cidr = parseCidr(text);
    const key: CidrKey = { prefixlen: cidr.prefixLength, addr: cidr.address };
    const identity = this.#identities.get(text);
    if (identity === undefined && !this.#reserved.has(text) && !this.#remote.has(text))
      return this.#map.delete(key);
    const { network, flags, node } = this.#ownerOf(cidr);
    return this.#map.set(key, {
      identity: identity ?? this.#identityAround(cidr),
      ifindex: 0,
      network,
      flags,
      node,
    });
  }

  /** Whose the prefix is: the longest range around it decides, of equal ones that of this node's network. */
  #ownerOf(cidr: Cidr): Owner {
    let owner = NOBODY;
    for (const { cidr: range, network } of this.#reserved.values()) {
      if (cidrContainsCidr(range, cidr))
        owner = { length: range.prefixLength, network, flags: AddrFlag.Reserved, node: NO_ADDRESS };
    }
    for (const length of this.#remoteLengths.keys()) {
      if (length > cidr.prefixLength || length <= owner.length) continue;
      const address = maskAddress(cidr.address, length);
      const text = formatCidr({ address, prefixLength: length, family: cidr.family });
      const range = this.#remote.get(text)?.range;
      if (range !== undefined)
        owner = { length, network: owner.network, flags: AddrFlag.Cluster, node: range.node };
    }
    return owner;
  }

  /** Identity of the longest policy prefix around this one. */
  #identityAround(cidr: Cidr): number {
    const shortest = cidr.family === 4 ? 96 : 0;
    for (let prefixLength = cidr.prefixLength - 1; prefixLength >= shortest; prefixLength--) {
      const address = maskAddress(cidr.address, prefixLength);
      const identity = this.#identities.get(formatCidr({ address, prefixLength, family: cidr.family }));
      if (identity !== undefined) return identity;
    }
    return ReservedIdentity.World;
  }
}

function contains(cidr: Cidr, reserved: Reserved | undefined): boolean {
  return reserved !== undefined && cidrContainsCidr(cidr, reserved.cidr);
}

function put<V>(store: Map<string, V>, key: string, value: V | undefined): void {
  if (value === undefined) store.delete(key);
  else store.set(key, value);
}
