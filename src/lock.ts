import {
  closeSync,
  constants,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../policy/errors.js';
import type { AgentConfig } from './config.js';
import { reasonOf } from './http/api.js';

/** Takes an exclusive flock(2) on `fd` without waiting; false if another open file has it. */
export type TryLock = (fd: number) => boolean;

/** In the lock file after the pid: the run folder was made by an agent, so `down` removes it. */
const FOLDER_MADE = 'folder made by sluice';

/**
 * One agent at a time for a run folder and for a pin path: flock(2) on `<runDir>/agent.lock` (which
 * holds the owner's pid) and on the pin folder itself. The kernel lets go of them when the process
 * ends, however it ends, so there are no stale locks.
 */
export class InstanceLock {
  readonly #runDir: string;
  readonly #fds: number[] = [];

  private constructor(runDir: string) {
    this.#runDir = runDir;
  }

  /**
   * Creates the run folder and, unless told otherwise, the pin folder if needed. Throws SLU2104 if
   * another agent has one of them, SLU2107, SLU2109.
   */
  static acquire(
    config: Pick<AgentConfig, 'runDir' | 'pinPath'>,
    tryLock: TryLock,
    options: { readonly makePinPath: boolean } = { makePinPath: true },
  ): InstanceLock {
    const { runDir, pinPath } = config;
    const made = makeFolder(runDir, 0o755);
    const self = new InstanceLock(runDir);
    try {
      const fd = self.#take(
        lockFile(runDir),
        constants.O_RDWR | constants.O_CREAT,
        tryLock,
        `the run folder ${runDir}`,
        'runDir',
      );
      const wasMade = made || readFileSync(fd, 'utf8').includes(FOLDER_MADE);
      ftruncateSync(fd, 0);
      writeSync(fd, `${process.pid}\n${wasMade ? `${FOLDER_MADE}\n` : ''}`, 0);
      if (options.makePinPath) makeFolder(pinPath, 0o700);
      else if (!existsSync(pinPath)) return self;
      self.#take(
        pinPath,
        constants.O_RDONLY | constants.O_DIRECTORY,
        tryLock,
        `the pin path ${pinPath}`,
        'pinPath',
      );
    } catch (error) {
      self.release();
      throw error;
    }
    return self;
  }

  release(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }

  /** Removes the lock file and, if an agent made it and nothing else is in it, the run folder. */
  remove(): void {
    const file = lockFile(this.#runDir);
    const made = readFileSync(file, 'utf8').includes(FOLDER_MADE);
    rmSync(file, { force: true });
    this.release();
    if (!made) return;
    try {
      rmdirSync(this.#runDir);
    } catch (error) {
      if (!['ENOTEMPTY', 'ENOENT', 'EBUSY', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? ''))
        throw error;
    }
  }

  #take(path: string, flags: number, tryLock: TryLock, what: string, settings: string): number {
    let fd: number;
    let free: boolean;
    try {
      fd = openSync(path, flags, 0o600);
      this.#fds.push(fd);
      free = tryLock(fd);
    } catch (error) {
      throw SluiceError.of('SLU2109', { path, reason: reasonOf(error) });
    }
    if (free) return fd;
    const owner = lockOwner(path);
    throw SluiceError.of('SLU2104', { pid: owner === undefined ? '' : ` (pid ${owner})`, what, settings });
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

function lockFile(runDir: string): string {
  return join(runDir, 'agent.lock');
}

/** True if it was not there before. */
function makeFolder(path: string, mode: number): boolean {
  try {
    return mkdirSync(path, { recursive: true, mode }) !== undefined;
  } catch (error) {
    throw SluiceError.of('SLU2107', { path, reason: reasonOf(error) });
  }
}
