import { type Scope, scopeName, scopeNumber } from './address.js';
import {
  AF,
  LWTUNNEL,
  LWTUNNEL_IP,
  ROUTE_TYPES,
  RT_TABLE,
  RTA,
  RTAX_MTU,
  RTM_F_CLONED,
  RTNH_F,
  RTPROT,
  TUNNEL_FLAGS,
} from './constants.js';
import { NetlinkError } from './errors.js';
import { forEachAttribute, type MessageBuilder } from './message.js';
import { type Family, familyOf, ipBytes, ipText } from './text.js';

export type RouteType = keyof typeof ROUTE_TYPES;

/** A route to add or to delete. */
export interface RouteInput {
  /** `a.b.c.d/n`, `x::/n`, an address (a host route), or `default`. */
  readonly destination: string;
  /** Needed with `default` without a gateway, else it follows from the addresses. */
  readonly family?: Family | undefined;
  readonly type?: RouteType | undefined;
  /** May be IPv6 for an IPv4 destination. */
  readonly gateway?: string | undefined;
  readonly ifindex?: number | undefined;
  /** Preferred source address. */
  readonly source?: string | undefined;
  /** The gateway is on the link, whatever the other routes say. */
  readonly onLink?: boolean | undefined;
  readonly scope?: Scope | number | undefined;
  readonly metric?: number | undefined;
  /** Who made the route, 0 to 255. Default when adding: 4 (static); when deleting: any. */
  readonly protocol?: number | undefined;
  /** Default: 254 (main). */
  readonly table?: number | undefined;
  readonly mtu?: number | undefined;
  /** Packets go into a tunnel of the device, which must be one that takes this from routes. */
  readonly encap?: Encap | undefined;
}

/** The other end of a tunnel. */
export interface Encap {
  /** Address of either family. */
  readonly remote: string;
  /** VXLAN network identifier. */
  readonly id: number;
}

/** Where a route leads to. */
export interface NextHop {
  readonly ifindex: number;
  readonly gateway?: string;
  readonly weight: number;
  readonly onLink: boolean;
  /** The device has no carrier or is down. */
  readonly down: boolean;
}

/** A route of the kernel. `gateway`, `ifindex` and `onLink` are those of the first next hop. */
export interface Route {
  readonly family: Family;
  /** `default` or with a prefix length. */
  readonly destination: string;
  readonly type: RouteType;
  readonly gateway?: string;
  readonly ifindex?: number;
  readonly source?: string;
  readonly onLink: boolean;
  readonly scope: Scope | number;
  readonly metric: number;
  readonly protocol: number;
  readonly table: number;
  readonly mtu?: number;
  /** All next hops; more than one with multipath, none for types such as blackhole. */
  readonly hops: readonly NextHop[];
}

/** What a dump of routes is to hold; filtered in the kernel. */
export interface RouteFilter {
  readonly family?: Family | undefined;
  readonly protocol?: number | undefined;
  readonly ifindex?: number | undefined;
  /** Default: 254 (main). */
  readonly table?: number | 'all' | undefined;
}

const EINVAL = 22;
const HEADER = 12;
const TYPE_NAMES: ReadonlyMap<number, RouteType> = new Map(
  Object.entries(ROUTE_TYPES).map(([name, value]) => [value, name as RouteType]),
);

interface Destination {
  readonly family: Family;
  readonly prefix: number;
  /** Absent for the default route. */
  readonly bytes?: Uint8Array;
}

function parseDestination(operation: string, text: string, family: Family | undefined): Destination {
  if (text === 'default') {
    if (family === undefined) throw new NetlinkError(operation, EINVAL, 'default route without a family');
    return { family, prefix: 0 };
  }
  const slash = text.indexOf('/');
  const bytes = ipBytes(operation, slash < 0 ? text : text.slice(0, slash));
  const most = bytes.length * 8;
  const prefix = slash < 0 ? most : Number(text.slice(slash + 1));
  if (!/^\d{1,3}$/.test(text.slice(slash + 1)) && slash >= 0) {
    throw new NetlinkError(operation, EINVAL, `${JSON.stringify(text)} is not a prefix`);
  }
  if (prefix > most) throw new NetlinkError(operation, EINVAL, `prefix length is not between 0 and ${most}`);
  if (family !== undefined && family !== familyOf(bytes)) {
    throw new NetlinkError(operation, EINVAL, `${text} is not IPv${family}`);
  }
  return prefix === 0 ? { family: familyOf(bytes), prefix } : { family: familyOf(bytes), prefix, bytes };
}

