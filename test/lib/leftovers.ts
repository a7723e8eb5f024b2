/** Finding and removing what a container runtime of a test leaves when it is killed. */
import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { killAndWait, unmount, waitUntil } from '../../bench/lib/netns.js';

/**
 * Kills every process that has the folder in its command line, or is in a cgroup named like it, unmounts everything
 * below the folder and removes those cgroups.
 */
export function removeLeftovers(folder: string): void {
  const groups = cgroups(basename(folder));
  for (const pid of groups.flatMap(processesIn)) killAndWait(pid);
  for (const pid of processesWith(folder)) killAndWait(pid);
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n').reverse()) {
    const mount = line.split(' ')[1] ?? '';
    if (mount.startsWith(`${folder}/`)) unmount(mount);
  }
  for (const group of groups) removeCgroup(group);
}

/** The cgroup of this name in each hierarchy, whether it exists or not. */
function cgroups(name: string): string[] {
  return ['/sys/fs/cgroup', ...children('/sys/fs/cgroup')].map((root) => join(root, name));
}

function processesWith(text: string): number[] {
  return children('/proc')
    .map((path) => Number(basename(path)))
    .filter((pid) => {
      try {
        return pid > 0 && pid !== process.pid && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text);
      } catch {
        return false;
      }
    });
}

function children(path: string): string[] {
  try {
    return readdirSync(path).map((name) => join(path, name));
  } catch {
    return [];
  }
}

/** Processes in a cgroup and those below it. */
function processesIn(path: string): number[] {
  if (!existsSync(join(path, 'cgroup.procs'))) return [];
  const own = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n').map(Number);
  return [...own.filter((pid) => pid > 0), ...children(path).flatMap(processesIn)];
}

function removeCgroup(path: string): void {
  if (!existsSync(path)) return;
  for (const child of readdirSync(path, { withFileTypes: true }))
    if (child.isDirectory()) removeCgroup(join(path, child.name));
  waitUntil(() => {
    try {
      rmdirSync(path);
      return true;
    } catch {
      return !existsSync(path);
    }
  });
}
