import { describe, expect, it } from 'vitest';
import { checkLinkName, decodeLink, encodeLinkAttributes, encodeLinkHeader, encodeLinkKind } from './link.js';
import { MessageBuilder } from './message.js';

function encoded(fill: (message: MessageBuilder) => void): string {
  const message = new MessageBuilder();
  fill(message);
  return message.bytes().toString('hex');
}

describe('link messages', () => {
  it('ifinfomsg: index, and IFF_UP in flags and change', () => {
    expect(encoded((m) => encodeLinkHeader(m, { index: 77, up: true }))).toBe(
      '00000000' + '4d000000' + '01000000' + '01000000',
    );
    expect(encoded((m) => encodeLinkHeader(m, { up: false }))).toBe(
      '00000000' + '00000000' + '00000000' + '01000000',
    );
    expect(encoded((m) => encodeLinkHeader(m, {}))).toBe('00'.repeat(16));
  });

  it('veth: the peer is a whole link message inside IFLA_LINKINFO', () => {
    const peer = { name: 'eth0', mac: '02:00:00:00:00:02', mtu: 1400, netnsFd: 9, index: 5 };
    expect(encoded((m) => encodeLinkKind('test', m, { kind: 'veth', peer }))).toBe(
      [
        '50001200', // IFLA_LINKINFO
        '09000100' + '7665746800' + '000000', // IFLA_INFO_KIND "veth"
        '40000200', // IFLA_INFO_DATA
        '3c000100', // VETH_INFO_PEER
        '00000000' + '05000000' + '00000000' + '00000000',
        '09000300' + '6574683000' + '000000', // IFLA_IFNAME "eth0"
        '0a000100' + '020000000002' + '0000', // IFLA_ADDRESS
        '08000400' + '78050000', // IFLA_MTU
        '08001c00' + '09000000', // IFLA_NET_NS_FD
      ].join(''),
    );
  });

  it('macvlan: parent and mode', () => {
    expect(encoded((m) => encodeLinkKind('test', m, { kind: 'macvlan', parent: 3, mode: 'bridge' }))).toBe(
      '08000500' +
        '03000000' +
        '1c001200' +
        '0c000100' +
        '6d6163766c616e00' +
        '0c000200' +
        '08000100' +
        '04000000',
    );
  });

  it('no IPv6 link-local address: IFLA_AF_SPEC, AF_INET6, address mode none', () => {
    expect(encoded((m) => encodeLinkAttributes('test', m, { noIpv6LinkLocal: true }))).toBe(
      '10001a00' + '0c000a00' + '05000800' + '01000000',
    );
  });

  it('an alias goes without NUL, so that the empty one removes it', () => {
    expect(encoded((m) => encodeLinkAttributes('test', m, { alias: 'a:b', master: 0 }))).toBe(
      '07001400' + '613a6200' + '08000a00' + '00000000',
    );
    expect(encoded((m) => encodeLinkAttributes('test', m, { alias: '' }))).toBe('04001400');
    const alias = 'ä'.repeat(128);
    expect(() => encoded((m) => encodeLinkAttributes('set link 1', m, { alias }))).toThrow(
      'set link 1: alias is longer than 255 bytes (EINVAL)',
    );
  });

  it('decodes what the kernel says of a veth device', () => {
    const bytes = Buffer.from(
      [
        '00000100' + '4d000000' + '43100100' + '00000000', // ARPHRD_ETHER, 77, UP BROADCAST RUNNING MULTICAST LOWER_UP
        '08000300' + '736c3100', // IFLA_IFNAME sl1
        '08000400' + '78050000', // IFLA_MTU 1400
        '08001b00' + '07000000', // IFLA_GROUP 7
        '08000500' + '02000000', // IFLA_LINK 2
        '08002500' + '03000000', // IFLA_LINK_NETNSID 3
        '0a000100' + '020000000001' + '0000',
        '0d001400' + '736c756963653a7800' + '000000', // IFLA_IFALIAS
        '10001200' + '09000100' + '7665746800' + '000000',
        '05001000' + '06000000',
      ].join(''),
      'hex',
    );
    expect(decodeLink(bytes, 0, bytes.length)).toEqual({
      index: 77,
      name: 'sl1',
      kind: 'veth',
      mac: '02:00:00:00:00:01',
      mtu: 1400,
      up: true,
      running: true,
      carrier: true,
      operational: true,
      loopback: false,
      alias: 'sluice:x',
      linkIndex: 2,
      netnsId: 3,
      group: 7,
    });
  });

  it.each(['', '.', '..', 'a/b', 'a b', 'a:b', 'eth%d', 'a\0b'])('refuses the device name %j', (name) => {
    expect(() => checkLinkName('create link', name)).toThrow('is not a device name (EINVAL)');
  });

  it('refuses names longer than 15 bytes, counted in UTF-8', () => {
    checkLinkName('create link', 'a'.repeat(15));
    expect(() => checkLinkName('create link', 'a'.repeat(16))).toThrow(
      'is longer than 15 bytes (ENAMETOOLONG)',
    );
    expect(() => checkLinkName('create link', 'ä'.repeat(8))).toThrow('ENAMETOOLONG');
  });
});