/** struct rtmsg: family, prefix lengths, tos, table, protocol, scope, type, flags. */
function encodeHeader(
  message: MessageBuilder,
  header: {
    family: Family;
    prefix?: number;
    table?: number;
    protocol?: number;
    scope?: number;
    type?: number;
    flags?: number;
  },
): void {
  const table = header.table ?? 0;
  message
    .u8(header.family === 4 ? AF.INET : AF.INET6)
    .u8(header.prefix ?? 0)
    .u8(0)
    .u8(0)
    .u8(table < 256 ? table : 0)
    .u8(header.protocol ?? 0)
    .u8(header.scope ?? 0)
    .u8(header.type ?? 0)
    .u32(header.flags ?? 0);
}

/** Payload of RTM_NEWROUTE. Throws NetlinkError for values that can't be encoded. */
export function encodeRoute(operation: string, message: MessageBuilder, route: RouteInput): void {
  encode(operation, message, route, { type: 'unicast', protocol: RTPROT.STATIC, scope: defaultScope(route) });
}

/** Payload of RTM_DELROUTE: what is not given is not compared. */
export function encodeRouteKey(operation: string, message: MessageBuilder, route: RouteInput): void {
  encode(operation, message, route, { protocol: 0, scope: 'nowhere' });
}

/** As iproute2 does it: host for local routes, link for those without a gateway. */
function defaultScope(route: RouteInput): Scope {
  if (route.type === 'local') return 'host';
  return (route.type === undefined || route.type === 'unicast') && route.gateway === undefined
    ? 'link'
    : 'universe';
}

function encode(
  operation: string,
  message: MessageBuilder,
  route: RouteInput,
  defaults: { type?: RouteType; protocol: number; scope: Scope },
): void {
  const gateway = route.gateway === undefined ? undefined : ipBytes(operation, route.gateway);
  const { family, prefix, bytes } = parseDestination(
    operation,
    route.destination,
    route.family ??
      (route.destination === 'default' && gateway !== undefined ? familyOf(gateway) : undefined),
  );
  const table = route.table ?? RT_TABLE.MAIN;
  const type = route.type ?? defaults.type;
  encodeHeader(message, {
    family,
    prefix,
    table,
    protocol: route.protocol ?? defaults.protocol,
    scope: family === 4 ? scopeNumber(route.scope ?? defaults.scope) : 0, // IPv6 routes have none
    type: type === undefined ? 0 : ROUTE_TYPES[type],
    flags: route.onLink === true ? RTNH_F.ONLINK : 0,
  });
  if (bytes !== undefined) message.attributeBytes(RTA.DST, bytes);
  if (gateway !== undefined) {
    if (familyOf(gateway) === family) message.attributeBytes(RTA.GATEWAY, gateway);
    else
      message.nested(RTA.VIA, () =>
        message.u16(familyOf(gateway) === 4 ? AF.INET : AF.INET6).bytesOf(gateway),
      );
  }
  if (route.ifindex !== undefined) message.attribute32(RTA.OIF, route.ifindex);
  if (route.source !== undefined) message.attributeBytes(RTA.PREFSRC, ipBytes(operation, route.source));
  if (route.metric !== undefined) message.attribute32(RTA.PRIORITY, route.metric);
  if (table >= 256) message.attribute32(RTA.TABLE, table);
  const { mtu } = route;
  if (mtu !== undefined) message.nested(RTA.METRICS, () => message.attribute32(RTAX_MTU, mtu));
  if (route.encap !== undefined) encodeEncap(operation, message, route.encap);
}

/** Key and checksum are always on: over IPv6 a receiver takes no datagram without one (RFC 6935 is an option). */
function encodeEncap(operation: string, message: MessageBuilder, { remote, id }: Encap): void {
  const address = ipBytes(operation, remote);
  const key = Buffer.alloc(8);
  key.writeUInt32BE(id, 4);
  const flags = Uint8Array.of(0, TUNNEL_FLAGS.KEY | TUNNEL_FLAGS.CSUM);
  const type = familyOf(address) === 4 ? LWTUNNEL.IP : LWTUNNEL.IP6;
  message.attributeBytes(RTA.ENCAP_TYPE, Uint8Array.of(type, 0));
  message.nested(RTA.ENCAP, () => {
    message
      .attributeBytes(LWTUNNEL_IP.ID, key)
      .attributeBytes(LWTUNNEL_IP.DST, address)
      .attributeBytes(LWTUNNEL_IP.FLAGS, flags);
  });
}

/** Payload of RTM_GETROUTE for a dump. */
export function encodeRouteFilter(message: MessageBuilder, family: Family, filter: RouteFilter): void {
  const table = filter.table === 'all' ? 0 : (filter.table ?? RT_TABLE.MAIN);
  encodeHeader(message, { family, table, protocol: filter.protocol ?? 0 });
  if (table >= 256) message.attribute32(RTA.TABLE, table);
  if (filter.ifindex !== undefined) message.attribute32(RTA.OIF, filter.ifindex);
}

