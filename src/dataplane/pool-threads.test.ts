import { readdirSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { PoolThreads } from './pool-threads.js';

/** The processors that each thread of this process may run on. */
function allowed(): Map<string, Set<number>> {
  return new Map(
    readdirSync('/proc/self/task').map((id) => {
      const status = readFileSync(`/proc/self/task/${id}/status`, 'utf8');
      const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '';
      const numbers = list.split(',').flatMap((range) => {
        const [from = 0, to = from] = range.split('-').map(Number);
        return Array.from({ length: to - from + 1 }, (_, i) => from + i);
      });
      return [id, new Set(numbers)];
    }),
  );
}

it('keeps the threads of the pool off one processor, and no others, until the turn is over', async () => {
  const before = allowed();
  const own = before.get(String(process.pid)) ?? new Set();
  const threads = new PoolThreads();
  threads.stepAside();
  await threads.find();
  const ready = allowed();
  for (const [id, set] of before) expect(ready.get(id)).toEqual(set); // nothing is known before, nor changed by looking

  threads.stepAside();
  threads.stepAside();
  const aside = [...allowed()].filter(([, set]) => set.size < own.size);
  if (own.size > 1) {
    expect(aside.length).toBeGreaterThan(0);
    expect(aside.length).toBeLessThanOrEqual(4);
    const missing = aside.map(([, set]) => [...own].filter((number) => !set.has(number)));
    expect(new Set(missing.map(String)).size).toBe(1);
    expect(missing[0]?.length).toBe(1);
    expect(aside.map(([id]) => id)).not.toContain(String(process.pid));
  }
  await new Promise((resolve) => setImmediate(resolve));
  expect(allowed()).toEqual(ready);
});
