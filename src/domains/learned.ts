import type { Journal } from '../ipam/journal.js';

/** Addresses that are kept of one name; of more the ones that expire first go. */
export const MAX_OF_NAME = 64;
/** Seconds that an address is good for beyond the time to live of the answer, and the longest time to live. */
export const GRACE_SECONDS = 300;
const MAX_TTL = 86_400;
/** Milliseconds by which the time on disk may be behind. */
const STALE_MS = 60_000;
/** Lines of the journal that are out of date before it is rewritten. */
const SLACK = 4096;

/** One line of the journal: until when (milliseconds since 1970) a name has an address. 0: not any more. */
export interface LearnedRecord {
  readonly n: string;
  readonly a: string;
  readonly e: number;
}

interface Entry {
  expires: number;
  /** As it is on disk. */
  saved: number;
}

/** What an answer said of a name. */
export interface LearnedAddress {
  readonly address: string;
  /** Seconds. */
  readonly ttl: number;
}

/**
 * Which names have which addresses, bounded in all and by name, and on disk (`<stateDir>/domains/journal`) before
 * anybody relies on it.
 */
export class Learned {
  readonly #journal: Journal<LearnedRecord>;
  readonly #limit: number;
  readonly #names = new Map<string, Map<string, Entry>>();
  readonly #addresses = new Map<string, Set<string>>();
  #size = 0;
  /** Addresses that were not taken because there are too many. */
  refused = 0;

  constructor(
    opened: { readonly journal: Journal<LearnedRecord>; readonly records: readonly LearnedRecord[] },
    limit: number,
    now: number,
  ) {
    this.#journal = opened.journal;
    this.#limit = limit;
    for (const { n, a, e } of opened.records) {
      if (e > now) this.#set(n, a, e, e);
      else this.#drop(n, a);
    }
  }

  /** Names with addresses, and pairs of both. */
  get sizes(): { readonly names: number; readonly addresses: number } {
    return { names: this.#names.size, addresses: this.#addresses.size };
  }

  addresses(): IterableIterator<string> {
    return this.#addresses.keys();
  }

  /** Names that have the address. */
  namesOf(address: string): Iterable<string> {
    return this.#addresses.get(address) ?? [];
  }

  has(name: string, address: string): boolean {
    return this.#names.get(name)?.has(address) === true;
  }

  /** Takes in what an answer says; addresses whose names are others than before. Throws the file system's error. */
  learn(names: readonly string[], found: readonly LearnedAddress[], now: number): Set<string> {
    const changed = new Set<string>();
    const records: LearnedRecord[] = [];
    for (const name of names)
      for (const { address, ttl } of found) {
        const expires = now + (Math.min(Math.max(ttl, 0), MAX_TTL) + GRACE_SECONDS) * 1000;
        const known = this.#names.get(name)?.get(address);
        if (known !== undefined) {
          known.expires = Math.max(known.expires, expires);
          if (known.expires - known.saved < STALE_MS) continue;
          known.saved = known.expires;
        } else {
          if (this.#size >= this.#limit) {
            this.refused++;
            continue;
          }
          this.#makeRoom(name, changed, records);
          this.#set(name, address, expires, expires);
          changed.add(address);
        }
        records.push({ n: name, a: address, e: known?.expires ?? expires });
      }
    this.#journal.append(records);
    if (this.#journal.lines > 2 * this.#size + SLACK) this.#compact();
    return changed;
  }

  /** Forgets what has expired and is not `used`, and names that nobody `wants`; addresses that have fewer names. */
  sweep(now: number, used: (address: string) => boolean, wants: (name: string) => boolean): Set<string> {
    const changed = new Set<string>();
    for (const [name, addresses] of [...this.#names]) {
      const wanted = wants(name);
      for (const [address, { expires }] of [...addresses]) {
        if (wanted && (expires > now || used(address))) continue;
        this.#drop(name, address);
        changed.add(address);
      }
    }
    if (changed.size > 0) this.#compact();
    return changed;
  }

  close(): void {
    this.#journal.close();
  }

  #makeRoom(name: string, changed: Set<string>, records: LearnedRecord[]): void {
    const addresses = this.#names.get(name);
    if (addresses === undefined || addresses.size < MAX_OF_NAME) return;
    const [first] = [...addresses].sort(([, a], [, b]) => a.expires - b.expires);
    if (first === undefined) return;
    this.#drop(name, first[0]);
    changed.add(first[0]);
    records.push({ n: name, a: first[0], e: 0 });
  }

  #set(name: string, address: string, expires: number, saved: number): void {
    const addresses = this.#names.get(name) ?? new Map<string, Entry>();
    if (!addresses.has(address)) this.#size++;
    addresses.set(address, { expires, saved });
    this.#names.set(name, addresses);
    const names = this.#addresses.get(address) ?? new Set<string>();
    names.add(name);
    this.#addresses.set(address, names);
  }

  #drop(name: string, address: string): void {
    const addresses = this.#names.get(name);
    if (addresses?.delete(address) !== true) return;
    this.#size--;
    if (addresses.size === 0) this.#names.delete(name);
    const names = this.#addresses.get(address);
    names?.delete(name);
    if (names?.size === 0) this.#addresses.delete(address);
  }

  #compact(): void {
    const records: LearnedRecord[] = [];
    for (const [n, addresses] of this.#names)
      for (const [a, entry] of addresses) {
        entry.saved = entry.expires;
        records.push({ n, a, e: entry.expires });
      }
    this.#journal.compact(records);
  }
}
