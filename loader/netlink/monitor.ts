import { SystemError } from '../errors.js';
import type { Netns } from '../netns.js';
import { type Address, decodeAddress } from './address.js';
import { RTM, RTNLGRP } from './constants.js';
import { NetlinkError } from './errors.js';
import { decodeLink, type Link } from './link.js';
import { forEachMessage } from './message.js';
import { decodeNeighbour, type Neighbour } from './neighbour.js';
import { decodeRoute, type Route } from './route-message.js';
import { NetlinkSocket, RECEIVE_SIZE } from './socket.js';

export type MonitorGroup = 'link' | 'address' | 'route' | 'neighbour';

/** Something changed in the kernel. `set` is new or changed. */
export type NetlinkEvent =
  | { readonly type: 'link'; readonly action: 'set' | 'delete'; readonly link: Link }
  | { readonly type: 'address'; readonly action: 'set' | 'delete'; readonly address: Address }
  | { readonly type: 'route'; readonly action: 'set' | 'delete'; readonly route: Route }
  | { readonly type: 'neighbour'; readonly action: 'set' | 'delete'; readonly neighbour: Neighbour }
  /** Events were lost: read the lists again. */
  | { readonly type: 'overflow' };

const GROUPS: Readonly<Record<MonitorGroup, readonly number[]>> = {
  link: [RTNLGRP.LINK],
  address: [RTNLGRP.IPV4_IFADDR, RTNLGRP.IPV6_IFADDR],
  route: [RTNLGRP.IPV4_ROUTE, RTNLGRP.IPV6_ROUTE],
  neighbour: [RTNLGRP.NEIGH],
};

/** Room for several thousand events between two polls. */
const RECEIVE_BUFFER = 4 << 20;
const AF_BRIDGE = 7;

/** Watches one network namespace. It never waits: call poll from a timer. */
export class NetlinkMonitor {
  readonly #socket: NetlinkSocket;
  readonly #buffer = Buffer.from(new ArrayBuffer(RECEIVE_SIZE));
  #more = false;

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** Starts to watch a namespace; default: the one that the process is in. */
  static open(
    groups: readonly MonitorGroup[],
    ns?: Netns,
    options: { readonly receiveBuffer?: number } = {},
  ): NetlinkMonitor {
    try {
      const socket = NetlinkSocket.open({
        netns: ns,
        receiveBuffer: options.receiveBuffer ?? RECEIVE_BUFFER,
        groups: [...new Set(groups)].flatMap((group) => GROUPS[group]),
      });
      return new NetlinkMonitor(socket);
    } catch (error) {
      throw NetlinkError.from(`watch ${groups.join(', ')} changes`, error);
    }
  }

  /**
   * Reports the events so far, oldest first, from at most `limit` datagrams (one holds one event, as a
   * rule). Returns the number of events. What `on` throws comes through; the events of that datagram are lost.
   */
  poll(on: (event: NetlinkEvent) => void, limit = 4096): number {
    let count = 0;
    this.#more = true;
    const report = (event: NetlinkEvent): void => {
      count++;
      on(event);
    };
    for (let datagrams = 0; datagrams < limit; datagrams++) {
      let length: number;
      try {
        length = this.#socket.receive(this.#buffer);
      } catch (error) {
        if (!(error instanceof SystemError) || error.code !== 'ENOBUFS') {
          throw NetlinkError.from('read netlink events', error);
        }
        report({ type: 'overflow' });
        continue;
      }
      if (length < 0) {
        this.#more = false;
        break;
      }
      forEachMessage(this.#buffer, length, (type, _flags, _sequence, start, end) => {
        const event = decodeEvent(type, this.#buffer, start, end);
        if (event !== undefined) report(event);
      });
    }
    return count;
  }

  /** Whether the last poll ended at its limit. */
  get hasMore(): boolean {
    return this.#more;
  }

  close(): void {
    this.#socket.close();
  }
}

function decodeEvent(type: number, buffer: Buffer, start: number, end: number): NetlinkEvent | undefined {
  switch (type) {
    case RTM.NEWLINK:
    case RTM.DELLINK:
      // Bridges send a copy of their own for each port: deleted there means left the bridge.
      if (buffer[start] === AF_BRIDGE) return undefined;
      return { type: 'link', action: action(type, RTM.NEWLINK), link: decodeLink(buffer, start, end) };
    case RTM.NEWADDR:
    case RTM.DELADDR: {
      const address = decodeAddress(buffer, start, end);
      return address && { type: 'address', action: action(type, RTM.NEWADDR), address };
    }
    case RTM.NEWROUTE:
    case RTM.DELROUTE: {
      const route = decodeRoute(buffer, start, end);
      return route && { type: 'route', action: action(type, RTM.NEWROUTE), route };
    }
    case RTM.NEWNEIGH:
    case RTM.DELNEIGH: {
      const neighbour = decodeNeighbour(buffer, start, end);
      return neighbour && { type: 'neighbour', action: action(type, RTM.NEWNEIGH), neighbour };
    }
    default:
      return undefined;
  }
}

function action(type: number, set: number): 'set' | 'delete' {
  return type === set ? 'set' : 'delete';
}
