/**
 * From an ordered list of rules to the port table of one peer: the first rule that matches decides
 * (see `RankedRule`), and the result is written as longest-prefix entries.
 */
import { PROTOCOL, VERDICT } from './types.js';

/** A range of ports of one protocol, both ends included. */
export interface PortRange {
  /** IP protocol number. */
  readonly protocol: number;
  readonly low: number;
  readonly high: number;
}

/**
 * A rule as one peer meets it. Rules are looked at in order. `pass` skips the remaining rules of its
 * tier; what no rule decides gets the fallback.
 */
export interface RankedRule {
  readonly tier: number;
  readonly action: 'allow' | 'deny' | 'pass';
  readonly ports: 'all' | readonly PortRange[];
  /** Number that is reported. */
  readonly rule: number;
}

export interface Decision {
  readonly verdict: typeof VERDICT.Allow | typeof VERDICT.Deny;
  readonly rule: number;
}

/** One entry of policy_ports without its profile; port in host byte order. */
export interface PortTableRow extends Decision {
  /** 32: every protocol; 48: every port of the protocol; 48 + n: a block of 2^(16-n) ports. */
  readonly prefixLength: number;
  readonly protocol: number;
  readonly port: number;
}

/** `rows` empty: the decision holds for every protocol and port; else for what no row matches. */
export interface Resolution {
  readonly decision: Decision;
  readonly rows: readonly PortTableRow[];
}

interface Segment {
  low: number;
  high: number;
  decision: Decision | undefined;
  /** Tier whose remaining rules are skipped. */
  passed: number;
}

const LAST_PORT = 65535;
const NO_TIER = -1;

/** Stands for all protocols without ports, and for those that no rule names. */
const OTHER = 0;

/** In rules of the host the type and code of an ICMP message are its "port". */
const PORT_PROTOCOLS: readonly number[] = [
  PROTOCOL.TCP,
  PROTOCOL.UDP,
  PROTOCOL.SCTP,
  PROTOCOL.ICMP,
  PROTOCOL.ICMPv6,
];

const same = (a: Decision | undefined, b: Decision | undefined): boolean =>
  a?.verdict === b?.verdict && a?.rule === b?.rule;

/** Resolves the rules of one peer. A fallback that denies takes no row: the peer's own entry says it. */
export function resolveRules(rules: readonly RankedRule[], fallback: Decision): Resolution {
  const first = rules[0];
  if (first === undefined) return { decision: fallback, rows: [] };
  if (first.ports === 'all' && first.action !== 'pass') return { decision: decisionOf(first), rows: [] };

  const other = decide(rules, OTHER)[0]?.decision ?? fallback;
  const rows: PortTableRow[] = [];
  for (const protocol of PORT_PROTOCOLS) {
    if (
      !rules.some((rule) => rule.ports !== 'all' && rule.ports.some((range) => range.protocol === protocol))
    )
      continue;
    rows.push(...tableOf(protocol, merge(decide(rules, protocol), fallback), other, fallback));
  }
  if (rows.length === 0) return { decision: other, rows };
  // Without a row nothing matches, which denies with the rule of the peer's entry.
  if (fallback.verdict === VERDICT.Deny && same(other, fallback)) return { decision: fallback, rows };
  rows.unshift({ prefixLength: 32, protocol: OTHER, port: 0, ...other });
  return { decision: { verdict: VERDICT.Deny, rule: fallback.rule }, rows };
}

function decisionOf(rule: RankedRule): Decision {
  return { verdict: rule.action === 'allow' ? VERDICT.Allow : VERDICT.Deny, rule: rule.rule };
}

/** Segments of the port range of a protocol, in order; OTHER has rules without ports only. */
function decide(rules: readonly RankedRule[], protocol: number): Segment[] {
  let segments: Segment[] = [{ low: 0, high: LAST_PORT, decision: undefined, passed: NO_TIER }];
  for (const rule of rules) {
    if (rule.ports === 'all') {
      for (const segment of segments) apply(rule, segment);
      if (segments.every((segment) => segment.decision !== undefined)) break;
      continue;
    }
    for (const range of rule.ports) {
      if (range.protocol !== protocol) continue;
      segments = split(segments, range.low, range.high);
      for (const segment of segments)
        if (segment.low >= range.low && segment.high <= range.high) apply(rule, segment);
    }
  }
  return segments;
}

function apply(rule: RankedRule, segment: Segment): void {
  if (segment.decision !== undefined || segment.passed === rule.tier) return;
  if (rule.action === 'pass') segment.passed = rule.tier;
  else segment.decision = decisionOf(rule);
}

/** Cuts the segments at both ends of the range. */
function split(segments: readonly Segment[], low: number, high: number): Segment[] {
  const out: Segment[] = [];
  for (const segment of segments) {
    let from = segment.low;
    for (const cut of [low, high + 1]) {
      if (cut > from && cut <= segment.high) {
        out.push({ ...segment, low: from, high: cut - 1 });
        from = cut;
      }
    }
    out.push({ ...segment, low: from });
  }
  return out;
}

interface Run extends Decision {
  readonly low: number;
  high: number;
}

/** Joins neighbours with one decision. */
function merge(segments: readonly Segment[], fallback: Decision): Run[] {
  const runs: Run[] = [];
  for (const { low, high, decision = fallback } of segments) {
    const last = runs[runs.length - 1];
    if (last !== undefined && same(last, decision)) last.high = high;
    else runs.push({ low, high, verdict: decision.verdict, rule: decision.rule });
  }
  return runs;
}

/**
 * Rows of one protocol: exceptions to what its ports would inherit, or to one decision for the whole
 * protocol if that takes fewer rows.
 */
function tableOf(
  protocol: number,
  runs: readonly Run[],
  inherited: Decision,
  fallback: Decision,
): PortTableRow[] {
  let best = exceptions(protocol, runs, inherited);
  const undecided = runs.some((run) => same(run, fallback));
  if (undecided || best.length <= 1) return best;
  for (const base of runs) {
    if (same(base, inherited)) continue;
    const whole: PortTableRow = {
      prefixLength: 48,
      protocol,
      port: 0,
      verdict: base.verdict,
      rule: base.rule,
    };
    const rows = [whole, ...exceptions(protocol, runs, base)];
    if (rows.length < best.length) best = rows;
  }
  return best;
}

function exceptions(protocol: number, runs: readonly Run[], base: Decision): PortTableRow[] {
  const rows: PortTableRow[] = [];
  for (const run of runs) {
    if (same(run, base)) continue;
    for (const { port, bits } of blocks(run.low, run.high)) {
      rows.push({ prefixLength: 48 + bits, protocol, port, verdict: run.verdict, rule: run.rule });
    }
  }
  return rows;
}

/** The fewest aligned blocks of 2^(16-bits) ports that cover a range. */
export function blocks(low: number, high: number): { readonly port: number; readonly bits: number }[] {
  const out: { port: number; bits: number }[] = [];
  let port = low;
  while (port <= high) {
    let size = port === 0 ? LAST_PORT + 1 : port & -port;
    while (port + size - 1 > high) size /= 2;
    out.push({ port, bits: 16 - Math.log2(size) });
    port += size;
  }
  return out;
}