/** Payload of RTM_GETROUTE for the route that a packet to `address` takes. */
export function encodeRouteLookup(operation: string, message: MessageBuilder, address: string): void {
  const bytes = ipBytes(operation, address);
  encodeHeader(message, { family: familyOf(bytes), prefix: bytes.length * 8 });
  message.attributeBytes(RTA.DST, bytes);
}

/** Decodes the payload of RTM_NEWROUTE or RTM_DELROUTE; undefined for cached routes and families other than IP. */
export function decodeRoute(buffer: Buffer, start: number, end: number, cached = false): Route | undefined {
  const af = buffer[start];
  const flags = buffer.readUInt32LE(start + 8);
  const type = TYPE_NAMES.get(buffer[start + 7] ?? 0);
  if ((af !== AF.INET && af !== AF.INET6) || type === undefined) return undefined;
  if ((flags & RTM_F_CLONED) !== 0 && !cached) return undefined;
  const prefix = buffer[start + 1] ?? 0;
  const size = af === AF.INET ? 4 : 16;
  let destination = prefix === 0 ? 'default' : `${ipText(new Uint8Array(size), 0, size)}/${prefix}`;
  let [table, metric] = [buffer[start + 4] ?? 0, 0];
  let gateway: string | undefined;
  let ifindex: number | undefined;
  let source: string | undefined;
  let mtu: number | undefined;
  let hops: NextHop[] = [];
  forEachAttribute(buffer, start + HEADER, end, (attribute, at, length) => {
    if (attribute === RTA.DST) destination = `${ipText(buffer, at, length)}/${prefix}`;
    else if (attribute === RTA.GATEWAY || attribute === RTA.VIA)
      gateway = hopGateway(buffer, attribute, at, length);
    else if (attribute === RTA.OIF) ifindex = buffer.readUInt32LE(at);
    else if (attribute === RTA.PREFSRC) source = ipText(buffer, at, length);
    else if (attribute === RTA.PRIORITY) metric = buffer.readUInt32LE(at);
    else if (attribute === RTA.TABLE) table = buffer.readUInt32LE(at);
    else if (attribute === RTA.MULTIPATH) hops = decodeHops(buffer, at, at + length);
    else if (attribute === RTA.METRICS) {
      forEachAttribute(buffer, at, at + length, (inner, innerAt) => {
        if (inner === RTAX_MTU) mtu = buffer.readUInt32LE(innerAt);
      });
    }
  });
  if (hops.length === 0 && ifindex !== undefined) hops = [hop(ifindex, gateway, 1, flags)];
  const [first] = hops;
  gateway ??= first?.gateway;
  ifindex ??= first?.ifindex;
  return {
    family: af === AF.INET ? 4 : 6,
    destination,
    type,
    ...(gateway === undefined ? {} : { gateway }),
    ...(ifindex === undefined ? {} : { ifindex }),
    ...(source === undefined ? {} : { source }),
    onLink: first?.onLink ?? false,
    scope: scopeName(buffer[start + 6] ?? 0),
    metric,
    protocol: buffer[start + 5] ?? 0,
    table,
    ...(mtu === undefined ? {} : { mtu }),
    hops,
  };
}

function hopGateway(buffer: Buffer, attribute: number, at: number, length: number): string {
  return attribute === RTA.GATEWAY ? ipText(buffer, at, length) : ipText(buffer, at + 2, length - 2);
}

function hop(ifindex: number, gateway: string | undefined, weight: number, flags: number): NextHop {
  return {
    ifindex,
    ...(gateway === undefined ? {} : { gateway }),
    weight,
    onLink: (flags & RTNH_F.ONLINK) !== 0,
    down: (flags & (RTNH_F.DEAD | RTNH_F.LINKDOWN)) !== 0,
  };
}

/** RTA_MULTIPATH: struct rtnexthop {u16 length, u8 flags, u8 weight - 1, i32 ifindex} and its attributes, repeated. */
function decodeHops(buffer: Buffer, start: number, end: number): NextHop[] {
  const hops: NextHop[] = [];
  let at = start;
  while (at + 8 <= end) {
    const length = buffer.readUInt16LE(at);
    if (length < 8 || at + length > end) break;
    let gateway: string | undefined;
    forEachAttribute(buffer, at + 8, at + length, (type, value, size) => {
      if (type === RTA.GATEWAY || type === RTA.VIA) gateway = hopGateway(buffer, type, value, size);
    });
    hops.push(hop(buffer.readInt32LE(at + 4), gateway, (buffer[at + 3] ?? 0) + 1, buffer[at + 2] ?? 0));
    at += (length + 3) & ~3;
  }
  return hops;
}
