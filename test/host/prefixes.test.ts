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

/** Whether a first packet from an address (as a number) is dropped. */
function isDropped(of: HostBed, address: number, sourcePort = 1024): boolean {
  const data = tcpFrame({
    sourceMac: Buffer.alloc(6),
    destinationMac: Buffer.alloc(6),
    source: [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.'),
    destination: '127.0.0.1',
    sourcePort,
    destinationPort: 9,
    flags: TCP.syn,
  });
  return of.ingress.testRun({ data }).retval === TC_ACT_SHOT;
}

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
      const [allowed, listed] = contents.map((content) => contains(content, one));
      const expected = allowed !== true && listed === true;
      if (expected) denied++;
      const dropped = isDropped(bed, one, 1024 + (port++ % 60_000));
      if (dropped !== expected) expect({ round, one, dropped }).toEqual({ round, one, dropped: expected });
    }
  }
  expect(denied).toBeGreaterThan(100);
  expect(denied).toBeLessThan(2300);
  // The hash has what lines had no room for.
  const spilled = [...bed.maps.host_prefixes.entries()];
  expect(spilled.length).toBeGreaterThan(0);
});

it('is found when there are more prefixes than the lines in use have room for', () => {
  const large = new HostBed();
  try {
    large.apply(documents(hostPolicy('deny', { ingress: [{ action: 'Deny', from: [{ list: LISTS[1] }] }] })));
    const random = numbers(84);
    const address = (i: number): number => (16 << 24) + i * 161; // a /32 in most /24 networks, two in some
    const listed = Array.from({ length: 170_000 }, (_, i) => key4(address(i), 32));
    for (const end of [100_000, 170_000]) {
      large.changeList(LISTS[1], listed.slice(end === 100_000 ? 0 : 100_000, end));
      for (let n = 0; n < 300; n++) {
        const i = random(end);
        expect([isDropped(large, address(i)), isDropped(large, address(i) + 1)], String(i)).toEqual([
          true,
          false,
        ]);
      }
    }
    const spilled = [...large.maps.host_prefixes.entries()].length;
    expect(spilled).toBeGreaterThan(0);
    expect(spilled).toBeLessThan(listed.length / 20);
    large.changeList(LISTS[1], [], listed.slice(1));
    expect([0, 1, 99_000].map((i) => isDropped(large, address(i)))).toEqual([true, false, false]);
    expect([...large.maps.host_prefixes.entries()]).toEqual([]);
  } finally {
    large.close();
  }
});

it('is found when there are more classes than lines have room for', () => {
  const many = new HostBed(1, 16_384);
  try {
    many.apply(documents(hostPolicy('deny', { ingress: [{ action: 'Deny', from: [{ list: LISTS[1] }] }] })));
    const [early, late] = [(10 << 24) + 1, (11 << 24) + 1];
    many.changeList(LISTS[1], [key4(early, 32)]);
    const others = Array.from({ length: 2100 }, (_, i) => ({
      peer: many.tables.peer(`list /list/${i}`),
      added: [key4((12 << 24) + (i << 8), 24)],
      removed: [],
    }));
    many.tables.change(others);
    many.changeList(LISTS[1], [key4(late, 32)]);
    many.changeList('/list/both', [key4(early, 32)]);
    expect([early, late, late + 1].map((one) => isDropped(many, one))).toEqual([true, true, false]);
    many.changeList(LISTS[1], [], [key4(early, 32)]);
    expect([early, late].map((one) => isDropped(many, one))).toEqual([false, true]);
    many.tables.change(others.map(({ peer, added }) => ({ peer, added: [], removed: added })));
    many.changeList(LISTS[1], [key4(early, 32)]);
    expect([early, late, (12 << 24) + 1].map((one) => isDropped(many, one))).toEqual([true, true, false]);
  } finally {
    many.close();
  }
});
