import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readJson, removeFile, writeJson } from '../state/files.js';

const SETTING = '/sys/kernel/rcu_expedited';

/**
 * Attaching a TCX link waits for an RCU grace period, 5 to 16 ms, and removing a device for several.
 * While /sys/kernel/rcu_expedited is 1 the same waits take microseconds. So it is set for the moment of
 * such a call and set back; where it cannot be written everything works, only slower.
 * `<stateDir>/expedite.json` says that it was 0 before, in case the agent is killed in that moment.
 */
export class Expedite {
  readonly #marker: string;
  #usable: boolean;
  #depth = 0;

  constructor(stateDir: string) {
    this.#marker = join(stateDir, 'expedite.json');
    Expedite.restore(stateDir);
    this.#usable = read() === '0' && write('0');
    if (this.#usable) writeJson(this.#marker, { before: '0' });
  }

  /** Undoes what a killed agent left. */
  static restore(stateDir: string): void {
    const marker = join(stateDir, 'expedite.json');
    if (readJson(marker) === undefined) return;
    if (read() === '1') write('0');
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
    if (this.#usable && this.#depth++ === 0) this.#usable = write('1');
  }

  #end(): void {
    if (this.#depth > 0 && --this.#depth === 0) write('0');
  }
}

function read(): string | undefined {
  try {
    return readFileSync(SETTING, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function write(value: '0' | '1'): boolean {
  try {
    writeFileSync(SETTING, value);
    return true;
  } catch {
    return false;
  }
}
