import { expect, it } from 'vitest';
import { isHosts, socketsIn } from './host-sockets.js';

it('reads sockets that take what comes', () => {
  const text = [
    '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
    '   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1',
    '   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1',
    '   2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0',
    '   3: B80D01200000000000000000010000FE:0051 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0',
  ].join('\n');
  expect(socketsIn(text, '0A')).toEqual([
    ['127.0.0.1', 8080],
    ['::', 80],
    ['2001:db8::fe00:1', 81],
  ]);
});

it('knows whose port would be taken', () => {
  const sockets = new Map([
    ['TCP 80', new Set(['0.0.0.0'])],
    ['UDP 53', new Set(['127.0.0.53', '10.1.0.1'])],
    ['TCP 81', new Set(['::'])],
    ['TCP 53', new Set(['10.1.0.1'])],
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
