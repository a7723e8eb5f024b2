import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { NetworkResource } from '../../policy/model/resources.js';
import { type Lease, LeaseBook } from './leases.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-leases-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const origin = { file: 'x.yaml', line: 3 };

function network(name: string, cidr: string, ipv6?: string): NetworkResource {
  return {
    kind: 'Network',
    name,
    mode: 'routed',
    masquerade: true,
    origin,
    source: {},
    ipv4: { cidr, gateway: cidr.replace(/0\/\d+$/, '1') },
    ...(ipv6 === undefined ? {} : { ipv6: { cidr: ipv6, gateway: ipv6.replace(/\/\d+$/, '1') } }),
  };
}

function open(networks: readonly NetworkResource[], maxIndex = 65536): LeaseBook {
  const book = LeaseBook.open(dir, 'test', maxIndex);
  const change = book.begin();
  for (const item of networks) change.defineNetwork(item);
  change.commit();
  return book;
}

function take(book: LeaseBook, id: string, ipv4?: string): Lease {
  const change = book.begin();
  try {
    const lease = change.take({ id, network: 'n', origin, ...(ipv4 === undefined ? {} : { ipv4 }) });
    change.commit();
    return lease;
  } catch (error) {
    change.undo();
    throw error;
  }
}

function state(book: LeaseBook): unknown {
  return {
    leases: [...book.leases.values()].sort((a, b) => (a.id < b.id ? -1 : 1)),
    numbers: [...book.numbers],
  };
}

