import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAddress, parseCidr } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import { clear, key4, type PrefixKey, prefixKey } from '../../policy/host/prefix.js';
import { PrefixMap } from '../../policy/host/prefix-map.js';

const MAX_BYTES = 64 << 20;
/** Bytes that are compared at once when two versions are held against each other. */
const STEPS = [1 << 16, 1 << 11, 1 << 6, 1] as const;
const NEWLINE = 10;
/** A file of which more than one in so many bytes differ is another one. */
const PART = 4;

/** How a list differs from what it was. */
export interface ListChange {
  readonly added: readonly PrefixKey[];
  readonly removed: readonly PrefixKey[];
}

/**
 * A file with one address or CIDR a line; `#` and `;` begin a comment, empty lines count for nothing, bits beyond the
 * prefix length are cleared. Only what differs from the last version is read again, so that a changed line costs
 * little however long the list is. The last good version is kept below `folder` for the next start.
 */
export class ListFile {
  readonly path: string;
  readonly #copy: string;
  #content: Buffer = Buffer.alloc(0);
  #stamp = '';
  #saved: Buffer | undefined;
  /** How often each prefix is in the file. */
  #counts = new PrefixMap();

  constructor(path: string, folder: string) {
    this.path = path;
    this.#copy = join(folder, createHash('sha256').update(path).digest('hex').slice(0, 32));
  }

  get prefixes(): IterableIterator<PrefixKey> {
    return this.#counts.keys();
  }

  get size(): number {
    return this.#counts.size;
  }

  /** Whether the file is another one than what was read last, by its times, size and inode. */
  get isChanged(): boolean {
    return this.#stampNow() !== this.#stamp;
  }

  /** Reads the file. Throws SluiceError (70xx) and keeps what it had; the same version is then not read again. */
  reload(): ListChange {
    this.#stamp = this.#stampNow();
    return this.#take(this.#read(this.path), this.path);
  }

