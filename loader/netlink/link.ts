import {
  AF,
  IFF,
  IFLA,
  IFLA_INET6_ADDR_GEN_MODE,
  IFLA_INFO,
  IFLA_MACVLAN_MODE,
  IFLA_VRF_TABLE,
  IFLA_VXLAN,
  IN6_ADDR_GEN_MODE,
  MACVLAN_MODE,
  MAX_LINK_ALIAS,
  MAX_LINK_NAME,
  OPERSTATE_UP,
  RTEXT_FILTER_SKIP_STATS,
  VETH_INFO_PEER,
} from './constants.js';
import { NetlinkError } from './errors.js';
import { forEachAttribute, type MessageBuilder, stringAttribute } from './message.js';
import { macBytes, macText } from './text.js';

/** A network device, as RTM_NEWLINK describes it. */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** `veth`, `bridge`, `macvlan`, `vxlan`, `wireguard`, …; absent for hardware and loopback. */
  readonly kind?: string;
  /** Lower case with colons; empty if the device has none. */
  readonly mac: string;
  readonly mtu: number;
  /** Administratively up. */
  readonly up: boolean;
  /** Up and with a carrier, as the kernel's operational state has it, which comes a little after the carrier. */
  readonly running: boolean;
  /** Its lower layer is up: for a veth device, the other end. */
  readonly carrier: boolean;
  /**
   * Its operational state is "up". After its carrier came, the kernel drops all that is sent over a device until it has
   * switched its queue on, which is later; it does that at once for a device that is asked for (since 6.8).
   */
  readonly operational: boolean;
  readonly loopback: boolean;
  /** ifindex of the bridge or bond that the device is a port of. */
  readonly master?: number;
  readonly alias?: string;
  /** veth: ifindex of the peer; macvlan, VLAN: of the parent. In namespace `netnsId` if that is there. */
  readonly linkIndex?: number;
  readonly netnsId?: number;
  readonly group: number;
  /** vxlan: UDP port, and whether the tunnel is chosen for each packet from outside (collect metadata). */
  readonly vxlan?: Vxlan;
}

export interface Vxlan {
  readonly port: number;
  readonly metadata: boolean;
  /** ifindex of the device that it sends through; absent: as the routes say. */
  readonly lower?: number;
}

/** Attributes that every kind of device takes. */
export interface LinkAttributes {
  readonly name?: string | undefined;
  /** Lower or upper case with colons. */
  readonly mac?: string | undefined;
  readonly mtu?: number | undefined;
  /** At most 255 bytes; the empty string removes it. Ignored by the kernel when a device is made. */
  readonly alias?: string | undefined;
  /** ifindex of the new master; 0: none. */
  readonly master?: number | undefined;
  readonly group?: number | undefined;
  /** Send and receive queues; only when a device is made. */
  readonly queues?: number | undefined;
  /** Descriptor of the namespace that the device is to be in. */
  readonly netnsFd?: number | undefined;
  /** true: the kernel gives the device no link-local IPv6 address. Ignored when a device is made. */
  readonly noIpv6LinkLocal?: boolean | undefined;
}

export type MacvlanMode = keyof typeof MACVLAN_MODE;

/** What is special to one kind of device when it is made. */
export type LinkKind =
  | { readonly kind: 'bridge' }
  | { readonly kind: 'macvlan'; readonly parent: number; readonly mode: MacvlanMode }
  /** A VXLAN device whose tunnels are chosen packet by packet; it learns nothing. */
  | { readonly kind: 'vxlan'; readonly port: number; readonly lower?: number | undefined }
  /** A device whose ports route by a table of their own. */
  | { readonly kind: 'vrf'; readonly table: number }
  | { readonly kind: 'wireguard' }
  | { readonly kind: 'veth'; readonly peer: LinkAttributes & LinkHeader };

/** Content of ifinfomsg. */
export interface LinkHeader {
  readonly index?: number | undefined;
  readonly up?: boolean | undefined;
  /** true: neighbours are not resolved, frames have the device's own address as destination. */
  readonly noArp?: boolean | undefined;
}

const EINVAL = 22;
const ENAMETOOLONG = 36;

