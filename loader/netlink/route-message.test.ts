import { describe, expect, it } from 'vitest';
import { MessageBuilder } from './message.js';
import { decodeRoute, encodeRoute, encodeRouteKey, type RouteInput } from './route-message.js';

function encoded(route: RouteInput, encode = encodeRoute): string {
  const message = new MessageBuilder();
  encode('add route', message, route);
  return message.bytes().toString('hex');
}

describe('route messages', () => {
  it('default route through a gateway on the link, with source and protocol', () => {
    expect(
      encoded({
        destination: 'default',
        gateway: '169.254.1.1',
        ifindex: 2,
        source: '10.0.0.2',
        onLink: true,
        protocol: 84,
      }),
    ).toBe(
      '02000000' +
        'fe540001' +
        '04000000' +
        '08000500' +
        'a9fe0101' +
        '08000400' +
        '02000000' +
        '08000700' +
        '0a000002',
    );
  });

  it('without a gateway the scope is link; a table above 255 is an attribute', () => {
    expect(encoded({ destination: '10.0.0.0/8', ifindex: 2, table: 1000, metric: 5, mtu: 1400 })).toBe(
      '02080000' +
        '0004fd01' +
        '00000000' +
        '08000100' +
        '0a000000' +
        '08000400' +
        '02000000' +
        '08000600' +
        '05000000' +
        '08000f00' +
        'e8030000' +
        '0c000800' +
        '08000200' +
        '78050000',
    );
  });

  it('blackhole and unreachable go nowhere; IPv6 has no scope', () => {
    expect(encoded({ destination: '10.1.0.0/16', type: 'blackhole' })).toBe(
      '02100000' + 'fe040006' + '00000000' + '08000100' + '0a010000',
    );
    expect(encoded({ destination: '::/0', type: 'unreachable' })).toBe('0a000000' + 'fe040007' + '00000000');
  });

  it('IPv4 through an IPv6 gateway: RTA_VIA', () => {
    expect(encoded({ destination: '10.0.0.1', gateway: 'fe80::1', ifindex: 2 })).toBe(
      `${'02200000' + 'fe040001' + '00000000' + '08000100' + '0a000001' + '16001200' + '0a00'}fe80${'00'.repeat(13)}01${
        '0000' + '08000400' + '02000000'
      }`,
    );
  });

  it('to delete, what is not given is not compared', () => {
    expect(encoded({ destination: '10.0.0.0/8' }, encodeRouteKey)).toBe(
      '02080000' + 'fe00ff00' + '00000000' + '08000100' + '0a000000',
    );
  });

  it.each([
    [{ destination: 'default' }, 'default route without a family'],
    [{ destination: '10.0.0.0/33' }, 'prefix length is not between 0 and 32'],
    [{ destination: '10.0.0.0/' }, '"10.0.0.0/" is not a prefix'],
    [{ destination: '10.0.0.0/-1' }, '"10.0.0.0/-1" is not a prefix'],
    [{ destination: 'shop' }, '"shop" is not an IP address'],
    [{ destination: '10.0.0.0/8', family: 6 as const }, '10.0.0.0/8 is not IPv6'],
    [{ destination: '10.0.0.0/8', gateway: 'x' }, '"x" is not an IP address'],
  ])('refuses %j', (route, reason) => {
    expect(() => encoded(route)).toThrow(`add route: ${reason} (EINVAL)`);
  });

  it('decodes multipath', () => {
    const bytes = Buffer.from(
      '02000000' +
        'fe540001' +
        '00000000' +
        '24000900' +
        '10000000' +
        '02000000' +
        '08000500' +
        '0a000001' + // gateway 10.0.0.1 on 2, weight 1
        '10001402' +
        '03000000' +
        '08000500' +
        '0a000101', // gateway 10.0.1.1 on 3, on link, no carrier, weight 3
      'hex',
    );
    expect(decodeRoute(bytes, 0, bytes.length)).toEqual({
      family: 4,
      destination: 'default',
      type: 'unicast',
      gateway: '10.0.0.1',
      ifindex: 2,
      onLink: false,
      scope: 'universe',
      metric: 0,
      protocol: 84,
      table: 254,
      hops: [
        { ifindex: 2, gateway: '10.0.0.1', weight: 1, onLink: false, down: false },
        { ifindex: 3, gateway: '10.0.1.1', weight: 3, onLink: true, down: true },
      ],
    });
  });

  it('leaves cached routes out unless asked for', () => {
    const bytes = Buffer.from(
      '02200000' + 'fe000001' + '00020000' + '08000100' + '0a000001' + '08000400' + '02000000',
      'hex',
    );
    expect(decodeRoute(bytes, 0, bytes.length)).toBeUndefined();
    expect(decodeRoute(bytes, 0, bytes.length, true)?.destination).toBe('10.0.0.1/32');
  });
});
