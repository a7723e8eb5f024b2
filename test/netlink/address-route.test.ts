import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isAbsent, type NetlinkError } from '../../loader/netlink/errors.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import type { RouteInput } from '../../loader/netlink/route-message.js';
import type { Netns } from '../../loader/netns.js';
import { ip, ipJson, newNetns, thrown } from './namespaces.js';

const GATEWAY_MAC = '02:00:00:00:00:01';
let pod: { name: string; ns: Netns };
let inside: Rtnetlink;
let eth0: number;

beforeAll(() => {
  const host = newNetns();
  pod = newNetns();
  const outside = Rtnetlink.open(host.ns);
  inside = Rtnetlink.open(pod.ns);
  const made = outside.createVeth({
    name: 'sl1',
    up: true,
    mac: GATEWAY_MAC,
    peer: { name: 'eth0', netns: pod.ns },
  });
  eth0 = made.peerIfindex;
  outside.close();
});
afterAll(() => inside?.close());

const error = (action: () => unknown): NetlinkError => thrown(action) as NetlinkError;

describe('the container side', () => {
  it('is set up by one batch: addresses, routes, neighbours', () => {
    inside.batch(() => {
      inside.setLink(eth0, { noIpv6LinkLocal: true, up: true });
      inside.addAddress(eth0, { address: '10.0.0.2', prefix: 32 });
      inside.addAddress(eth0, { address: 'fd00::2', prefix: 128, noDad: true });
      inside.addRoute({
        destination: 'default',
        gateway: '169.254.1.1',
        onLink: true,
        ifindex: eth0,
        protocol: 84,
      });
      inside.addRoute({
        destination: 'default',
        gateway: 'fe80::1',
        onLink: true,
        ifindex: eth0,
        protocol: 84,
      });
      inside.setNeighbour({ ifindex: eth0, address: '169.254.1.1', mac: GATEWAY_MAC, permanent: true });
      inside.setNeighbour({ ifindex: eth0, address: 'fe80::1', mac: GATEWAY_MAC, permanent: true });
    });
    expect(ipJson(pod.name, 'addr', 'show', 'eth0')[0]?.addr_info).toMatchObject([
      { family: 'inet', local: '10.0.0.2', prefixlen: 32, scope: 'global' },
      { family: 'inet6', local: 'fd00::2', prefixlen: 128, nodad: true },
    ]);
    expect(ipJson(pod.name, 'route')).toMatchObject([
      { dst: 'default', gateway: '169.254.1.1', dev: 'eth0', protocol: '84', flags: ['onlink'] },
    ]);
    expect(ipJson(pod.name, '-6', 'route', 'show', 'default')).toMatchObject([
      { dst: 'default', gateway: 'fe80::1', dev: 'eth0', protocol: '84', flags: ['onlink'] },
    ]);
    expect(ipJson(pod.name, 'neigh')).toMatchObject(
      ['169.254.1.1', 'fe80::1'].map((dst) => ({
        dst,
        dev: 'eth0',
        lladdr: GATEWAY_MAC,
        state: ['PERMANENT'],
      })),
    );
  });
});

