/**
 * Packets for the tests of the BPF programs: built with right checksums, and taken apart again with every checksum
 * verified, so that a test of a translation cannot overlook one.
 */
import { formatAddress, parseAddress } from '../../policy/address.js';

export const FLAG = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16 } as const;
export const PROTO = { icmp: 1, tcp: 6, udp: 17, gre: 47, icmp6: 58, sctp: 132 } as const;

/** What a packet says. `payload` is the bytes after the transport header (or after IP for unknown protocols). */
export interface PacketSpec {
  readonly sourceMac: string;
  readonly destinationMac: string;
  readonly source: string;
  readonly destination: string;
  readonly proto: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly flags?: number;
  /** TCP: acknowledgement number; the sequence number is always 7. */
  readonly ack?: number;
  readonly payload?: Buffer;
  readonly ttl?: number;
  /** ICMP: type, code, and the second word of the header (id and sequence, or MTU). */
  readonly icmp?: { readonly type: number; readonly code?: number; readonly word?: number };
  /** IPv4 or IPv6 fragment: identification, offset in bytes, whether more follow. */
  readonly fragment?: { readonly id: number; readonly offset: number; readonly more: boolean };
  /** IPv6 extension headers, by protocol number, 8 bytes each, before the transport header. */
  readonly extensions?: readonly number[];
  /** UDP over IPv4 without a checksum. */
  readonly noChecksum?: boolean;
}

const ETHERNET = 14;

