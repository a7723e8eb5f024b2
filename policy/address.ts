/**
 * Addresses and prefixes as bytes. Inside Sluice every address is 16 bytes in network order; IPv4 is
 * v4-mapped (`::ffff:a.b.c.d`), as in the maps of the kernel (struct ip_addr). Text follows RFC 4291
 * and, on the way out, RFC 5952. Zones and v4-mapped text are refused: each address has one spelling.
 */
import { SluiceError } from './errors.js';

export type Family = 4 | 6;

/** 16 bytes, network order, IPv4 v4-mapped. */
export type AddressBytes = Uint8Array;

/** `prefixLength` is 0 to 128; an IPv4 prefix of n bits has 96 + n. */
export interface Cidr {
  readonly address: AddressBytes;
  readonly prefixLength: number;
  readonly family: Family;
}

/** IPv4 in its one spelling. */
const CANONICAL_V4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;
const DECIMAL = /^(?:0|[1-9][0-9]{0,2})$/;
const HEX_GROUP = /^[0-9a-fA-F]{1,4}$/;

type Parsed = { readonly bytes: AddressBytes } | { readonly reason: string };

function parseV4(text: string): Parsed {
  if (CANONICAL_V4.test(text)) {
    const bytes = new Uint8Array(16);
    bytes[10] = 0xff;
    bytes[11] = 0xff;
    let at = 12;
    let number = 0;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code !== 0x2e) number = number * 10 + code - 0x30;
      else {
        bytes[at++] = number;
        number = 0;
      }
    }
    bytes[at] = number;
    return { bytes };
  }
  return parseV4Slowly(text);
}

/** Finds out what is wrong. */
function parseV4Slowly(text: string): Parsed {
  const parts = text.split('.');
  if (parts.length !== 4) return { reason: 'an IPv4 address has four numbers' };
  const bytes = new Uint8Array(16);
  bytes[10] = 0xff;
  bytes[11] = 0xff;
  for (let i = 0; i < 4; i++) {
    const part = parts[i] ?? '';
    if (/^0[0-9]+$/.test(part)) return { reason: `"${part}" has a leading zero` };
    if (!DECIMAL.test(part) || Number(part) > 255)
      return { reason: `"${part}" is not a number from 0 to 255` };
    bytes[12 + i] = Number(part);
  }
  return { bytes };
}

/** `dotted`: the last group may be an IPv4 address. Returns the reason if it cannot be read. */
function parseGroups(text: string, dotted: boolean): number[] | string {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i] ?? '';
    if (dotted && part.includes('.') && i === parts.length - 1) {
      const v4 = parseV4(part);
      if ('reason' in v4) return v4.reason;
      const [a = 0, b = 0, c = 0, d = 0] = v4.bytes.subarray(12);
      groups.push((a << 8) | b, (c << 8) | d);
    } else if (HEX_GROUP.test(part)) {
      groups.push(Number.parseInt(part, 16));
    } else {
      return part === '' ? 'a group is empty' : `"${part}" is not a group of up to 4 hexadecimal digits`;
    }
  }
  return groups;
}

function parseV6(text: string): Parsed {
  if (text.includes('%')) return { reason: 'an address with a zone (%) cannot be used here' };
  const halves = text.split('::');
  if (halves.length > 2) return { reason: '"::" occurs more than once' };
  const head = parseGroups(halves[0] ?? '', halves.length === 1);
  if (typeof head === 'string') return { reason: head };
  const tail = parseGroups(halves[1] ?? '', true);
  if (typeof tail === 'string') return { reason: tail };
  const count = head.length + tail.length;
  if (halves.length === 1 ? count !== 8 : count > 7) return { reason: 'an IPv6 address has eight groups' };
  const bytes = new Uint8Array(16);
  head.forEach((group, i) => {
    bytes[2 * i] = group >> 8;
    bytes[2 * i + 1] = group & 0xff;
  });
  tail.forEach((group, i) => {
    const at = 2 * (8 - tail.length + i);
    bytes[at] = group >> 8;
    bytes[at + 1] = group & 0xff;
  });
  if (isIpv4(bytes)) return { reason: `an IPv4 address is written ${formatAddress(bytes)}` };
  return { bytes };
}

function parse(text: string): Parsed {
  return text.includes(':') ? parseV6(text) : parseV4(text);
}

/** Smallest MTU of a link that has IPv6, bytes (RFC 8200, 5). */
export const IPV6_MIN_MTU = 1280;

/** Reads an address; throws SLU1201 if it is none. */
export function parseAddress(text: string): AddressBytes {
  const parsed = parse(text);
  if ('reason' in parsed) throw SluiceError.of('SLU1201', { text, reason: parsed.reason });
  return parsed.bytes;
}

/** Reads an address; undefined if it is none. */
export function tryParseAddress(text: string): AddressBytes | undefined {
  const parsed = parse(text);
  return 'reason' in parsed ? undefined : parsed.bytes;
}

/** Whether the bytes are a v4-mapped IPv4 address. */
export function isIpv4(bytes: AddressBytes): boolean {
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}

export function familyOf(bytes: AddressBytes): Family {
  return isIpv4(bytes) ? 4 : 6;
}

/** Whether all 16 bytes are 0: "no address" in the maps (`0.0.0.0` is `::ffff:0.0.0.0`, not this). */
export function isUnset(bytes: AddressBytes): boolean {
  return bytes.every((byte) => byte === 0);
}

