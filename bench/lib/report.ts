import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';

/** What a ratio (ours / peer) must be. */
export interface Target {
  readonly op: '>=' | '>' | '<=' | '<';
  readonly value: number;
}

/** One measured comparison, before it is judged. `peers` are medians by name. */
export interface Measurement {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly peers: Readonly<Record<string, number>>;
  /** Which peer the ratio is against: the one that does best, or the only one. */
  readonly better: 'higher' | 'lower';
  /** The ratio, if it is not that of `ours` and the best of the medians. */
  readonly ratio?: number;
  /** Absent: shown, not judged. */
  readonly target?: Target;
}

/** One row of bench/out/NAME.json. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly peers: Readonly<Record<string, number>>;
  readonly ratio: number;
  readonly target: string;
  readonly ok: boolean;
}

/** Ratio of ours to the best of the peers, and whether it meets the target. */
export function judge(measurement: Measurement): Row {
  const { name, unit, ours, peers, better, target } = measurement;
  const values = Object.values(peers);
  const best = better === 'higher' ? Math.max(...values) : Math.min(...values);
  const ratio = measurement.ratio ?? ours / best;
  return {
    name,
    unit,
    ours,
    peers,
    ratio: Number(ratio.toFixed(4)),
    target: target === undefined ? '' : `${target.op} ${Number(target.value.toFixed(3))}`,
    ok: target === undefined || meets(ratio, target),
  };
}

function meets(ratio: number, { op, value }: Target): boolean {
  if (!Number.isFinite(ratio)) return false;
  if (op === '>=') return ratio >= value;
  if (op === '>') return ratio > value;
  if (op === '<=') return ratio <= value;
  return ratio < value;
}

function figure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(Math.abs(value) >= 100 ? 1 : 2);
}

/** The table that `make bench-NAME` prints: one column for ours and one for each peer, by order of first use. */
export function table(rows: readonly Row[]): string {
  const peers = [...new Set(rows.flatMap((row) => Object.keys(row.peers)))];
  const lines = [['', 'unit', 'ours', ...peers, 'ratio', 'target', '']];
  for (const row of rows) {
    lines.push([
      row.name,
      row.unit,
      figure(row.ours),
      ...peers.map((peer) => figure(row.peers[peer] ?? Number.NaN)),
      row.ratio.toFixed(3),
      row.target,
      row.target === '' ? '' : row.ok ? 'ok' : 'MISSED',
    ]);
  }
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  return lines
    .map((line) =>
      line
        .map((cell, column) =>
          column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** The machine that the figures are from. */
export function machine(): Readonly<Record<string, string | number>> {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cpus: cpus().length,
    memoryMb: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    node: process.versions.node,
    date: new Date().toISOString(),
  };
}

/**
 * Prints the table, writes bench/out/NAME.json and sets the exit status: 1 if a target is missed. Further
 * figures that are not comparisons go into `details` of the file.
 */
export function report(name: string, measurements: readonly Measurement[], details?: unknown): void {
  const rows = measurements.map(judge);
  console.log(`\n${name}\n${table(rows)}`);
  const directory = join('bench', 'out');
  mkdirSync(directory, { recursive: true });
  const file = join(directory, `${name}.json`);
  writeFileSync(
    file,
    `${JSON.stringify({ machine: machine(), rows, ...(details === undefined ? {} : { details }) }, null, 2)}\n`,
  );
  const missed = rows.filter((row) => !row.ok).length;
  console.log(`${file}${missed > 0 ? `: ${missed} of ${rows.length} rows miss their target` : ''}`);
  if (missed > 0) process.exitCode = 1;
}