/** Throws NetlinkError unless the kernel takes the text as a device name (net/core/dev.c, dev_valid_name). */
export function checkLinkName(operation: string, name: string): void {
  if (Buffer.byteLength(name) > MAX_LINK_NAME) {
    const detail = `device name ${JSON.stringify(name)} is longer than ${MAX_LINK_NAME} bytes`;
    throw new NetlinkError(operation, ENAMETOOLONG, detail);
  }
  if (name === '' || name === '.' || name === '..' || /[/:\s\0%]/.test(name)) {
    throw new NetlinkError(operation, EINVAL, `${JSON.stringify(name)} is not a device name`);
  }
}

/** struct ifinfomsg: family, pad, type, index, flags, change. */
export function encodeLinkHeader(message: MessageBuilder, header: LinkHeader): void {
  message
    .u8(AF.UNSPEC)
    .u8(0)
    .u16(0)
    .u32(header.index ?? 0)
    .u32((header.up === true ? IFF.UP : 0) | (header.noArp === true ? IFF.NOARP : 0))
    .u32((header.up === undefined ? 0 : IFF.UP) | (header.noArp === undefined ? 0 : IFF.NOARP));
}

/** Attributes of RTM_NEWLINK and RTM_SETLINK. Throws NetlinkError for values that can't be encoded. */
export function encodeLinkAttributes(operation: string, message: MessageBuilder, link: LinkAttributes): void {
  if (link.name !== undefined) {
    checkLinkName(operation, link.name);
    message.attributeString(IFLA.IFNAME, link.name);
  }
  if (link.mac !== undefined) message.attributeBytes(IFLA.ADDRESS, macBytes(operation, link.mac));
  if (link.mtu !== undefined) message.attribute32(IFLA.MTU, link.mtu);
  if (link.alias !== undefined) {
    const alias = Buffer.from(link.alias, 'utf8');
    if (alias.length > MAX_LINK_ALIAS) {
      throw new NetlinkError(operation, EINVAL, `alias is longer than ${MAX_LINK_ALIAS} bytes`);
    }
    // Without a NUL, or the kernel can't be told to remove it (it wants a length of 0).
    message.attributeBytes(IFLA.IFALIAS, alias);
  }
  if (link.master !== undefined) message.attribute32(IFLA.MASTER, link.master);
  if (link.group !== undefined) message.attribute32(IFLA.GROUP, link.group);
  if (link.queues !== undefined) {
    message.attribute32(IFLA.NUM_TX_QUEUES, link.queues).attribute32(IFLA.NUM_RX_QUEUES, link.queues);
  }
  if (link.netnsFd !== undefined) message.attribute32(IFLA.NET_NS_FD, link.netnsFd);
  if (link.noIpv6LinkLocal !== undefined) {
    const mode = link.noIpv6LinkLocal ? IN6_ADDR_GEN_MODE.NONE : IN6_ADDR_GEN_MODE.EUI64;
    message.nested(IFLA.AF_SPEC, () => {
      message.nested(AF.INET6, () => message.attribute8(IFLA_INET6_ADDR_GEN_MODE, mode));
    });
  }
}

/** IFLA_LINKINFO, and IFLA_LINK for devices on top of another. */
export function encodeLinkKind(operation: string, message: MessageBuilder, kind: LinkKind): void {
  if (kind.kind === 'macvlan') message.attribute32(IFLA.LINK, kind.parent);
  message.nested(IFLA.LINKINFO, () => {
    message.attributeString(IFLA_INFO.KIND, kind.kind);
    if (kind.kind === 'macvlan') {
      message.nested(IFLA_INFO.DATA, () => message.attribute32(IFLA_MACVLAN_MODE, MACVLAN_MODE[kind.mode]));
    }
    if (kind.kind === 'vxlan') {
      message.nested(IFLA_INFO.DATA, () => {
        message
          .attribute8(IFLA_VXLAN.COLLECT_METADATA, 1)
          .attribute8(IFLA_VXLAN.LEARNING, 0)
          .attribute8(IFLA_VXLAN.UDP_CSUM, 1)
          .attributeBytes(IFLA_VXLAN.PORT, Uint8Array.of(kind.port >> 8, kind.port & 0xff));
        if (kind.lower !== undefined) message.attribute32(IFLA_VXLAN.LINK, kind.lower);
      });
    }
    if (kind.kind === 'vrf')
      message.nested(IFLA_INFO.DATA, () => message.attribute32(IFLA_VRF_TABLE, kind.table));
    if (kind.kind === 'veth') {
      message.nested(IFLA_INFO.DATA, () => {
        message.nested(VETH_INFO_PEER, () => {
          encodeLinkHeader(message, kind.peer);
          encodeLinkAttributes(operation, message, kind.peer);
        });
      });
    }
  });
}

