import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FlowState } from '../../loader/abi/gen/types.gen.js';
import { FLAG, ipPacket, PROTO } from '../lib/packet.js';
import { A, B, Bed, C, DROPPED, REDIRECT } from './bed.js';

let bed: Bed;
let allowed = '';

/** The CPUs that the programs run on: decisions are kept by CPU, so the second connection must not change it. */
function runOn(cpus: string): void {
  execFileSync('taskset', ['-pc', cpus, String(process.pid)], { stdio: 'pipe' });
}

beforeAll(() => {
  allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  runOn(/^\d+/.exec(allowed)?.[0] ?? '0');
  bed = new Bed();
});
beforeEach(() => bed.reset());
afterAll(() => {
  runOn(allowed);
  bed.close();
});

/** Ends that acknowledge this have seen a FIN without data: the sequence number is always 7. */
const AFTER_FIN = 8;

describe.each(['v4', 'v6'] as const)('new connections between two containers, %s', (family) => {
  const send = (
    port: number,
    flags: number,
    more: { ack?: number; payload?: Buffer; sourceMac?: string } = {},
  ) =>
    bed.from(A, {
      source: A[family],
      destination: B[family],
      proto: PROTO.tcp,
      sourcePort: port,
      destinationPort: 80,
      flags,
      ...more,
    }).retval;
  const answer = (port: number, flags: number, more: { ack?: number; payload?: Buffer } = {}) =>
    bed.from(B, {
      source: B[family],
      destination: A[family],
      proto: PROTO.tcp,
      sourcePort: 80,
      destinationPort: port,
      flags,
      ...more,
    }).retval;
  const open = (port: number) => [
    send(port, FLAG.syn),
    answer(port, FLAG.syn | FLAG.ack),
    send(port, FLAG.ack, { ack: 8 }),
  ];
  /** Of the opener at the port, as it will be in the flow table. */
  const entry = (port: number) =>
    [...bed.flows.entries()].find(([key]) => key.ifindex === A.ifindex && key.sport === port)?.[1];

  /** The first one is looked at by the slow path, and ends. */
  const first = () => {
    bed.from(A, {
      source: A[family],
      destination: B[family],
      proto: PROTO.tcp,
      sourcePort: 1,
      destinationPort: 80,
      flags: FLAG.syn,
    });
    answer(1, FLAG.rst | FLAG.ack);
    expect(bed.entries()).toBe(0);
  };

  it('never come to the flow table if they are short, and are logged', () => {
    first();
    const before = bed.logged();
    const packets = bed.loggedPackets();
    const forwarded = bed.forwarded();
    for (const port of [2, 3, 4]) {
      const payload = Buffer.alloc(64, 1);
      expect(open(port)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
      expect(bed.youngFlows()).toHaveLength(1);
      const rest = [
        send(port, FLAG.ack | FLAG.psh, { payload }),
        answer(port, FLAG.ack | FLAG.psh, { payload }),
        send(port, FLAG.fin | FLAG.ack),
        answer(port, FLAG.fin | FLAG.ack, { ack: AFTER_FIN }),
        send(port, FLAG.ack, { ack: AFTER_FIN }),
      ];
      expect(rest).toEqual(Array.from(rest, () => REDIRECT));
      expect(bed.youngFlows()).toEqual([]);
      expect(send(port, FLAG.ack)).toBe(DROPPED);
      expect(bed.dropsSince()).toEqual({ TcpNoFlow: 1 });
    }
    expect(bed.entries()).toBe(0);
    expect(bed.logged() - before).toBe(3);
    expect(bed.forwarded() - forwarded).toBe(3 * 8);
    // The late one is dropped, and logged too.
    expect(bed.loggedPackets()).toEqual({ sent: packets.sent + 3 * 6, answered: packets.answered + 3 * 3 });
  });

  it('end with a RST, whoever sends it', () => {
    first();
    open(2);
    send(2, FLAG.rst);
    open(3);
    answer(3, FLAG.rst | FLAG.ack);
    expect(bed.youngFlows()).toEqual([]);
    expect([send(2, FLAG.ack), answer(3, FLAG.ack)]).toEqual([DROPPED, DROPPED]);
  });

  it('go to the flow table after some packets, and lose none', () => {
    first();
    open(2);
    for (let i = 0; i < 40; i++) expect(send(2, FLAG.ack)).toBe(REDIRECT);
    expect(bed.youngFlows()).toEqual([]);
    expect(bed.entries()).toBe(2);
    send(2, FLAG.fin | FLAG.ack);
    expect(entry(2)).toMatchObject({ packets: 43n, state: FlowState.Closing });
  });

  it('go to the flow table after a second without a packet, half-open ones too', () => {
    first();
    const { now } = bed.gc({});
    open(2);
    send(3, FLAG.syn);
    expect(bed.youngFlows()).toHaveLength(2);
    bed.gc({ now: now + 100_000, count: 0 });
    expect(bed.youngFlows()).toEqual([]);
    expect(entry(2)).toMatchObject({ packets: 2n, state: FlowState.Open });
    expect(entry(3)).toMatchObject({ packets: 1n, state: FlowState.New });
    expect(bed.node.get(0)?.halfOpen).toBe(1);
    // Its SYN comes again: it is not another one.
    const before = bed.logged();
    expect(send(3, FLAG.syn)).toBe(REDIRECT);
    expect(bed.youngFlows()).toEqual([]);
    expect(bed.logged()).toBe(before);
    expect([answer(3, FLAG.syn | FLAG.ack), send(3, FLAG.ack), send(2, FLAG.ack)]).toEqual([
      REDIRECT,
      REDIRECT,
      REDIRECT,
    ]);
    expect(bed.node.get(0)?.halfOpen).toBe(0);
  });

  it('follow a change of policy with the next packet, in both directions', () => {
    first();
    open(2);
    open(3);
    bed.set(2, {});
    bed.endpoint(B, { setIngress: 2 });
    bed.epoch(2);
    expect([send(2, FLAG.ack), answer(2, FLAG.ack)]).toEqual([DROPPED, DROPPED]);
    expect([answer(3, FLAG.ack), send(3, FLAG.ack)]).toEqual([DROPPED, DROPPED]);
    expect(bed.dropsSince()).toEqual({ PolicyIngress: 4 });
    bed.set(2, { [A.id]: 5 });
    bed.epoch(3);
    expect([answer(2, FLAG.ack), send(2, FLAG.ack)]).toEqual([REDIRECT, REDIRECT]);
  });

  it('are no way around the check of Ethernet addresses, nor for another container', () => {
    first();
    open(2);
    expect(send(2, FLAG.ack, { sourceMac: C.mac })).toBe(DROPPED);
    const forged = { source: A[family], destination: B[family], proto: PROTO.tcp };
    expect(bed.from(C, { ...forged, sourcePort: 2, destinationPort: 80, flags: FLAG.ack }).retval).toBe(
      DROPPED,
    );
    expect(bed.dropsSince()).toMatchObject({ SpoofedMac: 1 });
    expect(send(2, FLAG.ack)).toBe(REDIRECT);
  });

  it('get ICMP errors', () => {
    first();
    open(2);
    const quoted = ipPacket({
      sourceMac: '',
      destinationMac: '',
      proto: PROTO.tcp,
      source: A[family],
      destination: B[family],
      sourcePort: 2,
      destinationPort: 80,
    });
    const error = bed.from(B, {
      source: B[family],
      destination: A[family],
      proto: family === 'v4' ? PROTO.icmp : PROTO.icmp6,
      icmp: family === 'v4' ? { type: 3, code: 4, word: 1400 } : { type: 2, word: 1400 },
      payload: quoted,
    });
    expect(error.retval).toBe(REDIRECT);
    expect(error.packet.destinationMac).toBe(A.mac);
    expect([send(2, FLAG.ack), answer(2, FLAG.ack)]).toEqual([REDIRECT, REDIRECT]);
  });

  it('find a place when there are many between the same two containers', () => {
    first();
    const ports = Array.from({ length: 40 }, (_, i) => 100 + i);
    for (const port of ports) expect(open(port)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    expect(bed.entries()).toBe(0);
    expect(bed.youngFlows().map(({ fwd }) => fwd.sport)).toEqual(expect.arrayContaining(ports));
    expect(bed.youngPlaces()).toEqual({ taken: 40, behind: 32 });
    for (const port of ports)
      expect([answer(port, FLAG.ack), send(port, FLAG.ack)]).toEqual([REDIRECT, REDIRECT]);
    for (const port of ports.slice(0, 20)) expect(send(port, FLAG.rst)).toBe(REDIRECT);
    expect(bed.youngPlaces()).toEqual({ taken: 20, behind: 20 });
    // The first places are free again; who has one behind them keeps it.
    expect(open(99)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    expect(bed.youngPlaces()).toEqual({ taken: 21, behind: 20 });
    for (const port of [99, ...ports.slice(20)])
      expect([answer(port, FLAG.ack), send(port, FLAG.ack)]).toEqual([REDIRECT, REDIRECT]);
    for (const port of ports.slice(20)) expect(entry(port)).toMatchObject({ packets: 4n });
    expect(bed.youngPlaces()).toEqual({ taken: 0, behind: 0 });
  });

  it('begin in the flow table where there is no place', () => {
    first();
    const ports = Array.from({ length: 1800 }, (_, i) => 1000 + i);
    for (const port of ports) expect(send(port, FLAG.syn)).toBe(REDIRECT);
    const young = bed.youngFlows().length;
    expect(young).toBeGreaterThan(8);
    expect(young).toBeLessThan(ports.length);
    expect(bed.entries()).toBe((ports.length - young) * 2);
    for (const port of ports.filter((port) => port % 50 === 0))
      expect([answer(port, FLAG.syn | FLAG.ack), send(port, FLAG.ack)]).toEqual([REDIRECT, REDIRECT]);
    const opened = [...bed.flows.entries()].filter(([{ ifindex }]) => ifindex === A.ifindex);
    expect(opened).toHaveLength(ports.length);
    for (const [{ sport }, { packets, state }] of opened) {
      const answered = sport % 50 === 0;
      expect([packets, state]).toEqual(answered ? [2n, FlowState.Open] : [1n, FlowState.New]);
    }
  });

  it('are known in the flow table however often expiry has gone over it', () => {
    first();
    open(2);
    expect(entry(2)).toMatchObject({ packets: 2n });
    for (let pass = 0; pass < 5; pass++) bed.gc({ now: 1 });
    expect(send(2, FLAG.syn)).toBe(REDIRECT);
    expect(bed.youngFlows()).toEqual([]);
    expect(entry(2)).toMatchObject({ packets: 3n, state: FlowState.Open });
  });

  it('start anew when their ports are used again after the end', () => {
    first();
    open(2);
    send(2, FLAG.fin | FLAG.ack);
    answer(2, FLAG.fin | FLAG.ack);
    expect(open(2)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    expect(entry(2)).toMatchObject({ packets: 2n, state: FlowState.Open });
  });

  it('begin as well where there are services, but none whose answers would be those of a flow to one', () => {
    const frontend = family === 'v4' ? '10.96.0.1' : 'fd96::1';
    const to = (destination: string, sourcePort: number) =>
      bed.from(A, {
        source: A[family],
        destination,
        proto: PROTO.tcp,
        sourcePort,
        destinationPort: 80,
        flags: FLAG.syn,
      }).packet;
    bed.service(frontend, 80, PROTO.tcp, B, 80);
    first();
    for (let pass = 0; pass < 3; pass++) bed.gc({ now: 1 }); // marks of other tests are old now
    expect(open(2)).toEqual([REDIRECT, REDIRECT, REDIRECT]);
    expect(bed.youngFlows()).toHaveLength(1);
    const service = to(frontend, 2);
    expect(service).toMatchObject({ source: A[family], destination: B[family], broken: [] });
    expect(service.sourcePort).not.toBe(2);
    expect(bed.youngFlows()).toEqual([]);
    const kept = [...bed.flows.entries()].filter(([key]) => key.ifindex === A.ifindex && key.sport === 2);
    expect(kept.map(([, flow]) => flow).find(({ sport }) => sport === 2)).toMatchObject({
      packets: 2n,
      state: FlowState.Open,
    });

    expect(to(frontend, 3)).toMatchObject({ sourcePort: 3, destination: B[family] });
    const direct = to(B[family], 3);
    expect(direct).toMatchObject({ source: A[family], destination: B[family], broken: [] });
    expect(direct.sourcePort).not.toBe(3);
    expect(bed.youngFlows()).toEqual([]);
    expect(to(B[family], 4).sourcePort).toBe(4);
    expect(bed.youngFlows()).toHaveLength(1);
  });
});
