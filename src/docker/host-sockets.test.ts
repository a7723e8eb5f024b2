import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { expect, it } from 'vitest';
import { SockDiag } from '../../loader/netlink/sock-diag.js';
import { hostSockets, isHosts } from './host-sockets.js';

it('finds sockets that take what comes, and no others', async () => {
  const tcp = createServer();
  const udp = createSocket('udp6');
  const connected = createSocket('udp4');
  await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.9', resolve));
  await new Promise<void>((resolve) => udp.bind(0, '::1', resolve));
  await new Promise<void>((resolve) => connected.connect(9, '127.0.0.1', resolve));
  const { port } = tcp.address() as { readonly port: number };
  const diag = SockDiag.open();
  const sockets = hostSockets(diag);
  diag.close();
  expect(sockets.get(`6 ${port}`)).toEqual(new Set(['127.0.0.9']));
  expect(sockets.get(`17 ${udp.address().port}`)).toEqual(new Set(['::1']));
  expect(sockets.get(`17 ${connected.address().port}`)).toBeUndefined();
  tcp.close();
  udp.close();
  connected.close();
});

it('knows whose port would be taken', () => {
  const sockets = new Map([
    ['6 80', new Set(['0.0.0.0'])],
    ['17 53', new Set(['127.0.0.53', '10.1.0.1'])],
    ['6 81', new Set(['::'])],
    ['6 53', new Set(['10.1.0.1'])],
  ]);
  const gateways = new Set(['10.1.0.1']);
  const taken = (protocol: 'TCP' | 'UDP', port: number, address?: string): boolean =>
    isHosts(sockets, { protocol, port, ...(address === undefined ? {} : { address }) }, gateways);
  expect([taken('TCP', 80), taken('TCP', 80, '127.0.0.1'), taken('TCP', 80, '::1')]).toEqual([
    true,
    true,
    false,
  ]);
  expect([taken('UDP', 53), taken('UDP', 53, '0.0.0.0'), taken('UDP', 53, '192.0.2.1')]).toEqual([
    true,
    true,
    false,
  ]);
  expect([
    taken('TCP', 53),
    taken('UDP', 80),
    taken('TCP', 81, '::1'),
    taken('TCP', 81, '127.0.0.1'),
  ]).toEqual([false, false, true, false]);
});
