import { NetlinkError } from '../../loader/netlink/errors.js';
import { SockDiag } from '../../loader/netlink/sock-diag.js';
import type { Netns } from '../../loader/netns.js';
import { formatAddress } from '../../policy/address.js';
import type { PortProtocol } from '../../policy/model/resources.js';

/** A port that a process of the host has. */
export interface HostListener {
  readonly protocol: PortProtocol;
  /** Canonical; 0.0.0.0 or :: for all addresses of the family. */
  readonly address: string;
  readonly port: number;
}

/** With the socket's inode, as `/proc/PID/fd` names it. */
export interface ListeningSocket extends HostListener {
  readonly inode: number;
}

const PROTOCOLS: Readonly<Record<number, PortProtocol>> = { 6: 'TCP', 17: 'UDP' };

/**
 * Where processes listen (TCP) or take datagrams from anybody (UDP), in a namespace; default: the one that the process is
 * in. The kernel picks them: connections, of which there may be very many, are not looked at. Nothing where it can't.
 */
export function hostListeners(netns?: Netns): ListeningSocket[] {
  const diag = SockDiag.open(netns);
  try {
    return diag.listeners().flatMap(({ protocol: number, address, port, inode }) => {
      const protocol = PROTOCOLS[number];
      return protocol === undefined || port === 0
        ? []
        : [{ protocol, address: formatAddress(address), port, inode }];
    });
  } catch (error) {
    if (error instanceof NetlinkError && error.code === 'ENOENT') return []; // built without CONFIG_INET_DIAG
    throw error;
  } finally {
    diag.close();
  }
}
