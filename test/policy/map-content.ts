/**
 * The content of the policy maps in bytes, with numbers in the order in which a fixed walk meets them: devices and
 * identities by address, sets by endpoint, profiles and rules by the rows that use them. Renaming is one to one,
 * so two contents are equal exactly if they differ in the choice of numbers alone. A row that nothing leads to is an
 * error: the walk has no number for it.
 */
import type { Codec } from '../../loader/abi/codec.js';
import { MAPS } from '../../loader/abi/gen/types.gen.js';
import type { KernelMaps } from '../../src/dataplane/kernel-maps.js';

/** Identities below are fixed (enum reserved_identity). */
const FIRST_IDENTITY = 256;
/** Numbers from here on are classes of identities. */
const FIRST_CLASS = 0x4000_0000;

class Numbers {
  readonly #known = new Map<number, number>();
  readonly #what: string;
  readonly #fixed: number;

  /** Numbers below `fixed` stay as they are. */
  constructor(what: string, fixed = 1) {
    this.#what = what;
    this.#fixed = fixed;
  }

  /** A number that may be met for the first time. */
  meet(number: number): number {
    if (number < this.#fixed) return number;
    let renamed = this.#known.get(number);
    if (renamed === undefined) {
      renamed = this.#fixed + this.#known.size;
      this.#known.set(number, renamed);
    }
    return renamed;
  }

  /** A number that something must have led to. */
  known(number: number): number {
    const renamed = number < this.#fixed ? number : this.#known.get(number);
    if (renamed === undefined) throw new Error(`${this.#what} ${number} is left over: nothing leads to it`);
    return renamed;
  }
}

function bytesOf<T>(codec: Codec<T>, value: T): Buffer {
  const bytes = Buffer.alloc(codec.size);
  codec.encode(value, bytes, 0);
  return bytes;
}

/** Lines of hexadecimal digits, one a row, each with the name of its map. */
export function mapContent(maps: KernelMaps): string[] {
  const [devices, identities, sets] = [
    new Numbers('device'),
    new Numbers('identity', FIRST_IDENTITY),
    new Numbers('set'),
  ];
  const classes = new Numbers('class', FIRST_CLASS);
  const [profiles, rules] = [new Numbers('profile'), new Numbers('rule')];
  const lines: string[] = [];
  const row = <K, V>(
    name: string,
    codecs: { readonly key: Codec<K>; readonly value: Codec<V> },
    key: K,
    value: V,
  ) =>
    lines.push(
      `${name} ${bytesOf(codecs.key, key).toString('hex')} ${bytesOf(codecs.value, value).toString('hex')}`,
    );
  const sorted = <K, V>(rows: Iterable<readonly [K, V]>, codec: Codec<K>): (readonly [K, V])[] =>
    [...rows].sort(([a], [b]) => bytesOf(codec, a).compare(bytesOf(codec, b)));

  for (const [key, value] of sorted(maps.addrs.entries(), MAPS.addrs.key)) {
    const renamed = { identity: identities.meet(value.identity), ifindex: devices.meet(value.ifindex) };
    row('addrs', MAPS.addrs, key, { ...value, ...renamed });
  }
  for (const [key, value] of sorted(maps.cidrs.entries(), MAPS.cidrs.key))
    row('cidrs', MAPS.cidrs, key, { ...value, identity: identities.meet(value.identity) });

  const endpoints = [...maps.endpoints.entries()]
    .map(([, value]) => value)
    .filter(({ ifindex }) => ifindex !== 0)
    // Those without an address are met last, by their other bytes.
    .map((value) => ({ value, order: bytesOf(MAPS.endpoints.value, { ...value, ifindex: 0 }) }))
    .sort((a, b) => Buffer.compare(addressesOf(a.value), addressesOf(b.value)) || a.order.compare(b.order))
    .map(({ value }) => value);
  for (const value of endpoints) {
    const index = devices.meet(value.ifindex);
    row('endpoints', MAPS.endpoints, index, {
      ...value,
      ifindex: index,
      identity4: identities.known(value.identity4),
      identity6: identities.known(value.identity6),
      setEgress: sets.meet(value.setEgress),
      setIngress: sets.meet(value.setIngress),
    });
  }

  const members = [...maps.identity_class.entries()].map(
    ([identity, number]) => [identities.known(identity), number] as const,
  );
  for (const [identity, number] of sorted(members, MAPS.identity_class.key))
    row('identity_class', MAPS.identity_class, identity, classes.meet(number));

  const peerOf = (identity: number): number =>
    identity < FIRST_CLASS ? identities.known(identity) : classes.known(identity);
  const peers = [...maps.policy_peers.entries()].map(
    ([key, value]) => [{ set: sets.known(key.set), identity: peerOf(key.identity) }, value] as const,
  );
  for (const [key, value] of sorted(peers, MAPS.policy_peers.key)) {
    const renamed = { profile: profiles.meet(value.profile), rule: rules.meet(value.rule) };
    row('policy_peers', MAPS.policy_peers, key, { ...value, ...renamed });
  }
  const ports = [...maps.policy_ports.entries()].map(
    ([key, value]) => [{ ...key, profile: profiles.known(key.profile) }, value] as const,
  );
  for (const [key, value] of sorted(ports, MAPS.policy_ports.key))
    row('policy_ports', MAPS.policy_ports, key, { ...value, rule: rules.meet(value.rule) });
  return lines;
}

function addressesOf({ addr4, addr6 }: { readonly addr4: Uint8Array; readonly addr6: Uint8Array }): Buffer {
  return Buffer.concat([addr4, addr6]);
}
