import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Codec } from '../../loader/abi/codec.js';
import { AddrFlag, type AddrInfo, type CidrKey, MAPS } from '../../loader/abi/gen/types.gen.js';
import {
  cidrContainsCidr,
  formatAddress,
  formatCidr,
  parseAddress,
  parseCidr,
} from '../../policy/address.js';
import { AddressTable } from './address-table.js';
import { CidrTable } from './cidr-table.js';
import { hostPortEntries } from './hostport-entries.js';
import { type KernelMap, SyncedMap } from './synced-map.js';

/** Holds what the kernel's map would, and counts writes. */
class Entries<K, V> implements KernelMap<K, V> {
  readonly name = 'entries';
  readonly maxEntries = 1000;
  readonly held = new Map<string, readonly [K, V]>();
  writes = 0;
  fail = false;
  /** Entries of a batch that fit. */
  room = Number.POSITIVE_INFINITY;
  readonly #codec: Codec<K>;

  constructor(codec: Codec<K>) {
    this.#codec = codec;
  }

  set(key: K, value: V): void {
    if (this.fail) throw new Error('map is full');
    this.writes++;
    this.held.set(this.#id(key), [key, value]);
  }

  setBatch(entries: readonly (readonly [K, V])[]): void {
    for (const [i, [key, value]] of entries.entries()) {
      if (i === this.room) throw new Error('map is full');
      this.held.set(this.#id(key), [key, value]);
    }
    this.writes++;
  }

  delete(key: K): boolean {
    this.writes++;
    return this.held.delete(this.#id(key));
  }

  entries(): Iterable<readonly [K, V]> {
    return this.held.values();
  }

  #id(key: K): string {
    const bytes = Buffer.alloc(this.#codec.size);
    this.#codec.encode(key, bytes, 0);
    return bytes.toString('hex');
  }
}

function addresses() {
  const kernel = new Entries<Uint8Array, AddrInfo>(MAPS.addrs.key);
  const table = new AddressTable(new SyncedMap(kernel, MAPS.addrs));
  return {
    kernel,
    table,
    text: () =>
      [...kernel.held.values()].map(
        ([key, v]) => `${formatAddress(key)} ${v.identity} ${v.ifindex} ${v.network} ${v.flags}`,
      ),
  };
}

function cidrs() {
  const kernel = new Entries<CidrKey, AddrInfo>(MAPS.cidrs.key);
  const table = new CidrTable(new SyncedMap(kernel, MAPS.cidrs));
  const text = (): string[] =>
    [...kernel.held.values()]
      .map(([key, v]) => {
        const family = formatAddress(key.addr).includes(':') ? 6 : 4;
        return `${formatCidr({ address: key.addr, prefixLength: key.prefixlen, family })} ${v.identity} ${v.network} ${v.flags}`;
      })
      .sort();
  return { kernel, table, text };
}

describe('SyncedMap', () => {
  it('writes many together, and takes back those that did not fit as well', () => {
    const { kernel, table, text } = addresses();
    const remote = { node: new Uint8Array(16), network: 1, isNode: false };
    const wanted = Array.from({ length: 100 }, (_, i) => [`10.9.0.${i}`, 300 + i] as const);
    for (const [address] of wanted) table.setRemote(address, remote);
    table.setIdentity('10.9.0.7', 299);
    const before = text();
    const undo: (() => void)[] = [];
    kernel.room = 50;
    expect(() => table.setIdentities(wanted, (take) => undo.push(take))).toThrow('map is full');
    for (const take of undo.reverse()) take();
    expect(text()).toEqual(before);
    kernel.room = Number.POSITIVE_INFINITY;
    kernel.writes = 0;
    table.setIdentities(wanted, () => undefined);
    expect(kernel.writes).toBe(1);
    expect(kernel.held.size).toBe(100);
    expect(text().sort()).toEqual(
      wanted.map(([address, identity]) => `${address} ${identity} 0 1 ${AddrFlag.Cluster}`).sort(),
    );
  });

  it('writes only differences, keeps what an earlier agent left until the sweep', () => {
    const kernel = new Entries<Uint8Array, AddrInfo>(MAPS.addrs.key);
    const info = { identity: 1, ifindex: 2, network: 3, flags: 0, node: new Uint8Array(16) };
    const [a, b, c] = ['10.0.0.1', '10.0.0.2', 'fd00::3'].map(parseAddress) as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    kernel.set(a, info);
    kernel.set(b, info);
    kernel.writes = 0;
    const map = new SyncedMap(kernel, MAPS.addrs);
    map.load();
    map.set(a, { ...info });
    map.set(c, info);
    expect([kernel.writes, kernel.held.size, map.has(a), map.has(b)]).toEqual([1, 3, true, false]);
    expect(map.sweep()).toBe(1);
    expect([...kernel.held.values()].map(([key]) => formatAddress(key))).toEqual(['10.0.0.1', 'fd00::3']);
  });

  it('never takes away what an earlier agent left before the sweep, in whatever order its parts become known', () => {
    const places = (table: AddressTable): (() => unknown)[] => [
      () => table.setPlace('10.0.0.1', { ifindex: 7, network: 1 }),
      () => table.setRemote('10.1.0.1', { node: parseAddress('192.0.2.1'), network: 1, isNode: false }),
    ];
    const identities = (table: AddressTable): (() => unknown)[] => [
      () => table.setIdentity('10.0.0.1', 300),
      () => table.setIdentities([['10.1.0.1', 301]], () => undefined),
    ];
    const { kernel, table } = addresses();
    for (const step of [...identities(table), ...places(table)]) step();
    const held = new Map(kernel.held);
    table.setIdentity('10.0.0.9', 309);
    table.setPlace('10.0.0.9', { ifindex: 9, network: 1 });
    kernel.writes = 0;
    const map = new SyncedMap(kernel, MAPS.addrs);
    map.load();
    const later = new AddressTable(map);
    for (const step of [...identities(later), ...places(later)]) step();
    later.setRemote('10.0.0.9', { node: new Uint8Array(16), network: 1, isNode: false });
    later.deleteRemote('10.0.0.9');
    expect([kernel.writes, kernel.held.size]).toEqual([0, 3]);
    expect(map.sweep()).toBe(1);
    expect(kernel.held).toEqual(held);
    // Now what is half known is not there.
    later.deleteIdentity('10.1.0.1');
    expect(kernel.held.size).toBe(1);
  });

  it('takes changes back', () => {
    const kernel = new Entries<Uint8Array, AddrInfo>(MAPS.addrs.key);
    const map = new SyncedMap(kernel, MAPS.addrs);
    const key = parseAddress('10.0.0.1');
    const info = { identity: 1, ifindex: 2, network: 3, flags: 0, node: new Uint8Array(16) };
    const undo = [map.set(key, info), map.set(key, { ...info, identity: 9 }), map.delete(key)];
    for (const step of undo.reverse()) step();
    expect([kernel.held.size, map.size]).toEqual([0, 0]);
  });
});

describe('AddressTable', () => {
  it('joins identity and place, and lets a container win over the host', () => {
    const { table, text } = addresses();
    table.setIdentity('10.1.0.2', 300);
    expect(text()).toEqual([]);
    table.addHost('10.1.0.1');
    table.addHost('10.1.0.1');
    const undo = table.setPlace('10.1.0.2', { ifindex: 256, network: 1 });
    expect(text()).toEqual(['10.1.0.1 1 0 0 5', '10.1.0.2 300 256 1 0']);
    undo();
    table.removeHost('10.1.0.1');
    expect(text()).toEqual(['10.1.0.1 1 0 0 5']);
    table.removeHost('10.1.0.1');
    expect(text()).toEqual([]);
  });

  it('writes an address of another node when identity and node are known, behind the container and the host', () => {
    const { kernel, table, text } = addresses();
    const remote = { node: parseAddress('192.0.2.7'), network: 0, isNode: false };
    table.setRemote('10.1.0.2', remote);
    expect(text()).toEqual([]);
    table.setIdentity('10.1.0.2', 300);
    table.setRemote('192.0.2.7', { ...remote, isNode: true });
    table.setIdentity('192.0.2.7', 301);
    expect(text()).toEqual(['10.1.0.2 300 0 0 8', '192.0.2.7 301 0 0 24']);
    expect([...kernel.held.values()].map(([, { node }]) => formatAddress(node))).toEqual([
      '192.0.2.7',
      '192.0.2.7',
    ]);
    const undo = [table.addHost('192.0.2.7'), table.setPlace('10.1.0.2', { ifindex: 256, network: 1 })];
    expect(text()).toEqual(['10.1.0.2 300 256 1 0', '192.0.2.7 1 0 0 5']);
    for (const step of undo) step();
    table.deleteRemote('10.1.0.2');
    table.deleteIdentity('192.0.2.7');
    expect(text()).toEqual([]);
  });

  it('stays as it was when the kernel refuses', () => {
    const { kernel, table } = addresses();
    kernel.fail = true;
    expect(() => table.setPlace('10.1.0.2', { ifindex: 256, network: 1 })).toThrow('map is full');
    expect(table.placeOf('10.1.0.2')).toBeUndefined();
  });
});

describe('CidrTable', () => {
  it('keeps policy prefixes inside a container network reserved', () => {
    const { table, text } = cidrs();
    table.setIdentity('10.0.0.0/8', 300);
    const undo = table.reserve('10.1.0.0/16', 2);
    table.setIdentity('10.1.0.9/32', 301);
    expect(text()).toEqual(['10.0.0.0/8 300 0 0', '10.1.0.0/16 300 2 2', '10.1.0.9/32 301 2 2']);
    table.setIdentity('10.1.0.0/16', 302);
    table.deleteIdentity('10.0.0.0/8');
    expect(text()).toEqual(['10.1.0.0/16 302 2 2', '10.1.0.9/32 301 2 2']);
    table.release('10.1.0.0/16');
    expect(text()).toEqual(['10.1.0.0/16 302 0 0', '10.1.0.9/32 301 0 0']);
    undo();
  });

  it('lets the longest of the ranges around a prefix say whose it is', () => {
    const { kernel, table, text } = cidrs();
    table.setIdentity('10.1.2.128/25', 300);
    table.reserve('10.1.0.0/16', 2);
    table.setRemote('10.1.2.0/24', { node: parseAddress('192.0.2.7') });
    table.setIdentity('10.0.0.0/8', 301);
    const both = [
      '10.0.0.0/8 301 0 0',
      '10.1.0.0/16 301 2 2',
      '10.1.2.0/24 301 2 8',
      '10.1.2.128/25 300 2 8',
    ];
    expect(text()).toEqual(both);
    expect([...kernel.held.values()].filter(([, { node }]) => node[15] === 7)).toHaveLength(2);
    const undo = table.release('10.1.0.0/16');
    expect(text()).toEqual(['10.0.0.0/8 301 0 0', '10.1.2.0/24 301 0 8', '10.1.2.128/25 300 0 8']);
    undo();
    expect(text()).toEqual(both);
    table.deleteRemote('10.1.2.0/24');
    expect(text()).toEqual(['10.0.0.0/8 301 0 0', '10.1.0.0/16 301 2 2', '10.1.2.128/25 300 2 2']);
  });

  it('ends in the same entries whatever the order', () => {
    const prefixes = [
      '0.0.0.0/0',
      '10.0.0.0/8',
      '10.1.0.0/16',
      '10.1.2.0/24',
      '10.1.2.3/32',
      'fd00::/8',
      'fd00:1::/64',
    ];
    const networks = ['10.1.0.0/16', '10.2.0.0/24', 'fd00:1::/64'];
    const step = fc.oneof(
      fc.tuple(
        fc.constant('policy' as const),
        fc.constantFrom(...prefixes),
        fc.option(fc.integer({ min: 256, max: 260 })),
      ),
      fc.tuple(fc.constant('network' as const), fc.constantFrom(...networks), fc.option(fc.constant(0))),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const { table, text } = cidrs();
        const policies = new Map<string, number>();
        const reserved = new Map<string, number>();
        for (const [kind, cidr, value] of steps) {
          if (kind === 'policy') {
            if (value === null) {
              policies.delete(cidr);
              table.deleteIdentity(cidr);
            } else {
              policies.set(cidr, value);
              table.setIdentity(cidr, value);
            }
          } else if (value === null) {
            reserved.delete(cidr);
            table.release(cidr);
          } else {
            reserved.set(cidr, networks.indexOf(cidr) + 1);
            table.reserve(cidr, networks.indexOf(cidr) + 1);
          }
        }
        const expected = [...new Set([...policies.keys(), ...reserved.keys()])].map((text) => {
          const cidr = parseCidr(text);
          const around = [...policies].filter(([other]) => cidrContainsCidr(parseCidr(other), cidr));
          around.sort(([a], [b]) => parseCidr(b).prefixLength - parseCidr(a).prefixLength);
          const network = [...reserved].find(([other]) => cidrContainsCidr(parseCidr(other), cidr))?.[1];
          return `${text} ${around[0]?.[1] ?? 2} ${network ?? 0} ${network === undefined ? 0 : 2}`;
        });
        expect(text()).toEqual(expected.sort());
      }),
    );
  });
});

describe('hostPortEntries', () => {
  it('makes one entry for each family, and only that of a bound address', () => {
    const target = { ifindex: 256, ipv4: '10.1.0.2', ipv6: 'fd00:1::2' };
    const entries = hostPortEntries(
      {
        hostPorts: [
          { protocol: 'TCP', hostPort: 8080, containerPort: 80 },
          { protocol: 'UDP', hostPort: 53, containerPort: 5353, hostAddress: '192.0.2.1' },
        ],
      },
      target,
    );
    const text = entries.map(
      ([k, v]) =>
        `${formatAddress(k.addr)} ${k.port}/${k.proto} ${formatAddress(v.addr)} ${v.port} ${v.ifindex}`,
    );
    expect(text).toEqual([
      '0.0.0.0 8080/6 10.1.0.2 80 256',
      ':: 8080/6 fd00:1::2 80 256',
      '192.0.2.1 53/17 10.1.0.2 5353 256',
    ]);
  });
});
