import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { FlowAction } from '../../loader/abi/gen/types.gen.js';
import { FLAG, ipPacket, PROTO } from '../lib/packet.js';
import {
  A,
  B,
  Bed,
  C,
  CONTINUE,
  DROPPED,
  GATEWAY,
  OUTSIDE,
  type Outcome,
  REDIRECT,
  ROUTER,
  UPLINK,
} from './bed.js';

let bed: Bed;
beforeAll(() => {
  bed = new Bed();
});
beforeEach(() => bed.reset());
afterAll(() => bed.close());

const FAMILIES = [
  {
    family: 'v4',
    any: '0.0.0.0',
    echo: {
      proto: PROTO.icmp,
      request: 8,
      answer: 0,
      unreachable: 3,
      tooBig: { type: 3, code: 4, word: 1400 },
    },
  },
  {
    family: 'v6',
    any: '::',
    echo: {
      proto: PROTO.icmp6,
      request: 128,
      answer: 129,
      unreachable: 1,
      tooBig: { type: 2, code: 0, word: 1400 },
    },
  },
] as const;

describe.each(FAMILIES)('masquerade, $family', ({ family, echo }) => {
  const out = {
    source: A[family],
    destination: OUTSIDE[family],
    sourcePort: 4000,
    destinationPort: 443,
  } as const;
  const back = (port: number) =>
    ({
      source: OUTSIDE[family],
      destination: UPLINK[family],
      sourcePort: 443,
      destinationPort: port,
    }) as const;

  it.each([
    ['TCP', PROTO.tcp],
    ['UDP', PROTO.udp],
    ['SCTP', PROTO.sctp],
  ] as const)('translates %s out and back', (_, proto) => {
    const payload = Buffer.from('some payload of odd length.');
    const first = bed.from(A, { ...out, proto, flags: FLAG.syn, payload });
    expect(first.retval).toBe(REDIRECT);
    expect(first.packet).toMatchObject({
      source: UPLINK[family],
      destination: OUTSIDE[family],
      destinationPort: 443,
      ttl: 63,
      broken: [],
    });
    const port = first.packet.sourcePort;
    expect(port).toBeGreaterThanOrEqual(1024);
    expect(port).toBeLessThanOrEqual(29999);
    // Retransmitted: the same port.
    expect(bed.from(A, { ...out, proto, flags: FLAG.syn, payload }).packet.sourcePort).toBe(port);
    const answer = bed.fromUplink({ ...back(port), proto, flags: FLAG.syn | FLAG.ack, payload });
    expect(answer.retval).toBe(REDIRECT);
    expect(answer.packet).toMatchObject({
      source: OUTSIDE[family],
      destination: A[family],
      sourcePort: 443,
      destinationPort: 4000,
      destinationMac: A.mac,
      sourceMac: A.host,
      ttl: 63,
      broken: [],
    });
    const third = bed.from(A, { ...out, proto, flags: FLAG.ack, payload });
    expect(third.packet).toMatchObject({ source: UPLINK[family], sourcePort: port, broken: [] });
    expect(bed.table()).toHaveLength(2);
    const again = bed.from(A, { ...out, proto, flags: FLAG.ack, payload });
    expect(again.packet).toMatchObject({ source: UPLINK[family], sourcePort: port, broken: [] });
    const entry = [...bed.flows.entries()].find(([k]) => k.ifindex === A.ifindex)?.[1];
    expect(entry).toMatchObject({ action: FlowAction.Neigh, oif: UPLINK.ifindex, mtu: 1500 });
    expect(bed.dropsSince()).toEqual({});
  });

  it('translates the id of an echo', () => {
    const ping = (word: number) => ({
      source: A[family],
      destination: OUTSIDE[family],
      proto: echo.proto,
      icmp: { type: echo.request, word },
      payload: Buffer.from('ping'),
    });
    const first = bed.from(A, ping(0xbeef_0001));
    expect(first.packet).toMatchObject({ source: UPLINK[family], broken: [] });
    const id = (first.packet.icmp?.word ?? 0) >>> 16;
    const pong = bed.fromUplink({
      source: OUTSIDE[family],
      destination: UPLINK[family],
      proto: echo.proto,
      icmp: { type: echo.answer, word: id * 65536 + 1 },
      payload: Buffer.from('ping'),
    });
    expect(pong.retval).toBe(REDIRECT);
    expect(pong.packet).toMatchObject({ destination: A[family], icmp: { word: 0xbeef_0001 }, broken: [] });
  });

  it('gives two openers different ports, and leaves unknown packets to the host', () => {
    const a = bed.from(A, { ...out, proto: PROTO.udp }).packet.sourcePort;
    const c = bed.from(C, { ...out, source: C[family], proto: PROTO.udp }).packet.sourcePort;
    expect(a).not.toBe(c);
    expect(bed.fromUplink({ ...back(a), proto: PROTO.udp }).packet.destination).toBe(A[family]);
    expect(bed.fromUplink({ ...back(c), proto: PROTO.udp }).packet.destination).toBe(C[family]);
    const unused = [31000, 31001].map((port) => bed.fromUplink({ ...back(port), proto: PROTO.udp }));
    expect(unused.map((o) => [o.retval, o.packet.destination])).toEqual([
      [CONTINUE, UPLINK[family]],
      [CONTINUE, UPLINK[family]],
    ]);
  });

  it('keeps the port through a change of policy', () => {
    const port = bed.from(A, { ...out, proto: PROTO.udp }).packet.sourcePort;
    bed.epoch(2);
    expect(bed.fromUplink({ ...back(port), proto: PROTO.udp }).packet.destinationPort).toBe(4000);
    expect(bed.from(A, { ...out, proto: PROTO.udp }).packet.sourcePort).toBe(port);
    expect(bed.table()).toHaveLength(2);
    bed.epoch(3);
    expect(bed.from(A, { ...out, proto: PROTO.udp }).packet.sourcePort).toBe(port);
    bed.set(1, {});
    bed.endpoint(A, { setEgress: 1 });
    bed.epoch(4);
    expect(bed.fromUplink({ ...back(port), proto: PROTO.udp }).retval).toBe(DROPPED);
    expect(bed.from(A, { ...out, proto: PROTO.udp }).retval).toBe(DROPPED);
    bed.endpoint(A);
    bed.epoch(5);
    expect(bed.from(A, { ...out, proto: PROTO.udp }).packet.sourcePort).toBe(port);
  });

  it('translates ICMP errors and the packet in them', () => {
    const sent = bed.from(A, { ...out, proto: PROTO.udp, payload: Buffer.alloc(40, 7) });
    const port = sent.packet.sourcePort;
    const quoted = ipPacket({
      ...back(port),
      sourceMac: '',
      destinationMac: '',
      proto: PROTO.udp,
      source: UPLINK[family],
      destination: OUTSIDE[family],
      sourcePort: port,
      destinationPort: 443,
      payload: Buffer.alloc(40, 7),
    });
    for (const source of [ROUTER[family], OUTSIDE[family]]) {
      const error = bed.fromUplink({
        source,
        destination: UPLINK[family],
        proto: echo.proto,
        icmp: echo.tooBig,
        payload: quoted,
      });
      expect(error.retval).toBe(REDIRECT);
      expect(error.packet).toMatchObject({
        source,
        destination: A[family],
        destinationMac: A.mac,
        icmp: echo.tooBig,
        broken: [],
      });
      expect(error.packet.inner).toMatchObject({
        source: A[family],
        destination: OUTSIDE[family],
        sourcePort: 4000,
        destinationPort: 443,
      });
    }
    const unrelated = ipPacket({
      sourceMac: '',
      destinationMac: '',
      proto: PROTO.udp,
      source: UPLINK[family],
      destination: OUTSIDE[family],
      sourcePort: port ^ 1,
      destinationPort: 443,
    });
    const foreign = bed.fromUplink({
      source: ROUTER[family],
      destination: UPLINK[family],
      proto: echo.proto,
      icmp: echo.tooBig,
      payload: unrelated,
    });
    expect([foreign.retval, foreign.packet.destination]).toEqual([CONTINUE, UPLINK[family]]);
  });

  it('translates the errors about an echo', () => {
    const ping = bed.from(A, {
      source: A[family],
      destination: OUTSIDE[family],
      proto: echo.proto,
      icmp: { type: echo.request, word: 0x7777_0001 },
      payload: Buffer.alloc(8),
    });
    const quoted = ping.raw.subarray(14);
    const error = bed.fromUplink({
      source: ROUTER[family],
      destination: UPLINK[family],
      proto: echo.proto,
      icmp: { type: echo.unreachable, code: 1 },
      payload: quoted,
    });
    expect(error.packet).toMatchObject({ destination: A[family], broken: [] });
    expect(error.packet.inner).toMatchObject({ source: A[family], icmp: { word: 0x7777_0001 } });
  });

  it('translates fragments', () => {
    const whole = { ...out, proto: PROTO.udp, payload: Buffer.alloc(200, 3) };
    const first = bed.from(A, { ...whole, fragment: { id: 9, offset: 0, more: true } });
    expect(first.packet).toMatchObject({ source: UPLINK[family], broken: [] });
    const second = bed.from(A, { ...whole, fragment: { id: 9, offset: 64, more: false } });
    expect(second.packet).toMatchObject({ source: UPLINK[family], destination: OUTSIDE[family], broken: [] });
    expect(second.raw.subarray(-50)).toEqual(Buffer.alloc(50, 3));
  });

  it('leaves a UDP packet without a checksum without one', () => {
    if (family === 'v6') return;
    const sent = bed.from(A, { ...out, proto: PROTO.udp, noChecksum: true });
    expect(sent.raw.readUInt16BE(14 + 20 + 6)).toBe(0);
  });

  it('answers with "too big" and "time exceeded" itself', () => {
    const big = bed.from(A, { ...out, proto: PROTO.udp, payload: Buffer.alloc(1600) });
    expect(big.retval).toBe(REDIRECT);
    const tooBig = { type: echo.tooBig.type, code: echo.tooBig.code, word: 1500 };
    expect(big.packet).toMatchObject({
      source: GATEWAY[family],
      destination: A[family],
      destinationMac: A.mac,
      proto: echo.proto,
      icmp: tooBig,
      broken: [],
    });
    expect(big.packet.inner).toMatchObject({
      source: A[family],
      destination: OUTSIDE[family],
      sourcePort: 4000,
      destinationPort: 443,
    });
    const last = bed.from(A, { ...out, proto: PROTO.udp, ttl: 1 });
    expect(last.packet).toMatchObject({
      source: GATEWAY[family],
      destination: A[family],
      icmp: { type: family === 'v4' ? 11 : 3, code: 0 },
      broken: [],
    });
    expect(bed.dropsSince()).toEqual({ TooBig: 1, Ttl: 1 });
  });

  it('says when ports run out, and frees none that is in use', () => {
    const own = new Bed({ rodata: { cfg_snat_min: 2000, cfg_snat_max: 2009 } });
    onTestFinished(() => own.close());
    const ports: number[] = [];
    const results: Outcome[] = [];
    for (let i = 0; i < 12; i++)
      results.push(own.from(A, { ...out, proto: PROTO.udp, sourcePort: 5000 + i }));
    for (const result of results) if (result.retval === REDIRECT) ports.push(result.packet.sourcePort);
    expect(new Set(ports).size).toBe(10);
    expect(own.dropsSince()).toEqual({ SnatPorts: 2 });
    // Another destination has ports of its own.
    expect(own.from(A, { ...out, proto: PROTO.udp, destinationPort: 80 }).retval).toBe(REDIRECT);
  });
});

