import type { Io } from './io.js';
import { print } from './io.js';

export const FORMATS = ['table', 'json', 'yaml'] as const;
export type Format = (typeof FORMATS)[number];

/** Columns padded to their widest cell, two spaces between them, nothing after the last one. */
export function formatTable(columns: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const lines = [columns, ...rows];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => displayWidth(line[index] ?? ''))));
  return lines.map((line) =>
    columns
      .map((_, index) => {
        const cell = line[index] ?? '';
        return cell + ' '.repeat((widths[index] ?? 0) - displayWidth(cell));
      })
      .join('  ')
      .trimEnd(),
  );
}

/** Pairs as `key   value` lines. */
export function formatFields(fields: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...fields.map(([key]) => key.length));
  return fields.map(([key, value]) => `${key.padEnd(width)}  ${value}`.trimEnd());
}

/** Writes a value as JSON (indented) or YAML. */
export async function printValue(io: Io, format: 'json' | 'yaml', value: unknown): Promise<void> {
  if (format === 'json') {
    print(io.stdout, JSON.stringify(value, undefined, 2));
    return;
  }
  const { stringify } = await import('yaml');
  print(io.stdout, stringify(value, { aliasDuplicateObjects: false }).trimEnd());
}

/** `3d 4h`, `4h 12m`, `12m 5s`, `5s`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3_600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  if (first < 0) return '0s';
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value}${unit}`)
    .join(' ');
}

function displayWidth(text: string): number {
  return [...text].length;
}
