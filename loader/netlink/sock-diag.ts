import type { Netns } from '../netns.js';
import { AF, NETLINK_SOCK_DIAG, SOCK_DIAG } from './constants.js';
import { NetlinkError } from './errors.js';
import type { MessageBuilder } from './message.js';
import { Requests } from './requests.js';

const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;
/** Connected UDP sockets are in this state (enum of linux/tcp_states.h). */
const ESTABLISHED = 1 << 1;
const ALL_STATES = 0xfff;
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

/** Sockets of a network namespace (NETLINK_SOCK_DIAG, linux/inet_diag.h). */
export class SockDiag extends Requests {
  /** Opens it in a namespace; default: the one that the process is in. Throws NetlinkError. */
  static open(netns?: Netns): SockDiag {
    return new SockDiag(netns, NETLINK_SOCK_DIAG);
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
