import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AddrFlag, DropReason, FlowAction, FlowState } from '../../loader/abi/gen/types.gen.js';
import { parseAddress } from '../../policy/address.js';
import { FLAG, frame, PROTO } from '../lib/packet.js';
import { A, B, Bed, C, CONTINUE, DROPPED, GATEWAY, REDIRECT, UPLINK } from './bed.js';

let bed: Bed;
beforeAll(() => {
  bed = new Bed();
});
beforeEach(() => bed.reset());
afterAll(() => bed.close());

const FAMILIES = [
  { family: 'v4', any: '::ffff:0.0.0.0' },
  { family: 'v6', any: '::' },
] as const;

/** The three packets of a handshake. */
function handshake(family: 'v4' | 'v6', port = 80, sourcePort = 4000): number[] {
  const forward = {
    source: A[family],
    destination: B[family],
    proto: PROTO.tcp,
    sourcePort,
    destinationPort: port,
  };
  const back = {
    source: B[family],
    destination: A[family],
    proto: PROTO.tcp,
    sourcePort: port,
    destinationPort: sourcePort,
  };
  return [
    bed.from(A, { ...forward, flags: FLAG.syn }).retval,
    bed.from(B, { ...back, flags: FLAG.syn | FLAG.ack }).retval,
    bed.from(A, { ...forward, flags: FLAG.ack }).retval,
  ];
}