  /** Reads the copy of the last good version. Undefined if there is none that can be read. */
  restore(): ListChange | undefined {
    if (!existsSync(this.#copy)) return undefined;
    try {
      const change = this.#take(this.#read(this.#copy), this.path);
      this.#saved = this.#content;
      return change;
    } catch (error) {
      if (error instanceof SluiceError) return undefined;
      throw error;
    }
  }

  /** Keeps this version for the next start. */
  save(folder: string): void {
    if (this.#saved === this.#content) return;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileSync(`${this.#copy}.tmp`, this.#content, { mode: 0o600 });
    renameSync(`${this.#copy}.tmp`, this.#copy);
    this.#saved = this.#content;
  }

  #stampNow(): string {
    const stat = statSync(this.path, { bigint: true, throwIfNoEntry: false });
    return stat === undefined
      ? 'absent'
      : `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtimeNs} ${stat.ctimeNs}`;
  }

  #read(path: string): Buffer {
    const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    if (size > MAX_BYTES) throw SluiceError.of('SLU7005', { path, limit: MAX_BYTES, size });
    try {
      return readFileSync(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw SluiceError.of('SLU7010', { path });
      throw SluiceError.of('SLU7001', { path, reason: (error as Error).message });
    }
  }

  /** Another file: the versions are held against each other as a whole. */
  #takeAll(content: Buffer, path: string): ListChange {
    const before = this.#counts;
    const now = new PrefixMap();
    const keys = now.count(parseLines(content, 0, content.length, path));
    [this.#content, this.#counts] = [content, now];
    if (before.size === 0) return { added: keys, removed: [] };
    return {
      added: keys.filter((key) => before.get(key) === 0),
      removed: [...before.keys()].filter((key) => now.get(key) === 0),
    };
  }

  #take(content: Buffer, path: string): ListChange {
    const { start, end, oldEnd } = difference(this.#content, content);
    if (this.#counts.size === 0 || (oldEnd - start) * PART > this.#content.length)
      return this.#takeAll(content, path);
    const counts = this.#counts;
    const gone = parseLines(this.#content, start, oldEnd, path);
    const come = parseLines(content, start, end, path);
    counts.reserve(come.length);
    /** One more than there were, of prefixes that come or go. */
    const before = new PrefixMap();
    const count = (keys: readonly PrefixKey[], by: 1 | -1): void => {
      for (const key of keys) {
        const number = counts.get(key);
        if (before.get(key) === 0) before.set(key, number + 1);
        counts.set(key, number + by);
      }
    };
    count(come, 1);
    count(gone, -1);
    this.#content = content;
    const added: PrefixKey[] = [];
    const removed: PrefixKey[] = [];
    for (const key of before.keys()) {
      const had = before.get(key) > 1;
      const has = counts.get(key) > 0;
      if (!had && has) added.push(key);
      else if (had && !has) removed.push(key);
    }
    return { added, removed };
  }
}

/** The lines of `b` that `a` does not have at its start or its end; offsets of whole lines. */
export function difference(a: Buffer, b: Buffer): { start: number; end: number; oldEnd: number } {
  const shorter = Math.min(a.length, b.length);
  let start = 0;
  for (const step of STEPS)
    while (start + step <= shorter && a.compare(b, start, start + step, start, start + step) === 0)
      start += step;
  if (start === a.length && start === b.length) return { start, end: start, oldEnd: start };
  start = start === 0 ? 0 : b.lastIndexOf(NEWLINE, start - 1) + 1;
  let tail = 0;
  const most = shorter - start;
  for (const step of STEPS) {
    for (; tail + step <= most; tail += step) {
      const [endA, endB] = [a.length - tail, b.length - tail];
      if (a.compare(b, endB - step, endB, endA - step, endA) !== 0) break;
    }
  }
  // The end of a line that both have.
  const next = b.indexOf(NEWLINE, b.length - tail);
  const end = tail === 0 || next < 0 ? b.length : next + 1;
  return { start, end, oldEnd: a.length - (b.length - end) };
}

function parseLines(content: Buffer, start: number, end: number, path: string): PrefixKey[] {
  const out: PrefixKey[] = [];
  const line = new PlainV4(content);
  for (let at = start; at < end; ) {
    const plain = line.parse(at, end);
    if (plain >= 0) {
      out.push(plain);
      at = line.end + 1;
      continue;
    }
    const newline = content.indexOf(NEWLINE, at);
    const stop = newline < 0 || newline > end ? end : newline;
    const key = parseLine(content.toString('latin1', at, stop), path, content, at);
    if (key !== undefined) out.push(key);
    at = stop + 1;
  }
  return out;
}

const ZERO = 48;
const DOT = 46;
const SLASH = 47;

/** Lines that are `a.b.c.d` or `a.b.c.d/n` and nothing else: nearly all of a long list. */
class PlainV4 {
  readonly #content: Buffer;
  /** Where the last line that was one ends. */
  end = 0;

  constructor(content: Buffer) {
    this.#content = content;
  }

  /** Key of the line that begins at `at`; -1: it is none. `end`: that of the text. */
  parse(at: number, end: number): number {
    this.end = at - 1;
    let address = 0;
    for (let part = 0; part < 4; part++) {
      const value = this.#digits(this.end + 1, end, 3);
      if (value < 0 || value > 255 || (part < 3 && this.#byte(end) !== DOT)) return -1;
      address = address * 256 + value;
    }
    let length = 32;
    if (this.#byte(end) === SLASH) {
      length = this.#digits(this.end + 1, end, 2);
      if (length < 0 || length > 32) return -1;
    }
    return this.#byte(end) === NEWLINE ? key4(clear(address, length), length) : -1;
  }

  /** The byte after what was parsed; the end of the text is the end of a line. */
  #byte(end: number): number {
    return this.end < end ? (this.#content[this.end] ?? 0) : NEWLINE;
  }

  /** A decimal number without zeros before it; -1: there is none. */
  #digits(start: number, end: number, most: number): number {
    const content = this.#content;
    let value = 0;
    let at = start;
    for (; at < end && at - start <= most; at++) {
      const digit = (content[at] ?? 0) - ZERO;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    this.end = at;
    const digits = at - start;
    return digits === 0 || digits > most || (digits > 1 && content[start] === ZERO) ? -1 : value;
  }
}

function parseLine(text: string, path: string, content: Buffer, at: number): PrefixKey | undefined {
  const word = text.replace(/[#;][\s\S]*$/, '').trim();
  if (word === '') return undefined;
  try {
    if (word.includes('/')) return prefixKey(parseCidr(word, 'clear'));
    const address = parseAddress(word);
    return prefixKey({ address, prefixLength: 128, family: word.includes(':') ? 6 : 4 });
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    let line = 1;
    for (let i = content.indexOf(NEWLINE); i >= 0 && i < at; i = content.indexOf(NEWLINE, i + 1)) line++;
    const reason = error.message.replace(/^"[^"]*" is not [^:]*: /, '');
    throw SluiceError.of('SLU7002', { path, line, text: word, reason });
  }
}
