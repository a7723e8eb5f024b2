import { join } from 'node:path';
import { cidrContains, parseAddress } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { NetworkResource, Origin } from '../../policy/model/resources.js';
import { IndexPool } from './index-pool.js';
import { Journal } from './journal.js';
import { stableMac } from './mac.js';
import { AddressPool } from './pool.js';

/** Lowest device index that is given out; those below are the machine's own. */
export const FIRST_INDEX = 256;
/** `networks` in the kernel has this many slots; 0 means none. */
export const MAX_NETWORKS = 4095;

/** What one attachment (a container in a network) holds for as long as it is defined. */
export interface Lease {
  /** `namespace/container:network`. */
  readonly id: string;
  readonly network: string;
  readonly ipv4?: string;
  readonly ipv6?: string;
  readonly mac: string;
  /** Index of the host side (macvlan: of the device inside the namespace); unique on this node. */
  readonly ifindex: number;
  /** `device:inode` of the namespace that the device was made in. */
  readonly netns?: string;
  /** Path of that namespace when the device was made. */
  readonly netnsPath?: string;
}

export interface LeaseRequest {
  readonly id: string;
  readonly network: string;
  readonly ipv4?: string;
  readonly ipv6?: string;
  readonly mac?: string;
  /** Of a device that somebody else made: its index; the addresses are those of the request, and no pool has them. */
  readonly ifindex?: number;
  readonly origin: Origin;
}

type Entry =
  | { readonly op: 'lease'; readonly lease: Lease }
  | { readonly op: 'free'; readonly id: string }
  | { readonly op: 'network'; readonly name: string; readonly number: number }
  | { readonly op: 'nonet'; readonly name: string }
  | {
      readonly op: 'last';
      readonly network: string;
      readonly ipv4?: string;
      readonly ipv6?: string;
      readonly ifindex?: number;
    };

interface Pools {
  readonly ipv4?: AddressPool;
  readonly ipv6?: AddressPool;
}

/**
 * Addresses, device indexes and network numbers in use, in memory and in an append-only journal
 * (`<stateDir>/leases/journal`). All changes go through a `LeaseChange`, one at a time.
 */
export class LeaseBook {
  readonly instance: string;
  /** Lines of the journal that were damaged when it was opened. */
  readonly damaged: number;
  readonly journal: Journal<Entry>;
  readonly leases = new Map<string, Lease>();
  readonly numbers = new Map<string, number>();
  readonly pools = new Map<string, Pools>();
  readonly indexes: IndexPool;
  readonly networkNumbers = new IndexPool(1, MAX_NETWORKS);
  /** The last address given in each network, so that a restart goes on after it. */
  readonly last = new Map<string, { ipv4?: string; ipv6?: string }>();
  #lastIndex = 0;

