import {
  addressAt,
  type Cidr,
  cidrSize,
  type Family,
  formatAddress,
  offsetIn,
  parseAddress,
  parseCidr,
} from '../../policy/address.js';

/** Largest offset that is handed out in an IPv6 range: enough for every container, and readable addresses. */
const MAX_DYNAMIC = 1n << 24n;

const later = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const earlier = (a: bigint, b: bigint): bigint => (a < b ? a : b);

/**
 * The addresses of one family of one network. Dynamic addresses are the lowest free after the last
 * one given (wrapping), so an address that was just released is not given again at once. Never given:
 * network address, IPv4 broadcast address, gateway; `limits` may narrow what is given out (both included).
 */
export class AddressPool {
  readonly cidr: Cidr;
  readonly #owners = new Map<bigint, string>();
  readonly #kept = new Set<bigint>();
  readonly #first: bigint;
  readonly #end: bigint; // one after the last dynamic offset
  #next: bigint;

  constructor(
    cidr: string,
    gateway: string,
    limits: { readonly first?: string; readonly last?: string } = {},
  ) {
    this.cidr = parseCidr(cidr);
    const size = cidrSize(this.cidr);
    this.#kept.add(offsetIn(this.cidr, parseAddress(gateway)));
    // RFC 3021 and RFC 6164: ranges of one or two addresses have no network and broadcast address.
    const whole = size <= 2n;
    let first = whole ? 0n : 1n;
    let end = whole ? size : this.cidr.family === 4 ? size - 1n : size;
    if (limits.first !== undefined) first = later(first, offsetIn(this.cidr, parseAddress(limits.first)));
    if (limits.last !== undefined) end = earlier(end, offsetIn(this.cidr, parseAddress(limits.last)) + 1n);
    this.#first = first;
    this.#end = earlier(end, first + MAX_DYNAMIC);
    this.#next = this.#first;
  }

  get family(): Family {
    return this.cidr.family;
  }

  /** Addresses in use. */
  get used(): number {
    return this.#owners.size;
  }

  ownerOf(address: string): string | undefined {
    return this.#owners.get(offsetIn(this.cidr, parseAddress(address)));
  }

  /** Whether `take` would find an address. */
  get hasFree(): boolean {
    return this.#free(this.#next) !== undefined;
  }

  /** Gives out the next free address, or undefined when there is none. */
  take(owner: string): string | undefined {
    const offset = this.#free(this.#next);
    if (offset === undefined) return undefined;
    this.#owners.set(offset, owner);
    this.#next = offset + 1n;
    return formatAddress(addressAt(this.cidr, offset));
  }

  #free(from: bigint): bigint | undefined {
    let offset = from;
    for (let tried = this.#first; tried < this.#end; tried++) {
      if (offset >= this.#end) offset = this.#first;
      if (!this.#owners.has(offset) && !this.#kept.has(offset)) return offset;
      offset++;
    }
    return undefined;
  }

  /** Takes a certain address. Returns the present owner (another one), or undefined when it is ours now. */
  claim(address: string, owner: string): string | undefined {
    const offset = offsetIn(this.cidr, parseAddress(address));
    const present = this.#owners.get(offset);
    if (present !== undefined && present !== owner) return present;
    this.#owners.set(offset, owner);
    return undefined;
  }

  /** Continues after this address, as if it had been the last one given (used when leases are read). */
  resumeAfter(address: string): void {
    const offset = offsetIn(this.cidr, parseAddress(address));
    if (offset >= this.#first && offset < this.#end) this.#next = offset + 1n;
  }

  /** Frees the address if `owner` has it. */
  release(address: string, owner: string): void {
    const offset = offsetIn(this.cidr, parseAddress(address));
    if (this.#owners.get(offset) === owner) this.#owners.delete(offset);
  }
}
