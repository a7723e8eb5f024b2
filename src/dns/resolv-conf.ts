import { readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import { canonicalAddress } from '../../policy/address.js';

/** As many as the C library uses (resolv.conf(5), MAXNS). */
const MAX_SERVERS = 3;
/** Milliseconds after which the file is looked at again. */
const LOOK_AGAIN = 2000;

/** An address as it is compared: `FD00:0::1` is fd00::1. A zone of a link-local address stays with it. */
export function canonicalServer(text: string): string {
  const [address = '', ...zone] = text.split('%');
  return [canonicalAddress(address), ...zone].join('%');
}

/** The name servers in the text of a resolv.conf(5). */
export function parseResolvConf(text: string): readonly string[] {
  const servers: string[] = [];
  for (const line of text.split('\n')) {
    const [keyword, address = ''] = line.trim().split(/\s+/);
    if (keyword === 'nameserver' && isIP(address) !== 0) servers.push(canonicalServer(address));
  }
  return servers.slice(0, MAX_SERVERS);
}

/** The host's name servers, read again when the file changes. */
export class HostResolvers {
  readonly #path: string;
  #servers: readonly string[] = [];
  #version = '';
  #looked = Number.NEGATIVE_INFINITY;

  constructor(path = '/etc/resolv.conf') {
    this.#path = path;
  }

  /** Addresses in the order in which they are asked; empty if there are none. */
  servers(): readonly string[] {
    const now = performance.now();
    if (now - this.#looked < LOOK_AGAIN) return this.#servers;
    this.#looked = now;
    const stat = statSync(this.#path, { throwIfNoEntry: false });
    const version = stat === undefined ? '' : `${stat.ino} ${stat.size} ${stat.mtimeMs}`;
    if (version === this.#version) return this.#servers;
    this.#version = version;
    try {
      this.#servers = stat === undefined ? [] : parseResolvConf(readFileSync(this.#path, 'utf8'));
    } catch {
      this.#servers = [];
    }
    return this.#servers;
  }
}