describe.each(FAMILIES)('container to container, $family', ({ family }) => {
  const tcp = {
    source: A[family],
    destination: B[family],
    proto: PROTO.tcp,
    sourcePort: 4000,
    destinationPort: 80,
  } as const;
  const answer = {
    source: B[family],
    destination: A[family],
    proto: PROTO.tcp,
    sourcePort: 80,
    destinationPort: 4000,
  } as const;

  it('opens a TCP flow with its handshake', () => {
    const states = (): number[] =>
      [...bed.flows.entries()].sort(([a], [b]) => a.ifindex - b.ifindex).map(([, flow]) => flow.state);
    const halfOpen = (): number | undefined => bed.node.get(0)?.halfOpen;
    expect(bed.from(A, { ...tcp, flags: FLAG.syn }).retval).toBe(REDIRECT);
    expect(states()).toEqual([FlowState.New, FlowState.New]);
    expect(halfOpen()).toBe(1);
    bed.from(A, { ...tcp, flags: FLAG.ack });
    expect(states()).toEqual([FlowState.New, FlowState.New]);
    expect(bed.from(B, { ...answer, flags: FLAG.syn | FLAG.ack }).retval).toBe(REDIRECT);
    expect(states()).toEqual([FlowState.Synack, FlowState.Open]);
    bed.from(A, { ...tcp, flags: FLAG.syn });
    expect(halfOpen()).toBe(1);
    const last = bed.from(A, { ...tcp, flags: FLAG.ack });
    expect(last.retval).toBe(REDIRECT);
    expect(states()).toEqual([FlowState.Open, FlowState.Open]);
    expect(halfOpen()).toBe(0);
    expect(last.packet).toMatchObject({
      sourceMac: B.host,
      destinationMac: B.mac,
      source: A[family],
      destination: B[family],
      ttl: 64,
      broken: [],
    });
    for (const [key, flow] of bed.flows.entries()) {
      expect(flow).toMatchObject({
        action: FlowAction.Peer,
        oif: key.ifindex === A.ifindex ? B.ifindex : A.ifindex,
      });
    }
    expect([...bed.half.entries()]).toEqual([]);
    expect(bed.dropsSince()).toEqual({});
  });

  it('forgets a refused connection', () => {
    bed.from(A, { ...tcp, flags: FLAG.syn });
    expect(bed.from(B, { ...answer, flags: FLAG.rst | FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.table()).toEqual([]);
    expect(bed.node.get(0)?.halfOpen).toBe(0);
  });

  describe('while more flows are half-open than the table takes', () => {
    let flooded: Bed;
    beforeAll(() => {
      flooded = new Bed({ rodata: { cfg_half_limit: 0 } });
    });
    beforeEach(() => flooded.reset());
    afterAll(() => flooded.close());

    it('keeps a TCP flow out of the main table until its handshake is complete', () => {
      expect(flooded.from(A, { ...tcp, flags: FLAG.syn }).retval).toBe(REDIRECT);
      expect(flooded.table()).toEqual([]);
      expect([...flooded.half.entries()]).toHaveLength(1);
      expect(flooded.from(B, { ...answer, flags: FLAG.syn | FLAG.ack }).retval).toBe(REDIRECT);
      expect(flooded.table()).toEqual([]);
      const last = flooded.from(A, { ...tcp, flags: FLAG.ack });
      expect(last.retval).toBe(REDIRECT);
      expect(flooded.table()).toHaveLength(2);
      expect([...flooded.half.entries()]).toEqual([]);
      expect(last.packet).toMatchObject({
        sourceMac: B.host,
        destinationMac: B.mac,
        source: A[family],
        destination: B[family],
        ttl: 64,
        broken: [],
      });
      for (const [key, flow] of flooded.flows.entries()) {
        expect(flow).toMatchObject({
          action: FlowAction.Peer,
          state: FlowState.Open,
          oif: key.ifindex === A.ifindex ? B.ifindex : A.ifindex,
        });
      }
      expect(flooded.from(A, { ...tcp, flags: FLAG.ack }).retval).toBe(REDIRECT);
      expect(flooded.from(B, { ...answer, flags: FLAG.ack }).retval).toBe(REDIRECT);
      const counts = [...flooded.flows.entries()].map(([key, flow]) => [key.ifindex, Number(flow.packets)]);
      expect(new Map(counts as [number, number][])).toEqual(
        new Map([
          [A.ifindex, 3],
          [B.ifindex, 2],
        ]),
      );
      expect(flooded.dropsSince()).toEqual({});
    });

    it('leaves an answered SYN half open while only SYNs come', () => {
      for (let i = 0; i < 5; i++) flooded.from(A, { ...tcp, flags: FLAG.syn });
      flooded.from(B, { ...answer, flags: FLAG.syn | FLAG.ack });
      flooded.from(A, { ...tcp, flags: FLAG.syn });
      expect(flooded.table()).toEqual([]);
      expect([...flooded.half.entries()]).toHaveLength(1);
    });
  });

  it('tracks UDP, SCTP, echo and other protocols from the first packet', () => {
    const echo =
      family === 'v4'
        ? { proto: PROTO.icmp, icmp: { type: 8, word: 0x1234_0001 } }
        : { proto: PROTO.icmp6, icmp: { type: 128, word: 0x1234_0001 } };
    const pong =
      family === 'v4'
        ? { proto: PROTO.icmp, icmp: { type: 0, word: 0x1234_0001 } }
        : { proto: PROTO.icmp6, icmp: { type: 129, word: 0x1234_0001 } };
    const both = [
      [
        { ...tcp, proto: PROTO.udp, payload: Buffer.from('hello') },
        { ...answer, proto: PROTO.udp, payload: Buffer.from('hello') },
      ],
      [
        { ...tcp, proto: PROTO.sctp, payload: Buffer.alloc(20) },
        { ...answer, proto: PROTO.sctp, payload: Buffer.alloc(20) },
      ],
      [
        { source: A[family], destination: B[family], ...echo },
        { source: B[family], destination: A[family], ...pong },
      ],
      [
        { source: A[family], destination: B[family], proto: PROTO.gre, payload: Buffer.alloc(30) },
        { source: B[family], destination: A[family], proto: PROTO.gre, payload: Buffer.alloc(30) },
      ],
    ];
    // Only A may open: answers pass because they belong to a flow.
    bed.set(5, {});
    bed.endpoint(B, { setEgress: 5 });
    for (const [forward, back] of both) {
      if (!forward || !back) throw new Error('pair');
      expect(bed.from(B, back).retval).toBe(DROPPED);
      expect(bed.from(A, forward).retval).toBe(REDIRECT);
      const out = bed.from(B, back);
      expect(out.retval).toBe(REDIRECT);
      expect(out.packet.broken).toEqual([]);
    }
    expect(bed.table()).toHaveLength(8);
    expect(bed.dropsSince()).toEqual({ PolicyEgress: 4 });
  });

  it('drops forged sources, before and after the flow is known', () => {
    expect(bed.from(A, { ...tcp, source: C[family], flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(bed.from(A, { ...tcp, sourceMac: B.mac, flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(handshake(family)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    expect(bed.from(A, { ...tcp, sourceMac: B.mac, flags: FLAG.ack }).retval).toBe(DROPPED);
    expect(bed.from(A, { ...tcp, flags: FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.dropsSince()).toEqual({ SpoofedAddr: 1, SpoofedMac: 2 });
  });

  it('drops what comes from a device without an endpoint, and to a container that is gone', () => {
    bed.endpoints.set(B.ifindex, { ...required(bed.endpoints.get(B.ifindex)), ifindex: 0 });
    expect(bed.from(A, { ...tcp, flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(bed.from(B, { ...answer, flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(bed.fromHost(B, { ...tcp, source: UPLINK[family], flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ NoEndpoint: 3 });
  });

  it('keeps networks apart and drops addresses that nobody has', () => {
    expect(bed.from(A, { ...tcp, destination: C[family], flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(
      bed.from(A, { ...tcp, destination: family === 'v4' ? '10.7.0.200' : 'fd07::200', flags: FLAG.syn })
        .retval,
    ).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ Network: 1, Reserved: 1 });
  });

  it('drops what is for a node that is not known, or has told no key for the tunnel', () => {
    bed.node.set(0, { ...required(bed.node.get(0)), tunnel: UPLINK.ifindex });
    const remote = family === 'v4' ? '10.9.0.5' : 'fd09::5';
    for (const node of ['::', '0.0.0.0', '192.0.2.7']) {
      const info = {
        identity: B.id,
        ifindex: 0,
        network: 1,
        flags: AddrFlag.Cluster,
        node: parseAddress(node),
      };
      bed.addrs.set(parseAddress(remote), info);
      const { retval } = bed.from(A, { ...tcp, destination: remote, flags: FLAG.syn });
      expect(retval).toBe(node === '192.0.2.7' ? REDIRECT : DROPPED);
    }
    expect(bed.dropsSince()).toEqual({ NoNode: 1, NodeNoKey: 1 });
  });

  it('judges by the policies of both sides and names the rule', () => {
    bed.set(1, { [B.id]: 11 });
    bed.set(2, { [A.id]: 22 });
    bed.endpoint(A, { setEgress: 1 });
    bed.endpoint(B, { setIngress: 2 });
    expect(handshake(family)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    const flow = [...bed.flows.entries()].find(([k]) => k.ifindex === A.ifindex)?.[1];
    expect(flow).toMatchObject({ ruleEgress: 11, ruleIngress: 22, srcIdentity: A.id, dstIdentity: B.id });
    expect(bed.from(B, { ...answer, sourcePort: 81, destinationPort: 9, flags: FLAG.syn }).retval).toBe(
      REDIRECT,
    );
    bed.set(3, {});
    bed.endpoint(B, { setIngress: 3 });
    bed.epoch(2);
    expect(bed.from(A, { ...tcp, sourcePort: 5, flags: FLAG.syn }).retval).toBe(DROPPED);
    bed.endpoint(A, { setEgress: 3 });
    expect(bed.from(A, { ...tcp, sourcePort: 6, flags: FLAG.syn }).retval).toBe(DROPPED);
    bed.endpoint(A, { setEgress: 77 });
    expect(bed.from(A, { ...tcp, sourcePort: 7, flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 1, PolicyEgress: 1, PolicyMissing: 1 });
  });

  it('judges an identity by its own entry, then by its class, its kind, any peer', () => {
    const peers = 0x40000001;
    bed.classify(A.id, peers);
    bed.endpoint(B, { setIngress: 2 });
    let epoch = 1;
    const rule = (): number | undefined => {
      for (const [key] of [...bed.flows.entries()]) bed.flows.delete(key);
      bed.epoch(++epoch);
      expect(handshake(family)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
      return [...bed.flows.entries()].find(([key]) => key.ifindex === A.ifindex)?.[1].ruleIngress;
    };
    expect(A.id % 2).toBe(0);
    bed.set(2, { 4: 21, 3: 22 });
    expect(rule()).toBe(22);
    bed.set(2, { 3: 22, [peers]: 23 });
    expect(rule()).toBe(23);
    bed.set(2, { 3: 22, [peers]: 23, [A.id]: 24 });
    expect(rule()).toBe(24);
    bed.classify(A.id, peers + 1);
    bed.set(3, { [peers]: 23 });
    bed.endpoint(B, { setIngress: 3 });
    bed.epoch(++epoch);
    expect(bed.from(A, { ...tcp, sourcePort: 5, flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 1 });
  });

  it('looks at protocol and port, with ranges as prefixes', () => {
    bed.set(2, {});
    bed.profile(2, A.id, 9, [
      [PROTO.tcp, 80, 64, 31],
      [PROTO.udp, 0, 48, 32],
      [PROTO.tcp, 8000, 60, 33],
    ]);
    bed.endpoint(B, { setIngress: 2 });
    const allowed = (proto: number, port: number) =>
      bed.from(A, { ...tcp, proto, destinationPort: port, flags: FLAG.syn }).retval === REDIRECT;
    expect([80, 81, 7999, 8000, 8015, 8016].map((port) => allowed(PROTO.tcp, port))).toEqual([
      true,
      false,
      false,
      true,
      true,
      false,
    ]);
    expect(allowed(PROTO.udp, 53)).toBe(true);
    expect(allowed(PROTO.sctp, 80)).toBe(false);
  });

  it('applies a change of policy to an open connection, in both directions', () => {
    expect(handshake(family)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    bed.set(2, { [A.id]: 22 });
    bed.endpoint(B, { setIngress: 2 });
    bed.epoch(2);
    // Still allowed: decided again by an answer, in the direction that the flow was opened.
    expect(bed.from(B, { ...answer, flags: FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.from(A, { ...tcp, flags: FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.table()).toHaveLength(2);
    bed.set(3, {});
    bed.endpoint(B, { setIngress: 3 });
    bed.epoch(3);
    expect(bed.from(B, { ...answer, flags: FLAG.ack }).retval).toBe(DROPPED);
    expect(bed.from(A, { ...tcp, flags: FLAG.ack }).retval).toBe(DROPPED);
    expect(bed.from(B, { ...answer, flags: FLAG.ack }).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 3 });
    for (const [, flow] of bed.flows.entries()) {
      expect(flow).toMatchObject({
        action: FlowAction.Drop,
        reason: DropReason.PolicyIngress,
        ruleIngress: 903,
      });
    }
    // Allowed again: it goes on where it was.
    bed.endpoint(B, { setIngress: 2 });
    bed.epoch(4);
    expect(bed.from(A, { ...tcp, flags: FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.from(B, { ...answer, flags: FLAG.ack }).retval).toBe(REDIRECT);
  });

  it('does not let late answers open a denied flow the other way round', () => {
    const datagram = { ...tcp, proto: PROTO.udp };
    const reply = { ...answer, proto: PROTO.udp };
    bed.from(A, datagram);
    bed.from(B, reply);
    bed.set(3, {});
    bed.endpoint(B, { setIngress: 3 });
    bed.epoch(2);
    for (let i = 0; i < 3; i++) {
      expect(bed.from(B, reply).retval).toBe(DROPPED);
      expect(bed.from(A, datagram).retval).toBe(DROPPED);
    }
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 6 });
  });

  it('lets the other side open a connection on the ports of a denied one', () => {
    handshake(family);
    bed.set(3, {});
    bed.endpoint(B, { setIngress: 3 });
    bed.epoch(2);
    expect(bed.from(A, { ...tcp, flags: FLAG.ack }).retval).toBe(DROPPED);
    expect(bed.from(A, { ...tcp, flags: FLAG.syn }).retval).toBe(DROPPED);
    expect(bed.from(B, { ...answer, flags: FLAG.syn }).retval).toBe(REDIRECT);
    expect(bed.from(A, { ...tcp, flags: FLAG.syn | FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.from(B, { ...answer, flags: FLAG.ack }).retval).toBe(REDIRECT);
    expect([...bed.flows.entries()].map(([, flow]) => flow.state)).toEqual([FlowState.Open, FlowState.Open]);
  });

  it('begins a TCP flow with a SYN only, unless the table was lost', () => {
    for (const flags of [FLAG.ack, FLAG.rst, FLAG.fin | FLAG.ack, FLAG.syn | FLAG.ack]) {
      expect(bed.from(A, { ...tcp, flags }).retval).toBe(DROPPED);
    }
    expect(bed.dropsSince()).toEqual({ TcpNoFlow: 4 });
    bed.node.set(0, {
      epoch: 1,
      trace: 0,
      pickup: 1,
      published: 0,
      gcScanned: 0n,
      gcExpired: 0n,
      logSlot: 0,
      tunnel: 0,
      tunnelId: 0,
      halfOpen: 0,
    });
    expect(bed.from(A, { ...tcp, flags: FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.from(B, { ...answer, flags: FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.from(A, { ...tcp, flags: FLAG.ack }).retval).toBe(REDIRECT);
    expect(bed.table()).toHaveLength(2);
  });

  it('keeps the counters of a flow that is decided again', () => {
    handshake(family);
    bed.epoch(2);
    bed.from(A, { ...tcp, flags: FLAG.ack });
    const flow = [...bed.flows.entries()].find(([k]) => k.ifindex === A.ifindex)?.[1];
    expect(flow).toMatchObject({ packets: 3n, state: FlowState.Open, epoch: 2 });
  });

  it('starts anew when the ports of a closed connection are used again', () => {
    handshake(family);
    bed.from(A, { ...tcp, flags: FLAG.fin | FLAG.ack });
    bed.from(B, { ...answer, flags: FLAG.fin | FLAG.ack });
    bed.from(A, { ...tcp, flags: FLAG.ack });
    expect([...bed.flows.entries()].map(([, flow]) => flow.state)).toEqual([
      FlowState.Closing,
      FlowState.Closing,
    ]);
    expect(handshake(family)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    expect([...bed.flows.entries()].map(([, flow]) => flow.state)).toEqual([FlowState.Open, FlowState.Open]);
  });

  it('ends also with packets that come first after a change, and its ports are free then', () => {
    const states = () => [...bed.flows.entries()].map(([, flow]) => flow.state);
    handshake(family);
    bed.epoch(2);
    bed.from(A, { ...tcp, flags: FLAG.fin | FLAG.ack });
    bed.epoch(3);
    bed.from(B, { ...answer, flags: FLAG.fin | FLAG.ack });
    expect(states()).toEqual([FlowState.Closing, FlowState.Closing]);
    bed.epoch(4);
    expect(handshake(family)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    expect(states()).toEqual([FlowState.Open, FlowState.Open]);
    bed.epoch(5);
    bed.from(B, { ...answer, flags: FLAG.rst });
    expect(states()).toEqual([FlowState.Closed, FlowState.Closed]);
    expect(handshake(family)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    // Of one that was half-open nothing is counted twice.
    expect(bed.node.get(0)?.halfOpen).toBe(0);
  });

  it('lets the host reach a container and back, whatever the policy says', () => {
    bed.set(3, {});
    bed.endpoint(A, { setEgress: 3, setIngress: 3 });
    const out = {
      source: UPLINK[family],
      destination: A[family],
      proto: PROTO.udp,
      sourcePort: 5,
      destinationPort: 6,
    };
    expect(bed.fromHost(A, out).retval).toBe(CONTINUE);
    expect(
      bed.from(A, {
        source: A[family],
        destination: UPLINK[family],
        proto: PROTO.udp,
        sourcePort: 6,
        destinationPort: 5,
      }).retval,
    ).toBe(CONTINUE);
    expect(bed.from(A, { ...tcp, destination: GATEWAY[family], flags: FLAG.syn }).retval).toBe(CONTINUE);
    expect(bed.dropsSince()).toEqual({});
    // Not the host: something that the host's stack forwards.
    const other = family === 'v4' ? '192.0.2.77' : '2001:db8:77::7';
    expect(bed.fromHost(A, { ...out, source: other }).retval).toBe(DROPPED);
    expect(bed.fromHost(A, { ...out, source: B[family] }).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 1, SpoofedAddr: 1 });
  });

  it('takes the ports of fragments from the first one', () => {
    const whole = {
      source: A[family],
      destination: B[family],
      proto: PROTO.udp,
      sourcePort: 7,
      destinationPort: 8,
      payload: Buffer.alloc(200, 1),
    };
    const late = { ...whole, fragment: { id: 77, offset: 64, more: false } };
    expect(bed.from(A, late).retval).toBe(DROPPED);
    expect(bed.from(A, { ...whole, fragment: { id: 77, offset: 0, more: true } }).retval).toBe(REDIRECT);
    expect(bed.from(A, late).retval).toBe(REDIRECT);
    expect(bed.table()).toHaveLength(2);
    expect(bed.dropsSince()).toEqual({ FragNoFirst: 1 });
  });

  it('refuses what is not an IP packet of this network', () => {
    const good = frame({ ...tcp, sourceMac: A.mac, destinationMac: A.host });
    const shortFrame = good.subarray(0, 14 + (family === 'v4' ? 20 : 40) + 6);
    expect(bed.run('sluice_from_container', A.ifindex, shortFrame).retval).toBe(DROPPED);
    const other = Buffer.from(good);
    other.writeUInt16BE(0x88cc, 12);
    expect(bed.run('sluice_from_container', A.ifindex, other).retval).toBe(DROPPED);
    const group = family === 'v4' ? '224.0.0.251' : 'ff02::fb';
    expect(bed.from(A, { ...tcp, destination: group, proto: PROTO.udp }).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ Invalid: 1, Ethertype: 1, Multicast: 1 });
  });
});

describe('IPv6 extension headers', () => {
  const udp = {
    source: A.v6,
    destination: B.v6,
    proto: PROTO.udp,
    sourcePort: 1,
    destinationPort: 2,
  } as const;

  it('finds the ports behind them', () => {
    expect(bed.from(A, { ...udp, extensions: [0, 60, 43] }).retval).toBe(REDIRECT);
    expect(bed.table()).toContain(`${A.ifindex} 17 ${A.v6}:1>${B.v6}:2`);
  });

  it('refuses an endless chain', () => {
    expect(bed.from(A, { ...udp, extensions: [60, 60, 60, 60, 60, 60, 60, 60] }).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ ExtHeaders: 1 });
  });

  it('refuses an IPv4 address in IPv6 clothes', () => {
    const mapped = frame({ ...udp, sourceMac: A.mac, destinationMac: A.host });
    mapped.set(parseAddress(A.v4), 14 + 8);
    expect(bed.run('sluice_from_container', A.ifindex, mapped).retval).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ Invalid: 1 });
  });
});

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('missing');
  return value;
}
