import type { Netns } from '../netns.js';
import { AF, NLA_F_NESTED } from './constants.js';
import { NetlinkError } from './errors.js';
import { encodeGenericHeader, GENL_HEADER, GenericRequests } from './genetlink.js';
import { forEachAttribute, type MessageBuilder } from './message.js';
import { familyOf, ipBytes, ipText } from './text.js';

/** Numbers of linux/wireguard.h. */
const FAMILY = 'wireguard';
const VERSION = 1;
const COMMAND = { GET_DEVICE: 0, SET_DEVICE: 1 } as const;
const DEVICE = { IFINDEX: 1, PRIVATE_KEY: 3, PUBLIC_KEY: 4, LISTEN_PORT: 6, PEERS: 8 } as const;
const PEER = {
  PUBLIC_KEY: 1,
  FLAGS: 3,
  ENDPOINT: 4,
  LAST_HANDSHAKE_TIME: 6,
  RX_BYTES: 7,
  TX_BYTES: 8,
  ALLOWEDIPS: 9,
} as const;
const PEER_FLAG = { REMOVE_ME: 1, REPLACE_ALLOWEDIPS: 2 } as const;
const ALLOWEDIP = { FAMILY: 1, IPADDR: 2, CIDR_MASK: 3 } as const;

const KEY_SIZE = 32;
const EINVAL = 22;

/** Where a peer's datagrams go. */
export interface Endpoint {
  /** Address of either family. */
  readonly address: string;
  readonly port: number;
}

/** Another end. Keys are 32 bytes in base64, as `wg` shows them. */
export interface WireguardPeer {
  readonly publicKey: string;
  /** Absent: as it is, or the peer speaks first. */
  readonly endpoint?: Endpoint;
  /** Prefixes that are the peer's: what has another source is dropped, what goes there is encrypted for it. */
  readonly allowedIps: readonly string[];
}

/** A peer as the kernel has it. */
export interface WireguardPeerState extends WireguardPeer {
  /** Seconds since 1970; 0: never. */
  readonly lastHandshake: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

export interface WireguardState {
  /** Absent: the device has no private key. */
  readonly publicKey?: string;
  readonly listenPort: number;
  readonly peers: readonly WireguardPeerState[];
}

export interface WireguardChange {
  /** 32 bytes. */
  readonly privateKey?: Uint8Array;
  readonly listenPort?: number;
  /** Peers that are made or changed. Their prefixes are these from now on, and are taken from whoever had them. */
  readonly peers?: readonly WireguardPeer[];
  /** Public keys of peers that go. */
  readonly remove?: readonly string[];
}

/** WireGuard devices of a network namespace (generic netlink, CAP_NET_ADMIN). What fails throws NetlinkError. */
export class Wireguard extends GenericRequests {
  #family = 0;

  /** Opens it in a namespace; default: the one that the process is in. Undefined: the kernel has no WireGuard. */
  static open(ns?: Netns): Wireguard | undefined {
    const wireguard = new Wireguard(ns);
    try {
      const family = wireguard.familyNamed(FAMILY);
      if (family !== undefined) {
        wireguard.#family = family;
        return wireguard;
      }
    } catch (error) {
      wireguard.close();
      throw error;
    }
    wireguard.close();
    return undefined;
  }

  /** A device with its peers. ENODEV: there is none. EOPNOTSUPP: it is of another kind. */
  device(ifindex: number): WireguardState {
    const decoder = new StateDecoder();
    this.dump(
      `read wireguard device ${ifindex}`,
      this.#family,
      (message) => encodeDeviceQuery(message, ifindex),
      (buffer, start, end) => {
        decoder.add(buffer, start, end);
        return undefined;
      },
    );
    return decoder.state();
  }

