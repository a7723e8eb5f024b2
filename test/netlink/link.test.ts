import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NetlinkError } from '../../loader/netlink/errors.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import type { Netns } from '../../loader/netns.js';
import { deleteNetns, ip, ipJson, newNetns, thrown } from './namespaces.js';

let host: { name: string; ns: Netns };
let pod: { name: string; ns: Netns };
let outside: Rtnetlink;
let inside: Rtnetlink;

beforeAll(() => {
  host = newNetns();
  pod = newNetns();
  outside = Rtnetlink.open(host.ns);
  inside = Rtnetlink.open(pod.ns);
});
afterAll(() => {
  outside?.close();
  inside?.close();
});

const error = (action: () => unknown): NetlinkError => thrown(action) as NetlinkError;

describe('veth', () => {
  it('puts the peer into its namespace, with everything that was asked for', () => {
    const made = outside.createVeth({
      name: 'sl1',
      ifindex: 77,
      mac: '02:00:00:00:00:01',
      mtu: 1400,
      alias: 'sluice:test:shop/web',
      up: true,
      noIpv6LinkLocal: true,
      queues: 1,
      peer: {
        name: 'eth0',
        netns: pod.ns,
        ifindex: 5,
        mac: '02:00:00:00:00:02',
        mtu: 1400,
        up: true,
        noIpv6LinkLocal: true,
      },
    });
    expect(made).toEqual({ ifindex: 77, peerIfindex: 5 });
    expect(ipJson(host.name, 'addr', 'show', 'sl1')).toMatchObject([
      {
        ifindex: 77,
        link_index: 5,
        address: '02:00:00:00:00:01',
        mtu: 1400,
        ifalias: 'sluice:test:shop/web',
        num_tx_queues: 1,
        linkinfo: { info_kind: 'veth' },
        flags: expect.arrayContaining(['UP', 'LOWER_UP']) as unknown,
        addr_info: [],
      },
    ]);
    expect(ipJson(pod.name, 'addr', 'show', 'eth0')).toMatchObject([
      {
        ifindex: 5,
        address: '02:00:00:00:00:02',
        mtu: 1400,
        num_rx_queues: 1,
        flags: expect.arrayContaining(['UP', 'LOWER_UP']) as unknown,
        addr_info: [],
      },
    ]);
    expect(ipJson(host.name, 'link', 'show', 'sl1')).toMatchObject([{ inet6_addr_gen_mode: 'none' }]);
    expect(ipJson(pod.name, 'link', 'show', 'eth0')).toMatchObject([{ inet6_addr_gen_mode: 'none' }]);
    expect(outside.link('sl1')).toEqual(outside.link(77));
    expect(outside.link(77)).toMatchObject({ name: 'sl1', kind: 'veth', linkIndex: 5, up: true });
    expect(inside.link('eth0')).toMatchObject({ index: 5, linkIndex: 77 });
    expect(['sl1', 77, 'none', 76].map((which) => outside.hasLink(which))).toEqual([
      true,
      true,
      false,
      false,
    ]);
    expect(inside.hasLink('eth0')).toBe(true);
    expect(inside.netnsCookie()).not.toBe(outside.netnsCookie());
  });

  it('leaves a pair in a group of its own for who takes it out', () => {
    const peer = { name: 'eth7', netns: pod.ns };
    const { ifindex } = outside.createVeth({ name: 'sl7', alias: 'a', keepGroup: true, peer });
    expect(outside.link(ifindex)?.group).toBeGreaterThanOrEqual(0x10000);
    outside.setLink(ifindex, { group: 0 });
    expect(outside.link(ifindex)).toMatchObject({ group: 0, alias: 'a' });
    outside.deleteLink(ifindex);
  });

  it('finds out both indexes when none is asked for, and leaves IPv6 as it is', () => {
    const made = outside.createVeth({
      name: 'sl2',
      up: true,
      peer: { name: 'eth1', netns: pod.ns, up: true },
    });
    expect(ipJson(host.name, 'link', 'show', 'sl2')[0]?.ifindex).toBe(made.ifindex);
    expect(ipJson(pod.name, 'link', 'show', 'eth1')[0]?.ifindex).toBe(made.peerIfindex);
    expect(outside.addresses(made.ifindex)).toMatchObject([{ family: 6, scope: 'link', prefix: 64 }]);
  });

  it('says which name or index is taken', () => {
    const peer = { name: 'eth9', netns: pod.ns };
    expect(error(() => outside.createVeth({ name: 'sl1', peer }))).toMatchObject({
      name: 'NetlinkError',
      code: 'EEXIST',
      errno: 17,
      message: `create veth sl1 with peer eth9 in /run/netns/${pod.name}: there is a device sl1 already (EEXIST)`,
    });
    expect(error(() => outside.createVeth({ name: 'sl9', peer: { ...peer, name: 'eth0' } })).detail).toBe(
      `there is a device eth0 in /run/netns/${pod.name} already`,
    );
    const taken = error(() => outside.createVeth({ name: 'sl9', ifindex: 77, alias: 'not for sl1', peer }));
    expect(taken.detail).toBe('index 77 is that of device sl1 already');
    expect(outside.link(77)?.alias).toBe('sluice:test:shop/web');
    expect(outside.link('sl9')).toBeUndefined();
    expect(inside.link('eth9')).toBeUndefined();
  });

  it('refuses bad names, addresses and sizes with the reason', () => {
    const peer = { name: 'eth9', netns: pod.ns };
    expect(error(() => outside.createVeth({ name: 'a-name-that-is-too-long', peer })).code).toBe(
      'ENAMETOOLONG',
    );
    expect(error(() => outside.createVeth({ name: 'sl9', peer: { ...peer, name: 'a/b' } })).code).toBe(
      'EINVAL',
    );
    expect(error(() => outside.createVeth({ name: 'sl9', mac: '01:00:00:00:00:01', peer })).code).toBe(
      'EADDRNOTAVAIL',
    );
    expect(error(() => outside.createVeth({ name: 'sl9', mtu: 10, peer })).code).toBe('EINVAL');
    expect(error(() => outside.setLink(77, { mtu: 10 })).message).toBe(
      'set mtu of link 77: mtu less than device minimum (EINVAL)',
    );
    expect(outside.link('sl9')).toBeUndefined();
  });

  it('makes a pair on another thread, with the same result and the same errors', async () => {
    const peer = { name: 'eth8', netns: pod.ns };
    const veth = { name: 'sl8', ifindex: 88, alias: 'later', keepGroup: true, noIpv6LinkLocal: true, peer };
    const later = outside.createVethLater(veth);
    await later.settled;
    expect(later.result()).toEqual({ ifindex: 88, peerIfindex: inside.link('eth8')?.index });
    expect(outside.link(88)).toMatchObject({ name: 'sl8', alias: 'later', up: false });
    const again = outside.createVethLater({ ...veth, name: 'sl9', peer: { ...peer, name: 'eth9' } });
    await again.settled;
    expect(error(() => again.result())).toMatchObject({
      code: 'EEXIST',
      detail: 'index 88 is that of device sl8 already',
    });
    expect(error(() => outside.createVethLater({ ...veth, name: 'no good' })).code).toBe('EINVAL');
    outside.deleteLink(88);
  });

  it('removes the pair again when a later step fails', () => {
    const failed = error(() =>
      outside.createVeth({ name: 'sl9', alias: 'x'.repeat(256), peer: { name: 'eth9', netns: pod.ns } }),
    );
    expect(failed).toMatchObject({ code: 'EINVAL', detail: 'alias is longer than 255 bytes' });
    expect(failed.operation).toMatch(/^create veth sl9 /);
    expect(outside.link('sl9')).toBeUndefined();
    expect(inside.link('eth9')).toBeUndefined();
  });
});

