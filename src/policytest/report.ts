/** What `sluice policy test` prints: a line of JSON a probe, or a table. */
import type { ProbeResult } from './run.js';

/** Keys of a line of `-o jsonl`, in this order. */
export interface ResultLine {
  readonly file: string;
  readonly test: string;
  /** 0: before the first step. */
  readonly step: number;
  readonly from: string;
  readonly to: string;
  /** Null: none was given (ICMP). */
  readonly port: number | null;
  readonly protocol: string;
  readonly family: 'ipv4' | 'ipv6';
  readonly expect: string;
  readonly verdict: string;
  /** Name of the drop reason, `forwarded` if it passes. */
  readonly reason: string;
  /** Null: no policy applies. */
  readonly rule: string | null;
}

export function resultLine({ test, step, probe, family, verdict, reason, rule }: ProbeResult): ResultLine {
  return {
    file: test.file,
    test: test.name,
    step,
    from: probe.from,
    to: probe.to,
    port: probe.port ?? null,
    protocol: probe.protocol,
    family: family === 4 ? 'ipv4' : 'ipv6',
    expect: probe.expect,
    verdict,
    reason,
    rule: rule ?? null,
  };
}

export const COLUMNS = [
  '',
  'STEP',
  'FROM',
  'TO',
  'PORT',
  'FAMILY',
  'EXPECT',
  'VERDICT',
  'REASON',
  'RULE',
] as const;

/** The cells of a probe; the first says whether it is as expected. */
export function resultCells(result: ProbeResult): string[] {
  const { step, from, to, port, protocol, family, expect, verdict, reason, rule } = resultLine(result);
  const where = port === null || protocol === 'ICMP' ? protocol : `${port}/${protocol}`;
  const mark = verdict === expect ? 'ok' : 'DIFFERS';
  return [mark, String(step), from, to, where, family, expect, verdict, reason, rule ?? '-'];
}

/** `3 probes, 1 differs`. */
export function summary(probes: number, differ: number): string {
  const all = probes === 1 ? '1 probe' : `${probes} probes`;
  return `${all}, ${differ === 0 ? 'all as expected' : differ === 1 ? '1 differs' : `${differ} differ`}`;
}
