import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AddrFlag } from '../../loader/abi/gen/types.gen.js';
import { parseAddress } from '../../policy/address.js';
import { FLAG, PROTO } from '../lib/packet.js';
import { A, B, Bed, C, DROPPED, OUTSIDE, type Outcome, REDIRECT } from './bed.js';

let bed: Bed;
beforeAll(() => {
  bed = new Bed();
});
beforeEach(() => bed.reset());
afterAll(() => bed.close());

const tcp = { source: A.v4, destination: B.v4, proto: PROTO.tcp, sourcePort: 7, destinationPort: 9 } as const;

describe('the next connection between the same two', () => {
  it('is decided as the one before, until something changes', () => {
    for (const [from, to] of [
      [A.v4, B.v4],
      [A.v6, B.v6],
    ] as const) {
      bed.reset();
      const syn = (sourcePort: number, destinationPort = 80): number =>
        bed.from(A, {
          source: from,
          destination: to,
          proto: PROTO.tcp,
          sourcePort,
          destinationPort,
          flags: FLAG.syn,
        }).retval;
      bed.set(2, {});
      bed.profile(2, A.id, 7, [[PROTO.tcp, 80, 64, 5]]);
      bed.endpoint(B, { setIngress: 2 });
      expect(syn(1)).toBe(REDIRECT);
      expect(syn(2)).toBe(REDIRECT);
      expect(syn(3, 81)).toBe(DROPPED);
      const opener = [...bed.flows.entries()].filter(([key]) => key.ifindex === A.ifindex);
      const back = [...bed.flows.entries()].filter(([key]) => key.ifindex === B.ifindex);
      expect(opener.map(([key, flow]) => [key.sport, flow.sport, flow.dport]).sort()).toEqual([
        [1, 1, 80],
        [2, 2, 80],
      ]);
      expect(back.map(([key, flow]) => [key.dport, flow.sport, flow.dport]).sort()).toEqual([
        [1, 80, 1],
        [2, 80, 2],
      ]);
      for (const pair of [opener, back]) {
        const [first, second] = pair.map(([, flow]) => ({
          ...flow,
          sport: 0,
          dport: 0,
          last: 0,
          created: 0n,
        }));
        expect(second).toEqual(first);
      }
      bed.set(3, {});
      bed.endpoint(B, { setIngress: 3 });
      bed.epoch(2);
      expect(syn(4)).toBe(DROPPED);
    }
  });

  it('is counted and logged once, however often its SYN comes', () => {
    const before = bed.logged();
    for (const sourcePort of [1, 2, 3, 3, 3])
      expect(bed.from(A, { ...tcp, sourcePort, flags: FLAG.syn }).retval).toBe(REDIRECT);
    const opened = [...bed.flows.entries()].filter(([key]) => key.ifindex === A.ifindex);
    expect(opened.map(([key, { packets: n }]) => [key.sport, Number(n)]).sort()).toEqual([
      [1, 1],
      [2, 1],
      [3, 3],
    ]);
    expect(bed.logged() - before).toBe(3);
    expect(bed.node.get(0)?.halfOpen).toBe(3);
  });

  it('is no way around the check of Ethernet addresses', () => {
    const syn = (sourcePort: number, sourceMac: string): number =>
      bed.from(A, { ...tcp, sourcePort, sourceMac, flags: FLAG.syn }).retval;
    expect(syn(1, A.mac)).toBe(REDIRECT);
    expect(syn(2, C.mac)).toBe(DROPPED);
    expect(bed.table()).toHaveLength(2);
    expect(bed.dropsSince()).toEqual({ SpoofedMac: 1 });
  });
});