describe('other devices', () => {
  it('bridge: ports come and go', () => {
    const { ifindex } = outside.createBridge({
      name: 'slbr1',
      mac: '02:00:00:00:00:99',
      mtu: 1400,
      alias: 'b',
      up: true,
    });
    expect(ipJson(host.name, 'link', 'show', 'slbr1')).toMatchObject([
      { ifindex, address: '02:00:00:00:00:99', mtu: 1400, ifalias: 'b', linkinfo: { info_kind: 'bridge' } },
    ]);
    outside.setLink(77, { master: ifindex });
    expect(ipJson(host.name, 'link', 'show', 'sl1')[0]?.master).toBe('slbr1');
    expect(outside.links({ master: ifindex }).map((link) => link.name)).toEqual(['sl1']);
    expect(outside.links({ kind: 'bridge' }).map((link) => link.name)).toEqual(['slbr1']);
    outside.setLink(77, { master: 0 });
    expect(outside.link(77)?.master).toBeUndefined();
    expect(error(() => outside.createBridge({ name: 'slbr1' })).code).toBe('EEXIST');
  });

  it('macvlan: made in the namespace of the container', () => {
    const parent = outside.createVeth({
      name: 'up0',
      up: true,
      peer: { name: 'up1', netns: host.ns },
    }).ifindex;
    const made = outside.createMacvlan({
      name: 'mv0',
      parent,
      mode: 'bridge',
      netns: pod.ns,
      ifindex: 42,
      mac: '02:00:00:00:00:42',
      mtu: 1300,
      alias: 'sluice:mv',
      noIpv6LinkLocal: true,
      up: true,
    });
    expect(made).toEqual({ ifindex: 42 });
    expect(ipJson(pod.name, 'addr', 'show', 'mv0')).toMatchObject([
      {
        ifindex: 42,
        link_index: parent,
        address: '02:00:00:00:00:42',
        mtu: 1300,
        ifalias: 'sluice:mv',
        linkinfo: { info_kind: 'macvlan', info_data: { mode: 'bridge' } },
        addr_info: [],
      },
    ]);
    expect(ipJson(pod.name, 'link', 'show', 'mv0')).toMatchObject([{ inet6_addr_gen_mode: 'none' }]);
    const other = outside.createMacvlan({ name: 'mv1', parent, mode: 'private', netns: pod.ns });
    expect(inside.link('mv1')?.index).toBe(other.ifindex);
    expect(error(() => outside.createMacvlan({ name: 'mv2', parent: 4242, mode: 'bridge' }))).toMatchObject({
      code: 'ENODEV',
      operation: 'create macvlan mv2 on link 4242',
    });
  });
});