describe('addresses', () => {
  it('lists what ip lists, by device or all', () => {
    const flat = (device: string[]): unknown[] =>
      ipJson(pod.name, 'addr', ...device).flatMap((link) =>
        (link.addr_info as Record<string, unknown>[]).map((a) => [link.ifindex, a.local, a.prefixlen]),
      );
    ip(pod.name, 'link', 'set', 'lo', 'up');
    const ours = (ifindex?: number): unknown[] =>
      inside.addresses(ifindex).map((a) => [a.ifindex, a.address, a.prefix]);
    const sorted = (list: unknown[]): string[] => list.map((item) => JSON.stringify(item)).sort();
    expect(sorted(ours())).toEqual(sorted(flat([])));
    expect(sorted(ours(eth0))).toEqual(sorted(flat(['show', 'eth0'])));
    expect(inside.addresses(1)).toMatchObject([{ address: '127.0.0.1', scope: 'host' }, { address: '::1' }]);
    expect(error(() => inside.addresses(4242)).message).toBe(
      'list addresses of link 4242: no such device (ENODEV)',
    );
  });

  it('added twice: EEXIST, unless it replaces; deleted twice: EADDRNOTAVAIL', () => {
    const address = { address: '10.0.7.1', prefix: 24, noPrefixRoute: true } as const;
    inside.addAddress(eth0, address);
    expect(error(() => inside.addAddress(eth0, address))).toMatchObject({
      code: 'EEXIST',
      operation: `add address 10.0.7.1/24 to link ${eth0}`,
    });
    inside.addAddress(eth0, { ...address, replace: true });
    inside.deleteAddress(eth0, address);
    const gone = error(() => inside.deleteAddress(eth0, address));
    expect(gone.code).toBe('EADDRNOTAVAIL');
    expect(isAbsent(gone)).toBe(true);
    expect(error(() => inside.addAddress(4242, address)).code).toBe('ENODEV');
  });

  it('without noDad a new IPv6 address is tentative', () => {
    inside.addAddress(eth0, { address: 'fd00::77', prefix: 128 });
    expect(inside.addresses(eth0).find((a) => a.address === 'fd00::77')?.tentative).toBe(true);
    expect(inside.addresses(eth0).find((a) => a.address === 'fd00::2')?.tentative).toBe(false);
    inside.deleteAddress(eth0, { address: 'fd00::77', prefix: 128 });
  });
});

