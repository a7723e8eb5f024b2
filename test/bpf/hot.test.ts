import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FlowAction, type HotFlow } from '../../loader/abi/gen/types.gen.js';
import { FLAG, PROTO } from '../lib/packet.js';
import { A, B, Bed, C, DROPPED, OUTSIDE, REDIRECT, UPLINK } from './bed.js';

let bed: Bed;
beforeAll(() => {
  bed = new Bed();
});
beforeEach(() => bed.reset());
afterAll(() => bed.close());

const udp = { source: A.v4, destination: B.v4, proto: PROTO.udp, sourcePort: 7, destinationPort: 9 } as const;
const tcp = { ...udp, proto: PROTO.tcp } as const;
const answer = { source: B.v4, destination: A.v4, sourcePort: 9, destinationPort: 7 } as const;

function hot(): HotFlow[] {
  return [...bed.hot.entries()].flatMap(([, { flows }]) => flows.filter(({ ifindex }) => ifindex !== 0));
}

/** Packets of a flow from `ifindex`: what its entry says, and what is not in it yet. */
function packets(ifindex: number): number {
  const settled = [...bed.flows.entries()].filter(([key]) => key.ifindex === ifindex);
  const rest = hot().filter((flow) => flow.ifindex === ifindex);
  return [...settled.map(([, flow]) => flow), ...rest].reduce((sum, flow) => sum + Number(flow.packets), 0);
}

function connect(): void {
  bed.from(A, { ...tcp, flags: FLAG.syn });
  bed.from(B, { ...answer, proto: PROTO.tcp, flags: FLAG.syn | FLAG.ack });
  bed.from(A, { ...tcp, flags: FLAG.ack });
}

describe('the busiest flows', () => {
  it.each([
    ['UDP', udp],
    ['TCP', tcp],
  ] as const)('%s: take a place after a few packets, and every packet is counted once', (name, packet) => {
    if (name === 'TCP') connect();
    else bed.from(A, packet);
    const before = packets(A.ifindex);
    const counted = bed.counted('None');
    expect(hot()).toEqual([]);
    for (let i = 0; i < 100; i++) {
      const { retval, packet: sent } = bed.from(A, {
        ...packet,
        ...(name === 'TCP' ? { flags: FLAG.ack } : {}),
      });
      expect(retval).toBe(REDIRECT);
      expect(sent).toMatchObject({ sourceMac: B.host, destinationMac: B.mac, ttl: 64, broken: [] });
    }
    expect(hot().length).toBeGreaterThan(0);
    expect(hot()[0]).toMatchObject({ oif: B.ifindex, ifindex: A.ifindex, proto: packet.proto });
    expect(packets(A.ifindex)).toBe(before + 100);
    expect(bed.counted('None')).toBe(counted + 100);
    expect(bed.dropsSince()).toEqual({});
  });

  it('follow a change of policy with the next packet', () => {
    for (let i = 0; i < 20; i++) bed.from(A, udp);
    expect(hot()).not.toEqual([]);
    bed.set(2, {});
    bed.endpoint(B, { setIngress: 2 });
    bed.epoch(2);
    expect(bed.from(A, udp).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 1 });
    bed.endpoint(B);
    bed.epoch(3);
    for (let i = 0; i < 20; i++) expect(bed.from(A, udp).retval).toBe(REDIRECT);
  });

  it('are no way around the check of addresses', () => {
    for (let i = 0; i < 20; i++) bed.from(A, udp);
    expect(bed.from(A, { ...udp, sourceMac: C.mac }).retval).toBe(DROPPED);
    expect(bed.from(C, udp).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ SpoofedMac: 1, SpoofedAddr: 1 });
  });

  it('may be addressed to the other container itself, but not to all', () => {
    for (let i = 0; i < 20; i++) {
      const { retval, packet } = bed.from(A, { ...udp, destinationMac: B.mac });
      expect(retval).toBe(REDIRECT);
      expect(packet).toMatchObject({ sourceMac: B.host, destinationMac: B.mac });
    }
    expect(hot()).not.toEqual([]);
    const counted = bed.counted('None');
    for (const destinationMac of ['ff:ff:ff:ff:ff:ff', '01:00:5e:00:00:09'])
      expect(bed.from(A, { ...udp, destinationMac }).retval).toBe(DROPPED);
    expect(bed.counted('None')).toBe(counted);
    expect(bed.dropsSince()).toEqual({ Multicast: 2 });
  });

  it('end like others, with their counts', () => {
    connect();
    for (let i = 0; i < 50; i++) bed.from(A, { ...tcp, flags: FLAG.ack });
    const total = packets(A.ifindex);
    bed.from(A, { ...tcp, flags: FLAG.fin | FLAG.ack });
    expect(packets(A.ifindex)).toBe(total + 1);
    bed.from(B, { ...answer, proto: PROTO.tcp, flags: FLAG.rst });
    expect(bed.table()).toEqual([]);
    expect(bed.from(A, { ...tcp, flags: FLAG.syn }).retval).toBe(REDIRECT);
    expect(bed.table()).toHaveLength(2);
  });

  it('leave fragments and IPv6 to the flow table', () => {
    for (let i = 0; i < 20; i++) bed.from(A, { ...udp, source: A.v6, destination: B.v6 });
    expect(hot()).toEqual([]);
  });
});