  private constructor(instance: string, maxIndex: number, opened: ReturnType<typeof Journal.open<Entry>>) {
    this.instance = instance;
    this.journal = opened.journal;
    this.damaged = opened.damaged;
    this.indexes = new IndexPool(FIRST_INDEX, maxIndex - 1);
    for (const entry of opened.records) this.#replay(entry);
    for (const lease of this.leases.values()) this.indexes.claim(lease.ifindex);
    for (const number of this.numbers.values()) this.networkNumbers.claim(number);
    if (this.#lastIndex > 0) this.indexes.resumeAfter(this.#lastIndex);
    this.compactIfLong();
  }

  /** Reads the journal of the state folder; `maxIndex` is the size of the kernel's endpoint array. */
  static open(stateDir: string, instance: string, maxIndex: number): LeaseBook {
    return new LeaseBook(instance, maxIndex, Journal.open<Entry>(join(stateDir, 'leases', 'journal')));
  }

  get(id: string): Lease | undefined {
    return this.leases.get(id);
  }

  /** Number of a network in the kernel's maps. */
  numberOf(network: string): number | undefined {
    return this.numbers.get(network);
  }

  /** Whether an attachment in any network has the address. */
  isLeased(address: string): boolean {
    for (const { ipv4, ipv6 } of this.pools.values()) {
      const pool = address.includes(':') ? ipv6 : ipv4;
      if (fits(pool, address)) return pool?.ownerOf(address) !== undefined;
    }
    return false;
  }

  begin(): LeaseChange {
    return new LeaseChange(this);
  }

  close(): void {
    this.journal.close();
  }

  /** Rewrites the journal when most of its lines are out of date. */
  compactIfLong(): void {
    const live = this.leases.size + this.numbers.size + this.last.size + 1;
    if (this.journal.lines > 4 * live + 1024 || this.damaged > 0) this.compact();
  }

  compact(): void {
    this.journal.compact([
      ...[...this.numbers].map(([name, number]): Entry => ({ op: 'network', name, number })),
      ...[...this.leases.values()].map((lease): Entry => ({ op: 'lease', lease })),
      ...[...this.last].map(
        ([network, last]): Entry => ({ op: 'last', network, ...last, ifindex: this.#lastIndex }),
      ),
    ]);
  }

  /** Remembers what was given last (in memory: the lease's own record says it on disk). */
  noteGiven(lease: Lease): void {
    this.#lastIndex = lease.ifindex;
    this.last.set(lease.network, {
      ...this.last.get(lease.network),
      ...(lease.ipv4 === undefined ? {} : { ipv4: lease.ipv4 }),
      ...(lease.ipv6 === undefined ? {} : { ipv6: lease.ipv6 }),
    });
  }

  #replay(entry: Entry): void {
    switch (entry.op) {
      case 'lease':
        this.leases.set(entry.lease.id, entry.lease);
        this.noteGiven(entry.lease);
        break;
      case 'free':
        this.leases.delete(entry.id);
        break;
      case 'network':
        this.numbers.set(entry.name, entry.number);
        this.networkNumbers.resumeAfter(entry.number);
        break;
      case 'nonet':
        this.numbers.delete(entry.name);
        break;
      case 'last':
        if (entry.ifindex !== undefined) this.#lastIndex = entry.ifindex;
        this.last.set(entry.network, {
          ...(entry.ipv4 === undefined ? {} : { ipv4: entry.ipv4 }),
          ...(entry.ipv6 === undefined ? {} : { ipv6: entry.ipv6 }),
        });
        break;
    }
  }
}

/**
 * A set of changes that takes effect in memory at once and on disk by `commit`. `undo` takes it all
 * back, before or after the commit.
 */
export class LeaseChange {
  readonly #book: LeaseBook;
  readonly #undo: (() => void)[] = [];
  readonly #ids = new Set<string>();
  readonly #networks = new Set<string>();
  #committed = false;

  constructor(book: LeaseBook) {
    this.#book = book;
  }

  /** Creates or changes the ranges of a network and gives it a number. Leases outside of them are freed. */
  defineNetwork(network: NetworkResource): number {
    const book = this.#book;
    const before = book.pools.get(network.name);
    const pools = poolsOf(network);
    this.#set(book.pools, network.name, pools);
    const last = book.last.get(network.name);
    if (last?.ipv4 !== undefined && fits(pools.ipv4, last.ipv4)) pools.ipv4?.resumeAfter(last.ipv4);
    if (last?.ipv6 !== undefined && fits(pools.ipv6, last.ipv6)) pools.ipv6?.resumeAfter(last.ipv6);
    for (const lease of [...book.leases.values()].filter((lease) => lease.network === network.name)) {
      if (network.mode === 'chained' || keepable(pools, lease)) claimAll(pools, lease);
      else this.#drop(lease, before);
    }
    let number = book.numbers.get(network.name);
    if (number === undefined) {
      const taken = book.networkNumbers.take();
      if (taken === undefined) throw SluiceError.of('SLU5004', { limit: MAX_NETWORKS }, network.origin);
      number = taken;
      this.#undo.push(() => book.networkNumbers.release(taken));
      this.#set(book.numbers, network.name, number);
      this.#networks.add(network.name);
    }
    return number;
  }

  /** Frees the network's number and every lease in it. */
  removeNetwork(name: string): void {
    const book = this.#book;
    for (const lease of [...book.leases.values()].filter((lease) => lease.network === name))
      this.free(lease.id);
    this.#set(book.pools, name, undefined);
    this.#set(book.last, name, undefined);
    const number = book.numbers.get(name);
    if (number === undefined) return;
    this.#set(book.numbers, name, undefined);
    book.networkNumbers.release(number);
    this.#undo.push(() => book.networkNumbers.claim(number));
    this.#networks.add(name);
  }

  /**
   * The lease for an attachment: the present one if it still answers the request, else a new one.
   * Throws SLU5001 (range exhausted), SLU5002 (address in use), SLU5003 (no index left) or SLU5005 (the index that it
   * has can't be used).
   */
  take(request: LeaseRequest): Lease {
    const book = this.#book;
    const pools = book.pools.get(request.network) ?? {};
    const present = book.leases.get(request.id);
    const given = request.ifindex !== undefined;
    const ipv4 = given ? request.ipv4 : this.#address(request, pools.ipv4, request.ipv4, present?.ipv4);
    const ipv6 = given ? request.ipv6 : this.#address(request, pools.ipv6, request.ipv6, present?.ipv6);
    const lease: Lease = {
      id: request.id,
      network: request.network,
      ...(ipv4 === undefined ? {} : { ipv4 }),
      ...(ipv6 === undefined ? {} : { ipv6 }),
      mac: request.mac ?? stableMac(book.instance, request.id, 'container'),
      ifindex: this.#index(request, present),
      ...(present?.netns === undefined ? {} : { netns: present.netns }),
      ...(present?.netnsPath === undefined ? {} : { netnsPath: present.netnsPath }),
    };
    if (present !== undefined && JSON.stringify(present) === JSON.stringify(lease)) return present;
    this.#put(lease);
    if (!given) book.noteGiven(lease);
    return lease;
  }

  /** Before several leases are taken: frees addresses that will be replaced, so that two may change hands. */
  releaseReplaced(request: LeaseRequest): void {
    const present = this.#book.leases.get(request.id);
    const pools = this.#book.pools.get(request.network);
    if (present === undefined || pools === undefined) return;
    const { ipv4, ipv6, ...rest } = present;
    const keep4 = request.ipv4 === undefined || request.ipv4 === ipv4;
    const keep6 = request.ipv6 === undefined || request.ipv6 === ipv6;
    if (keep4 && keep6) return;
    const freed = {
      ...(keep4 || ipv4 === undefined ? {} : { ipv4 }),
      ...(keep6 || ipv6 === undefined ? {} : { ipv6 }),
    };
    releaseAll(pools, { ...rest, ...freed });
    this.#undo.push(() => claimAll(pools, { ...rest, ...freed }));
    this.#put({
      ...rest,
      ...(keep4 && ipv4 !== undefined ? { ipv4 } : {}),
      ...(keep6 && ipv6 !== undefined ? { ipv6 } : {}),
    });
  }