describe.each(['v4', 'v6'] as const)('the next connection with a pod of another node, %s', (family) => {
  it('is decided as the one before, until something changes', () => {
    bed.addrs.set(parseAddress(OUTSIDE[family]), {
      identity: 310,
      ifindex: 0,
      network: 1,
      flags: AddrFlag.Cluster,
      node: new Uint8Array(16),
    });
    const rest = { proto: PROTO.tcp, destinationPort: 80, flags: FLAG.syn };
    const leave = (sourcePort: number): Outcome =>
      bed.from(A, { source: A[family], destination: OUTSIDE[family], sourcePort, ...rest });
    const arrive = (sourcePort: number): Outcome =>
      bed.fromUplink({ source: OUTSIDE[family], destination: B[family], sourcePort, ...rest });
    for (const sourcePort of [1, 2, 3]) {
      expect(leave(sourcePort)).toMatchObject({
        retval: REDIRECT,
        packet: { source: A[family], sourcePort, ttl: 63, broken: [] },
      });
      expect(arrive(sourcePort)).toMatchObject({
        retval: REDIRECT,
        packet: { destination: B[family], sourcePort, destinationMac: B.mac, ttl: 63, broken: [] },
      });
    }
    const flows = [...bed.flows.entries()];
    for (const ifindex of [A.ifindex, B.ifindex]) {
      const alike = flows
        .filter(([key]) => key.ifindex === ifindex)
        .map(([, flow]) => ({ ...flow, sport: 0, dport: 0, last: 0, created: 0n }));
      expect(alike).toHaveLength(3);
      expect(alike[1]).toEqual(alike[0]);
      expect(alike[2]).toEqual(alike[0]);
    }
    expect(flows).toHaveLength(12);
    bed.set(2, {});
    for (const guest of [A, B]) bed.endpoint(guest, { setIngress: 2, setEgress: 2 });
    bed.epoch(2);
    expect([leave(4).retval, arrive(4).retval]).toEqual([DROPPED, DROPPED]);
    expect(bed.dropsSince()).toEqual({ PolicyEgress: 1, PolicyIngress: 1 });
  });
});

describe('the next connection to a service', () => {
  const FRONTENDS = { v4: ['10.96.0.1', '10.96.0.2'], v6: ['fd96::1', 'fd96::2'] } as const;
  const proto = PROTO.tcp;

  describe.each(['v4', 'v6'] as const)('%s', (family) => {
    const [first, second] = FRONTENDS[family];
    const syn = (sourcePort: number, destination: string, destinationPort = 80): Outcome =>
      bed.from(A, { source: A[family], destination, proto, sourcePort, destinationPort, flags: FLAG.syn });
    const openers = () => [...bed.flows.entries()].filter(([key]) => key.ifindex === A.ifindex);

    it('goes to the backend as the one before, and its answers come from the service', () => {
      bed.set(2, {});
      bed.profile(2, A.id, 7, [[proto, 8080, 64, 5]]);
      bed.endpoint(B, { setIngress: 2 });
      bed.service(first, 80, proto, B, 8080);
      for (const sourcePort of [1, 2, 3]) {
        const { retval, packet } = syn(sourcePort, first);
        expect(retval).toBe(REDIRECT);
        expect(packet).toMatchObject({
          source: A[family],
          sourcePort,
          destination: B[family],
          destinationPort: 8080,
          destinationMac: B.mac,
          broken: [],
        });
        const answer = bed.from(B, {
          source: B[family],
          destination: A[family],
          proto,
          sourcePort: 8080,
          destinationPort: sourcePort,
          flags: FLAG.syn | FLAG.ack,
        });
        expect(answer.packet).toMatchObject({
          source: first,
          sourcePort: 80,
          destination: A[family],
          destinationPort: sourcePort,
          broken: [],
        });
      }
      const alike = openers().map(([, flow]) => ({ ...flow, sport: 0, last: 0, created: 0n }));
      expect(alike).toHaveLength(3);
      expect(alike[1]).toEqual(alike[0]);
      expect(alike[2]).toEqual(alike[0]);
      expect(alike[0]?.ruleIngress).toBe(5);
    });

    it('is decided again after a change of policy', () => {
      bed.service(first, 80, proto, B, 8080);
      expect(syn(1, first).retval).toBe(REDIRECT);
      expect(syn(2, first).retval).toBe(REDIRECT);
      bed.set(2, {});
      bed.endpoint(B, { setIngress: 2 });
      bed.epoch(2);
      expect(syn(3, first).retval).toBe(DROPPED);
      expect(bed.dropsSince()).toEqual({ PolicyIngress: 1 });
    });

    it('has a port of its own if its answers would look like those of another', () => {
      bed.service(first, 80, proto, B, 8080);
      bed.service(second, 80, proto, B, 8080);
      expect(syn(1, first).packet.source).toBe(A[family]);
      const { packet } = syn(1, second);
      expect(packet).toMatchObject({ source: A[family], destination: B[family], broken: [] });
      expect(packet.sourcePort).not.toBe(1);
      expect(syn(2, second).packet).toMatchObject({ source: A[family], sourcePort: 2, broken: [] });
    });

    it('is no way from one network to another', () => {
      bed.service(first, 80, proto, C, 8080);
      expect(syn(1, first).packet.destination).toBe(C[family]);
      expect(syn(2, first).packet.destination).toBe(C[family]);
      expect(syn(3, C[family], 8080).retval).toBe(DROPPED);
      expect(bed.dropsSince()).toEqual({ Network: 1 });
    });
  });
});