/** RTM_GETLINK of one device by index or name, or of all. */
export function encodeLinkQuery(
  message: MessageBuilder,
  query: {
    index?: number | undefined;
    name?: string | undefined;
    kind?: string | undefined;
    master?: number | undefined;
  },
): void {
  encodeLinkHeader(message, { index: query.index });
  message.attribute32(IFLA.EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  const { name, kind, master } = query;
  if (name !== undefined) message.attributeString(IFLA.IFNAME, name);
  if (master !== undefined) message.attribute32(IFLA.MASTER, master);
  if (kind !== undefined) {
    message.nested(IFLA.LINKINFO, () => message.attributeString(IFLA_INFO.KIND, kind));
  }
}

/** Only the index of a device and that of the other end of a pair, of the payload of RTM_NEWLINK. */
export function decodeLinkIndexes(
  buffer: Buffer,
  start: number,
  end: number,
): Pick<Link, 'index' | 'linkIndex'> {
  let linkIndex: number | undefined;
  forEachAttribute(buffer, start + 16, end, (type, at) => {
    if (type === IFLA.LINK) linkIndex = buffer.readUInt32LE(at);
  });
  return { index: buffer.readInt32LE(start + 4), ...(linkIndex === undefined ? {} : { linkIndex }) };
}

/** Decodes the payload of RTM_NEWLINK or RTM_DELLINK. */
export function decodeLink(buffer: Buffer, start: number, end: number): Link {
  const index = buffer.readInt32LE(start + 4);
  const flags = buffer.readUInt32LE(start + 8);
  let [name, mac, mtu, group] = ['', '', 0, 0];
  let operational = false;
  let kind: string | undefined;
  let alias: string | undefined;
  let master: number | undefined;
  let linkIndex: number | undefined;
  let netnsId: number | undefined;
  let vxlan: Link['vxlan'];
  forEachAttribute(buffer, start + 16, end, (type, at, length) => {
    if (type === IFLA.IFNAME) name = stringAttribute(buffer, at, length);
    else if (type === IFLA.ADDRESS) mac = macText(buffer, at, length);
    else if (type === IFLA.MTU) mtu = buffer.readUInt32LE(at);
    else if (type === IFLA.LINK) linkIndex = buffer.readUInt32LE(at);
    else if (type === IFLA.MASTER) master = buffer.readUInt32LE(at);
    else if (type === IFLA.IFALIAS) alias = stringAttribute(buffer, at, length);
    else if (type === IFLA.LINK_NETNSID) netnsId = buffer.readInt32LE(at);
    else if (type === IFLA.OPERSTATE) operational = buffer[at] === OPERSTATE_UP;
    else if (type === IFLA.GROUP) group = buffer.readUInt32LE(at);
    else if (type === IFLA.LINKINFO) {
      forEachAttribute(buffer, at, at + length, (inner, innerAt, innerLength) => {
        if (inner === IFLA_INFO.KIND) kind = stringAttribute(buffer, innerAt, innerLength);
        if (inner === IFLA_INFO.DATA && kind === 'vxlan')
          vxlan = decodeVxlan(buffer, innerAt, innerAt + innerLength);
      });
    }
  });
  return {
    index,
    name,
    ...(kind === undefined ? {} : { kind }),
    mac,
    mtu,
    up: (flags & IFF.UP) !== 0,
    running: (flags & IFF.RUNNING) !== 0,
    carrier: (flags & IFF.LOWER_UP) !== 0,
    operational,
    loopback: (flags & IFF.LOOPBACK) !== 0,
    ...(master === undefined ? {} : { master }),
    ...(alias === undefined ? {} : { alias }),
    ...(linkIndex === undefined ? {} : { linkIndex }),
    ...(netnsId === undefined ? {} : { netnsId }),
    group,
    ...(vxlan === undefined ? {} : { vxlan }),
  };
}

function decodeVxlan(buffer: Buffer, start: number, end: number): Vxlan {
  let port = 0;
  let metadata = false;
  let lower: number | undefined;
  forEachAttribute(buffer, start, end, (type, at) => {
    if (type === IFLA_VXLAN.PORT) port = buffer.readUInt16BE(at);
    if (type === IFLA_VXLAN.COLLECT_METADATA) metadata = buffer[at] === 1;
    if (type === IFLA_VXLAN.LINK) lower = buffer.readUInt32LE(at);
  });
  return { port, metadata, ...(lower === undefined ? {} : { lower }) };
}
