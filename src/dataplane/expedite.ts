import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { readJson, removeFile, writeKernelJson } from '../state/files.js';

const SETTING = '/sys/kernel/rcu_expedited';

/**
 * Attaching a TCX link waits for an RCU grace period, 5 to 16 ms, and removing a device for several.
 * While /sys/kernel/rcu_expedited is 1 the same waits take microseconds. So it is set for the moment of
 * such a call and set back; where it cannot be written everything works, only slower. Where it is 1 already it
 * is left alone: that may be the moment of another agent, so it is looked at each time.
 * `<stateDir>/expedite.json` says that it was 0 before, in case the agent is killed in that moment.
 */
export class Expedite {
  readonly #marker: string;
  readonly #setting: string;
  #usable = true;
  #marked = false;
  #depth = 0;
  /** It is 1 because of this agent. */
  #ours = false;
  /** The setting, open: it is written twice for each device. */
  #fd: number | undefined;
  readonly #value = Buffer.alloc(8);

  constructor(stateDir: string, setting = SETTING) {
    this.#marker = markerIn(stateDir);
    this.#setting = setting;
    Expedite.restore(stateDir, setting);
  }

  /** Undoes what a killed agent left. */
  static restore(stateDir: string, setting = SETTING): void {
    const marker = markerIn(stateDir);
    if (readJson(marker) === undefined) return;
    if (read(setting) === '1') write(setting, '0');
    removeFile(marker);
  }

  /** Runs synchronous work with fast grace periods. */
  during<T>(work: () => T): T {
    this.#begin();
    try {
      return work();
    } finally {
      this.#end();
    }
  }

  /** The same for work that goes on while others run. */
  async hold<T>(work: () => Promise<T>): Promise<T> {
    this.#begin();
    try {
      return await work();
    } finally {
      this.#end();
    }
  }

  #begin(): void {
    if (this.#depth++ > 0 || !this.#usable || this.#read() !== '0') return;
    this.#usable = this.#mark() && this.#write('1');
    this.#ours = this.#usable;
  }

  #read(): string | undefined {
    try {
      this.#fd ??= openSync(this.#setting, 'r+');
      return this.#value.toString('latin1', 0, readSync(this.#fd, this.#value, 0, 8, 0)).trim();
    } catch {
      return undefined;
    }
  }

  #write(value: '0' | '1'): boolean {
    try {
      this.#fd ??= openSync(this.#setting, 'r+');
      return writeSync(this.#fd, value, 0) === 1;
    } catch {
      return false;
    }
  }

  /** Nothing is under way any more. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** False: the folder is gone or cannot be written, and nobody could undo it for us. */
  #mark(): boolean {
    if (this.#marked) return true;
    try {
      writeKernelJson(this.#marker, { before: '0' });
      this.#marked = true;
    } catch {
      // The same waits are longer, that is all.
    }
    return this.#marked;
  }

  #end(): void {
    if (--this.#depth > 0 || !this.#ours) return;
    this.#ours = false;
    this.#write('0');
  }
}

function markerIn(stateDir: string): string {
  return join(stateDir, 'expedite.json');
}

function read(setting: string): string | undefined {
  try {
    return readFileSync(setting, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function write(setting: string, value: '0' | '1'): boolean {
  try {
    writeFileSync(setting, value);
    return true;
  } catch {
    return false;
  }
}
