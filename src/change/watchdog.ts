/**
 * A process that outlives the agent: a shell that sleeps until the deadline of a change and then runs
 * `sluice settle STATE-FOLDER`, which takes the change back if it still waits and no agent is there to do it.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../loader/paths.js';

export interface Watchdog {
  readonly pid: number;
  /** Start time in clock ticks since boot (proc(5), field 22), so that another process of the number is left alone. */
  readonly started: string;
}

/** Seconds after the deadline, so that an agent that lives comes first. */
const AFTER = 1;

/** Undefined: the process could not be started. */
export function startWatchdog(stateDir: string, seconds: number): Watchdog | undefined {
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      'sleep "$1" && exec "$2" "$3" settle "$4"',
      'sluice-confirm',
      (seconds + AFTER).toFixed(3),
      process.execPath,
      join(packageRoot(), 'bin', 'sluice'),
      stateDir,
    ],
    { detached: true, stdio: 'ignore', cwd: '/' },
  );
  child.on('error', () => undefined);
  child.unref();
  const started = child.pid === undefined ? undefined : startTime(child.pid);
  return child.pid === undefined || started === undefined ? undefined : { pid: child.pid, started };
}

/** Ends the process and what it started, if it is still the one. */
export function endWatchdog({ pid, started }: Watchdog): void {
  if (pid === process.pid || startTime(pid) !== started) return;
  try {
    process.kill(-pid, 'SIGTERM');
  } catch {
    // It has ended just now.
  }
}

function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat
      .slice(stat.lastIndexOf(')') + 2)
      .split(' ')
      .at(19);
  } catch {
    return undefined;
  }
}