/** Text of an address: dotted IPv4 when v4-mapped, else RFC 5952. */
export function formatAddress(bytes: AddressBytes): string {
  if (isIpv4(bytes)) return `${bytes[12]}.${bytes[13]}.${bytes[14]}.${bytes[15]}`;
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  let bestStart = -1;
  let bestLength = 1; // a single zero group is not shortened
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (i + length < 8 && groups[i + length] === 0) length++;
    if (length > bestLength) {
      bestStart = i;
      bestLength = length;
    }
    i += length;
  }
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (bestStart < 0) return hex(groups);
  return `${hex(groups.slice(0, bestStart))}::${hex(groups.slice(bestStart + bestLength))}`;
}

/** The text in its one canonical spelling; throws SLU1201 if it is no address. */
export function canonicalAddress(text: string): string {
  if (CANONICAL_V4.test(text)) return text;
  return formatAddress(parseAddress(text));
}

/**
 * Reads a CIDR. Throws SLU1202 if it is none and SLU1203 if bits beyond the prefix are set, unless
 * `hostBits` is 'keep' (address of an interface) or 'clear'.
 */
export function parseCidr(text: string, hostBits: 'refuse' | 'keep' | 'clear' = 'refuse'): Cidr {
  const slash = text.indexOf('/');
  const bad = (reason: string): SluiceError => SluiceError.of('SLU1202', { text, reason });
  if (slash < 0) throw bad('the prefix length is missing');
  const parsed = parse(text.slice(0, slash));
  if ('reason' in parsed) throw bad(parsed.reason);
  const family = familyOf(parsed.bytes);
  const max = family === 4 ? 32 : 128;
  const lengthText = text.slice(slash + 1);
  if (!DECIMAL.test(lengthText) || Number(lengthText) > max)
    throw bad(`the prefix length is a number from 0 to ${max}`);
  const prefixLength = Number(lengthText) + 128 - max;
  const masked = maskAddress(parsed.bytes, prefixLength);
  if (hostBits !== 'keep' && compareAddresses(masked, parsed.bytes) !== 0) {
    if (hostBits === 'clear') return { address: masked, prefixLength, family };
    throw SluiceError.of('SLU1203', {
      text,
      canonical: formatCidr({ address: masked, prefixLength, family }),
    });
  }
  return { address: parsed.bytes, prefixLength, family };
}

/** Reads a CIDR; undefined if it is none or not canonical. */
export function tryParseCidr(text: string): Cidr | undefined {
  try {
    return parseCidr(text);
  } catch {
    return undefined;
  }
}

/** Prefix length as people write it: 0 to 32 for IPv4. */
export function textPrefixLength(cidr: Cidr): number {
  return cidr.family === 4 ? cidr.prefixLength - 96 : cidr.prefixLength;
}

export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr.address)}/${textPrefixLength(cidr)}`;
}

/** The address with all bits beyond the prefix cleared (a new array). */
export function maskAddress(bytes: AddressBytes, prefixLength: number): AddressBytes {
  const out = new Uint8Array(16);
  const whole = prefixLength >> 3;
  for (let i = 0; i < whole; i++) out[i] = bytes[i] ?? 0;
  const rest = prefixLength & 7;
  if (rest !== 0) out[whole] = (bytes[whole] ?? 0) & (0xff << (8 - rest));
  return out;
}

function samePrefix(a: AddressBytes, b: AddressBytes, length: number, from = 0): boolean {
  const whole = length >> 3;
  for (let i = from; i < whole; i++) if (a[i] !== b[i]) return false;
  const rest = length & 7;
  return rest === 0 || (((a[whole] ?? 0) ^ (b[whole] ?? 0)) & (0xff << (8 - rest)) & 0xff) === 0;
}

/** Whether the address is inside the prefix. An IPv6 prefix never contains an IPv4 address. */
export function cidrContains(cidr: Cidr, address: AddressBytes, family: Family = familyOf(address)): boolean {
  // The first 12 bytes of IPv4 addresses are all the same.
  return (
    cidr.family === family && samePrefix(cidr.address, address, cidr.prefixLength, family === 4 ? 12 : 0)
  );
}

/** Whether `inner` is the same prefix as `outer` or inside it. */
export function cidrContainsCidr(outer: Cidr, inner: Cidr): boolean {
  return (
    outer.family === inner.family &&
    outer.prefixLength <= inner.prefixLength &&
    samePrefix(outer.address, inner.address, outer.prefixLength)
  );
}

export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  return cidrContainsCidr(a, b) || cidrContainsCidr(b, a);
}

/** Byte order; negative, 0 or positive. */
export function compareAddresses(a: AddressBytes, b: AddressBytes): number {
  for (let i = 0; i < 16; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** The address `offset` after the start of the prefix. The caller keeps it inside the prefix. */
export function addressAt(cidr: Cidr, offset: bigint): AddressBytes {
  const out = Uint8Array.from(cidr.address);
  let carry = offset;
  for (let i = 15; i >= 0 && carry > 0n; i--) {
    carry += BigInt(out[i] ?? 0);
    out[i] = Number(carry & 0xffn);
    carry >>= 8n;
  }
  return out;
}

/** Distance of an address from the start of the prefix. */
export function offsetIn(cidr: Cidr, address: AddressBytes): bigint {
  let value = 0n;
  for (let i = 0; i < 16; i++) value = (value << 8n) | BigInt(address[i] ?? 0);
  let start = 0n;
  for (let i = 0; i < 16; i++) start = (start << 8n) | BigInt(cidr.address[i] ?? 0);
  return value - start;
}

/** How many addresses the prefix has, network and broadcast address included. */
export function cidrSize(cidr: Cidr): bigint {
  return 1n << BigInt(128 - cidr.prefixLength);
}

/** The last address of the prefix; in IPv4 the broadcast address. */
export function lastAddress(cidr: Cidr): AddressBytes {
  return addressAt(cidr, cidrSize(cidr) - 1n);
}