describe('LeaseBook', () => {
  it('gives the same lease after a restart, and goes on after the last address and index', () => {
    const nets = [network('n', '10.1.0.0/24', 'fd00:1::/64')];
    const book = open(nets);
    const a = take(book, 'd/a:n');
    take(book, 'd/b:n');
    expect(a).toMatchObject({ ipv4: '10.1.0.2', ipv6: 'fd00:1::2', ifindex: 256 });
    expect(a.mac).toMatch(/^02:/);
    const change = book.begin();
    change.free('d/b:n');
    change.commit();
    book.close();

    const again = open(nets);
    expect(take(again, 'd/a:n')).toEqual(a);
    expect(take(again, 'd/c:n')).toMatchObject({ ipv4: '10.1.0.4', ipv6: 'fd00:1::4', ifindex: 258 });
    again.compact();
    again.close();
    expect(take(open(nets), 'd/e:n')).toMatchObject({ ipv4: '10.1.0.5', ifindex: 259 });
  });

  it('refuses what another one has, says when nothing is left, and undo leaves no trace', () => {
    const book = open([network('n', '10.1.0.0/29')]);
    take(book, 'd/a:n', '10.1.0.4');
    expect(() => take(book, 'd/b:n', '10.1.0.4')).toThrow(/10\.1\.0\.4 is already leased to d\/a:n/);
    const before = state(book);
    const change = book.begin();
    for (const id of ['p', 'q', 'r', 's']) change.take({ id, network: 'n', origin });
    expect(() => change.take({ id: 't', network: 'n', origin })).toThrow(/no free address left/);
    change.commit();
    change.undo();
    expect(state(book)).toEqual(before);
    book.close();
    const again = open([network('n', '10.1.0.0/29')]);
    expect(state(again)).toEqual(before);
    for (const id of ['p', 'q', 'r', 's']) take(again, id);
    expect(() => take(again, 't')).toThrow(/no free address left/);
  });

  it('runs out of indexes with a clear error', () => {
    const book = open([network('n', '10.1.0.0/24')], 258);
    take(book, 'a');
    take(book, 'b');
    expect(() => take(book, 'c')).toThrow(/all 2 endpoint indexes are in use/);
  });

  it('replaces a lease when a fixed address is asked for, and frees the old one', () => {
    const book = open([network('n', '10.1.0.0/29')]);
    const before = take(book, 'a');
    expect(take(book, 'a', '10.1.0.6')).toMatchObject({ ipv4: '10.1.0.6', ifindex: before.ifindex });
    expect(take(book, 'a')).toMatchObject({ ipv4: '10.1.0.6' });
    expect(take(book, 'b', before.ipv4)).toMatchObject({ ipv4: before.ipv4 });
  });

  it('drops leases that a changed range no longer holds, and takes them back on undo', () => {
    const book = open([network('n', '10.1.0.0/24')]);
    take(book, 'low');
    take(book, 'high', '10.1.0.200');
    const before = state(book);
    const change = book.begin();
    change.defineNetwork(network('n', '10.1.0.0/25'));
    expect([...book.leases.keys()]).toEqual(['low']);
    change.undo();
    expect(state(book)).toEqual(before);
    expect(() => take(book, 'other', '10.1.0.200')).toThrow(/already leased/);
  });

  it('takes over the address of a live device once', () => {
    const book = open([network('n', '10.1.0.0/24')]);
    const lease: Lease = {
      id: 'd/x:n',
      network: 'n',
      ipv4: '10.1.0.77',
      mac: '02:00:00:00:00:01',
      ifindex: 400,
    };
    const change = book.begin();
    expect(change.adopt(lease)).toBe(true);
    expect(change.adopt({ ...lease, id: 'd/y:n' })).toBe(false);
    expect(change.adopt({ ...lease, id: 'd/z:n', ipv4: '10.2.0.1', ifindex: 401 })).toBe(false);
    change.commit();
    expect(() => take(book, 'd/w:n', '10.1.0.77')).toThrow(/already leased/);
  });

  it('after a cut at any byte holds a prefix of its history, with no address twice', () => {
    const nets = [network('n', '10.1.0.0/24')];
    const book = open(nets);
    for (let i = 0; i < 12; i++) take(book, `c${i}`);
    const change = book.begin();
    for (let i = 0; i < 12; i += 3) change.free(`c${i}`);
    change.commit();
    book.close();
    const path = join(dir, 'leases', 'journal');
    const whole = readFileSync(path);
    const lines = whole.toString().trimEnd().split('\n').length;
    for (let cut = 0; cut <= whole.length; cut += 7) {
      writeFileSync(path, whole.subarray(0, cut));
      const damaged = open(nets);
      const addresses = [...damaged.leases.values()].map((lease) => lease.ipv4);
      expect(new Set(addresses).size).toBe(addresses.length);
      expect(damaged.damaged).toBeLessThanOrEqual(1);
      const next = take(damaged, 'next');
      expect(addresses).not.toContain(next.ipv4);
      damaged.close();
      const again = open(nets);
      expect(again.get('next')).toEqual(next);
      expect(again.damaged).toBe(0);
      again.close();
    }
    expect(lines).toBe(1 + 12 + 4);
  });

  it('skips a damaged line in the middle and keeps the others', () => {
    const nets = [network('n', '10.1.0.0/24')];
    const book = open(nets);
    for (const id of ['a', 'b', 'c']) take(book, id);
    book.close();
    const path = join(dir, 'leases', 'journal');
    const text = readFileSync(path, 'utf8').replace('"b"', '"B"');
    writeFileSync(path, text);
    const again = open(nets);
    expect(again.damaged).toBe(1);
    expect([...again.leases.keys()]).toEqual(['a', 'c']);
  });

  it('compacts a journal of many changes', () => {
    const book = open([network('n', '10.1.0.0/24')]);
    take(book, 'stays');
    for (let i = 0; i < 1500; i++) {
      const change = book.begin();
      change.take({ id: 'comes', network: 'n', origin });
      change.commit();
      const back = book.begin();
      back.free('comes');
      back.commit();
    }
    book.close();
    expect(statSync(join(dir, 'leases', 'journal')).size).toBeLessThan(300_000);
    const again = open([network('n', '10.1.0.0/24')]);
    expect([...again.leases.keys()]).toEqual(['stays']);
    truncateSync(join(dir, 'leases', 'journal'), 0);
  });
});
