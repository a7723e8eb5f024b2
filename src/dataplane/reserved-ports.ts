import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NetlinkError } from '../../loader/netlink/errors.js';
import { readSysctl, writeSysctl } from '../../loader/sysctl.js';
import { SluiceError } from '../../policy/errors.js';
import { readJson, removeFile } from '../state/files.js';

/** Ports that the kernel gives to no connection that leaves the choice to it. Others may have some there too. */
const RESERVED = 'net/ipv4/ip_local_reserved_ports';
const RANGE = 'net/ipv4/ip_local_port_range';
export const RESERVED_FILE = 'reserved-ports.json';
/** Bytes of the setting that can be read and written. */
const MAX_TEXT = 4000;
const READ_ONLY: ReadonlySet<string> = new Set(['EROFS', 'EACCES', 'ENOENT']);

/**
 * Published ports in the range from which the host's own connections get theirs. An answer to a connection of the host
 * from a published port would look like a question to the container, so the kernel is told to leave these ports out.
 */
export class ReservedPorts {
  readonly #path: string;
  readonly #min: number;
  readonly #max: number;
  #ours: ReadonlySet<number>;
  #problem: SluiceError | undefined;

  constructor(stateDir: string) {
    this.#path = join(stateDir, RESERVED_FILE);
    const [min = 0, max = 0] = readSysctl(RANGE).split(' ').map(Number);
    this.#min = min;
    this.#max = max;
    this.#ours = new Set(readJson<number[]>(this.#path));
  }

  /** Whether a port has to be kept. */
  matters(port: number): boolean {
    return port >= this.#min && port <= this.#max;
  }

  /** For which there is no room. */
  get problems(): readonly SluiceError[] {
    return this.#problem === undefined ? [] : [this.#problem];
  }

  /**
   * Keeps these ports, the lowest first while there is room, and no others that it kept before. Where the setting can't be
   * written, nothing is kept.
   */
  keep(ports: ReadonlySet<number>): void {
    if (ports.size === this.#ours.size && [...ports].every((port) => this.#ours.has(port))) {
      this.#problem = undefined;
      return;
    }
    const text = readSysctl(RESERVED);
    if (text.length > MAX_TEXT) {
      this.#noRoom(ports.size, ports.size);
      return;
    }
    const others = new Set(portsIn(text).filter((port) => !this.#ours.has(port)));
    const missing = [...ports].filter((port) => !others.has(port)).sort((a, b) => a - b);
    const own = new Set(missing.slice(0, fitting(others, missing)));
    const wanted = textOf([...others, ...own]);
    this.#noRoom(missing.length - own.size, ports.size);
    try {
      // Before the change, so that who comes after one that was killed knows whose they are.
      this.#save(new Set([...this.#ours, ...own]));
      writeSysctl(RESERVED, `${wanted}\n`);
      this.#save(own);
    } catch (error) {
      if (!(error instanceof NetlinkError) || !READ_ONLY.has(error.code)) throw error;
    }
  }

  /** Takes all of them back. */
  release(): void {
    this.keep(new Set());
    removeFile(this.#path);
  }

  #noRoom(count: number, all: number): void {
    const [min, max] = [this.#min, this.#max];
    this.#problem = count === 0 ? undefined : SluiceError.of('SLU4308', { count, all, min, max });
  }

  /** The setting does not survive a reboot, so nothing waits for the disk. */
  #save(ports: ReadonlySet<number>): void {
    writeFileSync(`${this.#path}.tmp`, JSON.stringify([...ports]), { mode: 0o600 });
    renameSync(`${this.#path}.tmp`, this.#path);
    this.#ours = ports;
  }
}

/** `8080,50000-50002`. */
function portsIn(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [first = Number.NaN, last = first] = part.split('-').map(Number);
    return part === '' ? [] : Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** How many of `more`, which are sorted, the setting has room for beside the others. */
function fitting(others: ReadonlySet<number>, more: readonly number[]): number {
  const fits = (count: number): boolean => textOf([...others, ...more.slice(0, count)]).length <= MAX_TEXT;
  if (fits(more.length)) return more.length;
  let [low, high] = [0, more.length];
  // Halves the distance each time.
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low;
}

function textOf(ports: readonly number[]): string {
  const parts: { first: number; last: number }[] = [];
  for (const port of [...ports].sort((a, b) => a - b)) {
    const before = parts.at(-1);
    if (before !== undefined && port <= before.last + 1) before.last = port;
    else parts.push({ first: port, last: port });
  }
  return parts.map(({ first, last }) => (first === last ? `${first}` : `${first}-${last}`)).join(',');
}