  /** Takes over what a live device has although the journal does not know it. False if something is taken. */
  adopt(lease: Lease): boolean {
    const book = this.#book;
    const pools = book.pools.get(lease.network);
    if (pools === undefined || book.leases.has(lease.id) || !keepable(pools, lease)) return false;
    if (pools.ipv4?.ownerOf(lease.ipv4 ?? '0.0.0.0') !== undefined) return false;
    if (pools.ipv6?.ownerOf(lease.ipv6 ?? '::') !== undefined) return false;
    if (!book.indexes.claim(lease.ifindex)) return false;
    this.#undo.push(() => book.indexes.release(lease.ifindex));
    claimAll(pools, lease);
    this.#undo.push(() => releaseAll(pools, lease));
    this.#put(lease);
    return true;
  }

  /** Replaces index or namespace of a lease, for example after the kernel refused the index. */
  amend(lease: Lease): void {
    this.#put(lease);
  }

  #index({ ifindex, origin }: LeaseRequest, present: Lease | undefined): number {
    const { indexes } = this.#book;
    if (ifindex === undefined) return present?.ifindex ?? this.newIndex(origin);
    if (ifindex === present?.ifindex) return ifindex;
    if (ifindex > indexes.last || !indexes.claim(ifindex))
      throw SluiceError.of('SLU5005', { ifindex, limit: indexes.last }, origin);
    this.#undo.push(() => indexes.release(ifindex));
    const before = present?.ifindex;
    if (before !== undefined) {
      indexes.release(before);
      this.#undo.push(() => indexes.claim(before));
    }
    return ifindex;
  }

  /** A device index that nobody has; throws SLU5003. */
  newIndex(origin: Origin): number {
    const indexes = this.#book.indexes;
    const index = indexes.take();
    if (index === undefined) throw SluiceError.of('SLU5003', { limit: indexes.capacity }, origin);
    this.#undo.push(() => indexes.release(index));
    return index;
  }

  free(id: string): void {
    const lease = this.#book.leases.get(id);
    if (lease !== undefined) this.#drop(lease, this.#book.pools.get(lease.network));
  }

  /** Writes the change to the journal. Throws the file system's error; memory is then unchanged by it. */
  commit(): void {
    this.#book.journal.append(this.#entries());
    this.#committed = true;
    this.#book.compactIfLong();
  }

  undo(): void {
    for (const step of this.#undo.splice(0).reverse()) step();
    if (this.#committed) this.#book.journal.append(this.#entries());
    this.#committed = false;
  }

  #entries(): Entry[] {
    const book = this.#book;
    const entries: Entry[] = [];
    for (const name of this.#networks) {
      const number = book.numbers.get(name);
      entries.push(number === undefined ? { op: 'nonet', name } : { op: 'network', name, number });
    }
    for (const id of this.#ids) {
      const lease = book.leases.get(id);
      entries.push(lease === undefined ? { op: 'free', id } : { op: 'lease', lease });
    }
    return entries;
  }

  #address(
    request: LeaseRequest,
    pool: AddressPool | undefined,
    fixed: string | undefined,
    present: string | undefined,
  ) {
    if (pool === undefined) {
      return undefined;
    }
    if (present !== undefined && (fixed === undefined || fixed === present)) return present;
    const { id, network } = request;
    let address: string | undefined;
    if (fixed !== undefined) {
      const other = pool.claim(fixed, id);
      if (other !== undefined) throw SluiceError.of('SLU5002', { address: fixed, other }, request.origin);
      address = fixed;
    } else {
      address = pool.take(id);
      if (address === undefined) {
        const cidr = `IPv${pool.family} range of ${network}`;
        throw SluiceError.of('SLU5001', { network: cidr, used: pool.used }, request.origin);
      }
    }
    const given = address;
    this.#undo.push(() => pool.release(given, id));
    if (present !== undefined) {
      pool.release(present, id);
      this.#undo.push(() => void pool.claim(present, id));
    }
    return given;
  }

  #put(lease: Lease): void {
    this.#ids.add(lease.id);
    this.#set(this.#book.leases, lease.id, lease);
  }

  #drop(lease: Lease, pools: Pools | undefined): void {
    this.#ids.add(lease.id);
    this.#set(this.#book.leases, lease.id, undefined);
    this.#book.indexes.release(lease.ifindex);
    if (pools !== undefined) releaseAll(pools, lease);
    this.#undo.push(() => {
      this.#book.indexes.claim(lease.ifindex);
      if (pools !== undefined) claimAll(pools, lease);
    });
  }

  #set<V>(map: Map<string, V>, key: string, value: V | undefined): void {
    const before = map.get(key);
    this.#undo.push(() => (before === undefined ? map.delete(key) : map.set(key, before)));
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }
}