describe('routes', () => {
  it.each<[RouteInput, Record<string, unknown>]>([
    [
      { destination: '10.1.0.0/16', ifindex: 0, source: '10.0.0.2', metric: 7, protocol: 84 },
      { dst: '10.1.0.0/16', prefsrc: '10.0.0.2', metric: 7, protocol: '84', scope: 'link' },
    ],
    [
      { destination: '10.2.0.0/16', type: 'blackhole', protocol: 84 },
      { dst: '10.2.0.0/16', type: 'blackhole' },
    ],
    [
      { destination: 'fd02::/64', type: 'unreachable', protocol: 84 },
      { dst: 'fd02::/64', type: 'unreachable' },
    ],
    [
      { destination: '10.3.0.1', gateway: 'fe80::1', ifindex: 0, onLink: true, mtu: 1300 },
      { dst: '10.3.0.1', via: { family: 'inet6', host: 'fe80::1' }, metrics: [{ mtu: 1300 }] },
    ],
    [
      { destination: '10.4.0.0/16', ifindex: 0, table: 1000 },
      { dst: '10.4.0.0/16', table: '1000', protocol: 'static' },
    ],
    [
      { destination: '10.5.0.1/32', ifindex: 0, type: 'local', table: 255 },
      { dst: '10.5.0.1', type: 'local', scope: 'host' },
    ],
  ])('%j', (input, theirs) => {
    const route = input.ifindex === undefined ? input : { ...input, ifindex: eth0 };
    const wanted = input.destination.includes('/') ? input.destination : `${input.destination}/32`;
    const list = (): unknown[] =>
      ipJson(
        pod.name,
        input.destination.includes(':') ? '-6' : '-4',
        'route',
        'show',
        'table',
        'all',
        'exact',
        wanted,
      );
    const ours = () => inside.routes({ table: 'all' }).filter((r) => r.destination === wanted);
    inside.addRoute(route);
    expect(list()).toMatchObject([theirs]);
    expect(ours()).toMatchObject([{ ...route, destination: wanted, table: input.table ?? 254 }]);
    expect(error(() => inside.addRoute(route))).toMatchObject({ code: 'EEXIST' });
    inside.addRoute({ ...route, replace: true });
    inside.deleteRoute(ours()[0] as RouteInput);
    expect(list()).toEqual([]);
    const gone = error(() => inside.deleteRoute(route));
    expect(gone.code).toBe('ESRCH');
    expect(gone.message).toMatch(/^delete route .*10|fd02/);
    expect(isAbsent(gone)).toBe(true);
  });

  it('filters in the kernel', () => {
    inside.batch(() => {
      for (let i = 0; i < 500; i++) {
        inside.addRoute({
          destination: `10.200.${i >> 8}.${i & 255}/32`,
          ifindex: eth0,
          protocol: 84 + (i & 1),
        });
      }
    });
    expect(inside.routes({ family: 4, protocol: 85 }).length).toBe(250);
    expect(inside.routes({ protocol: 84, ifindex: eth0 }).length).toBe(252);
    expect(inside.routes({ protocol: 84, ifindex: 1 })).toEqual([]);
    expect(inside.routes({ protocol: 84, ifindex: 4242 })).toEqual([]);
    expect(inside.routes({ table: 4242 })).toEqual([]);
    expect(inside.routes({ table: 255 }).some((route) => route.type === 'local')).toBe(true);
    inside.batch(() => {
      for (const route of inside.routes({ protocol: 85 })) inside.deleteRoute(route);
    });
    expect(inside.routes({ protocol: 85 })).toEqual([]);
  });

  it('reads multipath that others made', () => {
    ip(
      pod.name,
      'route',
      'add',
      '10.6.0.0/16',
      'nexthop',
      'via',
      '169.254.1.1',
      'dev',
      'eth0',
      'onlink',
      'weight',
      '3',
      'nexthop',
      'dev',
      'lo',
    );
    const found = inside.routes({ family: 4 }).find((route) => route.destination === '10.6.0.0/16');
    expect(found?.hops).toEqual([
      { ifindex: eth0, gateway: '169.254.1.1', weight: 3, onLink: true, down: false },
      { ifindex: 1, weight: 1, onLink: false, down: false },
    ]);
  });

  it('looks up the way of a packet', () => {
    expect(inside.routeTo('8.8.8.8')).toMatchObject({
      gateway: '169.254.1.1',
      ifindex: eth0,
      source: '10.0.0.2',
    });
    expect(inside.routeTo('2001:db8::1')).toMatchObject({ family: 6, gateway: 'fe80::1', ifindex: eth0 });
    const { ns } = newNetns();
    const empty = Rtnetlink.open(ns);
    expect(empty.routeTo('8.8.8.8')).toBeUndefined();
    expect(empty.routeTo('2001:db8::1')).toBeUndefined();
    empty.close();
  });

  it('says what is wrong with a gateway or a device', () => {
    expect(
      error(() => inside.addRoute({ destination: '10.9.0.0/16', gateway: '10.44.0.1', ifindex: 1 })),
    ).toMatchObject({
      code: 'ENETUNREACH',
      message: 'add route 10.9.0.0/16 via 10.44.0.1 on link 1: Nexthop has invalid gateway (ENETUNREACH)',
    });
    expect(error(() => inside.addRoute({ destination: '10.9.0.0/16', ifindex: 4242 })).code).toBe('ENODEV');
    expect(error(() => inside.addRoute({ destination: '10.9.0.1/16', ifindex: eth0 })).message).toContain(
      'Invalid prefix for given prefix length (EINVAL)',
    );
  });
});

describe('neighbours', () => {
  it('are set, replaced, listed by device, deleted', () => {
    const key = { ifindex: eth0, address: '10.0.0.9' };
    inside.setNeighbour({ ...key, mac: '02:00:00:00:00:09', permanent: false });
    inside.setNeighbour({ ...key, mac: '02:00:00:00:00:0a', permanent: true });
    expect(inside.neighbours(eth0).filter((n) => n.address === key.address)).toEqual([
      { ...key, family: 4, mac: '02:00:00:00:00:0a', state: 'permanent' },
    ]);
    expect(inside.neighbours().length).toBeGreaterThanOrEqual(3);
    expect(inside.neighbours(1).filter((n) => n.address === key.address)).toEqual([]);
    inside.deleteNeighbour(key);
    expect(error(() => inside.deleteNeighbour(key)).message).toBe(
      `delete neighbour 10.0.0.9 of link ${eth0}: there is no such entry (ENOENT)`,
    );
    expect(
      error(() => inside.setNeighbour({ ...key, ifindex: 4242, mac: GATEWAY_MAC, permanent: true })).code,
    ).toBe('ENODEV');
  });
});
