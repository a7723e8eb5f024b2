import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Rtnetlink } from '../../loader/netlink/route.js';
import type { Netns } from '../../loader/netns.js';
import { LaterDevice } from '../../src/dataplane/later-device.js';
import { newNetns, thrown } from '../netlink/namespaces.js';

describe('a device that is made on another thread', () => {
  let pod: { name: string; ns: Netns };
  let host: Rtnetlink;
  let maker: Rtnetlink;

  beforeAll(() => {
    pod = newNetns();
    const { ns } = newNetns();
    host = Rtnetlink.open(ns);
    maker = Rtnetlink.open(ns);
  });
  afterAll(() => {
    host?.close();
    maker?.close();
  });

  const begin = (ifindex: number, name: string, removed: number[]): LaterDevice =>
    new LaterDevice(
      ifindex,
      maker.createVethLater({ name, ifindex, peer: { name: `p${name}`, netns: pod.ns } }),
      (index) => {
        removed.push(index);
        host.deleteLink(index);
      },
    );

  it('belongs to who takes it', async () => {
    const removed: number[] = [];
    const device = begin(300, 'sla', removed);
    await device.settle();
    expect(device.ready).toBe(true);
    expect(device.take()).toEqual({ ifindex: 300, inside: host.link(300)?.linkIndex });
    device.abandon();
    expect(removed).toEqual([]);
  });

  it('is removed when nobody does, also before the kernel has made it', () => {
    const removed: number[] = [];
    begin(301, 'slb', removed).abandon();
    expect(removed).toEqual([301]);
    expect(host.link(301)).toBeUndefined();
  });

  it('tells why it could not be made, and leaves what is there alone', async () => {
    const removed: number[] = [];
    const device = begin(300, 'slc', removed);
    await device.settle();
    expect(thrown(() => device.take())).toMatchObject({ code: 'EEXIST' });
    device.abandon();
    begin(300, 'slc', removed).abandon();
    expect(removed).toEqual([]);
    expect(host.link(300)?.name).toBe('sla');
  });
});
