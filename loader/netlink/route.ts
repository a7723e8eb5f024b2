import type { Netns } from '../netns.js';
import {
  type Address,
  type AddressInput,
  decodeAddress,
  encodeAddress,
  encodeAddressHeader,
} from './address.js';
import { NLM_F, RTM } from './constants.js';
import { isAbsent, NetlinkError } from './errors.js';
import { LinkRequests } from './links.js';
import {
  decodeNeighbour,
  encodeNeighbour,
  encodeNeighbourKey,
  encodeNeighbourQuery,
  type Neighbour,
  type NeighbourInput,
} from './neighbour.js';
import {
  decodeRoute,
  encodeRoute,
  encodeRouteFilter,
  encodeRouteKey,
  encodeRouteLookup,
  type Route,
  type RouteFilter,
  type RouteInput,
} from './route-message.js';

/**
 * Links, addresses, routes and neighbours of one network namespace, over one AF_NETLINK socket.
 * Everything is synchronous; what fails throws NetlinkError with the operation, the errno and the
 * kernel's own words. Main thread only.
 */
export class Rtnetlink extends LinkRequests {
  /** Opens a socket in a namespace; default: the one that the process is in. `ns` may be closed afterwards. */
  static open(ns?: Netns): Rtnetlink {
    return new Rtnetlink(ns);
  }

  /** Adds an address. EEXIST: the device has it already. ENODEV: no such device. */
  addAddress(ifindex: number, address: AddressInput & { readonly replace?: boolean | undefined }): void {
    const operation = `add address ${address.address}/${address.prefix} to link ${ifindex}`;
    const flags = NLM_F.CREATE | (address.replace === true ? NLM_F.REPLACE : NLM_F.EXCL);
    this.change(operation, RTM.NEWADDR, flags, (message) => {
      encodeAddress(operation, message, ifindex, address);
    });
  }

  /** EADDRNOTAVAIL: the device does not have it. */
  deleteAddress(ifindex: number, address: { readonly address: string; readonly prefix: number }): void {
    const operation = `delete address ${address.address}/${address.prefix} from link ${ifindex}`;
    this.change(operation, RTM.DELADDR, 0, (message) => encodeAddress(operation, message, ifindex, address));
  }

  /** The addresses of a device (ENODEV: there is none), or of all devices. */
  addresses(ifindex?: number): Address[] {
    return this.dump(
      ifindex === undefined ? 'list addresses' : `list addresses of link ${ifindex}`,
      RTM.GETADDR,
      (message) => encodeAddressHeader(message, ifindex === undefined ? {} : { ifindex }),
      decodeAddress,
    );
  }

  /**
   * Adds a route, or with `replace` sets it. EEXIST: there is one to this destination with this
   * metric. ENETUNREACH: the gateway is not on a link. ENETDOWN: the device is down.
   */
  addRoute(route: RouteInput & { readonly replace?: boolean | undefined }): void {
    const operation = `add route ${describe(route)}`;
    const flags = NLM_F.CREATE | (route.replace === true ? NLM_F.REPLACE : NLM_F.EXCL);
    this.change(operation, RTM.NEWROUTE, flags, (message) => encodeRoute(operation, message, route));
  }

  /** Removes the first route that has everything that is given. ESRCH: none has. */
  deleteRoute(route: RouteInput): void {
    const operation = `delete route ${describe(route)}`;
    this.change(operation, RTM.DELROUTE, 0, (message) => encodeRouteKey(operation, message, route));
  }

  /** Routes of both families; those of the main table unless the filter names another. */
  routes(filter: RouteFilter = {}): Route[] {
    const families = filter.family === undefined ? ([4, 6] as const) : [filter.family];
    return families.flatMap((family) => {
      let routes: Route[];
      try {
        routes = this.dump(
          'list routes',
          RTM.GETROUTE,
          (message) => encodeRouteFilter(message, family, filter),
          (buffer, start, end) => decodeRoute(buffer, start, end),
        );
      } catch (error) {
        if (isAbsent(error)) return []; // a table or a device that does not exist
        throw error;
      }
      // A kernel without IPv6 answers with what it has.
      return routes.filter((route) => route.family === family);
    });
  }

  /** The route that a packet from this host to an address takes; undefined if there is none. */
  routeTo(address: string): Route | undefined {
    const operation = `look up the route to ${address}`;
    let found: Route | undefined;
    try {
      this.request(
        operation,
        RTM.GETROUTE,
        0,
        (message) => encodeRouteLookup(operation, message, address),
        (buffer, start, end) => {
          found = decodeRoute(buffer, start, end, true);
        },
      );
    } catch (error) {
      if (!(error instanceof NetlinkError) || !UNROUTABLE.has(error.code)) throw error;
    }
    return found;
  }

  /** Adds or replaces a neighbour entry. */
  setNeighbour(neighbour: NeighbourInput): void {
    const operation = `set neighbour ${neighbour.address} of link ${neighbour.ifindex}`;
    this.change(operation, RTM.NEWNEIGH, NLM_F.CREATE | NLM_F.REPLACE, (message) => {
      encodeNeighbour(operation, message, neighbour);
    });
  }

  /** ENOENT: there is none. */
  deleteNeighbour(key: { readonly ifindex: number; readonly address: string }): void {
    const operation = `delete neighbour ${key.address} of link ${key.ifindex}`;
    this.change(operation, RTM.DELNEIGH, 0, (message) => encodeNeighbourKey(operation, message, key));
  }

  /** The neighbour entries of a device, or of all. */
  neighbours(ifindex?: number): Neighbour[] {
    return this.dump(
      ifindex === undefined ? 'list neighbours' : `list neighbours of link ${ifindex}`,
      RTM.GETNEIGH,
      (message) => encodeNeighbourQuery(message, ifindex),
      decodeNeighbour,
    );
  }
}

/** What a lookup ends with where no route or one of type unreachable, prohibit matches. */
const UNROUTABLE: ReadonlySet<string> = new Set(['ENETUNREACH', 'EHOSTUNREACH', 'EACCES']);

function describe(route: RouteInput): string {
  const { type, destination, gateway, ifindex, table } = route;
  const parts = [
    type === undefined || type === 'unicast' ? destination : `${type} ${destination}`,
    gateway === undefined ? '' : ` via ${gateway}`,
    ifindex === undefined ? '' : ` on link ${ifindex}`,
    table === undefined ? '' : ` in table ${table}`,
  ];
  return parts.join('');
}
