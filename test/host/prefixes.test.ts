/** The class of a peer as the program finds it, against a look at all prefixes, over random changes. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HostBed } from '../../bench/lib/host-bed.js';
import { TCP, tcpFrame } from '../../bench/lib/packet.js';
import { key4, lengthOf, type PrefixKey, widen } from '../../policy/host/prefix.js';
import { documents } from '../e2e/world.js';
import { hostPolicy } from './policies.js';

const TC_ACT_SHOT = 2;
const LENGTHS = [0, 7, 13, 16, 21, 24, 26, 28, 29, 30, 30, 31, 31, 32, 32, 32, 32, 32, 32, 32];
const LISTS = ['/list/allowed', '/list/denied'] as const;

let bed: HostBed;
beforeAll(() => {
  bed = new HostBed(1, 4096);
});
afterAll(() => bed.close());

/** A generator that gives the same numbers in every run (Marsaglia's xorshift). */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

it('is that of the longest prefix, also where lines are full and in any order of changes', () => {
  bed.apply(
    documents(
      hostPolicy('lists', {
        ingress: [
          { action: 'Accept', from: [{ list: LISTS[0] }] },
          { action: 'Deny', from: [{ list: LISTS[1] }] },
        ],
      }),
    ),
  );
  const random = numbers(20_260);
  // Few networks, so that prefixes are inside of others, and far more in some than a line has room for.
  const address = (): number => (10 << 24) + (random(3) << 16) + (random(4) << 8) + random(64);
  const contents = LISTS.map(() => new Set<PrefixKey>());
  const contains = (list: ReadonlySet<PrefixKey>, one: number): boolean =>
    [...list].some((prefix) => widen(key4(one, 32), lengthOf(prefix)) === prefix);
  let port = 0;
  let denied = 0;
  for (let round = 0; round < 12; round++) {
    for (const [i, list] of LISTS.entries()) {
      const content = contents[i] ?? new Set<PrefixKey>();
      const added = new Set<PrefixKey>();
      const removed = new Set<PrefixKey>();
      for (const one of content) if (random(3) === 0) removed.add(one);
      for (let n = random(120); n > 0; n--) {
        const length = LENGTHS[random(LENGTHS.length)] ?? 32;
        // Wide ones are rare: they would be all that there is.
        if (length < 26 && random(12) !== 0) continue;
        const one = widen(key4(address(), 32), length);
        if (!content.has(one) && !removed.has(one)) added.add(one);
      }
      for (const one of added) content.add(one);
      for (const one of removed) content.delete(one);
      bed.changeList(list, [...added], [...removed]);
    }
    for (let n = 0; n < 200; n++) {
      const one = random(20) === 0 ? random(2 ** 30) : address();
      const source = [24, 16, 8, 0].map((shift) => (one >>> shift) & 255).join('.');
      const data = tcpFrame({
        sourceMac: Buffer.alloc(6),
        destinationMac: Buffer.alloc(6),
        source,
        destination: '127.0.0.1',
        sourcePort: 1024 + (port++ % 60_000),
        destinationPort: 9,
        flags: TCP.syn,
      });
      const [allowed, listed] = contents.map((content) => contains(content, one));
      const expected = allowed !== true && listed === true;
      if (expected) denied++;
      const isDropped = bed.ingress.testRun({ data }).retval === TC_ACT_SHOT;
      if (isDropped !== expected)
        expect({ round, source, isDropped }).toEqual({ round, source, isDropped: expected });
    }
  }
  expect(denied).toBeGreaterThan(100);
  expect(denied).toBeLessThan(2300);
  // The hash has what lines had no room for.
  const spilled = [...bed.maps.host_prefixes.entries()];
  expect(spilled.length).toBeGreaterThan(0);
});
