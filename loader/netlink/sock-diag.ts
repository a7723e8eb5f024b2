import type { Netns } from '../netns.js';
import { AF, NETLINK_SOCK_DIAG, SOCK_DIAG } from './constants.js';
import { NetlinkError } from './errors.js';
import { forEachAttribute, type MessageBuilder } from './message.js';
import { Requests } from './requests.js';

const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;
/** Connected UDP sockets are in this state (enum of linux/tcp_states.h). */
const ESTABLISHED = 1 << 1;
const ALL_STATES = 0xfff;
/** By their numbers in linux/tcp_states.h: established, two of a handshake, the other side has closed. */
const OPEN_STATES: ReadonlySet<number> = new Set([1, 2, 3, 8]);
const LISTEN = 10;
/** A UDP socket that is not connected. */
const CLOSE = 7;
/** In which states a socket takes what comes from anybody. */
const WAITING: ReadonlyMap<number, number> = new Map([
  [IPPROTO_TCP, 1 << LISTEN],
  [IPPROTO_UDP, 1 << CLOSE],
]);
/** struct inet_diag_msg: offsets of the user and the inode, and size. */
const UID = 64;
const INODE = 68;
const MESSAGE = 72;
const INET_DIAG_SKV6ONLY = 11;
const INET_DIAG_CGROUP_ID = 21;
/** struct inet_diag_sockid: ports, addresses, device, cookie. */
const SOCKID = 48;
const COOKIE = 40;
/** struct inet_diag_msg: family, state, timer and retransmissions stand before the id. */
const ID_OFFSET = 4;

/** One side of a connection: 16 bytes, IPv4 v4-mapped, and the port. */
export interface SocketEnd {
  readonly address: Uint8Array;
  readonly port: number;
}

/** A TCP socket, or a UDP socket that is connected. */
export interface HostSocket {
  readonly protocol: number;
  readonly state: 'open' | 'listen';
  readonly local: SocketEnd;
  readonly remote: SocketEnd;
  /** Number of the user that owns it. */
  readonly user: number;
  /** Id of its cgroup (v2). */
  readonly cgroup: bigint;
}

/** Where a socket takes what comes from anybody: one of TCP that listens, or one of UDP that is not connected. */
export interface Listener extends SocketEnd {
  readonly protocol: number;
  /** As `/proc/PID/fd` names the socket. */
  readonly inode: number;
}

/** Sockets of a network namespace (NETLINK_SOCK_DIAG, linux/inet_diag.h). */
export class SockDiag extends Requests {
  /** Opens it in a namespace; default: the one that the process is in. Throws NetlinkError. */
  static open(netns?: Netns): SockDiag {
    return new SockDiag(netns, NETLINK_SOCK_DIAG);
  }

  /** Sockets that are open or wait for connections. */
  sockets(): HostSocket[] {
    return [IPPROTO_TCP, IPPROTO_UDP].flatMap((protocol) =>
      [AF.INET, AF.INET6].flatMap((family) =>
        this.dump(
          'list sockets',
          SOCK_DIAG.BY_FAMILY,
          (message) => request(message, family, ALL_STATES, Buffer.alloc(SOCKID), protocol),
          (buffer, start, end) => decodeSocket(buffer, start, end, protocol),
        ),
      ),
    );
  }

  /** Those that take what comes. One at `::` that takes IPv4 too is there twice. */
  listeners(): Listener[] {
    return [...WAITING].flatMap(([protocol, states]) =>
      [AF.INET, AF.INET6].flatMap((family) => {
        const both: Listener[] = [];
        const found = this.dump(
          'list sockets that listen',
          SOCK_DIAG.BY_FAMILY,
          (message) => request(message, family, states, Buffer.alloc(SOCKID), protocol),
          (buffer, start, end) => {
            const id = start + ID_OFFSET;
            const local = { address: addressAt(buffer, family, id + 4), port: buffer.readUInt16BE(id) };
            const inode = buffer.readUInt32LE(start + INODE);
            if (family === AF.INET6 && isUnset(local.address) && !isIpv6Only(buffer, start, end))
              both.push({ protocol, address: ANY_IPV4, port: local.port, inode });
            return { protocol, ...local, inode };
          },
        );
        return [...found, ...both];
      }),
    );
  }

