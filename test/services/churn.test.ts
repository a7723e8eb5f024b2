import { existsSync } from 'node:fs';
import { expect, it, onTestFinished } from 'vitest';
import { broken, churn, late } from '../../bench/lib/churn.js';
import { Scratch } from '../../bench/lib/netns.js';

/** `make bench-churn` does this for two minutes. */
it.runIf(existsSync('/sys/fs/cgroup/unified/cgroup.procs'))(
  'no connection to a live backend breaks, and none is opened to one whose removal is in force',
  async () => {
    const scratch = new Scratch('slchn');
    onTestFinished(() => {
      expect(scratch.close()).toEqual([]);
    });
    const result = await churn(scratch, { seconds: 6, rate: 200, changes: 10 });
    expect(result.connections.length).toBeGreaterThan(1100);
    expect(new Set(result.connections.map(({ backend }) => backend)).size).toBeGreaterThan(50);
    expect(result.changes.length).toBeGreaterThan(5);
    expect(broken(result)).toEqual([]);
    expect(late(result, 'inForce')).toEqual([]);
  },
);
