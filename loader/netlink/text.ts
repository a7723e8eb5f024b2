import { isIPv4, isIPv6 } from 'node:net';
import { NetlinkError } from './errors.js';

/** Text forms of the addresses that netlink carries as bytes. */

export type Family = 4 | 6;

const EINVAL = 22;
const DOT = 0x2e;
const ZERO = 0x30;

/**
 * Bytes of an IP address, 4 or 16, network order. Throws NetlinkError EINVAL in the name of `operation` for
 * anything else (a zone such as %eth0 included).
 */
export function ipBytes(operation: string, text: string): Uint8Array {
  if (isIPv4(text)) return v4Bytes(text);
  if (!isIPv6(text) || text.includes('%')) {
    throw new NetlinkError(operation, EINVAL, `${JSON.stringify(text)} is not an IP address`);
  }
  const bytes = new Uint8Array(16);
  const [head = '', tail] = text.split('::');
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  bytes.set(before, 0);
  bytes.set(after, 16 - after.length);
  return bytes;
}

function v4Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(4);
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === DOT) at++;
    else bytes[at] = (bytes[at] ?? 0) * 10 + code - ZERO;
  }
  return bytes;
}

/** Bytes of colon-separated hexadecimal groups, of which the last may be a dotted IPv4 address. */
function groups(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (group.includes('.')) return group.split('.').map(Number);
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
}

/** Text of an IP address in buffer[at, at + length), length 4 or 16; IPv6 as in RFC 5952. */
export function ipText(buffer: Uint8Array, at: number, length: number): string {
  if (length === 4) return `${buffer[at]}.${buffer[at + 1]}.${buffer[at + 2]}.${buffer[at + 3]}`;
  const words: number[] = [];
  for (let i = at; i < at + 16; i += 2) words.push(((buffer[i] ?? 0) << 8) | (buffer[i + 1] ?? 0));
  if (words[5] === 0xffff && words.slice(0, 5).every((word) => word === 0)) {
    return `::ffff:${ipText(buffer, at + 12, 4)}`;
  }
  let [zeros, zerosAt] = [1, -1]; // the longest run of zeros, if longer than one
  for (let i = 0; i < 8; i++) {
    let run = 0;
    while (i + run < 8 && words[i + run] === 0) run++;
    if (run > zeros) [zeros, zerosAt] = [run, i];
  }
  const hex = (part: readonly number[]): string => part.map((word) => word.toString(16)).join(':');
  if (zerosAt < 0) return hex(words);
  return `${hex(words.slice(0, zerosAt))}::${hex(words.slice(zerosAt + zeros))}`;
}

/** Family of an address by the number of its bytes. */
export function familyOf(bytes: Uint8Array): Family {
  return bytes.length === 4 ? 4 : 6;
}

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

/** Bytes of `aa:bb:cc:dd:ee:ff`. Throws NetlinkError EINVAL in the name of `operation`. */
export function macBytes(operation: string, text: string): Uint8Array {
  if (!MAC.test(text)) {
    throw new NetlinkError(operation, EINVAL, `${JSON.stringify(text)} is not a MAC address`);
  }
  const bytes = new Uint8Array(6);
  for (let i = 0; i < 6; i++) bytes[i] = Number.parseInt(text.slice(3 * i, 3 * i + 2), 16);
  return bytes;
}

/** Text of a hardware address of any length, lower case with colons. */
export function macText(buffer: Buffer, at: number, length: number): string {
  const hex = buffer.toString('hex', at, at + length);
  return length === 6
    ? `${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4, 6)}:${hex.slice(6, 8)}:${hex.slice(8, 10)}:${hex.slice(10)}`
    : hex.replace(/..(?=.)/g, '$&:');
}
