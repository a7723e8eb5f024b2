/**
 * The first packet of a connection, written into memory that is used again. Checksums stay 0: a dry run
 * looks at addresses, ports and flags alone.
 */
import type { AddressBytes } from '../../policy/address.js';

export type ProbeProtocol = 'TCP' | 'UDP' | 'SCTP' | 'ICMP';
export const PROBE_PROTOCOLS: readonly ProbeProtocol[] = ['TCP', 'UDP', 'SCTP', 'ICMP'];

export interface ProbePacket {
  /** 16 bytes, IPv4 v4-mapped; both of one family. */
  readonly source: AddressBytes;
  readonly destination: AddressBytes;
  readonly protocol: ProbeProtocol;
  /** Destination port; ICMP has none. */
  readonly port: number;
  /** Ethernet addresses, 6 bytes; absent: zeros, which is the address of the loopback device. */
  readonly sourceMac?: Uint8Array;
  readonly destinationMac?: Uint8Array;
  /** Default: SOURCE_PORT. ICMP: the id. */
  readonly sourcePort?: number;
}

const ETHERNET = 14;
/** Of ephemeral ports one that nothing else is expected to use; also the id of an echo request. */
export const SOURCE_PORT = 51966;
const HOP_LIMIT = 64;
const ETH_P_IP = 0x0800;
const ETH_P_IPV6 = 0x86dd;
const IPPROTO_ICMPV6 = 58;
const NUMBERS: Readonly<Record<ProbeProtocol, number>> = { TCP: 6, UDP: 17, SCTP: 132, ICMP: 1 };
/** Bytes from the transport header on: TCP without options, UDP, SCTP INIT (RFC 9260, 3.3.2), ICMP echo. */
const LENGTHS: Readonly<Record<ProbeProtocol, number>> = { TCP: 20, UDP: 8, SCTP: 32, ICMP: 8 };
const TCP_SYN = 2;
const SCTP_INIT = 1;
const ECHO_REQUEST = 8;
const ECHO_REQUEST_V6 = 128;

/** Bytes of the longest packet that writeProbe writes. */
export const PROBE_ROOM = ETHERNET + 40 + 32;

/** IP protocol number of a probe. */
export function protocolNumber(protocol: ProbeProtocol, family: 4 | 6): number {
  return protocol === 'ICMP' && family === 6 ? IPPROTO_ICMPV6 : NUMBERS[protocol];
}

/**
 * Writes an Ethernet frame to the start of `into` and returns its length. The kernel takes a packet as one for
 * this host if its destination MAC address is that of the device.
 */
export function writeProbe(into: Buffer, packet: ProbePacket): number {
  const { source, destination, protocol, sourcePort = SOURCE_PORT } = packet;
  const v6 = !isV4(destination);
  const l4 = ETHERNET + (v6 ? 40 : 20);
  const length = l4 + LENGTHS[protocol];
  into.fill(0, 0, length);
  if (packet.destinationMac !== undefined) into.set(packet.destinationMac, 0);
  if (packet.sourceMac !== undefined) into.set(packet.sourceMac, 6);
  const number = protocolNumber(protocol, v6 ? 6 : 4);
  if (v6) {
    into.writeUInt16BE(ETH_P_IPV6, 12);
    into[14] = 6 << 4;
    into.writeUInt16BE(length - l4, 18);
    into[20] = number;
    into[21] = HOP_LIMIT;
    into.set(source, 22);
    into.set(destination, 38);
  } else {
    into.writeUInt16BE(ETH_P_IP, 12);
    into[14] = (4 << 4) | 5;
    into.writeUInt16BE(length - ETHERNET, 16);
    into[22] = HOP_LIMIT;
    into[23] = number;
    for (let i = 0; i < 4; i++) {
      into[26 + i] = source[12 + i] as number;
      into[30 + i] = destination[12 + i] as number;
    }
  }
  if (protocol === 'ICMP') {
    into[l4] = v6 ? ECHO_REQUEST_V6 : ECHO_REQUEST;
    into.writeUInt16BE(sourcePort, l4 + 4);
    return length;
  }
  into.writeUInt16BE(sourcePort, l4);
  into.writeUInt16BE(packet.port, l4 + 2);
  if (protocol === 'TCP') {
    into[l4 + 12] = 5 << 4;
    into[l4 + 13] = TCP_SYN;
  } else if (protocol === 'UDP') {
    into.writeUInt16BE(LENGTHS.UDP, l4 + 4);
  } else {
    into[l4 + 12] = SCTP_INIT;
    into.writeUInt16BE(LENGTHS.SCTP - 12, l4 + 14);
  }
  return length;
}

function isV4(address: AddressBytes): boolean {
  for (let i = 0; i < 10; i++) if (address[i] !== 0) return false;
  return address[10] === 0xff && address[11] === 0xff;
}
