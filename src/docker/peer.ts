import { statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { getsockopt, SOL_SOCKET } from '../../loader/ffi/libc.js';

/** unix(7): pid, uid and gid of who connected. */
const SO_PEERCRED = 17;
const UCRED_SIZE = 12;

/**
 * The program at the other end of a connection to a Unix socket, as text that differs for another one and after an upgrade.
 * Undefined: it is not to be known (a process of another PID namespace, or one that has ended).
 */
export function programOf(socket: Socket): string | undefined {
  const { fd } = (socket as { _handle?: { fd?: number } })._handle ?? {};
  if (fd === undefined || fd < 0) return undefined;
  try {
    const pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, UCRED_SIZE).readInt32LE(0);
    if (pid <= 0) return undefined;
    const { dev, ino, size, mtimeMs } = statSync(`/proc/${pid}/exe`);
    return [dev, ino, size, mtimeMs].join(' ');
  } catch {
    return undefined;
  }
}
