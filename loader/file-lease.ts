import { closeSync, openSync } from 'node:fs';
import { endLease, hasReadLease, takeReadLease } from './ffi/libc.js';

/**
 * A read lease on a file (fcntl(2), F_SETLEASE): while it is held, who opens the file for writing waits, for
 * /proc/sys/fs/lease-break-time at most (45 s). It ends with the process.
 */
export class FileLease {
  #fd: number | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Throws SystemError, or the file system's error: the file is not there, is open for writing, or can't have leases. */
  static take(path: string): FileLease {
    const fd = openSync(path, 'r');
    try {
      takeReadLease(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return new FileLease(fd);
  }

  /** Whether somebody waits for it to end, or has waited for so long that the kernel ended it. */
  get wanted(): boolean {
    return this.#fd !== undefined && !hasReadLease(this.#fd);
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
