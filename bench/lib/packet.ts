import { parseAddress } from '../../policy/address.js';

/** TCP flags (RFC 9293, 3.1). */
export const TCP = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16 } as const;

export interface TcpPacket {
  readonly sourceMac: Uint8Array;
  readonly destinationMac: Uint8Array;
  /** Text of either family; both of the same. */
  readonly source: string;
  readonly destination: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly flags: number;
  /** Bytes after the TCP header, all zero. */
  readonly payload?: number;
  /** TTL or hop limit. */
  readonly ttl?: number;
}

const ETHERNET = 14;
const TCP_HEADER = 20;
const PROTO_TCP = 6;

/** RFC 1071 over whole 16 bit words, without the final complement. */
function sum(data: Buffer, start = 0): number {
  let total = start;
  for (let i = 0; i + 1 < data.length; i += 2) total += data.readUInt16BE(i);
  if (data.length % 2 === 1) total += (data[data.length - 1] ?? 0) << 8;
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

const complement = (value: number): number => ~value & 0xffff;

/** An Ethernet frame with valid checksums. */
export function tcpFrame(packet: TcpPacket): Buffer {
  const v6 = packet.source.includes(':');
  const payload = packet.payload ?? 0;
  const ipHeader = v6 ? 40 : 20;
  const segment = TCP_HEADER + payload;
  const frame = Buffer.alloc(ETHERNET + ipHeader + segment);
  frame.set(packet.destinationMac, 0);
  frame.set(packet.sourceMac, 6);
  frame.writeUInt16BE(v6 ? 0x86dd : 0x0800, 12);
  const ip = frame.subarray(ETHERNET, ETHERNET + ipHeader);
  const source = parseAddress(packet.source).subarray(v6 ? 0 : 12);
  const destination = parseAddress(packet.destination).subarray(v6 ? 0 : 12);
  if (v6) {
    ip[0] = 0x60;
    ip.writeUInt16BE(segment, 4);
    ip[6] = PROTO_TCP;
    ip[7] = packet.ttl ?? 64;
    ip.set(source, 8);
    ip.set(destination, 24);
  } else {
    ip[0] = 0x45;
    ip.writeUInt16BE(ipHeader + segment, 2);
    ip.writeUInt16BE(0x4000, 6);
    ip[8] = packet.ttl ?? 64;
    ip[9] = PROTO_TCP;
    ip.set(source, 12);
    ip.set(destination, 16);
    ip.writeUInt16BE(complement(sum(ip)), 10);
  }
  const tcp = frame.subarray(ETHERNET + ipHeader);
  tcp.writeUInt16BE(packet.sourcePort, 0);
  tcp.writeUInt16BE(packet.destinationPort, 2);
  tcp.writeUInt32BE(1, 4);
  tcp[12] = (TCP_HEADER / 4) << 4;
  tcp[13] = packet.flags;
  tcp.writeUInt16BE(65535, 14);
  const pseudo = sum(Buffer.concat([source, destination]), PROTO_TCP + segment);
  tcp.writeUInt16BE(complement(sum(tcp, pseudo)), 16);
  return frame;
}

/** True if the checksums of an IPv4 TCP frame are right. */
export function checksumsHold(frame: Buffer): boolean {
  const ip = frame.subarray(ETHERNET, ETHERNET + 20);
  const tcp = frame.subarray(ETHERNET + 20, ETHERNET + ip.readUInt16BE(2));
  return sum(ip) === 0xffff && sum(tcp, sum(ip.subarray(12, 20), PROTO_TCP + tcp.length)) === 0xffff;
}

/** The tuple of an IPv4 frame, as text and numbers. */
export function tupleOf(frame: Buffer): {
  source: string;
  destination: string;
  sourcePort: number;
  destinationPort: number;
} {
  const ip = frame.subarray(ETHERNET);
  return {
    source: ip.subarray(12, 16).join('.'),
    destination: ip.subarray(16, 20).join('.'),
    sourcePort: ip.readUInt16BE(20),
    destinationPort: ip.readUInt16BE(22),
  };
}
