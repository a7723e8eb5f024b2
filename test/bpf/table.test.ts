import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { DropReason } from '../../loader/abi/gen/types.gen.js';
import { EMPTY_ENDPOINT } from '../../src/dataplane/endpoints.js';
import { FLAG, frame, macBytes, PROTO } from '../lib/packet.js';
import { A, B, Bed, CONTINUE, DROPPED, GATEWAY, OUTSIDE, REDIRECT } from './bed.js';

let bed: Bed;
beforeAll(() => {
  bed = new Bed();
});
beforeEach(() => bed.reset());
afterAll(() => bed.close());

const udp = { source: A.v4, destination: B.v4, proto: PROTO.udp, sourcePort: 1, destinationPort: 2 } as const;
const tcp = { ...udp, proto: PROTO.tcp } as const;
const back = { source: B.v4, destination: A.v4, sourcePort: 2, destinationPort: 1 } as const;
/** Jiffies that the bed's programs count as one second. */
const HZ = 250;

function lastOf(): number {
  return Math.max(...[...bed.flows.entries()].map(([, flow]) => flow.last));
}

describe('expiry', () => {
  it('removes what is idle for longer than its protocol allows, both directions at once', () => {
    bed.from(A, udp);
    const now = lastOf();
    expect(bed.gc({ now: now + 29 * HZ })).toMatchObject({ scanned: 2, expired: 0 });
    expect(bed.gc({ now: now + 31 * HZ }).expired).toBe(2);
    expect(bed.table()).toEqual([]);
  });

  it('gives an answered flow longer, and an established TCP flow hours', () => {
    bed.from(A, udp);
    bed.from(B, { ...back, proto: PROTO.udp });
    bed.from(A, { ...tcp, flags: FLAG.syn });
    bed.from(B, { ...back, proto: PROTO.tcp, flags: FLAG.syn | FLAG.ack });
    bed.from(A, { ...tcp, flags: FLAG.ack });
    const now = lastOf();
    expect(bed.gc({ now: now + 100 * HZ }).expired).toBe(0);
    expect(bed.gc({ now: now + 121 * HZ }).expired).toBe(2);
    expect(bed.gc({ now: now + 21_000 * HZ }).expired).toBe(0);
    bed.from(A, { ...tcp, flags: FLAG.fin | FLAG.ack });
    expect(bed.gc({ now: lastOf() + 100 * HZ }).expired).toBe(0);
    bed.from(B, { ...back, proto: PROTO.tcp, flags: FLAG.fin | FLAG.ack });
    expect(bed.gc({ now: lastOf() + 6 * HZ }).expired).toBe(2);
  });

  it('CT-6 keeps a TCP flow that is closed from one side for an hour', () => {
    bed.from(A, { ...tcp, flags: FLAG.syn });
    bed.from(B, { ...back, proto: PROTO.tcp, flags: FLAG.syn | FLAG.ack });
    bed.from(A, { ...tcp, flags: FLAG.ack });
    bed.from(B, { ...back, proto: PROTO.tcp, flags: FLAG.fin | FLAG.ack });
    const now = lastOf();
    expect(bed.gc({ now: now + 3595 * HZ }).expired).toBe(0);
    expect(bed.gc({ now: now + 3605 * HZ }).expired).toBe(2);
  });

  it('keeps a flow whose other direction is alive', () => {
    bed.from(A, udp);
    const now = lastOf();
    for (const [key, flow] of [...bed.flows.entries()]) {
      if (key.ifindex === B.ifindex) bed.flows.set(key, { ...flow, last: now + 60 * HZ, packets: 9n });
    }
    expect(bed.gc({ now: now + 70 * HZ }).expired).toBe(0);
  });

  it('works through slices, and faster under pressure', () => {
    for (let port = 1; port <= 20; port++) bed.from(A, { ...udp, sourcePort: port });
    expect(bed.gc({ start: 0, count: 10 }).scanned).toBe(10);
    expect(bed.gc({ start: 35, count: 10 }).scanned).toBe(5);
    expect(bed.gc({ start: 100, count: 10 }).scanned).toBe(0);
    expect(bed.gc({ now: lastOf() + 10 * HZ, pressure: 80 }).expired).toBe(40);
  });
});

