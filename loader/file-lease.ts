import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { endLease, hasLease, type LeaseKind, takeLease } from './ffi/libc.js';

/**
 * A lease on a file (fcntl(2), F_SETLEASE): while it is held, who opens the file for writing (a write lease: who opens it
 * at all) waits, for /proc/sys/fs/lease-break-time at most (45 s). It ends with the process.
 */
export class FileLease {
  readonly #kind: LeaseKind;
  #fd: number | undefined;

  private constructor(fd: number, kind: LeaseKind) {
    this.#fd = fd;
    this.#kind = kind;
  }

  /**
   * Throws SystemError, or the file system's error: the file is not there, can't have leases, or is open: for writing, or
   * at all for a write lease.
   */
  static take(path: string, kind: LeaseKind): FileLease {
    const fd = openSync(path, kind === 'read' ? 'r' : 'r+');
    try {
      takeLease(fd, kind);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return new FileLease(fd, kind);
  }

  /** Whether somebody waits for it to end, or has waited for so long that the kernel ended it. */
  get wanted(): boolean {
    return this.#fd !== undefined && !hasLease(this.#fd, this.#kind);
  }

  /** Changes the text of the file, once, before anybody else sees it. Of a write lease that is held. */
  edit(change: (text: string) => string): void {
    const fd = this.#fd;
    if (fd === undefined) return;
    const before = readFileSync(fd, 'utf8');
    const after = change(before);
    if (after === before) return;
    ftruncateSync(fd);
    writeSync(fd, after, 0);
  }

  /** Who waits goes on. Any number of times. */
  end(): void {
    const fd = this.#fd;
    if (fd === undefined) return;
    this.#fd = undefined;
    try {
      endLease(fd);
    } finally {
      closeSync(fd);
    }
  }
}
