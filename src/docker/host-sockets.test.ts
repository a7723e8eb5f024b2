import { expect, it } from 'vitest';
import type { HostListener } from '../dataplane/host-listeners.js';
import { isHosts } from './host-sockets.js';

it('knows whose port would be taken', () => {
  const listeners: HostListener[] = [
    { protocol: 'TCP', port: 80, address: '0.0.0.0' },
    { protocol: 'UDP', port: 53, address: '127.0.0.53' },
    { protocol: 'UDP', port: 53, address: '10.1.0.1' },
    { protocol: 'TCP', port: 81, address: '::' },
    { protocol: 'TCP', port: 53, address: '10.1.0.1' },
  ];
  const gateways = new Set(['10.1.0.1']);
  const taken = (protocol: 'TCP' | 'UDP', port: number, address?: string): boolean =>
    isHosts(listeners, { protocol, port, ...(address === undefined ? {} : { address }) }, gateways);
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
    taken('TCP', 81, '0.0.0.0'),
  ]).toEqual([false, false, true, false, false]);
});
