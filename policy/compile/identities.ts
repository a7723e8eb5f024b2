/**
 * Identities: which number an address has. The number stands for the group of the endpoint (or none)
 * and for the CIDRs of policies around the address, that is for a node of the CIDR tree.
 *
 * A CIDR that no policy uses any more stays in the tree until `settle`: while a change is being
 * applied, sets that refer to it are still in force.
 */
import { type AddressBytes, type Cidr, parseAddress, parseCidr } from '../address.js';
import { CidrTree, nodeContains } from './cidr-tree.js';
import { isEndpoint } from './kinds.js';
import type { AddressNode, CidrData, Claim, EndpointNode, Group, Identity, Prefix } from './nodes.js';
import { IDENTITY } from './types.js';
import type { Update } from './update.js';

const EVERY_IPV4 = '0.0.0.0/0';
const MAPPED = parseCidr(EVERY_IPV4);

/** An IPv6 prefix that would match v4-mapped addresses too, where the kernel keeps IPv4. */
function coversIpv4({ family, prefixLength, address }: Cidr): boolean {
  return (
    family === 6 &&
    prefixLength <= 96 &&
    address.every((byte, i) => byte === ((MAPPED.address[i] ?? 0) & maskByte(i, prefixLength)))
  );
}

function maskByte(index: number, prefixLength: number): number {
  const bits = Math.max(0, Math.min(8, prefixLength - 8 * index));
  return (0xff << (8 - bits)) & 0xff;
}

export class Identities {
  readonly tree = new CidrTree<CidrData>(() => ({
    identities: new Map(),
    addresses: new Set(),
    users: new Map(),
    references: 0,
  }));
  readonly #addresses = new Map<string, AddressNode>();
  readonly #unused = new Set<Prefix>();
  /** Prefixes for which IPv4 needs an entry of its own. */
  readonly #covering = new Set<Prefix>();
  readonly #counter: { even: number; odd: number; live: number };
  /** Identities that are no endpoints. */
  readonly networks = new Set<Identity>();

  constructor(first: number) {
    this.#counter = { even: first + (first & 1), odd: first + 1 - (first & 1), live: 0 };
  }

  /** Whether CIDRs wait for `settle`. */
  get unsettled(): boolean {
    return this.#unused.size > 0;
  }

  /** How many identities there are. */
  get size(): number {
    return this.#counter.live;
  }

  addresses(): Iterable<AddressNode> {
    return this.#addresses.values();
  }

  address(text: string): AddressNode | undefined {
    return this.#addresses.get(text);
  }

