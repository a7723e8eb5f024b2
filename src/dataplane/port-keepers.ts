import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Podman's monitor of a container: it listens on the container's host ports, and never answers, so that nobody takes them. */
const KEEPERS: ReadonlySet<string> = new Set(['conmon']);

/** Inodes of sockets that only keep a port for a container. */
export function keepersSockets(): ReadonlySet<number> {
  const inodes = new Set<number>();
  for (const pid of list('/proc')) {
    if (!/^\d+$/.test(pid) || !KEEPERS.has(nameOf(pid))) continue;
    for (const fd of list(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(target(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode !== undefined) inodes.add(Number(inode));
    }
  }
  return inodes;
}

// Processes come and go meanwhile.
function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function nameOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return '';
  }
}

function target(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
