/**
 * Prefixes as keys of JavaScript maps: a number for IPv4 (address * 64 + length), a text for IPv6 (its 16 bytes and the
 * length). Lists have a hundred thousand of them.
 */
import { type Cidr, formatAddress } from '../address.js';

export type PrefixKey = number | string;

export function prefixKey({ address, prefixLength, family }: Cidr): PrefixKey {
  if (family === 6) return String.fromCharCode(...address, prefixLength);
  const [a = 0, b = 0, c = 0, d = 0] = address.subarray(12);
  return key4(((a << 24) | (b << 16) | (c << 8) | d) >>> 0, prefixLength - 96);
}

/** `address` as a number, network order; `length` 0 to 32. */
export function key4(address: number, length: number): number {
  return address * 64 + length;
}

/** An IPv4 address without the bits beyond the prefix length. */
export function clear(address: number, length: number): number {
  return length === 0 ? 0 : (address & (-1 << (32 - length))) >>> 0;
}

/** 0 to 32 for IPv4, 0 to 128 for IPv6. */
export function lengthOf(key: PrefixKey): number {
  return typeof key === 'number' ? key & 63 : key.charCodeAt(16); // the remainder of such a division would be slow
}

/** The prefix of this length (at most the key's own) that contains the key. */
export function widen<K extends PrefixKey>(key: K, length: number): K {
  if (typeof key === 'number') {
    return key4(clear(Math.floor(key / 64), length), length) as K;
  }
  const whole = length >> 3;
  const rest = length & 7;
  let out = key.slice(0, whole);
  if (rest !== 0) out += String.fromCharCode(key.charCodeAt(whole) & (0xff << (8 - rest)));
  return (out.padEnd(16, '\0') + String.fromCharCode(length)) as K;
}

/** The address as it stands in the kernel's maps. */
export function prefixBytes(key: PrefixKey): Uint8Array {
  const bytes = new Uint8Array(16);
  if (typeof key === 'number') {
    const address = Math.floor(key / 64);
    bytes[10] = 0xff;
    bytes[11] = 0xff;
    bytes[12] = (address / 2 ** 24) & 0xff;
    bytes[13] = (address / 2 ** 16) & 0xff;
    bytes[14] = (address / 2 ** 8) & 0xff;
    bytes[15] = address & 0xff;
  } else {
    for (let i = 0; i < 16; i++) bytes[i] = key.charCodeAt(i);
  }
  return bytes;
}

export function prefixText(key: PrefixKey): string {
  return `${formatAddress(prefixBytes(key))}/${lengthOf(key)}`;
}

/** IPv4 and IPv6. */
export function byFamily(keys: readonly PrefixKey[]): [readonly number[], readonly string[]] {
  if (keys.every((key) => typeof key === 'number')) return [keys, []];
  const v4: number[] = [];
  const v6: string[] = [];
  for (const key of keys) {
    if (typeof key === 'number') v4.push(key);
    else v6.push(key);
  }
  return [v4, v6];
}
