import { SystemError } from '../errors.js';
import {
  AF_NETLINK,
  bind,
  close,
  getsockopt,
  MSG_DONTWAIT,
  MSG_TRUNC,
  recv,
  SO_NETNS_COOKIE,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SOCK_RAW,
  SOL_NETLINK,
  SOL_SOCKET,
  sendLater,
  sendto,
  setsockopt,
  socket,
  tryIoctl,
} from '../ffi/libc.js';
import { insideNetns, type Netns } from '../netns.js';
import { NETLINK_OPTION, NETLINK_ROUTE } from './constants.js';

/** The kernel fills datagrams of up to 32 KiB in a dump. */
export const RECEIVE_SIZE = 64 * 1024;

/** struct ifreq (linux/if.h): the name, then a union that begins with the index. */
const IFREQ = { size: 40, index: 16 } as const;
/** The name of a device by its index, and the index by its name (linux/sockios.h). */
const SIOCGIFNAME = 0x8910;
const SIOCGIFINDEX = 0x8933;

const ENODEV = 19;
const EMSGSIZE = 90;
const ENOBUFS = 105;

const ifreq = Buffer.from(new ArrayBuffer(IFREQ.size));

/**
 * A raw AF_NETLINK socket. It works on the namespace that it was opened in, wherever
 * the process is later. Calls that fail throw SystemError.
 */
export class NetlinkSocket {
  readonly fd: number;
  #open = true;
  #cookie: bigint | undefined;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /**
   * Opens a socket in a namespace (default: the current one). `receiveBuffer` is in bytes and goes
   * beyond net.core.rmem_max where the process may do so. With `groups` it is a member of these
   * multicast groups.
   */
  static open(options: {
    readonly netns?: Netns | undefined;
    readonly receiveBuffer: number;
    readonly groups?: readonly number[];
    /** Netlink family; default: rtnetlink. */
    readonly protocol?: number;
  }): NetlinkSocket {
    const create = (): number => socket(AF_NETLINK, SOCK_RAW, options.protocol ?? NETLINK_ROUTE);
    const fd = options.netns === undefined ? create() : insideNetns(options.netns, create);
    try {
      try {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, options.receiveBuffer);
      } catch (error) {
        if (!(error instanceof SystemError)) throw error;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, options.receiveBuffer);
      }
      setsockopt(fd, SOL_NETLINK, NETLINK_OPTION.EXT_ACK, 1);
      setsockopt(fd, SOL_NETLINK, NETLINK_OPTION.CAP_ACK, 1);
      setsockopt(fd, SOL_NETLINK, NETLINK_OPTION.GET_STRICT_CHK, 1);
      if (options.groups !== undefined) {
        // Bound first: an unbound socket has the kernel's own port number and is left out of multicasts.
        const address = Buffer.alloc(12);
        address.writeUInt16LE(AF_NETLINK, 0);
        bind(fd, address);
        for (const group of options.groups) setsockopt(fd, SOL_NETLINK, NETLINK_OPTION.ADD_MEMBERSHIP, group);
      }
    } catch (error) {
      close(fd);
      throw error;
    }
    return new NetlinkSocket(fd);
  }

  /** Sends messages to the kernel, which carries requests out before this returns. */
  send(messages: Uint8Array): void {
    sendto(this.fd, messages);
  }

  /** The same on another thread: this one goes on while the kernel works. The memory must not change meanwhile. */
  async sendLater(messages: Uint8Array): Promise<void> {
    if ((await sendLater(this.fd, messages)) !== messages.length)
      throw new SystemError('send to netlink', ENOBUFS);
  }

  /** Receives one datagram without waiting. Returns its length, or -1 if there is none. */
  receive(into: Buffer): number {
    const length = recv(this.fd, into, MSG_DONTWAIT | MSG_TRUNC);
    if (length > into.length) throw new SystemError('receive from netlink', EMSGSIZE);
    return length;
  }

  /**
   * Whether the namespace of the socket has a device of this name or index. Other than RTM_GETLINK this does not wait for
   * the kernel's lock of the configuration (net/core/dev_ioctl.c), which is held while devices are removed.
   */
  hasLink(nameOrIndex: string | number): boolean {
    ifreq.fill(0);
    const byName = typeof nameOrIndex === 'string';
    if (byName) ifreq.write(nameOrIndex, 0, IFREQ.index - 1, 'utf8');
    else ifreq.writeInt32LE(nameOrIndex, IFREQ.index);
    const result = tryIoctl(this.fd, byName ? SIOCGIFINDEX : SIOCGIFNAME, ifreq);
    if (result < 0 && result !== -ENODEV) throw new SystemError(`look for link ${nameOrIndex}`, -result);
    return result >= 0;
  }

  /** Number of the namespace of the socket, as BPF programs see it; never reused. */
  netnsCookie(): bigint {
    this.#cookie ??= getsockopt(this.fd, SOL_SOCKET, SO_NETNS_COOKIE, 8).readBigUInt64LE(0);
    return this.#cookie;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    close(this.fd);
  }
}
