import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { blocks, type Decision, type PortTableRow, type RankedRule, resolveRules } from './ports.js';
import { VERDICT } from './types.js';

const DENY: Decision = { verdict: VERDICT.Deny, rule: 99 };
const ALLOW: Decision = { verdict: VERDICT.Allow, rule: 98 };
const rule = (
  number: number,
  ports: RankedRule['ports'],
  action: RankedRule['action'] = 'allow',
  tier = 1,
): RankedRule => ({ tier, action, ports, rule: number });
const tcp = (low: number, high = low) => ({ protocol: 6, low, high });
const udp = (low: number, high = low) => ({ protocol: 17, low, high });

/** The lookup of the kernel: longest prefix, then the decision of the peer's entry. */
function lookup(
  rows: readonly PortTableRow[],
  otherwise: Decision,
  protocol: number,
  port: number,
): Decision {
  for (let bits = 16; bits >= 0; bits--) {
    const block = port & (0xffff << (16 - bits)) & 0xffff;
    const row = rows.find(
      (entry) => entry.prefixLength === 48 + bits && entry.protocol === protocol && entry.port === block,
    );
    if (row !== undefined) return { verdict: row.verdict, rule: row.rule };
  }
  const any = rows.find((entry) => entry.prefixLength === 32);
  return any === undefined ? otherwise : { verdict: any.verdict, rule: any.rule };
}

describe('blocks', () => {
  it.each([
    [0, 65535, [[0, 0]]],
    [80, 80, [[80, 16]]],
    [80, 81, [[80, 15]]],
    [
      1,
      4,
      [
        [1, 16],
        [2, 15],
        [4, 16],
      ],
    ],
    [32768, 65535, [[32768, 1]]],
  ])('%i to %i', (low, high, expected) => {
    expect(blocks(low, high).map(({ port, bits }) => [port, bits])).toEqual(expected);
  });

  it('cover a range exactly', () => {
    fc.assert(
      fc.property(fc.nat({ max: 65535 }), fc.nat({ max: 65535 }), (a, b) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)];
        let next = low;
        for (const { port, bits } of blocks(low, high)) {
          const size = 2 ** (16 - bits);
          expect(port).toBe(next);
          expect(port % size).toBe(0);
          next += size;
        }
        expect(next).toBe(high + 1);
        expect(blocks(low, high).length).toBeLessThanOrEqual(30);
      }),
    );
  });
});

describe('resolveRules', () => {
  it('needs no rows without ports', () => {
    expect(resolveRules([], DENY)).toEqual({ decision: DENY, rows: [] });
    expect(resolveRules([rule(1, 'all'), rule(2, [tcp(80)])], DENY)).toEqual({
      decision: { verdict: VERDICT.Allow, rule: 1 },
      rows: [],
    });
    expect(resolveRules([rule(1, [])], DENY)).toEqual({ decision: DENY, rows: [] });
  });

  it('writes one row for one port, and reports the default rule otherwise', () => {
    expect(resolveRules([rule(1, [tcp(80)])], DENY)).toEqual({
      decision: DENY,
      rows: [{ prefixLength: 64, protocol: 6, port: 80, verdict: VERDICT.Allow, rule: 1 }],
    });
  });

  it('writes one row for a whole protocol', () => {
    expect(resolveRules([rule(1, [udp(0, 65535)])], DENY).rows).toEqual([
      { prefixLength: 48, protocol: 17, port: 0, verdict: VERDICT.Allow, rule: 1 },
    ]);
  });

  it('lets the first rule decide, and writes exceptions instead of the rest', () => {
    const { rows } = resolveRules([rule(1, [tcp(80)]), rule(2, [tcp(0, 65535)])], DENY);
    expect(rows).toEqual([
      { prefixLength: 48, protocol: 6, port: 0, verdict: VERDICT.Allow, rule: 2 },
      { prefixLength: 64, protocol: 6, port: 80, verdict: VERDICT.Allow, rule: 1 },
    ]);
  });

  it('keeps what a later rule without ports gives to everything else', () => {
    const { rows } = resolveRules([rule(1, [tcp(80)]), rule(2, 'all')], DENY);
    expect(rows).toEqual([
      { prefixLength: 32, protocol: 0, port: 0, verdict: VERDICT.Allow, rule: 2 },
      { prefixLength: 64, protocol: 6, port: 80, verdict: VERDICT.Allow, rule: 1 },
    ]);
  });

  it('lets pass skip the rest of its tier only', () => {
    const rules = [rule(1, [tcp(80)], 'pass', 0), rule(2, 'all', 'deny', 0), rule(3, 'all', 'allow', 1)];
    const { decision, rows } = resolveRules(rules, DENY);
    expect(lookup(rows, decision, 6, 80)).toEqual({ verdict: VERDICT.Allow, rule: 3 });
    expect(lookup(rows, decision, 6, 81)).toEqual({ verdict: VERDICT.Deny, rule: 2 });
    expect(lookup(rows, decision, 1, 0)).toEqual({ verdict: VERDICT.Deny, rule: 2 });
  });

  const range = fc
    .tuple(fc.constantFrom(6, 17, 132), fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 40 }))
    .map(([protocol, a, b]) => ({
      protocol,
      low: Math.min(a, b) * 1600,
      high: Math.min(65535, Math.max(a, b) * 1600 + 7),
    }));
  const ranked = fc
    .array(
      fc.tuple(
        fc.nat({ max: 2 }),
        fc.constantFrom('allow' as const, 'deny' as const, 'pass' as const),
        fc.oneof(fc.constant('all' as const), fc.array(range, { maxLength: 3 })),
      ),
      { maxLength: 6 },
    )
    .map((list) =>
      list
        .sort(([a], [b]) => a - b)
        .map(([tier, action, ports], index) => rule(index + 1, ports, action, tier)),
    );

  it('agrees with going through the rules', () => {
    fc.assert(
      fc.property(ranked, fc.constantFrom(DENY, ALLOW), (rules, fallback) => {
        const { decision, rows } = resolveRules(rules, fallback);
        const keys = rows.map((row) => `${row.protocol} ${row.port} ${row.prefixLength}`);
        expect(new Set(keys).size).toBe(keys.length);
        for (const protocol of [1, 6, 17, 132]) {
          for (const port of protocol === 1
            ? [0]
            : [0, 1, 7, 8, 1599, 1600, 1607, 1608, 32000, 64000, 64007, 65535]) {
            let wanted: Decision | undefined;
            const passed = new Set<number>();
            for (const { tier, action, ports, rule: number } of rules) {
              const matches =
                ports === 'all' ||
                ports.some((p) => p.protocol === protocol && p.low <= port && port <= p.high);
              if (wanted !== undefined || passed.has(tier) || !matches) continue;
              if (action === 'pass') passed.add(tier);
              else wanted = { verdict: action === 'allow' ? VERDICT.Allow : VERDICT.Deny, rule: number };
            }
            expect(lookup(rows, decision, protocol, port)).toEqual(wanted ?? fallback);
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});
