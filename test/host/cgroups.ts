/** Folders of cgroup v2 for tests. */
import { existsSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { waitUntil } from '../../bench/lib/netns.js';

/** The root of the cgroup v2 hierarchy; undefined: there is none. */
export const CGROUP = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find((path) =>
  existsSync(join(path, 'cgroup.procs')),
);

export function removeCgroups(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroups(join(path, entry.name));
  // A process that was killed leaves its cgroup a moment later.
  waitUntil(() => {
    try {
      rmdirSync(path);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EBUSY') return false;
      throw error;
    }
  });
}
