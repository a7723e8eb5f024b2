/** Rate limits of rules in the program itself: what passes in the time that a flood takes. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { HostBed } from '../../bench/lib/host-bed.js';
import { FLAG, frame, PROTO } from '../lib/packet.js';
import { hostPolicy, udp } from './policies.js';

/** The loopback's own address: for this host. */
const MAC = { sourceMac: '02:00:00:00:00:01', destinationMac: '00:00:00:00:00:00' } as const;
const PORT = 9000;
/** Runs of the program that the kernel does at once: less than what a burst takes. */
const AT_ONCE = 2000;
const TOLERANCE = 0.05;

let bed: HostBed;
beforeEach(() => {
  bed = new HostBed(1, 1024);
});
afterEach(() => bed.close());

function limited(limit: object, ...protocols: readonly object[]): void {
  const rule = { action: 'Accept', limit, ...(protocols.length === 0 ? {} : { protocols }) };
  bed.apply(JSON.stringify(hostPolicy('limited', { ingress: [rule] })));
}

function datagram(source: string, destination: string, sourcePort = 1000): Buffer {
  return frame({ ...MAC, proto: PROTO.udp, source, destination, sourcePort, destinationPort: PORT });
}

/** Packets that passed, of all flows together. */
function passed(): number {
  let packets = 0n;
  for (const map of [bed.maps.host_flows, bed.maps.host_fresh])
    for (const [, flow] of map.entries()) packets += flow.packets.reduce((sum, count) => sum + count, 0n);
  return Number(packets);
}

it.each([
  ['IPv4', 1000, '203.0.113.1', '127.0.0.1'],
  ['IPv4', 100_000, '203.0.113.1', '127.0.0.1'],
  ['IPv6', 1000, '2001:db8::1', '::1'],
  ['IPv6', 100_000, '2001:db8::1', '::1'],
] as const)('packets a second, %s, %i', (_, rate, source, destination) => {
  const burst = rate / 10;
  limited({ packetsPerSecond: rate, burst }, udp(PORT));
  const packet = datagram(source, destination);
  // What a bucket should let through by the clock of this process, which may have to wait for longer than a burst.
  let [tokens, expected, sent] = [burst, 0, 0];
  const started = performance.now();
  for (let last = started; last - started < 1000; sent += AT_ONCE) {
    bed.ingress.testRun({ data: packet, repeat: AT_ONCE });
    const now = performance.now();
    const filled = Math.min(burst, tokens + (rate * (now - last)) / 1000);
    const taken = Math.min(AT_ONCE, Math.floor(filled));
    expected += taken;
    tokens = filled - taken;
    last = now;
  }
  expect(sent).toBeGreaterThan(expected * 2);
  expect(Math.abs(passed() - expected) / expected).toBeLessThan(TOLERANCE);
});

it('packets a second for each of 10,000 sources', () => {
  const sources = 10_000;
  const rate = 20;
  const burst = 10;
  limited({ packetsPerSecond: rate, burst, perSource: true });
  const packets = Array.from({ length: sources }, (_, i) =>
    datagram(`10.1.${i >> 8}.${i & 255}`, '127.0.0.1'),
  );
  // What a bucket of each source should let through, by the clock of this process.
  const last = new Float64Array(sources);
  const tokens = new Float64Array(sources).fill(burst);
  const expected = new Float64Array(sources);
  const started = performance.now();
  for (let round = 0; round === 0 || performance.now() - started < 2500; round++) {
    for (const [i, data] of packets.entries()) {
      bed.ingress.testRun({ data, repeat: burst + 2 });
      const now = performance.now();
      const filled = Math.min(burst, (tokens[i] ?? 0) + (rate * (now - (last[i] || now))) / 1000);
      expected[i] = (expected[i] ?? 0) + Math.floor(filled);
      tokens[i] = filled - Math.floor(filled);
      last[i] = now;
    }
  }
  const got = new Map<string, number>();
  for (const [{ remote }, flow] of bed.maps.host_fresh.entries())
    got.set(Buffer.from(remote).toString('hex'), Number(flow.packets[1] ?? 0n));
  expect(got.size).toBe(sources);
  const counts = packets.map((_, i) => got.get(`${'0'.repeat(20)}ffff${hex(10, 1, i >> 8, i & 255)}`) ?? 0);
  const sum = (values: Iterable<number>): number => [...values].reduce((total, value) => total + value, 0);
  expect(Math.abs(sum(counts) - sum(expected)) / sum(expected)).toBeLessThan(TOLERANCE);
  // The clock is looked at after the run: a process that has to wait right then is off for that one.
  const off = counts.filter(
    (count, i) => Math.abs(count - (expected[i] ?? 0)) / (expected[i] ?? 1) > TOLERANCE,
  );
  expect(off.length).toBeLessThan(sources / 100);
});

const hex = (...bytes: number[]): string => Buffer.from(bytes).toString('hex');

it('new connections a second: of UDP and TCP, IPv6 too; known ones go on', () => {
  limited({ connectionsPerSecond: 1, burst: 50 });
  const syn = (source: string, destination: string, sourcePort: number): Buffer =>
    frame({
      ...MAC,
      proto: PROTO.tcp,
      source,
      destination,
      sourcePort,
      destinationPort: PORT,
      flags: FLAG.syn,
    });
  const started = performance.now();
  for (let i = 0; i < 100; i++) {
    bed.ingress.testRun({ data: datagram('203.0.113.1', '127.0.0.1', 1000 + i) });
    bed.ingress.testRun({ data: syn('2001:db8::1', '::1', 1000 + i) });
  }
  const flows = [...bed.maps.host_fresh.entries()];
  const seconds = (performance.now() - started) / 1000;
  expect(flows.length).toBeGreaterThanOrEqual(50);
  expect(flows.length).toBeLessThanOrEqual(51 + Math.ceil(seconds));
  const before = passed();
  bed.ingress.testRun({ data: datagram('203.0.113.1', '127.0.0.1', 1000), repeat: 100 });
  expect(passed() - before).toBe(100);
});
