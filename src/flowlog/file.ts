import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { addCounts, type FlowRecord, recordKey } from './record.js';

/** Bytes of a file before the next one is begun; two are kept. */
const MAX_BYTES = 16 * 1024 * 1024;

/**
 * The flow log on disk: `<stateDir>/flows/log.jsonl` and `log.1.jsonl`, one record a line with what was counted since
 * the line before it. A line that was cut is skipped.
 */
export class FlowFile {
  readonly #folder: string;
  #size: number;

  constructor(stateDir: string) {
    this.#folder = join(stateDir, 'flows');
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    this.#size = existsSync(this.#path(0)) ? statSync(this.#path(0)).size : 0;
  }

  /** What the files have, the lines of one flow added up, oldest first. */
  read(): Map<string, FlowRecord> {
    const records = new Map<string, FlowRecord>();
    for (const index of [1, 0]) {
      if (!existsSync(this.#path(index))) continue;
      for (const line of readFileSync(this.#path(index), 'utf8').split('\n')) {
        const record = parse(line);
        if (record === undefined) continue;
        const key = recordKey(record);
        const known = records.get(key);
        if (known === undefined) records.set(key, record);
        else {
          addCounts(known, record);
          known.last = Math.max(known.last, record.last);
          records.delete(key);
          records.set(key, known);
        }
      }
    }
    return records;
  }

  append(records: readonly FlowRecord[]): void {
    if (records.length === 0) return;
    const text = `${records.map((record) => JSON.stringify(record)).join('\n')}\n`;
    const bytes = Buffer.byteLength(text);
    if (this.#size > 0 && this.#size + bytes > MAX_BYTES) {
      rmSync(this.#path(1), { force: true });
      renameSync(this.#path(0), this.#path(1));
      this.#size = 0;
    }
    appendFileSync(this.#path(0), text, { mode: 0o600 });
    this.#size += bytes;
  }

  #path(index: number): string {
    return join(this.#folder, index === 0 ? 'log.jsonl' : `log.${index}.jsonl`);
  }
}

function parse(line: string): FlowRecord | undefined {
  if (line === '') return undefined;
  try {
    const value = JSON.parse(line) as FlowRecord;
    return typeof value.last === 'number' && typeof value.destination === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}
