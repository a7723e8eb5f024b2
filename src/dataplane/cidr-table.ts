import { AddrFlag, type AddrInfo, type CidrKey, ReservedIdentity } from '../../loader/abi/gen/types.gen.js';
import { type Cidr, cidrContainsCidr, formatCidr, maskAddress, parseCidr } from '../../policy/address.js';
import type { SyncedMap } from './synced-map.js';

interface Reserved {
  readonly cidr: Cidr;
  readonly network: number;
}

/**
 * `cidrs`: prefixes, of which the kernel uses the longest that matches. Two things meet here: the
 * identities that the policy compiler gives to the CIDRs of policies, and the ranges of container
 * networks, in which an address that `addrs` does not know is nobody's (RESERVED). So a policy's
 * prefix inside a range is RESERVED too, and a range has the identity of the policy prefix around it.
 */
export class CidrTable {
  readonly #map: SyncedMap<CidrKey, AddrInfo>;
  readonly #identities = new Map<string, number>();
  readonly #reserved = new Map<string, Reserved>();

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

  #changeIdentity(text: string, identity: number | undefined): () => void {
    const before = this.#identities.get(text);
    put(this.#identities, text, identity);
    const cidr = parseCidr(text);
    const around = [...this.#reserved.keys()].filter(
      (key) => key !== text && contains(cidr, this.#reserved.get(key)),
    );
    return this.#write([text, ...around], () => put(this.#identities, text, before));
  }

  #changeReserved(text: string, reserved: Reserved | undefined): () => void {
    const before = this.#reserved.get(text);
    put(this.#reserved, text, reserved);
    const range = parseCidr(text);
    const inside = [...this.#identities.keys()].filter(
      (key) => key !== text && cidrContainsCidr(range, parseCidr(key)),
    );
    return this.#write([text, ...inside], () => put(this.#reserved, text, before));
  }

  #write(prefixes: readonly string[], undo: () => void): () => void {
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
    const network = this.#networkOf(cidr);
    if (identity === undefined && !this.#reserved.has(text)) return this.#map.delete(key);
    return this.#map.set(key, {
      identity: identity ?? this.#identityAround(cidr),
      ifindex: 0,
      network: network ?? 0,
      flags: network === undefined ? 0 : AddrFlag.Reserved,
    });
  }

  #networkOf(cidr: Cidr): number | undefined {
    for (const reserved of this.#reserved.values()) {
      if (cidrContainsCidr(reserved.cidr, cidr)) return reserved.network;
    }
    return undefined;
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