function sum(data: Uint8Array, start = 0): number {
  let total = start;
  for (let i = 0; i < data.length; i += 2) total += ((data[i] ?? 0) << 8) | (data[i + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

const complement = (value: number): number => ~value & 0xffff;

export function macBytes(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

/** CRC32c (RFC 9260, appendix A), bit by bit: the obvious way. */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

function addresses(spec: PacketSpec): { v6: boolean; source: Uint8Array; destination: Uint8Array } {
  const v6 = spec.source.includes(':');
  const cut = v6 ? 0 : 12;
  return {
    v6,
    source: parseAddress(spec.source).subarray(cut),
    destination: parseAddress(spec.destination).subarray(cut),
  };
}

function pseudo(source: Uint8Array, destination: Uint8Array, proto: number, length: number): number {
  return sum(destination, sum(source, proto + length));
}

/** Transport header and payload with its checksum. */
function transport(spec: PacketSpec): Buffer {
  const { v6, source, destination } = addresses(spec);
  const payload = spec.payload ?? Buffer.alloc(0);
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(spec.sourcePort ?? 0, 0);
  ports.writeUInt16BE(spec.destinationPort ?? 0, 2);
  if (spec.proto === PROTO.tcp) {
    const out = Buffer.concat([ports, Buffer.alloc(16), payload]);
    out.writeUInt32BE(7, 4);
    out.writeUInt32BE(spec.ack ?? 0, 8);
    out[12] = 5 << 4;
    out[13] = spec.flags ?? 0;
    out.writeUInt16BE(65535, 14);
    out.writeUInt16BE(complement(sum(out, pseudo(source, destination, spec.proto, out.length))), 16);
    return out;
  }
  if (spec.proto === PROTO.udp) {
    const out = Buffer.concat([ports, Buffer.alloc(4), payload]);
    out.writeUInt16BE(out.length, 4);
    if (!spec.noChecksum) {
      const check = complement(sum(out, pseudo(source, destination, spec.proto, out.length)));
      out.writeUInt16BE(check === 0 ? 0xffff : check, 6);
    }
    return out;
  }
  if (spec.proto === PROTO.sctp) {
    const out = Buffer.concat([ports, Buffer.alloc(8), payload]);
    out.writeUInt32LE(crc32c(out), 8);
    return out;
  }
  if (spec.proto === PROTO.icmp || spec.proto === PROTO.icmp6) {
    const out = Buffer.concat([Buffer.alloc(8), payload]);
    out[0] = spec.icmp?.type ?? 0;
    out[1] = spec.icmp?.code ?? 0;
    out.writeUInt32BE(spec.icmp?.word ?? 0, 4);
    const start = v6 ? pseudo(source, destination, spec.proto, out.length) : 0;
    out.writeUInt16BE(complement(sum(out, start)), 2);
    return out;
  }
  return payload;
}

/** The IP packet; a fragment takes its part of the whole datagram. */
export function ipPacket(spec: PacketSpec): Buffer {
  const { v6, source, destination } = addresses(spec);
  let body = transport(spec);
  let proto = spec.proto;
  const { fragment } = spec;
  if (fragment) body = body.subarray(fragment.offset, fragment.more ? fragment.offset + 64 : undefined);
  if (!v6) {
    const ip = Buffer.alloc(20);
    ip[0] = 0x45;
    ip.writeUInt16BE(20 + body.length, 2);
    ip.writeUInt16BE(fragment?.id ?? 1, 4);
    ip.writeUInt16BE(fragment ? (fragment.more ? 0x2000 : 0) | (fragment.offset >> 3) : 0x4000, 6);
    ip[8] = spec.ttl ?? 64;
    ip[9] = proto;
    ip.set(source, 12);
    ip.set(destination, 16);
    ip.writeUInt16BE(complement(sum(ip)), 10);
    return Buffer.concat([ip, body]);
  }
  const headers: Buffer[] = [];
  if (fragment) {
    const header = Buffer.alloc(8);
    header[0] = proto;
    header.writeUInt16BE(fragment.offset | (fragment.more ? 1 : 0), 2);
    header.writeUInt32BE(fragment.id, 4);
    headers.unshift(header);
    proto = 44;
  }
  for (const extension of [...(spec.extensions ?? [])].reverse()) {
    const header = Buffer.alloc(8);
    header[0] = proto;
    headers.unshift(header);
    proto = extension;
  }
  const ip = Buffer.alloc(40);
  ip[0] = 0x60;
  const rest = Buffer.concat([...headers, body]);
  ip.writeUInt16BE(rest.length, 4);
  ip[6] = proto;
  ip[7] = spec.ttl ?? 64;
  ip.set(source, 8);
  ip.set(destination, 24);
  return Buffer.concat([ip, rest]);
}

/** The Ethernet frame. */
export function frame(spec: PacketSpec): Buffer {
  const v6 = spec.source.includes(':');
  const head = Buffer.alloc(ETHERNET);
  head.set(macBytes(spec.destinationMac), 0);
  head.set(macBytes(spec.sourceMac), 6);
  head.writeUInt16BE(v6 ? 0x86dd : 0x0800, 12);
  return Buffer.concat([head, ipPacket(spec)]);
}

/** A frame taken apart. `broken` names each checksum that does not hold. */
export interface Parsed {
  readonly destinationMac: string;
  readonly sourceMac: string;
  readonly source: string;
  readonly destination: string;
  readonly proto: number;
  readonly ttl: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly icmp?: { readonly type: number; readonly code: number; readonly word: number };
  /** The embedded packet of an ICMP error. */
  readonly inner?: Parsed;
  readonly broken: readonly string[];
}

function mac(bytes: Uint8Array): string {
  return [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(':');
}

const v4Text = (b: Uint8Array): string => b.join('.');

function parseIp(ip: Buffer, whole: boolean): Omit<Parsed, 'destinationMac' | 'sourceMac'> {
  const broken: string[] = [];
  const v6 = (ip[0] ?? 0) >> 4 === 6;
  let offset = v6 ? 40 : ((ip[0] ?? 0) & 15) * 4;
  let proto = ip[v6 ? 6 : 9] ?? 0;
  const sourceBytes = v6 ? ip.subarray(8, 24) : ip.subarray(12, 16);
  const destinationBytes = v6 ? ip.subarray(24, 40) : ip.subarray(16, 20);
  let piece = false;
  if (v6) {
    while ([0, 43, 44, 60].includes(proto)) {
      if (proto === 44 && ip.readUInt16BE(offset + 2) !== 0) piece = true;
      const next = ip[offset] ?? 0;
      offset += proto === 44 ? 8 : ((ip[offset + 1] ?? 0) + 1) * 8;
      proto = next;
    }
  } else {
    if (sum(ip.subarray(0, offset)) !== 0xffff) broken.push('ip');
    piece = (ip.readUInt16BE(6) & 0x3fff) !== 0;
  }
  const end = v6 ? 40 + ip.readUInt16BE(4) : ip.readUInt16BE(2);
  const body = ip.subarray(offset, Math.min(end, ip.length));
  const check = whole && !piece;
  const base = pseudo(sourceBytes, destinationBytes, proto, body.length);
  let ports = [0, 0];
  let icmp: Parsed['icmp'];
  let inner: Parsed | undefined;
  if (proto === PROTO.tcp || proto === PROTO.udp || proto === PROTO.sctp) {
    if (body.length >= 4) ports = [body.readUInt16BE(0), body.readUInt16BE(2)];
    if (check && proto === PROTO.tcp && sum(body, base) !== 0xffff) broken.push('tcp');
    if (check && proto === PROTO.udp && (v6 || body.readUInt16BE(6) !== 0) && sum(body, base) !== 0xffff) {
      broken.push('udp');
    }
    if (check && proto === PROTO.sctp) {
      const copy = Buffer.from(body);
      copy.writeUInt32LE(0, 8);
      if (crc32c(copy) !== body.readUInt32LE(8)) broken.push('sctp');
    }
  } else if (proto === PROTO.icmp || proto === PROTO.icmp6) {
    icmp = { type: body[0] ?? 0, code: body[1] ?? 0, word: body.length >= 8 ? body.readUInt32BE(4) : 0 };
    if (check && sum(body, v6 ? base : 0) !== 0xffff) broken.push('icmp');
    const error = v6 ? icmp.type < 128 : [3, 4, 5, 11, 12].includes(icmp.type);
    if (whole && error && body.length >= 28) {
      inner = { destinationMac: '', sourceMac: '', ...parseIp(body.subarray(8), false) };
      broken.push(...inner.broken.map((name) => `embedded ${name}`));
    }
  }
  return {
    source: v6 ? formatAddress(sourceBytes) : v4Text(sourceBytes),
    destination: v6 ? formatAddress(destinationBytes) : v4Text(destinationBytes),
    proto,
    ttl: ip[v6 ? 7 : 8] ?? 0,
    sourcePort: ports[0] ?? 0,
    destinationPort: ports[1] ?? 0,
    ...(icmp ? { icmp } : {}),
    ...(inner ? { inner } : {}),
    broken,
  };
}

export function parse(data: Buffer): Parsed {
  return {
    destinationMac: mac(data.subarray(0, 6)),
    sourceMac: mac(data.subarray(6, 12)),
    ...parseIp(data.subarray(ETHERNET), true),
  };
}