describe('a full table', () => {
  it('drops with the reason and leaves no half of a flow', () => {
    const own = new Bed({ sizes: { flows: 64 } });
    onTestFinished(() => own.close());
    let dropped = 0;
    for (let port = 1; port <= 100; port++)
      if (own.from(A, { ...udp, sourcePort: port }).retval === DROPPED) dropped++;
    expect(dropped).toBeGreaterThan(30);
    expect(own.dropsSince()).toEqual({ FlowFull: dropped });
    expect(own.table().length).toBe((100 - dropped) * 2);
  });

  it('is not what a SYN flood fills', () => {
    const own = new Bed({ sizes: { flows: 64, half: 32 }, rodata: { cfg_half_limit: 4 } });
    onTestFinished(() => own.close());
    own.from(A, udp);
    for (let port = 1; port <= 500; port++)
      expect(own.from(A, { ...tcp, sourcePort: port, flags: FLAG.syn }).retval).toBe(REDIRECT);
    expect(own.table()).toHaveLength(2 + 2 * 4);
    expect(own.from(A, udp).retval).toBe(REDIRECT);
    expect(own.dropsSince()).toEqual({});
  });
});

describe('a dry run', () => {
  it('says what would happen and changes nothing', () => {
    const own = new Bed({ rodata: { cfg_dry_run: 1 } });
    onTestFinished(() => own.close());
    own.set(2, {});
    expect(own.from(A, { ...tcp, flags: FLAG.syn }).retval).toBe(0);
    expect(own.trace()).toMatchObject({
      reason: DropReason.None,
      srcIdentity: A.id,
      dstIdentity: B.id,
      flow: { oif: B.ifindex },
    });
    own.endpoint(B, { setIngress: 2 });
    expect(own.from(A, { ...tcp, flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(own.trace()).toMatchObject({ reason: DropReason.PolicyIngress, rule: 902 });
    own.endpoint(B);
    expect(own.from(A, { ...udp, destination: OUTSIDE.v4 }).retval).toBe(0);
    expect(own.table()).toEqual([]);
    expect([...own.half.entries()]).toEqual([]);
    expect(own.counted('None')).toBe(0);
    expect(own.dropsSince()).toEqual({});
  });

  it('takes a device that does not exist, and only a dry run does', () => {
    const own = new Bed({ rodata: { cfg_dry_run: 1 } });
    onTestFinished(() => own.close());
    const nowhere = 5000;
    const packet = { ...udp, sourceMac: A.mac, destinationMac: A.host };
    for (const one of [own, bed]) {
      const slot = one.endpoints.get(A.ifindex);
      if (slot !== undefined) one.endpoints.set(nowhere, { ...slot, ifindex: nowhere });
    }
    expect(own.run('sluice_from_container', 0, packet, nowhere).retval).toBe(0);
    expect(own.trace()).toMatchObject({ reason: DropReason.None, key: { ifindex: nowhere } });
    expect(bed.run('sluice_from_container', A.ifindex, packet, nowhere).retval).toBe(REDIRECT);
    expect(bed.table().map((line) => line.split(' ')[0])).toEqual([String(A.ifindex), String(B.ifindex)]);
    bed.endpoints.set(nowhere, EMPTY_ENDPOINT);
  });
});

describe('neighbours', () => {
  const arp = (mac: string, ip: string, target: string): Buffer => {
    const out = Buffer.alloc(42);
    out.fill(0xff, 0, 6);
    out.set(macBytes(A.mac), 6);
    out.writeUInt16BE(0x0806, 12);
    out.set([0, 1, 8, 0, 6, 4, 0, 1], 14);
    out.set(macBytes(mac), 22);
    out.set(ip.split('.').map(Number), 28);
    out.set(target.split('.').map(Number), 38);
    return out;
  };

  it('answers ARP in a routed network', () => {
    const { retval, raw } = bed.run('sluice_from_container', A.ifindex, arp(A.mac, A.v4, GATEWAY.v4));
    expect(retval).toBe(REDIRECT);
    expect(raw.subarray(0, 6)).toEqual(macBytes(A.mac));
    expect(raw.subarray(6, 12)).toEqual(macBytes(A.host));
    expect(raw.readUInt16BE(20)).toBe(2);
    expect([...raw.subarray(28, 32)].join('.')).toBe(GATEWAY.v4);
    expect(raw.subarray(22, 28)).toEqual(macBytes(A.host));
    expect([...raw.subarray(38, 42)].join('.')).toBe(A.v4);
  });

  it('drops ARP that lies, and lets a bridge have what is true', () => {
    expect(bed.run('sluice_from_container', A.ifindex, arp(B.mac, A.v4, GATEWAY.v4)).retval).toBe(DROPPED);
    expect(bed.run('sluice_from_container', A.ifindex, arp(A.mac, B.v4, GATEWAY.v4)).retval).toBe(DROPPED);
    bed.endpoint(A, { flags: 1 });
    expect(bed.run('sluice_from_container', A.ifindex, arp(A.mac, A.v4, B.v4)).retval).toBe(CONTINUE);
    expect(bed.run('sluice_from_container', A.ifindex, arp(A.mac, B.v4, GATEWAY.v4)).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ Arp: 3 });
  });

  it('answers neighbour solicitations in a routed network', () => {
    const target = Buffer.alloc(24);
    target.set(Buffer.from('fd070000000000000000000000000001', 'hex'), 0);
    target.set([1, 1, ...macBytes(A.mac)], 16);
    const { retval, packet, raw } = bed.from(A, {
      source: A.v6,
      destination: 'ff02::1:ff00:1',
      proto: PROTO.icmp6,
      icmp: { type: 135 },
      payload: target,
      ttl: 255,
    });
    expect(retval).toBe(REDIRECT);
    expect(packet).toMatchObject({
      source: 'fd07::1',
      destination: A.v6,
      destinationMac: A.mac,
      sourceMac: A.host,
      icmp: { type: 136, word: 0xe0000000 },
      ttl: 255,
      broken: [],
    });
    expect(raw.subarray(14 + 40 + 24 + 2, 14 + 40 + 32)).toEqual(macBytes(A.host));
  });
});

describe('a bridged network', () => {
  it('lets group traffic pass if both policies allow it', () => {
    bed.endpoint(A, { flags: 1 });
    bed.endpoint(B, { flags: 1 });
    const group = { ...udp, destination: '224.0.0.251', destinationMac: '01:00:5e:00:00:fb' };
    expect(bed.from(A, group).retval).toBe(CONTINUE);
    expect(bed.fromHost(B, { ...group, sourceMac: A.mac }).retval).toBe(CONTINUE);
    expect(bed.from(A, { ...group, source: B.v4 }).retval).toBe(DROPPED);
    bed.set(2, {});
    bed.endpoint(B, { flags: 1, setIngress: 2 });
    expect(bed.fromHost(B, { ...group, sourceMac: A.mac }).retval).toBe(DROPPED);
    bed.endpoint(A, { flags: 1, setEgress: 2 });
    expect(bed.from(A, group).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ SpoofedAddr: 1, PolicyIngress: 1, PolicyEgress: 1 });
  });
});

describe('macvlan', () => {
  const out = (spec: object) =>
    bed.run('sluice_l2_egress', A.ifindex, {
      sourceMac: A.mac,
      destinationMac: B.mac,
      ...udp,
      ...spec,
    });
  const into = (spec: object) =>
    bed.run('sluice_l2_ingress', A.ifindex, {
      sourceMac: B.mac,
      destinationMac: A.mac,
      ...back,
      proto: PROTO.udp,
      ...spec,
    });

  it('judges in both directions, knows answers, and follows a change', () => {
    bed.set(2, {});
    bed.endpoint(A, { flags: 2, setIngress: 2 });
    expect(into({}).retval).toBe(DROPPED);
    expect(out({}).retval).toBe(CONTINUE);
    expect(into({}).retval).toBe(CONTINUE);
    bed.endpoint(A, { flags: 2, setIngress: 2, setEgress: 2 });
    bed.epoch(2);
    expect(into({}).retval).toBe(DROPPED);
    expect(out({}).retval).toBe(DROPPED);
    expect(out({ source: B.v4 }).retval).toBe(DROPPED);
    expect(out({ sourceMac: B.mac }).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 1, PolicyEgress: 2, SpoofedAddr: 1, SpoofedMac: 1 });
  });
});

describe('events', () => {
  it('counts every drop', () => {
    for (let i = 0; i < 1000; i++)
      bed.run(
        'sluice_from_container',
        A.ifindex,
        frame({ ...udp, sourceMac: B.mac, destinationMac: A.host }),
      );
    expect(bed.dropsSince()).toEqual({ SpoofedMac: 1000 });
  });
});
