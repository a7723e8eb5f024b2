import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bandwidthEntry } from '../../src/dataplane/bandwidth.js';
import { PROTO } from '../lib/packet.js';
import { A, B, Bed, DROPPED, OUTSIDE, REDIRECT } from './bed.js';

/** Rates so low that nothing comes back into a bucket during a test: the burst alone decides. */

let bed: Bed;
beforeAll(() => {
  bed = new Bed();
});
beforeEach(() => bed.reset());
afterAll(() => bed.close());

/** UDP packets of 100 bytes. */
const SIZE = 100;
const udp = {
  source: A.v4,
  destination: B.v4,
  proto: PROTO.udp,
  sourcePort: 5000,
  destinationPort: 53,
  payload: Buffer.alloc(SIZE - 28),
} as const;
const answer = { ...udp, source: B.v4, destination: A.v4, sourcePort: 53, destinationPort: 5000 } as const;
const slow = (packets: number) => ({ rate: 1000, burst: packets * SIZE * 8 });

/** How many of `count` packets pass. */
function passing(count: number, send: () => number): number {
  let passed = 0;
  for (let i = 0; i < count; i++) if (send() !== DROPPED) passed++;
  return passed;
}

it('lets the burst pass and one packet more, then drops with its reason', () => {
  bed.bandwidth(A, bandwidthEntry({ egress: slow(5) }));
  expect(passing(20, () => bed.from(A, udp).retval)).toBe(6);
  expect(bed.dropsSince()).toEqual({ Bandwidth: 14 });
});

it('limits what a container receives, whoever sends it', () => {
  bed.bandwidth(B, bandwidthEntry({ ingress: slow(4) }));
  expect(passing(10, () => bed.from(A, udp).retval)).toBe(5);
  expect(passing(10, () => bed.from(B, answer).retval)).toBe(10);
});

it('takes both directions of a flow from buckets of their own', () => {
  bed.bandwidth(A, bandwidthEntry({ ingress: slow(2), egress: slow(7) }));
  expect(passing(20, () => bed.from(A, udp).retval)).toBe(8);
  expect(passing(20, () => bed.from(B, answer).retval)).toBe(3);
});

it('limits what goes out through an uplink', () => {
  bed.bandwidth(A, bandwidthEntry({ egress: slow(3) }));
  const out = { ...udp, destination: OUTSIDE.v4 };
  expect(passing(9, () => bed.from(A, out).retval)).toBe(4);
});

it('has no effect on others', () => {
  bed.bandwidth(A, bandwidthEntry({ egress: slow(1), ingress: slow(1) }));
  const other = { ...udp, source: B.v4, destination: OUTSIDE.v4 };
  expect(passing(20, () => bed.from(B, other).retval)).toBe(20);
  expect(bed.from(B, other).retval).toBe(REDIRECT);
});

it('fills a bucket as time goes by', () => {
  // A thousand packets a millisecond: what the loop sends is less than that.
  bed.bandwidth(A, bandwidthEntry({ egress: { rate: SIZE * 8 * 1_000_000, burst: SIZE * 8 * 1000 } }));
  expect(passing(500, () => bed.from(A, udp).retval)).toBe(500);
});
