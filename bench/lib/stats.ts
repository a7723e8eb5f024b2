/** Middle value of a sample, the mean of the two middle ones for an even count. Throws on an empty sample. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[sorted.length >> 1];
  if (upper === undefined) throw new RangeError('median of nothing');
  if (sorted.length % 2 === 1) return upper;
  return ((sorted[(sorted.length >> 1) - 1] ?? upper) + upper) / 2;
}

/**
 * Median of the ratios of two subjects in the same round: where the speed of the machine changes between rounds, steadier
 * than the ratio of their medians, which may be of different rounds.
 */
export function medianRatio(ours: readonly number[], theirs: readonly number[]): number {
  return median(ours.map((value, round) => value / (theirs[round] ?? Number.NaN)));
}

/**
 * Interquartile range of a sample as a fraction of its median: what two medians may differ by without meaning
 * anything. 0 for fewer than four values.
 */
export function noise(values: readonly number[]): number {
  const middle = values.length < 4 ? 0 : median(values);
  if (middle === 0) return 0;
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return (median(sorted.slice(-half)) - median(sorted.slice(0, half))) / middle;
}

/**
 * Runs each of `subjects` once in each of `rounds` rounds, one after the other, so that what slows the machine
 * down meets all of them alike; every other round goes backwards. Returns the results by subject.
 */
export async function interleave<Subject, Result>(
  rounds: number,
  subjects: readonly Subject[],
  run: (subject: Subject, round: number) => Result | Promise<Result>,
): Promise<Map<Subject, Result[]>> {
  const results = new Map<Subject, Result[]>(subjects.map((subject) => [subject, []]));
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? subjects : [...subjects].reverse();
    for (const subject of order) results.get(subject)?.push(await run(subject, round));
  }
  return results;
}