describe('routes', () => {
  it('respects an unreachable route', () => {
    expect(
      bed.from(A, {
        source: A.v4,
        destination: '203.0.113.66',
        proto: PROTO.udp,
        sourcePort: 1,
        destinationPort: 2,
      }).retval,
    ).toBe(DROPPED);
    expect(bed.dropsSince()).toEqual({ Unreachable: 1 });
  });
});

describe.each(FAMILIES)('host ports, $family', ({ family, any, echo }) => {
  const anyHost = any === '0.0.0.0' ? '0.0.0.0' : '::';
  const client = {
    source: OUTSIDE[family],
    destination: UPLINK[family],
    sourcePort: 5555,
    destinationPort: 8080,
  } as const;

  it.each([
    ['TCP', PROTO.tcp],
    ['UDP', PROTO.udp],
    ['SCTP', PROTO.sctp],
  ] as const)('translates %s from outside and back', (_, proto) => {
    bed.hostport(anyHost, 8080, proto, B, 80);
    const payload = Buffer.alloc(33, 5);
    const first = bed.fromUplink({ ...client, proto, flags: FLAG.syn, payload });
    expect(first.retval).toBe(REDIRECT);
    expect(first.packet).toMatchObject({
      source: OUTSIDE[family],
      destination: B[family],
      destinationPort: 80,
      destinationMac: B.mac,
      broken: [],
    });
    const answer = bed.from(B, {
      source: B[family],
      destination: OUTSIDE[family],
      proto,
      sourcePort: 80,
      destinationPort: 5555,
      flags: FLAG.syn | FLAG.ack,
      payload,
    });
    expect(answer.retval).toBe(REDIRECT);
    expect(answer.packet).toMatchObject({
      source: UPLINK[family],
      sourcePort: 8080,
      destination: OUTSIDE[family],
      destinationPort: 5555,
      broken: [],
    });
    expect(bed.fromUplink({ ...client, proto, flags: FLAG.ack, payload }).packet).toMatchObject({
      destination: B[family],
      broken: [],
    });
    expect(bed.table()).toHaveLength(2);
    expect(bed.dropsSince()).toEqual({});
  });

  it('prefers the entry of the address and leaves other ports and protocols to the host', () => {
    bed.hostport(anyHost, 8080, PROTO.tcp, B, 80);
    bed.hostport(UPLINK[family], 8080, PROTO.tcp, C, 81);
    expect(bed.fromUplink({ ...client, proto: PROTO.tcp, flags: FLAG.syn }).packet).toMatchObject({
      destination: C[family],
      destinationPort: 81,
    });
    expect(bed.fromUplink({ ...client, proto: PROTO.udp }).retval).toBe(CONTINUE);
    expect(
      bed.fromUplink({ ...client, destinationPort: 8081, proto: PROTO.tcp, flags: FLAG.syn }).retval,
    ).toBe(CONTINUE);
  });

  it('judges by the policy on the container and its real port', () => {
    bed.hostport(anyHost, 8080, PROTO.tcp, B, 80);
    bed.set(2, {});
    bed.profile(2, 2, 9, [[PROTO.tcp, 80, 64, 31]]);
    bed.endpoint(B, { setIngress: 2 });
    expect(bed.fromUplink({ ...client, proto: PROTO.tcp, flags: FLAG.syn }).retval).toBe(REDIRECT);
    bed.set(2, {});
    bed.set(3, {});
    bed.endpoint(B, { setIngress: 3 });
    bed.epoch(2);
    expect(bed.fromUplink({ ...client, sourcePort: 5556, proto: PROTO.tcp, flags: FLAG.syn }).retval).toBe(
      DROPPED,
    );
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 1 });
  });

  it('works from another container, of any network', () => {
    bed.hostport(anyHost, 8080, PROTO.tcp, B, 80);
    for (const from of [A, C]) {
      const syn = bed.from(from, {
        source: from[family],
        destination: UPLINK[family],
        proto: PROTO.tcp,
        sourcePort: 6000,
        destinationPort: 8080,
        flags: FLAG.syn,
      });
      expect(syn.packet).toMatchObject({
        source: from[family],
        destination: B[family],
        destinationPort: 80,
        destinationMac: B.mac,
        broken: [],
      });
      const answer = bed.from(B, {
        source: B[family],
        destination: from[family],
        proto: PROTO.tcp,
        sourcePort: 80,
        destinationPort: 6000,
        flags: FLAG.syn | FLAG.ack,
      });
      expect(answer.packet).toMatchObject({
        source: UPLINK[family],
        sourcePort: 8080,
        destination: from[family],
        destinationMac: from.mac,
        broken: [],
      });
    }
  });

  it('works from the container itself, with the gateway as the source', () => {
    bed.hostport(anyHost, 8080, PROTO.tcp, B, 80);
    const syn = bed.from(B, {
      source: B[family],
      destination: UPLINK[family],
      proto: PROTO.tcp,
      sourcePort: 6000,
      destinationPort: 8080,
      flags: FLAG.syn,
    });
    expect(syn.packet).toMatchObject({
      source: GATEWAY[family],
      destination: B[family],
      destinationPort: 80,
      destinationMac: B.mac,
      broken: [],
    });
    const answer = bed.from(B, {
      source: B[family],
      destination: GATEWAY[family],
      proto: PROTO.tcp,
      sourcePort: 80,
      destinationPort: syn.packet.sourcePort,
      flags: FLAG.syn | FLAG.ack,
    });
    expect(answer.packet).toMatchObject({
      source: UPLINK[family],
      sourcePort: 8080,
      destination: B[family],
      destinationPort: 6000,
      broken: [],
    });
  });

  it('keeps the answers of two ways to one port apart', () => {
    bed.hostport(anyHost, 8080, PROTO.udp, B, 80);
    bed.hostport(anyHost, 8081, PROTO.udp, B, 80);
    const one = bed.fromUplink({ ...client, proto: PROTO.udp });
    const two = bed.fromUplink({ ...client, destinationPort: 8081, proto: PROTO.udp });
    expect(one.packet).toMatchObject({ sourcePort: 5555, broken: [] });
    expect(two.packet.sourcePort).not.toBe(5555);
    const reply = (port: number) =>
      bed.from(B, {
        source: B[family],
        destination: OUTSIDE[family],
        proto: PROTO.udp,
        sourcePort: 80,
        destinationPort: port,
      }).packet;
    expect(reply(5555)).toMatchObject({ sourcePort: 8080, destinationPort: 5555, broken: [] });
    expect(reply(two.packet.sourcePort)).toMatchObject({
      sourcePort: 8081,
      destinationPort: 5555,
      broken: [],
    });
    // It keeps its port when the other one is gone and it is decided again.
    for (const [key] of [...bed.flows.entries()])
      if (key.dport === 8080 || key.dport === 5555) bed.flows.delete(key);
    expect(bed.table()).toHaveLength(2);
    bed.epoch(2);
    const again = bed.fromUplink({ ...client, destinationPort: 8081, proto: PROTO.udp });
    expect(again.packet).toMatchObject({ sourcePort: two.packet.sourcePort, broken: [] });
  });

  it('translates the container’s ICMP errors', () => {
    bed.hostport(anyHost, 8080, PROTO.udp, B, 80);
    const got = bed.fromUplink({ ...client, proto: PROTO.udp, payload: Buffer.alloc(20) });
    const error = bed.from(B, {
      source: B[family],
      destination: OUTSIDE[family],
      proto: echo.proto,
      icmp: { type: echo.unreachable, code: family === 'v4' ? 3 : 4 },
      payload: got.raw.subarray(14),
    });
    expect(error.retval).toBe(REDIRECT);
    expect(error.packet).toMatchObject({ source: UPLINK[family], destination: OUTSIDE[family], broken: [] });
    expect(error.packet.inner).toMatchObject({
      source: OUTSIDE[family],
      destination: UPLINK[family],
      destinationPort: 8080,
      sourcePort: 5555,
    });
  });

  it('does not believe addresses of this host or of its containers from outside', () => {
    bed.hostport(anyHost, 8080, PROTO.udp, B, 80);
    for (const source of [GATEWAY[family], A[family], family === 'v4' ? '10.7.0.99' : 'fd07::99']) {
      expect(bed.fromUplink({ ...client, source, proto: PROTO.udp }).retval).toBe(DROPPED);
    }
    expect(bed.dropsSince()).toEqual({ SourceHost: 1, SpoofedAddr: 2 });
    expect(
      bed.fromUplink({ ...client, destination: B[family], destinationPort: 80, proto: PROTO.udp }).retval,
    ).toBe(REDIRECT);
  });
});
