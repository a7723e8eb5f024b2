import { SockDiag } from '../../loader/netlink/sock-diag.js';
import { type Netns, openNetns } from '../../loader/netns.js';
import { formatAddress } from '../../policy/address.js';
import { endpointText } from '../../policy/services/frontends.js';
import type { GoneMember } from '../../policy/services/types.js';
import type { Logger } from '../log.js';
import { netnsCookie } from './constants.js';
import type { Kernel } from './kernel.js';
import type { SocketNetns } from './socket-netns.js';

const UDP = 17;

/**
 * A connected UDP socket goes on sending to the backend that it was given. When that is none any more, the socket is
 * destroyed (SOCK_DESTROY): whoever uses it is woken with ECONNABORTED and connects again.
 */
export class StaleSockets {
  readonly #kernel: Kernel;
  readonly #netns: SocketNetns;
  readonly #log: Logger;

  constructor(kernel: Kernel, netns: SocketNetns, log: Logger) {
    this.#kernel = kernel;
    this.#netns = netns;
    this.#log = log;
  }

  /** Destroys the sockets that were given one of these UDP backends. */
  leave(gone: readonly GoneMember[]): void {
    const { sockets } = this.#kernel.loaded.maps;
    const backends = new Set(gone.map(({ service, text }) => `${service} ${text}`));
    const byNetns = new Map<bigint, Set<bigint>>();
    for (const [key, origin] of sockets.entries()) {
      if (key.proto !== UDP || key.direction !== 0) continue;
      const backend = endpointText(formatAddress(key.addr), key.port, UDP);
      if (!backends.has(`${origin.service} ${backend}`)) continue;
      const cookies = byNetns.get(origin.netns) ?? new Set();
      byNetns.set(origin.netns, cookies.add(key.cookie));
    }
    for (const [cookie, wanted] of byNetns) {
      try {
        this.#destroy(cookie, wanted);
      } catch (err) {
        this.#log.warn({ err }, 'sockets of a removed backend could not be destroyed');
      }
    }
  }

  #destroy(cookie: bigint, wanted: ReadonlySet<bigint>): void {
    let netns: Netns | undefined;
    if (cookie !== netnsCookie()) {
      const ref = this.#netns.refOf(cookie);
      if (ref === undefined) return; // its container is gone, and its sockets with it
      netns = openNetns(ref);
    }
    try {
      const diag = SockDiag.open(netns);
      try {
        diag.destroyUdp((socket) => wanted.has(socket));
      } finally {
        diag.close();
      }
    } finally {
      netns?.close();
    }
  }
}
