import { readFileSync } from 'node:fs';

/** Busy and total time of each CPU since the start, in ticks (proc(5), /proc/stat). */
export function cpuTimes(
  stat: string = readFileSync('/proc/stat', 'utf8'),
): { busy: number; total: number }[] {
  return stat
    .split('\n')
    .filter((line) => /^cpu\d/.test(line))
    .map((line) => {
      const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number);
      const total = ticks.reduce((sum, value) => sum + value, 0);
      return { busy: total - (ticks[3] ?? 0) - (ticks[4] ?? 0), total };
    });
}

/** How busy the CPUs other than `cpu` were between two looks, 0 to 1: they share caches and cores with it. */
export function othersBusy(
  before: ReturnType<typeof cpuTimes>,
  after: ReturnType<typeof cpuTimes>,
  cpu: number,
): number {
  let busy = 0;
  let total = 0;
  for (const [i, now] of after.entries()) {
    if (i === cpu) continue;
    busy += now.busy - (before[i]?.busy ?? 0);
    total += now.total - (before[i]?.total ?? 0);
  }
  return total === 0 ? 0 : busy / total;
}

const QUIET = 0.25;

/**
 * Measures when the machine is not busy with something else: what was disturbed is measured again, up to `attempts`
 * times, and the least disturbed result counts. Returns it with the share of the other CPUs that was taken.
 */
export function undisturbed<T>(
  cpu: number,
  attempts: number,
  measure: () => T,
): { readonly result: T; readonly disturbance: number } {
  let best: { result: T; disturbance: number } | undefined;
  for (let i = 0; i < attempts; i++) {
    const before = cpuTimes();
    const result = measure();
    const disturbance = othersBusy(before, cpuTimes(), cpu);
    if (best === undefined || disturbance < best.disturbance) best = { result, disturbance };
    if (disturbance <= QUIET) break;
  }
  if (best === undefined) throw new RangeError('no attempt');
  return best;
}

/** Whether a result counts as disturbed. */
export function isDisturbed(disturbance: number): boolean {
  return disturbance > QUIET;
}
