/**
 * Numbers of the netlink ABI (linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, neighbour.h,
 * veth.h). They are the same on all architectures that Sluice supports.
 */

/** Message types below 16, of every netlink family. */
export const NLMSG = { NOOP: 1, ERROR: 2, DONE: 3, OVERRUN: 4 } as const;

/** nlmsg_flags. The same bits mean different things in GET and in NEW requests. */
export const NLM_F = {
  REQUEST: 0x1,
  MULTI: 0x2,
  ACK: 0x4,
  DUMP_INTR: 0x10,
  // requests that get
  DUMP: 0x300,
  // requests that make
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
  // acknowledgements
  CAPPED: 0x100,
  ACK_TLVS: 0x200,
} as const;

/** Attributes of an extended acknowledgement. */
export const NLMSGERR_ATTR = { MSG: 1, OFFS: 2 } as const;

/** setsockopt(SOL_NETLINK). */
export const NETLINK_OPTION = { ADD_MEMBERSHIP: 1, CAP_ACK: 10, EXT_ACK: 11, GET_STRICT_CHK: 12 } as const;

export const NETLINK_ROUTE = 0;
export const NETLINK_SOCK_DIAG = 4;
export const NETLINK_GENERIC = 16;

/** Flag of the type of an attribute that has attributes inside; generic families insist on it. */
export const NLA_F_NESTED = 0x8000;

/** Message types of sock_diag (linux/sock_diag.h). */
export const SOCK_DIAG = { BY_FAMILY: 20, DESTROY: 21 } as const;

export const AF = { UNSPEC: 0, INET: 2, INET6: 10 } as const;

/** Message types of rtnetlink. */
export const RTM = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  SETLINK: 19,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWNEIGH: 28,
  DELNEIGH: 29,
  GETNEIGH: 30,
  GETNSID: 90,
} as const;

/** Attributes of RTM_GETNSID and its answer (linux/net_namespace.h). */
export const NETNSA = { NSID: 1, FD: 3 } as const;

/** Multicast groups of rtnetlink. */
export const RTNLGRP = {
  LINK: 1,
  NEIGH: 3,
  IPV4_IFADDR: 5,
  IPV4_ROUTE: 7,
  IPV6_IFADDR: 9,
  IPV6_ROUTE: 11,
} as const;

export const IFF = { UP: 0x1, LOOPBACK: 0x8, RUNNING: 0x40, NOARP: 0x80, LOWER_UP: 0x10000 } as const;

export const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  OPERSTATE: 16,
  LINKINFO: 18,
  IFALIAS: 20,
  AF_SPEC: 26,
  GROUP: 27,
  NET_NS_FD: 28,
  EXT_MASK: 29,
  NUM_TX_QUEUES: 31,
  NUM_RX_QUEUES: 32,
  LINK_NETNSID: 37,
} as const;

/** IFLA_OPERSTATE (RFC 2863): the device can send. */
export const OPERSTATE_UP = 6;
export const IFLA_INFO = { KIND: 1, DATA: 2 } as const;
export const VETH_INFO_PEER = 1;
export const IFLA_VXLAN = { LINK: 3, LEARNING: 7, PORT: 15, UDP_CSUM: 18, COLLECT_METADATA: 25 } as const;
export const IFLA_VRF_TABLE = 1;
export const IFLA_MACVLAN_MODE = 1;
export const MACVLAN_MODE = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;
export const IFLA_INET6_ADDR_GEN_MODE = 8;
export const IN6_ADDR_GEN_MODE = { EUI64: 0, NONE: 1 } as const;
/** IFLA_EXT_MASK: leave the statistics out. */
export const RTEXT_FILTER_SKIP_STATS = 8;

/** Longest device name and longest alias in bytes, without the NUL. */
export const MAX_LINK_NAME = 15;
export const MAX_LINK_ALIAS = 255;

export const IFA = { ADDRESS: 1, LOCAL: 2, FLAGS: 8 } as const;
export const IFA_F = { NODAD: 0x2, TENTATIVE: 0x40, DADFAILED: 0x8, NOPREFIXROUTE: 0x200 } as const;

export const RTA = {
  DST: 1,
  OIF: 4,
  GATEWAY: 5,
  PRIORITY: 6,
  PREFSRC: 7,
  METRICS: 8,
  MULTIPATH: 9,
  TABLE: 15,
  VIA: 18,
  ENCAP_TYPE: 21,
  ENCAP: 22,
} as const;

/** Light-weight tunnels of routes (linux/lwtunnel.h); attributes of both families have the same numbers. */
export const LWTUNNEL = { IP: 2, IP6: 4 } as const;
export const LWTUNNEL_IP = { ID: 1, DST: 2, FLAGS: 6 } as const;
/** Flags of a tunnel's metadata (linux/if_tunnel.h): checksum, key. */
export const TUNNEL_FLAGS = { CSUM: 0x01, KEY: 0x04 } as const;

export const RTAX_MTU = 2;
export const RTM_F_CLONED = 0x200;
export const RTNH_F = { DEAD: 0x1, ONLINK: 0x4, LINKDOWN: 0x10 } as const;
export const RT_TABLE = { MAIN: 254, LOCAL: 255 } as const;
export const RTPROT = { KERNEL: 2, BOOT: 3, STATIC: 4 } as const;

/** rtm_type by name. */
export const ROUTE_TYPES = {
  unicast: 1,
  local: 2,
  broadcast: 3,
  anycast: 4,
  multicast: 5,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
  throw: 9,
} as const;

/** rtm_scope and ifa_scope by name. */
export const SCOPES = { universe: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const;

export const NDA = { DST: 1, LLADDR: 2, IFINDEX: 8 } as const;

/** ndm_state by name. */
export const NEIGHBOUR_STATES = {
  incomplete: 0x01,
  reachable: 0x02,
  stale: 0x04,
  delay: 0x08,
  probe: 0x10,
  failed: 0x20,
  noarp: 0x40,
  permanent: 0x80,
} as const;
