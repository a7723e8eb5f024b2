import { InvalidArgumentError } from 'commander';

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds of `90s`, `5m`, `2h`, `1d` or `45` (seconds). Throws commander's error for a wrong argument. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,9})([smhd]?)$/.exec(text);
  const seconds = Number(match?.[1] ?? 0) * (UNITS[match?.[2] === '' ? 's' : (match?.[2] ?? 's')] ?? 1);
  if (match === null || seconds === 0)
    throw new InvalidArgumentError('It must be a time such as 60s, 5m or 2h.');
  return seconds;
}
