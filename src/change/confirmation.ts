import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AgentConfig } from '../config.js';
import { readJson, removeFile, syncFolder, writeJson } from '../state/files.js';
import type { PendingChange } from './types.js';
import { endWatchdog, startWatchdog, type Watchdog } from './watchdog.js';

/** Seconds that a change may wait. */
export const MIN_CONFIRM = 1;
export const MAX_CONFIRM = 24 * 3600;

interface Saved {
  /** Revision that the change becomes. */
  readonly revision: number;
  /** Revision to go back to. */
  readonly to: number;
  /** Milliseconds since 1970. */
  readonly until: number;
  /** The same on the clock of this boot, which nobody can set. */
  readonly boot: string;
  readonly untilBoot: number;
  readonly config: AgentConfig;
  readonly watchdog?: Watchdog;
}

/**
 * A change that waits for `sluice confirm` (`<stateDir>/confirm.json`). The deadline is on disk before the change is
 * in force, so that whoever comes next honours it: the agent that made the change, the one that is started after it,
 * or the watchdog (see watchdog.ts).
 */
export class Confirmation {
  readonly #path: string;
  readonly #stateDir: string;
  #saved: Saved | undefined;

  private constructor(stateDir: string, saved: Saved | undefined) {
    this.#stateDir = stateDir;
    this.#path = pathIn(stateDir);
    this.#saved = saved;
  }

  static open(stateDir: string): Confirmation {
    return new Confirmation(stateDir, readJson<Saved>(pathIn(stateDir)));
  }

  /** Settings of the agent that made the change. */
  get config(): AgentConfig | undefined {
    return this.#saved?.config;
  }

  /** Revision to go back to; undefined: nothing waits. */
  get to(): number | undefined {
    return this.#saved?.to;
  }

  pending(): PendingChange | undefined {
    const saved = this.#saved;
    if (saved === undefined) return undefined;
    const { revision, to } = saved;
    const left = this.millisecondsLeft();
    return {
      revision,
      to,
      until: new Date(Date.now() + left).toISOString(),
      secondsLeft: Math.max(0, Math.ceil(left / 1000)),
    };
  }

  /** Until the change is taken back; negative: it is overdue. Infinity: nothing waits. */
  millisecondsLeft(): number {
    if (this.#saved === undefined) return Infinity;
    const { until, boot, untilBoot } = this.#saved;
    return boot === bootId() ? untilBoot - sinceBoot() : until - Date.now();
  }

  /** To be called before the change is made. */
  begin(to: number, seconds: number, config: AgentConfig): void {
    const saved: Saved = {
      revision: to + 1,
      to,
      until: Date.now() + seconds * 1000,
      boot: bootId(),
      untilBoot: sinceBoot() + seconds * 1000,
      config,
    };
    writeJson(this.#path, saved);
    this.#saved = saved;
  }

  /** Starts the process that takes the change back if no agent does. */
  watch(): void {
    if (this.#saved === undefined) return;
    const watchdog = startWatchdog(this.#stateDir, Math.max(0, this.millisecondsLeft()) / 1000);
    if (watchdog === undefined) return;
    this.#saved = { ...this.#saved, watchdog };
    writeJson(this.#path, this.#saved);
  }

  /** The change is confirmed, taken back or was never made. */
  end(): void {
    if (this.#saved === undefined) return;
    const { watchdog } = this.#saved;
    this.#saved = undefined;
    removeFile(this.#path);
    syncFolder(this.#stateDir);
    if (watchdog !== undefined) endWatchdog(watchdog);
  }
}

function pathIn(stateDir: string): string {
  return join(stateDir, 'confirm.json');
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** Milliseconds since the machine was started, sleep included. */
function sinceBoot(): number {
  return Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000;
}