function poolsOf(network: NetworkResource): Pools {
  const { ipv4, ipv6 } = network;
  return {
    ...(ipv4 === undefined ? {} : { ipv4: new AddressPool(ipv4.cidr, ipv4.gateway, ipv4) }),
    ...(ipv6 === undefined ? {} : { ipv6: new AddressPool(ipv6.cidr, ipv6.gateway, ipv6) }),
  };
}

function fits(pool: AddressPool | undefined, address: string): boolean {
  return pool !== undefined && cidrContains(pool.cidr, parseAddress(address));
}

/** Whether the lease has exactly the families of the network, with addresses inside its ranges. */
function keepable(pools: Pools, lease: Lease): boolean {
  if ((pools.ipv4 === undefined) !== (lease.ipv4 === undefined)) return false;
  if ((pools.ipv6 === undefined) !== (lease.ipv6 === undefined)) return false;
  if (lease.ipv4 !== undefined && !fits(pools.ipv4, lease.ipv4)) return false;
  return lease.ipv6 === undefined || fits(pools.ipv6, lease.ipv6);
}

function claimAll(pools: Pools, lease: Lease): void {
  if (lease.ipv4 !== undefined) pools.ipv4?.claim(lease.ipv4, lease.id);
  if (lease.ipv6 !== undefined) pools.ipv6?.claim(lease.ipv6, lease.id);
}

function releaseAll(pools: Pools, lease: Lease): void {
  if (lease.ipv4 !== undefined && pools.ipv4 !== undefined) releaseIn(pools.ipv4, lease.ipv4, lease.id);
  if (lease.ipv6 !== undefined && pools.ipv6 !== undefined) releaseIn(pools.ipv6, lease.ipv6, lease.id);
}

function releaseIn(pool: AddressPool, address: string, id: string): void {
  if (cidrContains(pool.cidr, parseAddress(address))) pool.release(address, id);
}
