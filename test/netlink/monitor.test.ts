import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type NetlinkEvent, NetlinkMonitor } from '../../loader/netlink/monitor.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import type { Netns } from '../../loader/netns.js';
import { newNetns } from './namespaces.js';

let ns: Netns;
let requests: Rtnetlink;

beforeAll(() => {
  ns = newNetns().ns;
  requests = Rtnetlink.open(ns);
  requests.setLink(1, { up: true });
});
afterAll(() => requests?.close());

function events(monitor: NetlinkMonitor, limit?: number): NetlinkEvent[] {
  const list: NetlinkEvent[] = [];
  expect(monitor.poll((event) => list.push(event), limit)).toBe(list.length);
  return list;
}

describe('NetlinkMonitor', () => {
  it('reports links, addresses, routes and neighbours as they come and go', () => {
    const monitor = NetlinkMonitor.open(['link', 'address', 'route', 'neighbour'], ns);
    expect(events(monitor)).toEqual([]);
    const { ifindex } = requests.createBridge({ name: 'br0', mac: '02:00:00:00:00:01', up: true });
    const address = { address: '10.0.0.1', prefix: 24, noPrefixRoute: true };
    requests.addAddress(ifindex, address);
    requests.addRoute({ destination: '10.1.0.0/16', ifindex, protocol: 84 });
    requests.setNeighbour({ ifindex, address: '10.0.0.9', mac: '02:00:00:00:00:09', permanent: true });
    const made = events(monitor);
    expect(made).toContainEqual({
      type: 'link',
      action: 'set',
      link: expect.objectContaining({ index: ifindex, name: 'br0', kind: 'bridge', up: true }) as unknown,
    });
    expect(made).toContainEqual({
      type: 'address',
      action: 'set',
      address: expect.objectContaining({ ifindex, address: '10.0.0.1', prefix: 24 }) as unknown,
    });
    expect(made).toContainEqual({
      type: 'route',
      action: 'set',
      route: expect.objectContaining({ destination: '10.1.0.0/16', ifindex, protocol: 84 }) as unknown,
    });
    expect(made).toContainEqual({
      type: 'neighbour',
      action: 'set',
      neighbour: expect.objectContaining({ address: '10.0.0.9', state: 'permanent' }) as unknown,
    });
    requests.deleteAddress(ifindex, address);
    requests.deleteLink(ifindex);
    const gone = events(monitor).map((event) => `${event.type} ${'action' in event ? event.action : ''}`);
    expect(gone).toContain('address delete');
    expect(gone).toContain('link delete');
    expect(events(monitor)).toEqual([]);
    monitor.close();
  });

  it('reports only the groups that were asked for, and no more datagrams than the limit', () => {
    const monitor = NetlinkMonitor.open(['address'], ns);
    for (let i = 1; i <= 5; i++) requests.addAddress(1, { address: `10.2.0.${i}`, prefix: 32 });
    expect(events(monitor, 2).length).toBe(2);
    expect(monitor.hasMore).toBe(true);
    expect(events(monitor).map((event) => event.type)).toEqual(['address', 'address', 'address']);
    expect(monitor.hasMore).toBe(false);
    monitor.close();
  });

  it('reports that events were lost, once, and goes on', () => {
    const monitor = NetlinkMonitor.open(['address'], ns, { receiveBuffer: 4096 });
    requests.batch(() => {
      for (let i = 0; i < 500; i++)
        requests.addAddress(1, { address: `10.3.${i >> 8}.${i & 255}`, prefix: 32 });
    });
    const seen = events(monitor);
    expect(seen.filter((event) => event.type === 'overflow').length).toBe(1);
    expect(seen.length).toBeLessThan(500);
    requests.addAddress(1, { address: '10.4.0.1', prefix: 32 });
    expect(events(monitor)).toMatchObject([{ type: 'address', address: { address: '10.4.0.1' } }]);
    monitor.close();
  });

  it('does not see other namespaces', () => {
    const monitor = NetlinkMonitor.open(['link', 'address'], newNetns().ns);
    requests.addAddress(1, { address: '10.5.0.1', prefix: 32 });
    expect(events(monitor)).toEqual([]);
    monitor.close();
  });
});
