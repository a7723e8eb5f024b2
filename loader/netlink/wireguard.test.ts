import { describe, expect, it } from 'vitest';
import { encodeLinkKind } from './link.js';
import { MessageBuilder } from './message.js';
import { encodeDeviceChange, encodeDeviceQuery, StateDecoder } from './wireguard.js';

const KEY = Buffer.alloc(32, 0xab);
const PEER = Buffer.alloc(32, 0xcd);
const publicKey = PEER.toString('base64');

function encoded(fill: (message: MessageBuilder) => void): string {
  const message = new MessageBuilder();
  fill(message);
  return message.bytes().toString('hex');
}

describe('WG_CMD_SET_DEVICE (linux/wireguard.h)', () => {
  it('private key and port of a device', () => {
    expect(encoded((m) => encodeDeviceChange('test', m, 7, { privateKey: KEY, listenPort: 51820 }))).toBe(
      [
        '01010000', // WG_CMD_SET_DEVICE, version 1
        '08000100' + '07000000', // WGDEVICE_A_IFINDEX
        '24000300' + 'ab'.repeat(32), // WGDEVICE_A_PRIVATE_KEY
        '06000600' + '6cca' + '0000', // WGDEVICE_A_LISTEN_PORT, the machine's byte order
      ].join(''),
    );
  });

  it('peers with the flag of nested attributes, endpoints as sockaddr, and prefixes that replace what was', () => {
    const peers = [
      {
        publicKey,
        endpoint: { address: '192.0.2.7', port: 51820 },
        allowedIps: ['fd00::1/128', '10.0.0.0/8'],
      },
    ];
    expect(encoded((m) => encodeDeviceChange('test', m, 7, { peers }))).toBe(
      [
        '01010000' + '08000100' + '07000000',
        '90000880', // WGDEVICE_A_PEERS
        '8c000080',
        '24000100' + 'cd'.repeat(32), // WGPEER_A_PUBLIC_KEY
        '08000300' + '02000000', // WGPEER_F_REPLACE_ALLOWEDIPS
        '14000400' + '0200' + 'ca6c' + 'c0000207' + '00'.repeat(8), // sockaddr_in
        '48000980', // WGPEER_A_ALLOWEDIPS
        '28000080' + '060001000a000000' + '14000200' + `fd${'00'.repeat(14)}01` + '0500030080000000',
        '1c000080' + '0600010002000000' + '08000200' + '0a000000' + '0500030008000000',
      ].join(''),
    );
    const six = [{ publicKey, endpoint: { address: '2001:db8::7', port: 1 }, allowedIps: [] }];
    expect(encoded((m) => encodeDeviceChange('test', m, 7, { peers: six }))).toContain(
      `20000400${'0a00'}0001${'00000000'}20010db8${'00'.repeat(11)}07${'00000000'}`,
    );
  });

  it('peers that go', () => {
    expect(encoded((m) => encodeDeviceChange('test', m, 7, { remove: [publicKey] }))).toContain(
      `34000880${'30000080'}24000100${'cd'.repeat(32)}${'08000300'}01000000`,
    );
  });

  it('refuses what is no key', () => {
    const bad = { publicKey: 'AAAA', allowedIps: [] };
    expect(() => encoded((m) => encodeDeviceChange('test', m, 7, { peers: [bad] }))).toThrow(
      '"AAAA" is not a key',
    );
    expect(() => encoded((m) => encodeDeviceChange('test', m, 7, { privateKey: Buffer.alloc(31) }))).toThrow(
      'not a key',
    );
  });
});

describe('WG_CMD_GET_DEVICE', () => {
  it('asks by index', () => {
    expect(encoded((m) => encodeDeviceQuery(m, 7))).toBe('00010000' + '08000100' + '07000000');
  });

  it('puts a peer together whose prefixes go on in the next message', () => {
    const decoder = new StateDecoder();
    const add = (hex: string): void => {
      const buffer = Buffer.from(hex, 'hex');
      decoder.add(buffer, 0, buffer.length);
    };
    const prefix = (last: string): string =>
      `28000080060001000a00000014000200fd${'00'.repeat(14)}${last}0500030080000000`;
    add(
      [
        '00010000' + '08000100' + '07000000',
        '24000400' + 'ab'.repeat(32), // WGDEVICE_A_PUBLIC_KEY
        '06000600' + '6cca' + '0000',
        '98000880' + '94000080',
        '24000100' + 'cd'.repeat(32),
        '14000400' + '0200' + 'ca6c' + 'c0000207' + '00'.repeat(8),
        '14000600' + '00f1536500000000' + '0000000000000000', // WGPEER_A_LAST_HANDSHAKE_TIME
        '0c000700' + '0a00000000000000',
        '0c000800' + '0b00000000000000',
        `2c000980${prefix('01')}`,
      ].join(''),
    );
    add(
      ['00010000', '58000880' + '54000080', '24000100' + 'cd'.repeat(32), `2c000980${prefix('02')}`].join(''),
    );
    expect(decoder.state()).toEqual({
      publicKey: KEY.toString('base64'),
      listenPort: 51820,
      peers: [
        {
          publicKey,
          endpoint: { address: '192.0.2.7', port: 51820 },
          allowedIps: ['fd00::1/128', 'fd00::2/128'],
          lastHandshake: 1700000000,
          receivedBytes: 10,
          sentBytes: 11,
        },
      ],
    });
  });
});

it('devices: a VRF with its table, and a VXLAN device that sends through another', () => {
  expect(encoded((m) => encodeLinkKind('test', m, { kind: 'vrf', table: 0x54000001 }))).toBe(
    '18001200' + '08000100' + '76726600' + '0c000200' + '08000100' + '01000054',
  );
  expect(encoded((m) => encodeLinkKind('test', m, { kind: 'vxlan', port: 4789, lower: 9 }))).toContain(
    '08000300' + '09000000',
  );
  expect(encoded((m) => encodeLinkKind('test', m, { kind: 'wireguard' }))).toBe(
    '14001200' + '0e000100' + '776972656775617264000000',
  );
});