describe('the busiest flows that are translated', () => {
  const out = { source: A.v4, destination: OUTSIDE.v4, sourcePort: 7, destinationPort: 443 } as const;
  const payload = Buffer.from('of odd length');

  /** Opens a flow to the outside; the port it leaves with. */
  function open(proto: number): number | undefined {
    const { sourcePort } = bed.from(A, { ...out, proto, flags: FLAG.syn, payload }).packet;
    bed.fromUplink({
      source: OUTSIDE.v4,
      destination: UPLINK.v4,
      sourcePort: 443,
      ...(sourcePort === undefined ? {} : { destinationPort: sourcePort }),
      proto,
      flags: FLAG.syn | FLAG.ack,
    });
    bed.from(A, { ...out, proto, flags: FLAG.ack, payload });
    return sourcePort;
  }

  it.each([
    ['TCP', { proto: PROTO.tcp, flags: FLAG.ack }],
    ['UDP', { proto: PROTO.udp }],
    ['UDP without a checksum', { proto: PROTO.udp, noChecksum: true }],
  ] as const)('%s, masqueraded: leave as the others, counted once', (_, kind) => {
    const sourcePort = open(kind.proto);
    const before = packets(A.ifindex);
    const counted = bed.counted('None');
    for (let i = 0; i < 50; i++) {
      const { retval, packet } = bed.from(A, { ...out, ...kind, payload, ttl: 64 - i });
      expect(retval).toBe(REDIRECT);
      expect(packet).toMatchObject({
        source: UPLINK.v4,
        destination: OUTSIDE.v4,
        sourcePort,
        destinationPort: 443,
        ttl: 63 - i,
        broken: [],
      });
    }
    expect(hot()[0]).toMatchObject({ action: FlowAction.Neigh, oif: UPLINK.ifindex, ifindex: A.ifindex });
    expect(packets(A.ifindex)).toBe(before + 50);
    expect(bed.counted('None')).toBe(counted + 50);
    expect(bed.dropsSince()).toEqual({});
  });

  it('leave packets that end here or are too large to the flow table', () => {
    const sourcePort = open(PROTO.udp);
    const packet = { ...out, proto: PROTO.udp };
    for (let i = 0; i < 20; i++) bed.from(A, { ...packet, payload });
    expect(hot()).not.toEqual([]);
    bed.from(A, { ...packet, payload, ttl: 1 });
    bed.from(A, { ...packet, payload: Buffer.alloc(1473) });
    expect(bed.dropsSince()).toEqual({ Ttl: 1, TooBig: 1 });
    expect(bed.from(A, { ...packet, payload: Buffer.alloc(1472) }).packet).toMatchObject({
      sourcePort,
      broken: [],
    });
  });

  it('go to the container behind a published port, and back, until one of them ends', () => {
    bed.hostport(UPLINK.v4, 8080, PROTO.tcp, B, 80);
    const to = { source: A.v4, destination: UPLINK.v4, sourcePort: 7, destinationPort: 8080 } as const;
    const back = { source: B.v4, destination: A.v4, sourcePort: 80, destinationPort: 7 } as const;
    const proto = PROTO.tcp;
    bed.from(A, { ...to, proto, flags: FLAG.syn });
    bed.from(B, { ...back, proto, flags: FLAG.syn | FLAG.ack });
    for (let i = 0; i < 20; i++) {
      expect(bed.from(A, { ...to, proto, flags: FLAG.ack, payload }).packet).toMatchObject({
        destination: B.v4,
        destinationPort: 80,
        destinationMac: B.mac,
        ttl: 64,
        broken: [],
      });
      expect(bed.from(B, { ...back, proto, flags: FLAG.ack, payload }).packet).toMatchObject({
        source: UPLINK.v4,
        sourcePort: 8080,
        destinationMac: A.mac,
        ttl: 64,
        broken: [],
      });
    }
    // On each processor that the test has run on.
    const ways = new Set(hot().map(({ ifindex, oif }) => `${ifindex} to ${oif}`));
    expect([...ways].sort()).toEqual([`${A.ifindex} to ${B.ifindex}`, `${B.ifindex} to ${A.ifindex}`]);
    expect(packets(A.ifindex)).toBe(21);
    bed.from(B, { ...back, proto, flags: FLAG.rst });
    expect(bed.table()).toEqual([]);
  });
});
