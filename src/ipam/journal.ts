import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';

/**
 * An append-only file of JSON records, one a line behind its CRC-32, that survives being cut at any
 * byte: a line that is not whole is skipped when reading. `append` writes all its records with one
 * write(2), so a process that is killed has written them or (in a torn write) loses the broken line
 * only. The file is rewritten (temporary file, fsync, rename) by `compact`.
 */
export class Journal<R> {
  readonly path: string;
  #fd: number;
  #size: number;
  #lines: number;

  private constructor(path: string, fd: number, size: number, lines: number) {
    this.path = path;
    this.#fd = fd;
    this.#size = size;
    this.#lines = lines;
  }

  /** Opens or creates the file. `damaged` counts lines that could not be read. */
  static open<R>(path: string): {
    readonly journal: Journal<R>;
    readonly records: readonly R[];
    readonly damaged: number;
  } {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const text = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
    const { records, damaged } = readLines<R>(text);
    const fd = openSync(path, 'a', 0o600);
    const journal = new Journal<R>(path, fd, fstatSync(fd).size, records.length + damaged);
    if (text.length > 0 && text[text.length - 1] !== 0x0a) journal.#write(Buffer.from('\n'));
    return { journal, records, damaged };
  }

  /** Records in the file, replaced and removed ones included: a measure of when to compact. */
  get lines(): number {
    return this.#lines;
  }

  append(records: readonly R[]): void {
    if (records.length === 0) return;
    this.#write(Buffer.from(records.map(encodeLine).join('')));
    this.#lines += records.length;
  }

  /** Replaces the content by these records. */
  compact(records: readonly R[]): void {
    const temporary = `${this.path}.tmp`;
    const fd = openSync(temporary, 'w', 0o600);
    let size: number;
    try {
      size = writeAll(fd, Buffer.from(records.map(encodeLine).join('')));
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, this.path);
    closeSync(this.#fd);
    this.#fd = openSync(this.path, 'a', 0o600);
    this.#size = size;
    this.#lines = records.length;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #write(bytes: Buffer): void {
    try {
      writeAll(this.#fd, bytes);
      this.#size += bytes.length;
    } catch (error) {
      ftruncateSync(this.#fd, this.#size); // disk full: nothing half written stays
      throw error;
    }
  }
}

function writeAll(fd: number, bytes: Buffer): number {
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done);
  return done;
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0');
}

function encodeLine(record: unknown): string {
  const text = JSON.stringify(record);
  return `${checksum(text)} ${text}\n`;
}

function readLines<R>(content: Buffer): { records: R[]; damaged: number } {
  const records: R[] = [];
  let damaged = 0;
  for (const line of content.toString('utf8').split('\n')) {
    if (line === '') continue;
    const text = line.slice(9);
    if (line[8] !== ' ' || checksum(text) !== line.slice(0, 8)) {
      damaged++;
      continue;
    }
    records.push(JSON.parse(text) as R);
  }
  return { records, damaged };
}
