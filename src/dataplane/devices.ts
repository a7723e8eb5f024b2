import { isAbsent, NetlinkError } from '../../loader/netlink/errors.js';
import type { Link } from '../../loader/netlink/link.js';
import type { NewVeth } from '../../loader/netlink/links.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import type { Netns } from '../../loader/netns.js';
import { ensureSysctls } from '../../loader/sysctl.js';
import { IPV6_MIN_MTU } from '../../policy/address.js';
import type { AttachmentSpec, FamilySpec } from '../state/desired.js';

/** Protocol number of the routes that Sluice makes (see docs/design.md). */
export const ROUTE_PROTOCOL = 84;
/** Index of lo in every namespace. */
export const LOOPBACK = 1;
/** How long the kernel may take for what it does later, and how often it is asked. */
const LATER_MS = 1000;
const LOOK_MS = 0.2;
const ETIMEDOUT = 110;
const CLOCK = new Int32Array(new SharedArrayBuffer(4));

/** A device that exists: `ifindex` on the side where the programs are, `inside` in the container's namespace. */
export interface MadeDevice {
  readonly ifindex: number;
  readonly inside: number;
}

/**
 * Makes the device of an attachment, down, with nothing on it; `netns` gets the container's side. Throws NetlinkError; EEXIST or EBUSY
 * when an index or a name is taken (see `takenIndex`).
 */
export function makeDevice(
  host: Rtnetlink,
  spec: AttachmentSpec,
  ifindex: number,
  netns: Netns,
  parent: number,
): MadeDevice {
  const { device, mac, mtu } = spec;
  if (spec.mode === 'macvlan') {
    const made = host.createMacvlan({
      name: device,
      parent,
      mode: 'bridge',
      netns,
      mac,
      mtu,
      ifindex,
      ...quiet(mtu),
    });
    return { ifindex: made.ifindex, inside: made.ifindex };
  }
  const made = host.createVeth(vethOf(spec, ifindex, netns));
  return { ifindex: made.ifindex, inside: made.peerIfindex };
}

/** No link-local address. Below the smallest MTU of IPv6 (RFC 8200) a device has nothing of IPv6 that could be set. */
export function quiet(mtu: number): { readonly noIpv6LinkLocal?: true } {
  return mtu < IPV6_MIN_MTU ? {} : { noIpv6LinkLocal: true };
}

/** The pair of devices of an attachment that is not in mode macvlan. */
export function vethOf(spec: AttachmentSpec, ifindex: number, netns: Netns): NewVeth {
  const { device, mac, mtu } = spec;
  return {
    name: spec.hostName,
    ifindex,
    mac: spec.hostMac,
    mtu,
    alias: spec.alias,
    ...quiet(mtu),
    queues: 1, // nothing of ours uses more, and more take longer to make
    keepGroup: true, // see configureHost
    peer: { name: spec.handover ?? device, netns, mac, mtu },
  };
}

/** Removes the device of an attachment. It may be gone already. */
export function removeDevice(
  host: Rtnetlink,
  spec: Pick<AttachmentSpec, 'mode'>,
  ifindex: number,
  netns: Netns | undefined,
): void {
  if (spec.mode !== 'macvlan') ignoreAbsent(() => host.deleteLink(ifindex));
  if (spec.mode !== 'macvlan' || netns === undefined) return;
  const inside = Rtnetlink.open(netns);
  try {
    ignoreAbsent(() => inside.deleteLink(ifindex));
  } finally {
    inside.close();
  }
}

/**
 * Brings the container's side up with lo, addresses, routes and (routed) the gateway's permanent neighbour entry. When it
 * returns, packets to the addresses are taken. `rtnl` is in the namespace.
 */
export function configureInside(rtnl: Rtnetlink, spec: AttachmentSpec, netns: Netns, inside: number): void {
  try {
    configureWith(rtnl, spec, inside);
  } catch (error) {
    if (!(error instanceof NetlinkError) || error.code !== 'EACCES' || spec.ipv6 === undefined) throw error;
    // IPv6 is turned off in the namespace (Docker does that): on again, for this device.
    ensureSysctls({ [`net/ipv6/conf/${spec.device}/disable_ipv6`]: 0 }, netns);
    configureWith(rtnl, spec, inside);
  }
  // The kernel makes the local route of an IPv6 address in a task of its own, also where nothing is to be detected.
  const { ipv6 } = spec;
  if (ipv6 !== undefined)
    awaitLater(`add ${ipv6.address} to link ${inside}`, () => rtnl.routeTo(ipv6.address)?.type === 'local');
}

/**
 * Waits until the host's side carries packets: both sides are up, but the kernel switches the queue of the one that was
 * up first on later (see `Link.operational`). Throws NetlinkError if it doesn't.
 */
