import type { Netns } from '../netns.js';
import { AF, NETLINK_SOCK_DIAG, SOCK_DIAG } from './constants.js';
import type { MessageBuilder } from './message.js';
import { Requests } from './requests.js';

const IPPROTO_UDP = 17;
/** Connected UDP sockets are in this state (enum of linux/tcp_states.h). */
const ESTABLISHED = 1 << 1;
/** struct inet_diag_sockid: ports, addresses, device, cookie. */
const SOCKID = 48;
const COOKIE = 40;
/** struct inet_diag_msg: family, state, timer and retransmissions stand before the id. */
const ID_OFFSET = 4;

/** Sockets of a network namespace (NETLINK_SOCK_DIAG, linux/inet_diag.h). */
export class SockDiag extends Requests {
  /** Opens it in a namespace; default: the one that the process is in. Throws NetlinkError. */
  static open(netns?: Netns): SockDiag {
    return new SockDiag(netns, NETLINK_SOCK_DIAG);
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
function request(message: MessageBuilder, family: number, states: number, id: Uint8Array): void {
  message.u8(family).u8(IPPROTO_UDP).u8(0).u8(0).u32(states).bytesOf(id);
}
