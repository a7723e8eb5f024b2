import type { IpAddr } from '../../loader/abi/codec.js';
import { AddrFlag, type AddrInfo, ReservedIdentity } from '../../loader/abi/gen/types.gen.js';
import { parseAddress } from '../../policy/address.js';
import { NO_ADDRESS } from './endpoints.js';
import type { SyncedMap } from './synced-map.js';

/** Where a container's address is. */
export interface Place {
  readonly ifindex: number;
  readonly network: number;
}

/** Where an address of the cluster is that is not on this node. Addresses of one node may share one object. */
export interface Remote {
  /** Address of the node, 16 bytes; zero: not known, or not needed to get there. */
  readonly node: IpAddr;
  /** Number of the network whose range it is in, 0: none of this node's. */
  readonly network: number;
  /** Whether it is an address of the node itself. */
  readonly isNode: boolean;
}

/**
 * `addrs`: exact addresses. Containers' addresses come in two halves, the identity from the policy
 * compiler and the place from the device; the entry is written when the place is known. Addresses
 * of the host (its own and the gateways) have the identity HOST. Addresses on other nodes are written when the compiler
 * has an identity for them. A container's address wins, then the host's.
 */
export class AddressTable {
  readonly #map: SyncedMap<IpAddr, AddrInfo>;
  readonly #identities = new Map<string, number>();
  readonly #places = new Map<string, Place>();
  readonly #remote = new Map<string, Remote>();
  /** Addresses of domain names. */
  readonly #learned = new Map<string, true>();
  readonly #host = new Map<string, number>(); // address -> how many reasons it is the host's

  #hostVersion = 0;

  readonly #servesNodePorts: (address: string) => boolean;

  /** `servesNodePorts`: whether node ports are served on an address of the host. */
  constructor(map: SyncedMap<IpAddr, AddrInfo>, servesNodePorts: (address: string) => boolean = () => true) {
    this.#map = map;
    this.#servesNodePorts = servesNodePorts;
  }

  get size(): number {
    return this.#map.size;
  }

  get capacity(): number {
    return this.#map.capacity;
  }

  identityOf(address: string): number | undefined {
    return this.#identities.get(address);
  }

  /** Identity that the kernel gives the address now, also if an earlier agent wrote it. */
  identityInKernel(address: string): number | undefined {
    return this.#map.get(parseAddress(address))?.identity;
  }

  placeOf(address: string): Place | undefined {
    return this.#places.get(address);
  }

  isHost(address: string): boolean {
    return this.#host.has(address);
  }

  /** Another number whenever the addresses of the host may have changed. */
  get hostVersion(): number {
    return this.#hostVersion;
  }

  /** Addresses of the host, as text. */
  hostAddresses(): IterableIterator<string> {
    return this.#host.keys();
  }

  setIdentity(address: string, identity: number): () => void {
    return this.#change(address, this.#identities, identity);
  }

  /** As `setIdentity` for many addresses, written together; `done` gets what takes each of them back. */
  setIdentities(wanted: readonly (readonly [string, number])[], done: (undo: () => void) => void): void {
    this.#map.together(() => {
      for (const [address, identity] of wanted) done(this.setIdentity(address, identity));
    });
  }

  deleteIdentity(address: string): () => void {
    return this.#change(address, this.#identities, undefined);
  }

  setPlace(address: string, place: Place): () => void {
    return this.#change(address, this.#places, place);
  }

  deletePlace(address: string): () => void {
    return this.#change(address, this.#places, undefined);
  }

  remoteOf(address: string): Remote | undefined {
    return this.#remote.get(address);
  }

  setRemote(address: string, remote: Remote): () => void {
    return this.#change(address, this.#remote, remote);
  }

  deleteRemote(address: string): () => void {
    return this.#change(address, this.#remote, undefined);
  }

  /** Whether the address is known from an answer of a name server; like any outside, but for its identity. */
  setLearned(address: string, learned: boolean): () => void {
    return this.#change(address, this.#learned, learned ? true : undefined);
  }

  /** The address is the host's for one more reason (a device, a gateway). */
  addHost(address: string): () => void {
    return this.#changeHost(address, (this.#host.get(address) ?? 0) + 1);
  }

  removeHost(address: string): () => void {
    const count = (this.#host.get(address) ?? 0) - 1;
    return this.#changeHost(address, count > 0 ? count : undefined);
  }

  #changeHost(address: string, count: number | undefined): () => void {
    this.#hostVersion++;
    const undo = this.#change(address, this.#host, count);
    return () => {
      this.#hostVersion++;
      undo();
    };
  }

  #change<V>(address: string, store: Map<string, V>, value: V | undefined): () => void {
    const before = store.get(address);
    put(store, address, value);
    let undo: () => void;
    try {
      undo = this.#write(address);
    } catch (error) {
      put(store, address, before);
      throw error;
    }
    return () => {
      put(store, address, before);
      undo();
    };
  }

  #write(address: string): () => void {
    const key = parseAddress(address);
    const info = this.#infoFor(address);
    return info === undefined ? this.#map.delete(key) : this.#map.set(key, info);
  }

  #infoFor(address: string): AddrInfo | undefined {
    const place = this.#places.get(address);
    if (place !== undefined) {
      const identity = this.#identities.get(address) ?? ReservedIdentity.World;
      return { identity, ...place, flags: 0, node: NO_ADDRESS };
    }
    if (this.#host.has(address)) {
      const flags = AddrFlag.Host | (this.#servesNodePorts(address) ? AddrFlag.Nodeport : 0);
      return { identity: ReservedIdentity.Host, ifindex: 0, network: 0, flags, node: NO_ADDRESS };
    }
    const remote = this.#remote.get(address);
    const identity = this.#identities.get(address);
    if (identity === undefined) return undefined;
    if (remote === undefined) {
      if (!this.#learned.has(address)) return undefined;
      return { identity, ifindex: 0, network: 0, flags: 0, node: NO_ADDRESS };
    }
    const flags = AddrFlag.Cluster | (remote.isNode ? AddrFlag.Node : 0);
    return { identity, ifindex: 0, network: remote.network, flags, node: remote.node };
  }
}

function put<V>(store: Map<string, V>, key: string, value: V | undefined): void {
  if (value === undefined) store.delete(key);
  else store.set(key, value);
}