export function awaitOperational(host: Rtnetlink, ifindex: number): void {
  awaitLater(`bring link ${ifindex} up`, () => host.link(ifindex)?.operational === true);
}

/** For what the kernel does within microseconds, mostly. Blocks. */
export function awaitLater(operation: string, isDone: () => boolean): void {
  for (const deadline = performance.now() + LATER_MS; !isDone(); Atomics.wait(CLOCK, 0, 0, LOOK_MS)) {
    if (performance.now() > deadline)
      throw new NetlinkError(operation, ETIMEDOUT, 'the kernel did not complete it within a second');
  }
}

function configureWith(rtnl: Rtnetlink, spec: AttachmentSpec, inside: number): void {
  rtnl.batch(() => {
    rtnl.setLink(LOOPBACK, { up: true });
    rtnl.setLink(inside, { ...quiet(spec.mtu), up: true });
    for (const family of families(spec)) {
      const routed = spec.mode === 'routed';
      const alone = routed && spec.runtimeRoutes === undefined;
      const bits = family.address.includes(':') ? 128 : 32;
      rtnl.addAddress(inside, {
        address: family.address,
        prefix: alone ? bits : family.prefix,
        noDad: true,
        replace: true,
      });
      if (routed)
        rtnl.setNeighbour({ ifindex: inside, address: family.gateway, mac: spec.hostMac, permanent: true });
      for (const destination of destinations(spec, family)) {
        rtnl.addRoute({
          destination,
          family: bits === 128 ? 6 : 4,
          gateway: family.gateway,
          ifindex: inside,
          onLink: routed,
          scope: 'universe',
          source: family.address,
          replace: true,
        });
      }
    }
    for (const { destination, gateway } of spec.routes ?? []) {
      const v6 = destination.includes(':');
      const family = v6 ? spec.ipv6 : spec.ipv4;
      if (family === undefined) continue;
      rtnl.addRoute({
        destination,
        family: v6 ? 6 : 4,
        gateway: gateway ?? family.gateway,
        ifindex: inside,
        onLink: spec.mode === 'routed',
        scope: 'universe',
        source: family.address,
        replace: true,
      });
    }
  });
}

/** First network: everything through its gateway. Further ones: only their own range, where it is not on the link. */
function destinations(spec: AttachmentSpec, family: FamilySpec): string[] {
  if (spec.defaultRoute) return ['default'];
  return spec.mode === 'routed' && spec.runtimeRoutes === undefined ? [family.cidr] : [];
}

/** Brings the host's side up, with routes and neighbour entries for the stack's own traffic, or as a port of the bridge. */
export function configureHost(
  host: Rtnetlink,
  spec: AttachmentSpec,
  ifindex: number,
  bridge: number | undefined,
): void {
  if (spec.mode === 'macvlan') return;
  host.batch(() => {
    host.setLink(ifindex, { up: true, group: 0, ...(bridge === undefined ? {} : { master: bridge }) });
    if (spec.mode !== 'routed') return;
    for (const family of families(spec)) {
      host.setNeighbour({ ifindex, address: family.address, mac: spec.mac, permanent: true });
      host.addRoute({
        destination: family.address,
        ifindex,
        source: family.gateway,
        protocol: ROUTE_PROTOCOL,
        replace: true,
      });
    }
  });
}

/** Changes the MTU of both sides. */
export function setMtu(host: Rtnetlink, spec: AttachmentSpec, ifindex: number, netns: Netns): void {
  const inside = Rtnetlink.open(netns);
  try {
    const mine = (link: Link): boolean => link.mac === spec.mac && link.kind === 'veth';
    const link = spec.handover === undefined ? inside.link(spec.device) : inside.links().find(mine);
    if (link !== undefined) inside.setLink(link.index, { mtu: spec.mtu });
  } finally {
    inside.close();
  }
  if (spec.mode !== 'macvlan') host.setLink(ifindex, { mtu: spec.mtu });
}

/** Only lo: containers of a network of mode `none`. */
export function loopbackUp(netns: Netns): void {
  const rtnl = Rtnetlink.open(netns);
  try {
    rtnl.setLink(LOOPBACK, { up: true });
  } finally {
    rtnl.close();
  }
}

/** Whether making a device failed because its index is in use. */
export function takenIndex(error: unknown): boolean {
  return error instanceof NetlinkError && (error.code === 'EEXIST' || error.code === 'EBUSY');
}

export function families(spec: Pick<AttachmentSpec, 'ipv4' | 'ipv6'>): FamilySpec[] {
  return [spec.ipv4, spec.ipv6].filter((family) => family !== undefined);
}

function ignoreAbsent(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
}
