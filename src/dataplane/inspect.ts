import { NetlinkError } from '../../loader/netlink/errors.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import { type Netns, openNetns } from '../../loader/netns.js';
import type { HostSide } from '../../policy/model/resources.js';

/** One device of a network namespace with its addresses, and the routes of the namespace. */
export interface InspectedDevice {
  readonly mac: string;
  readonly up: boolean;
  readonly carrier: boolean;
  /** With prefix length. */
  readonly addresses: readonly string[];
  readonly routes: readonly { readonly destination: string; readonly gateway?: string }[];
}

/** What a namespace has of a device; undefined if there is no such namespace or device. Throws NetlinkError. */
export function inspectDevice(path: string, device: string): InspectedDevice | undefined {
  return inNamespace(path, (rtnl) => {
    const link = rtnl.link(device);
    if (link === undefined) return undefined;
    const addresses = rtnl.addresses(link.index).map(({ address, prefix }) => `${address}/${prefix}`);
    const { mac, up, carrier } = link;
    return { mac, up, carrier, addresses, routes: routesIn(rtnl) };
  });
}

/**
 * The veth pair of a device in a namespace, if its other end is in the agent's own: what the container's end has as MAC
 * address, and the host's end. Throws NetlinkError.
 */
export function vethPair(path: string, device: string): { mac: string; hostSide: HostSide } | undefined {
  return inNamespace(path, (inside, netns) => {
    const link = inside.link(device);
    if (link?.kind !== 'veth' || link.linkIndex === undefined) return undefined;
    const rtnl = Rtnetlink.open();
    try {
      // Indexes alone say little: other namespaces have the same.
      const host = rtnl.link(link.linkIndex);
      if (host?.kind !== 'veth' || host.linkIndex !== link.index) return undefined;
      if (host.netnsId === undefined || host.netnsId !== rtnl.netnsIdOf(netns)) return undefined;
      const { name, index: ifindex, mac, mtu } = host;
      return { mac: link.mac, hostSide: { name, ifindex, mac, mtu } };
    } finally {
      rtnl.close();
    }
  });
}

/** The families for which a namespace has a default route. */
export function defaultRoutes(path: string): ReadonlySet<4 | 6> {
  const routes = inNamespace(path, routesIn) ?? [];
  const families = routes.flatMap(({ destination }): (4 | 6)[] =>
    destination === '0.0.0.0/0' ? [4] : destination === '::/0' ? [6] : [],
  );
  return new Set(families);
}

function routesIn(rtnl: Rtnetlink): { destination: string; gateway?: string }[] {
  return rtnl.routes({}).map(({ destination, family, gateway }) => ({
    destination: destination === 'default' ? (family === 4 ? '0.0.0.0/0' : '::/0') : withPrefix(destination),
    ...(gateway === undefined ? {} : { gateway }),
  }));
}

function withPrefix(destination: string): string {
  if (destination.includes('/')) return destination;
  return `${destination}/${destination.includes(':') ? 128 : 32}`;
}

function inNamespace<T>(path: string, work: (rtnl: Rtnetlink, netns: Netns) => T): T | undefined {
  let netns: ReturnType<typeof openNetns>;
  try {
    netns = openNetns({ type: 'path', path });
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
  try {
    const rtnl = Rtnetlink.open(netns);
    try {
      return work(rtnl, netns);
    } finally {
      rtnl.close();
    }
  } finally {
    netns.close();
  }
}