  /** Uses a CIDR of a policy. */
  acquire(text: string, update: Update): Prefix {
    const prefix = this.tree.get(text) ?? this.#add(text, update);
    update.journal.assign(prefix.data, 'references', prefix.data.references + 1);
    update.journal.remove(this.#unused, prefix);
    return prefix;
  }

  release(prefix: Prefix, update: Update): void {
    update.journal.assign(prefix.data, 'references', prefix.data.references - 1);
    if (prefix.data.references === 0) update.journal.add(this.#unused, prefix);
  }

  /** Takes unused CIDRs out. No verdict depends on it: no set refers to them. */
  settle(update: Update): void {
    const length = (prefix: Prefix): number => prefix.cidr?.prefixLength ?? 0;
    const narrowFirst = [...this.#unused].sort((a, b) => length(b) - length(a) || (a.text < b.text ? -1 : 1));
    for (const prefix of narrowFirst) this.#remove(prefix, update);
  }

  /** Makes an endpoint the owner of an address. */
  claim(endpoint: EndpointNode, group: Group, text: string, update: Update): Claim {
    const address = this.#addresses.get(text) ?? this.#newAddress(text, update);
    const identity = this.#identity(group, address.prefix, update);
    const claim: Claim = { endpoint, address, identity };
    update.ownerChanges(address);
    const before = numberOf(address);
    // Written as a list of one, it takes no room for more: there may be very many.
    const claims = address.claims.length === 0 ? [claim] : [...address.claims, claim];
    update.journal.assign(address, 'claims', claims);
    update.journal.add(identity.claims, claim);
    update.recorder.address(address.text, before, numberOf(address));
    update.endpoints.add(endpoint);
    return claim;
  }

  unclaim(claim: Claim, update: Update): void {
    const { address, identity } = claim;
    update.ownerChanges(address);
    const before = numberOf(address);
    update.journal.assign(
      address,
      'claims',
      address.claims.filter((other) => other !== claim),
    );
    update.journal.remove(identity.claims, claim);
    update.idle.identities.add(identity);
    update.recorder.address(address.text, before, numberOf(address));
    if (address.claims.length > 0) return;
    update.journal.drop(this.#addresses, address.text);
    update.journal.remove(address.prefix.data.addresses, address);
  }

  /** The endpoint of the claim belongs to another group from now on. */
  regroup(claim: Claim, group: Group, update: Update): void {
    update.ownerChanges(claim.address);
    this.#move(claim, this.#identity(group, claim.address.prefix, update), update);
  }

  /** Removes an identity from where it is found; the caller has removed its entries. */
  forget(identity: Identity, update: Update): void {
    const { journal } = update;
    const { identities } = identity.prefix.data;
    if (identities.get(identity.group) === identity) journal.drop(identities, identity.group);
    if (identity.group !== undefined) journal.remove(identity.group.identities, identity);
    journal.remove(this.networks, identity);
    journal.assign(identity, 'dead', true);
    journal.assign(this.#counter, 'live', this.#counter.live - 1);
  }

  /** All identities of addresses inside a prefix, of endpoints and others, but not inside the exceptions. */
  *inside(prefix: Prefix, except: readonly Prefix[] = []): Generator<Identity> {
    if (except.includes(prefix)) return;
    yield* prefix.data.identities.values();
    for (const child of prefix.children) yield* this.inside(child, except);
  }

  #identity(group: Group | undefined, prefix: Prefix, update: Update): Identity {
    const found = prefix.data.identities.get(group);
    if (found !== undefined) return found;
    const { journal } = update;
    const parity = isEndpoint({ group }) ? 'even' : 'odd';
    const number = this.#counter[parity];
    journal.assign(this.#counter, parity, number + 2);
    journal.assign(this.#counter, 'live', this.#counter.live + 1);
    const identity: Identity = {
      number,
      group,
      prefix,
      claims: new Set(),
      class: undefined,
      generation: update.generation,
      dead: false,
    };
    journal.put(prefix.data.identities, group, identity);
    if (group !== undefined) journal.add(group.identities, identity);
    if (parity === 'odd') journal.add(this.networks, identity);
    else update.unclassified.add(identity);
    update.newPeer(identity);
    return identity;
  }

  #newAddress(text: string, update: Update): AddressNode {
    const bytes = parseAddress(text);
    const family = text.includes(':') ? 6 : 4;
    const prefix = this.tree.find(bytes, family);
    const ipv4 = family === 4 ? ipv4Number(bytes) : 0;
    const address: AddressNode = { text, family, ipv4, prefix, claims: [] };
    update.journal.put(this.#addresses, text, address);
    update.journal.add(prefix.data.addresses, address);
    return address;
  }

  #move(claim: Claim, identity: Identity, update: Update): void {
    if (claim.identity === identity) return;
    const { address } = claim;
    const before = numberOf(address);
    update.journal.remove(claim.identity.claims, claim);
    update.idle.identities.add(claim.identity);
    update.journal.add(identity.claims, claim);
    update.journal.assign(claim, 'identity', identity);
    update.recorder.address(address.text, before, numberOf(address));
    update.endpoints.add(claim.endpoint);
  }

  #rekey(identity: Identity, prefix: Prefix, update: Update): void {
    const { journal } = update;
    if (identity.prefix.data.identities.get(identity.group) === identity)
      journal.drop(identity.prefix.data.identities, identity.group);
    journal.put(prefix.data.identities, identity.group, identity);
    journal.assign(identity, 'prefix', prefix);
    if (identity.group !== undefined) update.unclassified.add(identity);
  }

  /** A new CIDR: of each identity around it, the addresses inside part from those outside. */
  #add(text: string, update: Update): Prefix {
    const { journal } = update;
    const prefix = this.tree.add(text, journal);
    const parent = prefix.parent ?? this.tree.root;
    this.#publish(prefix, this.#identity(undefined, prefix, update).number, update);
    const inside = new Map<Identity, Claim[]>();
    const contains = containment(prefix);
    for (const address of [...parent.data.addresses]) {
      if (!contains(address)) continue;
      journal.remove(parent.data.addresses, address);
      journal.add(prefix.data.addresses, address);
      journal.assign(address, 'prefix', prefix);
      for (const claim of address.claims) {
        const claims = inside.get(claim.identity);
        if (claims === undefined) inside.set(claim.identity, [claim]);
        else claims.push(claim);
      }
    }
    for (const [identity, claims] of inside) {
      // The larger part keeps the number.
      if (2 * claims.length < identity.claims.size) {
        const part = this.#identity(identity.group, prefix, update);
        for (const claim of claims) this.#move(claim, part, update);
      } else {
        const moved = new Set(claims);
        const rest = [...identity.claims].filter((claim) => !moved.has(claim));
        this.#rekey(identity, prefix, update);
        if (rest.length === 0) continue;
        const part = this.#identity(identity.group, parent, update);
        for (const claim of rest) this.#move(claim, part, update);
      }
    }
    return prefix;
  }

  /** A CIDR goes: identities that only it told apart become one. */
  #remove(prefix: Prefix, update: Update): void {
    const { journal } = update;
    const parent = prefix.parent ?? this.tree.root;
    for (const [group, identity] of [...prefix.data.identities]) {
      if (group === undefined) {
        this.#unpublish(prefix, identity.number, update);
        update.idle.identities.add(identity);
        continue;
      }
      const other = parent.data.identities.get(group);
      if (other === undefined) {
        this.#rekey(identity, parent, update);
        continue;
      }
      const difference = identity.claims.size - other.claims.size || other.number - identity.number;
      const [kept, lost] = difference > 0 ? [identity, other] : [other, identity];
      for (const claim of [...lost.claims]) this.#move(claim, kept, update);
      update.idle.identities.add(lost);
      if (kept === identity) this.#rekey(identity, parent, update);
    }
    for (const address of prefix.data.addresses) {
      journal.add(parent.data.addresses, address);
      journal.assign(address, 'prefix', parent);
    }
    this.tree.remove(prefix, journal);
    journal.remove(this.#unused, prefix);
  }

  #publish(prefix: Prefix, number: number, update: Update): void {
    const { recorder, journal } = update;
    if (prefix.text === EVERY_IPV4) {
      recorder.cidr(EVERY_IPV4, this.#covering.size > 0 ? IDENTITY.World : undefined, number);
      return;
    }
    recorder.cidr(prefix.text, undefined, number);
    if (prefix.cidr === undefined || !coversIpv4(prefix.cidr)) return;
    if (this.#covering.size === 0 && this.tree.get(EVERY_IPV4) === undefined)
      recorder.cidr(EVERY_IPV4, undefined, IDENTITY.World);
    journal.add(this.#covering, prefix);
  }

  #unpublish(prefix: Prefix, number: number, update: Update): void {
    const { recorder, journal } = update;
    if (prefix.text === EVERY_IPV4) {
      recorder.cidr(EVERY_IPV4, number, this.#covering.size > 0 ? IDENTITY.World : undefined);
      return;
    }
    recorder.cidr(prefix.text, number, undefined);
    if (!journal.remove(this.#covering, prefix)) return;
    if (this.#covering.size === 0 && this.tree.get(EVERY_IPV4) === undefined)
      recorder.cidr(EVERY_IPV4, IDENTITY.World, undefined);
  }

  /** Entries of `cidrs`. */
  *cidrRows(): Generator<readonly [string, number]> {
    for (const prefix of this.tree.nodes()) {
      const identity = prefix.data.identities.get(undefined);
      if (identity !== undefined) yield [prefix.text, identity.number];
    }
    if (this.#covering.size > 0 && this.tree.get(EVERY_IPV4) === undefined)
      yield [EVERY_IPV4, IDENTITY.World];
  }
}

/** Identity that the kernel has for the address. */
export function numberOf(address: AddressNode): number | undefined {
  return address.claims.at(-1)?.identity.number;
}

function ipv4Number(bytes: AddressBytes): number {
  return (
    (((bytes[12] ?? 0) << 24) | ((bytes[13] ?? 0) << 16) | ((bytes[14] ?? 0) << 8) | (bytes[15] ?? 0)) >>> 0
  );
}

/** Whether addresses are in a prefix: for a look at very many of them. */
function containment(prefix: Prefix): (address: AddressNode) => boolean {
  const { cidr } = prefix;
  if (cidr === undefined) return () => true;
  if (cidr.family === 6)
    return (address) => address.family === 6 && nodeContains(prefix, parseAddress(address.text), 6);
  const mask = cidr.prefixLength <= 96 ? 0 : (0xffff_ffff << (128 - cidr.prefixLength)) >>> 0;
  const network = ipv4Number(cidr.address);
  return ({ family, ipv4 }) => family === 4 && (ipv4 & mask) >>> 0 === network;
}
