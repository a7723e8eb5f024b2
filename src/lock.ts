import { closeSync, constants, ftruncateSync, mkdirSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../policy/errors.js';
import type { AgentConfig } from './config.js';
import { reasonOf } from './http/api.js';

/** Takes an exclusive flock(2) on `fd` without waiting; false if another open file has it. */
export type TryLock = (fd: number) => boolean;

/**
 * One agent at a time for a run folder and for a pin path: flock(2) on `<runDir>/agent.lock` (which
 * holds the owner's pid) and on the pin folder itself. The kernel lets go of them when the process
 * ends, however it ends, so there are no stale locks.
 */
export class InstanceLock {
  readonly #fds: number[] = [];

  private constructor() {}

  /** Creates both folders if needed. Throws SLU2104 if another agent has one, SLU2107, SLU2109. */
  static acquire(config: Pick<AgentConfig, 'runDir' | 'pinPath'>, tryLock: TryLock): InstanceLock {
    makeFolder(config.runDir, 0o755);
    makeFolder(config.pinPath, 0o700);
    const self = new InstanceLock();
    try {
      const file = join(config.runDir, 'agent.lock');
      const fd = self.#take(file, constants.O_RDWR | constants.O_CREAT, tryLock, 'run folder', config.runDir, 'runDir');
      self.#take(config.pinPath, constants.O_RDONLY | constants.O_DIRECTORY, tryLock, 'pin path', config.pinPath, 'pinPath');
      ftruncateSync(fd, 0);
      writeSync(fd, `${process.pid}\n`, 0);
    } catch (error) {
      self.release();
      throw error;
    }
    return self;
  }

  release(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }

  #take(path: string, flags: number, tryLock: TryLock, what: string, shownPath: string, settings: string): number {
    let free: boolean;
    try {
      const fd = openSync(path, flags, 0o600);
      this.#fds.push(fd);
      free = tryLock(fd);
      if (free) return fd;
    } catch (error) {
      throw SluiceError.of('SLU2109', { path, reason: reasonOf(error) });
    }
    const owner = lockOwner(path);
    const pid = owner === undefined ? '' : ` (pid ${owner})`;
    throw SluiceError.of('SLU2104', { pid, what: `the ${what} ${shownPath}`, settings: `${settings}` });
  }
}

/** Pid of the process that holds a flock on `path`, from /proc/locks; undefined if it can't be told. */
export function lockOwner(path: string): number | undefined {
  try {
    const inode = statSync(path, { bigint: true }).ino.toString();
    for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
      // 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
      const match = /^\d+: FLOCK\s+\S+\s+\S+\s+(\d+)\s+[0-9a-f]+:[0-9a-f]+:(\d+) /.exec(line);
      if (match?.[2] === inode && match[1] !== '0') return Number(match[1]);
    }
  } catch {
    // Only the message is poorer without it.
  }
  return undefined;
}

function makeFolder(path: string, mode: number): void {
  try {
    mkdirSync(path, { recursive: true, mode });
  } catch (error) {
    throw SluiceError.of('SLU2107', { path, reason: reasonOf(error) });
  }
}