  /**
   * Cookie of the socket that has `local` and gets what `remote` sends, as bpf_get_socket_cookie has it; undefined: there
   * is none. UDP sockets need not be connected.
   */
  cookieOf(protocol: number, local: SocketEnd, remote: SocketEnd): bigint | undefined {
    const mapped = isMapped(local.address);
    // The kernel looks for a UDP socket as for who gets a packet (udp_dump_one), for a TCP socket by its own ends.
    const id = protocol === IPPROTO_TCP ? sockId(local, remote, mapped) : sockId(remote, local, mapped);
    let cookie: bigint | undefined;
    try {
      this.request(
        'look for a socket',
        SOCK_DIAG.BY_FAMILY,
        0,
        (message) => request(message, mapped ? AF.INET : AF.INET6, ALL_STATES, id, protocol),
        (buffer, start) => {
          cookie = buffer.readBigUInt64LE(start + ID_OFFSET + COOKIE);
        },
      );
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENOENT') return undefined;
      throw error;
    }
    return cookie;
  }

  /**
   * Ends the connected UDP sockets that `wanted` says (by cookie, as bpf_get_socket_cookie has it) with ECONNABORTED.
   * Returns how many there were. Needs CONFIG_INET_DIAG_DESTROY.
   */
  destroyUdp(wanted: (cookie: bigint) => boolean): number {
    let destroyed = 0;
    for (const family of [AF.INET, AF.INET6]) {
      const found = this.dump(
        'list UDP sockets',
        SOCK_DIAG.BY_FAMILY,
        (message) => request(message, family, ESTABLISHED, Buffer.alloc(SOCKID)),
        (buffer, start) => {
          const id = Buffer.from(buffer.subarray(start + ID_OFFSET, start + ID_OFFSET + SOCKID));
          return wanted(id.readBigUInt64LE(COOKIE)) ? id : undefined;
        },
      );
      this.batch(
        () => {
          for (const id of found)
            this.change('destroy a UDP socket', SOCK_DIAG.DESTROY, 0, (message) =>
              request(message, family, ESTABLISHED, id),
            );
        },
        () => {
          destroyed--; // closed by itself meanwhile
        },
      );
      destroyed += found.length;
    }
    return destroyed;
  }
}

/** struct inet_diag_req_v2. */
function request(
  message: MessageBuilder,
  family: number,
  states: number,
  id: Uint8Array,
  protocol = IPPROTO_UDP,
): void {
  message.u8(family).u8(protocol).u8(0).u8(0).u32(states).bytesOf(id);
}

/** Undefined: it is neither open nor does it listen. */
function decodeSocket(buffer: Buffer, start: number, end: number, protocol: number): HostSocket | undefined {
  const state = buffer[start + 1] ?? 0;
  if (!OPEN_STATES.has(state) && state !== LISTEN) return undefined;
  const id = start + ID_OFFSET;
  const address = (at: number): Uint8Array => addressAt(buffer, buffer[start] ?? 0, at);
  let cgroup = 0n;
  forEachAttribute(buffer, start + MESSAGE, end, (type, at) => {
    if (type === INET_DIAG_CGROUP_ID) cgroup = buffer.readBigUInt64LE(at);
  });
  return {
    protocol,
    state: state === LISTEN ? 'listen' : 'open',
    local: { address: address(id + 4), port: buffer.readUInt16BE(id) },
    remote: { address: address(id + 20), port: buffer.readUInt16BE(id + 2) },
    user: buffer.readUInt32LE(start + UID),
    cgroup,
  };
}

const ANY_IPV4 = new Uint8Array(16).fill(0xff, 10, 12);

function addressAt(buffer: Buffer, family: number, at: number): Uint8Array {
  if (family === AF.INET6) return Uint8Array.prototype.slice.call(buffer, at, at + 16);
  const mapped = ANY_IPV4.slice();
  mapped.set(buffer.subarray(at, at + 4), 12);
  return mapped;
}

function isIpv6Only(buffer: Buffer, start: number, end: number): boolean {
  let only = false;
  forEachAttribute(buffer, start + MESSAGE, end, (type, at) => {
    if (type === INET_DIAG_SKV6ONLY) only = buffer[at] === 1;
  });
  return only;
}

function isUnset(address: Uint8Array): boolean {
  return address.every((byte) => byte === 0);
}

function isMapped(address: Uint8Array): boolean {
  return address.subarray(0, 10).every((byte) => byte === 0) && address[10] === 0xff && address[11] === 0xff;
}

/** struct inet_diag_sockid for any device and cookie. */
function sockId(source: SocketEnd, destination: SocketEnd, mapped: boolean): Buffer {
  const id = Buffer.alloc(SOCKID);
  id.writeUInt16BE(source.port, 0);
  id.writeUInt16BE(destination.port, 2);
  id.set(mapped ? source.address.subarray(12) : source.address, 4);
  id.set(mapped ? destination.address.subarray(12) : destination.address, 20);
  id.fill(0xff, COOKIE); // INET_DIAG_NOCOOKIE
  return id;
}
