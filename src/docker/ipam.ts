import {
  addressAt,
  type Cidr,
  cidrContains,
  cidrContainsCidr,
  cidrSize,
  cidrsOverlap,
  formatAddress,
  formatCidr,
  offsetIn,
  parseAddress,
  parseCidr,
  textPrefixLength,
} from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { NetworkResource } from '../../policy/model/resources.js';
import { badRange } from '../../policy/schema/network.js';
import type { DockerNetworkInfo } from './api.js';
import { addressKey, type DockerPool, type DockerState } from './state.js';

/** Where ranges are taken from when `docker network create` names none: one /24, one /64 a network. */
const SPACE4 = parseCidr('10.128.0.0/10');
const LENGTH4 = 24;
const LENGTH6 = 64;
/** What the ids of pools begin with; the range follows. */
const POOL = 'sluice ';
/** Addresses of an IPv6 range that are given out. */
const MAX_OFFSET = 1n << 24n;

/** What the IPAM driver has to know of the rest. */
export interface IpamWorld {
  /** The networks in force, Docker's and others. */
  readonly networks: () => readonly NetworkResource[];
  /** Ranges of the host: those of its devices' addresses. */
  readonly hostRanges: () => readonly Cidr[];
  /** What Docker says of the network whose range of ours this is. Throws SLU5204. */
  readonly dockerNetwork: (cidr: string) => Promise<DockerNetworkInfo | undefined>;
  /** Whether a container of somebody else has the address. */
  readonly inUse: (address: string) => boolean;
  /** First 48 bits of IPv6 ranges (an RFC 4193 prefix), as a /48. */
  readonly space6: Cidr;
}

/** Docker's remote IPAM driver: ranges and addresses. Addresses are given out in turn, like leases. */
export class DockerIpam {
  readonly #state: DockerState;
  readonly #world: IpamWorld;
  /** The offset given last, by pool. */
  readonly #last = new Map<string, bigint>();

  constructor(state: DockerState, world: IpamWorld) {
    this.#state = state;
    this.#world = world;
  }

  /** A range. Without `cidr`: a free one of the family. Throws SLU1202, SLU1205, SLU1206, SLU5206 (taken), SLU5207 (none left). */
  requestPool(request: {
    readonly cidr: string;
    readonly range: string;
    readonly network?: string;
    readonly v6: boolean;
  }): DockerPool {
    const { network } = request;
    const cidr = request.cidr === '' ? this.#freeRange(request.v6) : parseCidr(request.cidr, 'clear');
    const bad = badRange(cidr);
    if (bad !== undefined) throw bad;
    const text = formatCidr(cidr);
    // Docker itself refuses a range that the host has a route to, unless the user names it.
    const wanted = network === undefined ? undefined : this.#rangeOf(network, request.v6);
    if (network !== undefined && wanted !== undefined && (request.cidr === '' || text !== wanted))
      throw SluiceError.of('SLU5212', { network, wanted });
    if (request.cidr !== '' && network === undefined) this.#checkFree(cidr);
    const range = request.range === '' ? undefined : parseCidr(request.range, 'clear');
    if (range !== undefined && !cidrContainsCidr(cidr, range))
      throw SluiceError.of('SLU1207', { address: request.range, cidr: text });
    const id = `${POOL}${text}`;
    if (this.#state.pools.has(id)) throw SluiceError.of('SLU5206', { cidr: text, other: text });
    const pool: DockerPool = {
      id,
      cidr: text,
      ...(range === undefined ? {} : { range: formatCidr(range) }),
      ...(network === undefined ? {} : { network }),
    };
    this.#state.put('pool', id, pool);
    return pool;
  }

  /**
   * A range that we have forgotten (after `sluice down`) is taken again as Docker knows it, with the addresses that
   * its containers have. Throws SLU5204, SLU5206 (somebody else has it now).
   */
  async restorePool(id: string): Promise<void> {
    if (this.#state.pools.has(id) || !id.startsWith(POOL)) return;
    const text = id.slice(POOL.length);
    const found = await this.#world.dockerNetwork(text);
    const config = found?.IPAM?.Config?.find(({ Subnet }) => Subnet === text);
    if (config === undefined || this.#state.pools.has(id)) return;
    const { network } = found?.IPAM?.Options ?? {};
    const v6 = text.includes(':');
    this.requestPool({
      cidr: text,
      range: config.IPRange ?? '',
      v6,
      ...(network === undefined ? {} : { network }),
    });
    const members = Object.values(found?.Containers ?? {});
    const given = members.map(({ IPv4Address, IPv6Address }) => (v6 ? IPv6Address : IPv4Address));
    const reserved = [config.Gateway, ...Object.values(config.AuxiliaryAddresses ?? {})];
    for (const [list, chosen] of [
      [reserved, false],
      [given, true],
    ] as const)
      for (const entry of list) {
        const [address = ''] = (entry ?? '').split('/');
        if (address !== '')
          this.#state.put('address', addressKey(id, address), { pool: id, address, chosen });
      }
  }

  releasePool(id: string): void {
    for (const [key, row] of [...this.#state.addresses])
      if (row.pool === id) this.#state.put('address', key, undefined);
    this.#state.put('pool', id, undefined);
    this.#last.delete(id);
  }

  /**
   * An address as `address/length`: the given one, else the gateway's, else the next free one.
   * Throws SLU5208 (unknown pool), SLU5209 (taken), SLU5210 (none left).
   */
  requestAddress(id: string, address: string, gateway: boolean): string {
    const pool = this.#state.pools.get(id);
    if (pool === undefined) throw SluiceError.of('SLU5208', { pool: id });
    const cidr = parseCidr(pool.cidr);
    const fixed = address !== '' ? address : gateway ? this.#gatewayOf(pool, cidr) : undefined;
    const text = fixed === undefined ? this.#next(pool, cidr) : this.#claim(pool, cidr, fixed, gateway);
    this.#state.put('address', addressKey(id, text), {
      pool: id,
      address: text,
      chosen: fixed === undefined,
    });
    return `${text}/${textPrefixLength(cidr)}`;
  }

  releaseAddress(id: string, address: string): void {
    const text = address.split('/')[0] ?? '';
    this.#state.put('address', addressKey(id, text), undefined);
  }

  #rangeOf(network: string, v6: boolean): string {
    const found = this.#world.networks().find(({ name }) => name === network);
    const range = v6 ? found?.ipv6 : found?.ipv4;
    if (found === undefined) throw SluiceError.of('SLU5205', { network });
    if (range === undefined) throw SluiceError.of('SLU1307', { network, family: v6 ? 6 : 4 });
    return range.cidr;
  }

  #gatewayOf(pool: DockerPool, cidr: Cidr): string {
    const network = this.#world.networks().find(({ name }) => name === pool.network);
    const range = cidr.family === 4 ? network?.ipv4 : network?.ipv6;
    return range?.gateway ?? formatAddress(addressAt(cidr, 1n));
  }

  #claim(pool: DockerPool, cidr: Cidr, address: string, gateway: boolean): string {
    const bytes = parseAddress(address);
    const text = formatAddress(bytes);
    if (!cidrContains(cidr, bytes)) throw SluiceError.of('SLU1207', { address: text, cidr: pool.cidr });
    const taken =
      this.#state.addresses.has(addressKey(pool.id, text)) || (!gateway && this.#world.inUse(text));
    if (taken) throw SluiceError.of('SLU5209', { address: text });
    return text;
  }