  /** Changes a device. EADDRINUSE: the port is taken (when the device is up). At most some 300 peers at a time. */
  setDevice(ifindex: number, change: WireguardChange): void {
    const operation = `set wireguard device ${ifindex}`;
    this.change(operation, this.#family, 0, (message) =>
      encodeDeviceChange(operation, message, ifindex, change),
    );
  }
}

/** Payload of WG_CMD_GET_DEVICE. */
export function encodeDeviceQuery(message: MessageBuilder, ifindex: number): void {
  encodeGenericHeader(message, COMMAND.GET_DEVICE, VERSION);
  message.attribute32(DEVICE.IFINDEX, ifindex);
}

/** Payload of WG_CMD_SET_DEVICE. Throws NetlinkError for values that can't be encoded. */
export function encodeDeviceChange(
  operation: string,
  message: MessageBuilder,
  ifindex: number,
  { privateKey, listenPort, peers = [], remove = [] }: WireguardChange,
): void {
  encodeGenericHeader(message, COMMAND.SET_DEVICE, VERSION);
  message.attribute32(DEVICE.IFINDEX, ifindex);
  if (privateKey !== undefined) {
    if (privateKey.length !== KEY_SIZE) throw new NetlinkError(operation, EINVAL, 'not a key');
    message.attributeBytes(DEVICE.PRIVATE_KEY, privateKey);
  }
  if (listenPort !== undefined) message.attributeBytes(DEVICE.LISTEN_PORT, u16(listenPort));
  if (peers.length === 0 && remove.length === 0) return;
  message.nested(DEVICE.PEERS | NLA_F_NESTED, () => {
    for (const publicKey of remove)
      message.nested(NLA_F_NESTED, () => {
        message.attributeBytes(PEER.PUBLIC_KEY, keyBytes(operation, publicKey));
        message.attribute32(PEER.FLAGS, PEER_FLAG.REMOVE_ME);
      });
    for (const peer of peers) message.nested(NLA_F_NESTED, () => encodePeer(operation, message, peer));
  });
}

function encodePeer(operation: string, message: MessageBuilder, peer: WireguardPeer): void {
  message.attributeBytes(PEER.PUBLIC_KEY, keyBytes(operation, peer.publicKey));
  message.attribute32(PEER.FLAGS, PEER_FLAG.REPLACE_ALLOWEDIPS);
  if (peer.endpoint !== undefined)
    message.attributeBytes(PEER.ENDPOINT, encodeEndpoint(operation, peer.endpoint));
  message.nested(PEER.ALLOWEDIPS | NLA_F_NESTED, () => {
    for (const prefix of peer.allowedIps) {
      const [address = '', length = ''] = prefix.split('/');
      const bytes = ipBytes(operation, address);
      message.nested(NLA_F_NESTED, () => {
        message.attributeBytes(ALLOWEDIP.FAMILY, u16(familyOf(bytes) === 4 ? AF.INET : AF.INET6));
        message.attributeBytes(ALLOWEDIP.IPADDR, bytes);
        message.attribute8(ALLOWEDIP.CIDR_MASK, length === '' ? bytes.length * 8 : Number(length));
      });
    }
  });
}

/** struct sockaddr_in (16 bytes) or sockaddr_in6 (28): family, port in network order, the address behind it. */
function encodeEndpoint(operation: string, { address, port }: Endpoint): Uint8Array {
  const bytes = ipBytes(operation, address);
  const four = familyOf(bytes) === 4;
  const sockaddr = Buffer.alloc(four ? 16 : 28);
  sockaddr.writeUInt16LE(four ? AF.INET : AF.INET6, 0);
  sockaddr.writeUInt16BE(port, 2);
  sockaddr.set(bytes, four ? 4 : 8);
  return sockaddr;
}

function decodeEndpoint(buffer: Buffer, at: number): Endpoint {
  const four = buffer.readUInt16LE(at) === AF.INET;
  const address = four ? ipText(buffer, at + 4, 4) : ipText(buffer, at + 8, 16);
  return { address, port: buffer.readUInt16BE(at + 2) };
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, value >> 8);
}

function keyBytes(operation: string, text: string): Uint8Array {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length !== KEY_SIZE) throw new NetlinkError(operation, EINVAL, `"${text}" is not a key`);
  return bytes;
}

interface GrowingPeer extends WireguardPeerState {
  readonly allowedIps: string[];
}

/** Puts the answers to WG_CMD_GET_DEVICE together: a peer with many prefixes goes on in the next message. */
export class StateDecoder {
  #publicKey: string | undefined;
  #listenPort = 0;
  readonly #peers = new Map<string, GrowingPeer>();

  /** One message: buffer[start, end). */
  add(buffer: Buffer, start: number, end: number): void {
    forEachAttribute(buffer, start + GENL_HEADER, end, (type, at, length) => {
      if (type === DEVICE.PUBLIC_KEY) this.#publicKey = buffer.toString('base64', at, at + length);
      else if (type === DEVICE.LISTEN_PORT) this.#listenPort = buffer.readUInt16LE(at);
      else if (type === DEVICE.PEERS)
        forEachAttribute(buffer, at, at + length, (_, peerAt, peerLength) =>
          this.#peer(buffer, peerAt, peerAt + peerLength),
        );
    });
  }

  state(): WireguardState {
    return {
      ...(this.#publicKey === undefined ? {} : { publicKey: this.#publicKey }),
      listenPort: this.#listenPort,
      peers: [...this.#peers.values()],
    };
  }

  #peer(buffer: Buffer, start: number, end: number): void {
    let [publicKey, lastHandshake, receivedBytes, sentBytes] = ['', 0, 0, 0];
    let endpoint: Endpoint | undefined;
    const allowedIps: string[] = [];
    forEachAttribute(buffer, start, end, (type, at, length) => {
      if (type === PEER.PUBLIC_KEY) publicKey = buffer.toString('base64', at, at + length);
      else if (type === PEER.ENDPOINT) endpoint = decodeEndpoint(buffer, at);
      else if (type === PEER.LAST_HANDSHAKE_TIME) lastHandshake = Number(buffer.readBigInt64LE(at));
      else if (type === PEER.RX_BYTES) receivedBytes = Number(buffer.readBigUInt64LE(at));
      else if (type === PEER.TX_BYTES) sentBytes = Number(buffer.readBigUInt64LE(at));
      else if (type === PEER.ALLOWEDIPS)
        forEachAttribute(buffer, at, at + length, (_, ipAt, ipLength) =>
          allowedIps.push(decodeAllowedIp(buffer, ipAt, ipAt + ipLength)),
        );
    });
    const known = this.#peers.get(publicKey);
    if (known !== undefined) known.allowedIps.push(...allowedIps);
    else
      this.#peers.set(publicKey, {
        publicKey,
        ...(endpoint === undefined ? {} : { endpoint }),
        allowedIps,
        lastHandshake,
        receivedBytes,
        sentBytes,
      });
  }
}

function decodeAllowedIp(buffer: Buffer, start: number, end: number): string {
  let [address, mask] = ['', 0];
  forEachAttribute(buffer, start, end, (type, at, length) => {
    if (type === ALLOWEDIP.IPADDR) address = ipText(buffer, at, length);
    if (type === ALLOWEDIP.CIDR_MASK) mask = buffer[at] ?? 0;
  });
  return `${address}/${mask}`;
}
