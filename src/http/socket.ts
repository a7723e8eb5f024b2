import { lstatSync, rmSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { SluiceError } from '../../policy/errors.js';
import { reasonOf } from './api.js';

/** True if a process accepts connections at the Unix socket `path`. */
export function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const answer = (alive: boolean): void => {
      socket.destroy();
      resolve(alive);
    };
    socket.once('connect', () => answer(true));
    // A full backlog (EAGAIN) is a live owner too.
    socket.once('error', (error: NodeJS.ErrnoException) => answer(error.code === 'EAGAIN'));
  });
}

/** Throws SLU2104 if a process listens on `path`, SLU2108 if something else than a socket is there. */
export async function checkSocketFree(path: string): Promise<void> {
  const existing = lstatSync(path, { throwIfNoEntry: false });
  if (existing === undefined) return;
  if (!existing.isSocket()) throw SluiceError.of('SLU2108', { path });
  if (await isAlive(path))
    throw SluiceError.of('SLU2104', { pid: '', what: `the socket ${path}`, settings: 'socket' });
}

/**
 * Listens on a Unix socket that only its owner can open: mode 0600 from the moment it exists. The
 * socket of a dead process is replaced; a live one is SLU2104, another kind of file SLU2108.
 */
export async function listenPrivately(server: Server, path: string): Promise<void> {
  await checkSocketFree(path);
  rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void =>
      reject(SluiceError.of('SLU2106', { address: path, reason: reasonOf(error) }));
    server.once('error', failed);
    // bind(2) happens inside listen(), on this thread, so the mask covers exactly it.
    const before = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off('error', failed);
        resolve();
      });
    } finally {
      process.umask(before);
    }
  });
}