describe('changes', () => {
  it('name, alias, group, up and down', () => {
    const { ifindex } = outside.createVeth({ name: 'sl3', peer: { name: 'eth3', netns: pod.ns } });
    outside.setLink(ifindex, {
      name: 'sl3b',
      alias: 'one',
      group: 9,
      up: true,
      mtu: 1280,
      mac: '02:00:00:00:00:03',
    });
    expect(outside.link(ifindex)).toMatchObject({
      name: 'sl3b',
      alias: 'one',
      group: 9,
      up: true,
      mtu: 1280,
      mac: '02:00:00:00:00:03',
    });
    outside.setLink(ifindex, { alias: '', up: false });
    expect(outside.link(ifindex)?.alias).toBeUndefined();
    expect(ipJson(host.name, 'link', 'show', 'sl3b')[0]?.flags).not.toContain('UP');
  });

  it('moves a device to another namespace', () => {
    const { ifindex } = outside.createVeth({ name: 'move0', peer: { name: 'eth7', netns: pod.ns } });
    outside.setLink(ifindex, { netns: pod.ns, name: 'moved0', up: true });
    expect(outside.link('move0')).toBeUndefined();
    expect(inside.link('moved0')).toMatchObject({ kind: 'veth', up: true });
    expect(
      error(() => outside.setLink(77, { netns: pod.ns, up: true, noIpv6LinkLocal: true })).message,
    ).toContain('can be set only after the move');
  });

  it('names the operation when the device is gone', () => {
    expect(error(() => outside.setLink(9999, { mtu: 1300, up: true })).message).toBe(
      'set mtu, up of link 9999: no such device (ENODEV)',
    );
    expect(error(() => outside.deleteLink(9999)).message).toBe('delete link 9999: no such device (ENODEV)');
  });

  it('a batch carries out the rest after an error, and names the one that failed', () => {
    const failed = error(() =>
      outside.batch(() => {
        outside.setLink(77, { mtu: 1350 });
        outside.setLink(9999, { mtu: 1350 });
        outside.setLink(77, { alias: 'after' });
      }),
    );
    expect(failed.operation).toBe('set mtu of link 9999');
    expect(outside.link(77)).toMatchObject({ mtu: 1350, alias: 'after' });
    const errors: string[] = [];
    outside.batch(
      () => {
        for (let i = 0; i < 300; i++) outside.deleteLink(100_000 + i);
      },
      ({ code }) => errors.push(code),
    );
    expect(errors).toEqual(Array(300).fill('ENODEV'));
  });

  it('a batch that throws forgets what it had not sent; questions and new devices send it', () => {
    expect(() =>
      outside.batch(() => {
        outside.setLink(77, { mtu: 1360 });
        expect(outside.link(77)?.mtu).toBe(1360);
        outside.setLink(77, { mtu: 1361 });
        outside.createBridge({ name: 'slbr2' });
        outside.setLink(9999, { mtu: 1362 });
        expect(error(() => outside.createBridge({ name: 'slbr2' })).operation).toBe('create bridge slbr2');
        outside.setLink(77, { mtu: 1363 });
        outside.setLink(77, { mac: 'nonsense' });
      }),
    ).toThrow('is not a MAC address');
    expect(outside.link(77)?.mtu).toBe(1361);
    outside.setLink(77, { mtu: 1400 });
  });
});