  #next(pool: DockerPool, cidr: Cidr): string {
    const range = pool.range === undefined ? cidr : parseCidr(pool.range);
    const base = offsetIn(cidr, range.address);
    const size = cidrSize(range);
    const whole = pool.range === undefined;
    // The network's own address, and in IPv4 the last one, are nobody's.
    const first = whole || base === 0n ? 1n : 0n;
    const total = cidrSize(cidr);
    let end = size;
    if (cidr.family === 4 && base + size === total) end -= 1n;
    if (end > MAX_OFFSET) end = MAX_OFFSET;
    const gateway = this.#gatewayOf(pool, cidr);
    let offset = (this.#last.get(pool.id) ?? first - 1n) + 1n;
    for (let tried = first; tried < end; tried++, offset++) {
      if (offset >= end || offset < first) offset = first;
      const text = formatAddress(addressAt(cidr, base + offset));
      if (text === gateway || this.#state.addresses.has(addressKey(pool.id, text)) || this.#world.inUse(text))
        continue;
      this.#last.set(pool.id, offset);
      return text;
    }
    throw SluiceError.of('SLU5210', { cidr: pool.range ?? pool.cidr });
  }

  #taken(): Cidr[] {
    const networks = this.#world.networks().flatMap(({ ipv4, ipv6 }) => [ipv4?.cidr, ipv6?.cidr]);
    const pools = [...this.#state.pools.values()].map(({ cidr }) => cidr);
    return [...networks, ...pools].flatMap((cidr) => (cidr === undefined ? [] : [parseCidr(cidr)]));
  }

  #checkFree(cidr: Cidr): void {
    const other = this.#taken().find((taken) => cidrsOverlap(taken, cidr));
    if (other !== undefined)
      throw SluiceError.of('SLU5206', { cidr: formatCidr(cidr), other: formatCidr(other) });
  }

  #freeRange(v6: boolean): Cidr {
    const space = v6 ? this.#world.space6 : SPACE4;
    const length = v6 ? LENGTH6 : 96 + LENGTH4;
    const size = 1n << BigInt(128 - length);
    const taken = [...this.#taken(), ...this.#world.hostRanges()];
    const count = cidrSize(space) / size;
    for (let i = 0n; i < count; i++) {
      const cidr = { address: addressAt(space, i * size), prefixLength: length, family: space.family };
      if (!taken.some((other) => cidrsOverlap(other, cidr))) return cidr;
    }
    throw SluiceError.of('SLU5207', { space: formatCidr(space) });
  }
}
