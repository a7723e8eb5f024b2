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

/**
 * The addresses of one family of one network. Dynamic addresses are the lowest free after the last
 * one given (wrapping), so an address that was just released is not given again at once. Never given:
 * network address, IPv4 broadcast address, gateway.
 */
export class AddressPool {
  readonly cidr: Cidr;
  readonly #owners = new Map<bigint, string>();
  readonly #kept = new Set<bigint>();
  readonly #first: bigint;
  readonly #end: bigint; // one after the last dynamic offset
  #next: bigint;

  constructor(cidr: string, gateway: string) {
    this.cidr = parseCidr(cidr);
    const size = cidrSize(this.cidr);
    this.#kept.add(offsetIn(this.cidr, parseAddress(gateway)));
    // RFC 3021 and RFC 6164: ranges of one or two addresses have no network and broadcast address.
    const whole = size <= 2n;
    this.#first = whole ? 0n : 1n;
    this.#end = whole ? size : this.cidr.family === 4 ? size - 1n : size;
    if (this.#end > MAX_DYNAMIC) this.#end = MAX_DYNAMIC;
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

  /** Gives out the next free address, or undefined when there is none. */
  take(owner: string): string | undefined {
    const span = this.#end - this.#first;
    let offset = this.#next;
    for (let tried = 0n; tried < span; tried++) {
      if (offset >= this.#end) offset = this.#first;
      if (!this.#owners.has(offset) && !this.#kept.has(offset)) {
        this.#owners.set(offset, owner);
        this.#next = offset + 1n;
        return formatAddress(addressAt(this.cidr, offset));
      }
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