describe('names and lists', () => {
  it('has no link for names and indexes that cannot be', () => {
    for (const none of ['', 'nope', 'a/b', 'x'.repeat(16), 0, 123_456, -5])
      expect(outside.link(none)).toBeUndefined();
  });

  it('lists what ip lists', () => {
    const theirs = ipJson(host.name, 'link').map((link) => [
      link.ifindex,
      link.ifname,
      link.mtu,
      link.address,
    ]);
    expect(outside.links().map((link) => [link.index, link.name, link.mtu, link.mac])).toEqual(theirs);
  });

  it('1,500 devices: found by alias, with exact numbers, and removed together', () => {
    const { name, ns } = newNetns();
    const many = Rtnetlink.open(ns);
    const peers = newNetns();
    for (let i = 0; i < 750; i++) {
      many.createVeth({
        name: `m${i}`,
        ifindex: 10_000 + i,
        alias: `sluice:${i % 3 === 0 ? 'a' : 'b'}:${i}`,
        queues: 1,
        peer: { name: `p${i}`, netns: i % 2 === 0 ? ns : peers.ns },
      });
    }
    const links = many.links();
    expect(links.length).toBe(1 + 750 + 375);
    expect(new Set(links.map((link) => link.index)).size).toBe(links.length);
    const ours = many.links({ aliasPrefix: 'sluice:a:' });
    expect(ours.length).toBe(250);
    expect(many.deleteLinks([...ours.map((link) => link.index), 77_777])).toBe(250);
    expect(many.links({ aliasPrefix: 'sluice:' }).length).toBe(500);
    expect(many.deleteLinks(many.links({ kind: 'veth' }).map((link) => link.index))).toBe(750);
    expect(ipJson(name, 'link').map((link) => link.ifname)).toEqual(['lo']);
    expect(ipJson(peers.name, 'link').map((link) => link.ifname)).toEqual(['lo']);
    expect(many.deleteLinks([1234])).toBe(0);
    many.close();
  });

  it('a socket works on its namespace when the name is gone', () => {
    const { name, ns } = newNetns();
    const requests = Rtnetlink.open(ns);
    ip(name, 'link', 'set', 'lo', 'up');
    deleteNetns(name);
    expect(requests.link('lo')).toMatchObject({ index: 1, loopback: true, up: true, running: true });
    requests.close();
    requests.close();
  });
});
