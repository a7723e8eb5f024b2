/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The contract between the BPF programs and the TypeScript control plane: every struct that is a
 * map key or a map value. The codecs under loader/abi/gen are generated from the BTF of these
 * types, so the layout has no second description. Rules: no implicit padding, no pointers, no
 * unions, no bit-fields; network byte order is in the type's name (__be16, __be32).
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>

/* An address of either family. IPv4 is stored v4-mapped (::ffff:a.b.c.d), network byte order. */
struct ip_addr {
	__be32 w[4];
};

/* One direction of a flow, exactly as the packet looks when it reaches the hook. */
struct flow_key {
	struct ip_addr saddr;
	struct ip_addr daddr;
	__be16 sport; /* ICMP echo: request has the id here, reply has 0 */
	__be16 dport; /* ICMP echo: reply has the id here, request has 0 */
	__u32 ifindex; /* where it came in: container device, FLOW_IF_UPLINK or FLOW_IF_HOST */
	__u8 proto; /* IP protocol number of the transport header */
	__u8 pad[3];
};

#define FLOW_IF_UPLINK 0 /* any uplink: replies may take another one */
#define FLOW_IF_HOST 1 /* the host's own stack (the index of lo) */
#define FLOW_IF_TUNNEL 0xffffffffU /* the overlay; no device has this index */

enum flow_action {
	ACTION_NONE = 0,
	ACTION_PEER = 1, /* bpf_redirect_peer to the container behind oif, MAC addresses rewritten */
	ACTION_NEIGH = 2, /* bpf_redirect_neigh through oif to nexthop */
	ACTION_STACK = 3, /* hand to the host's stack */
	ACTION_PASS = 4, /* leave on its way (hooks that only judge) */
	/*
	 * Denied since a change of policy. The entry stays, for both directions, so that a late answer
	 * cannot open the flow again the other way round, and so that it goes on when it is allowed again.
	 */
	ACTION_DROP = 5,
	ACTION_TUNNEL = 6, /* through the overlay, device oif, to the node nexthop */
};

enum flow_flag {
	FLOW_REPLY = 1, /* this entry carries the replies of a flow that the other side opened */
	FLOW_NAT = 2, /* addresses or ports change */
	FLOW_SNAT = 4, /* the opener's source was translated: the reply key is a claimed port */
	FLOW_DNAT = 8, /* the opener's destination was translated */
	FLOW_TTL = 16, /* routed hop: TTL or hop limit is decremented */
	FLOW_L4_NAT_PORT = 32, /* a port changes too */
	FLOW_SERVICE = 64, /* the destination was a service; both directions have it */
	FLOW_LIMIT = 128, /* sender or receiver has a limit in `bandwidth` */
};

/*
 * TCP states as far as the flow table needs them; flows of other protocols are open from the start. A TCP flow is
 * half-open until the opener's entry is FLOW_OPEN.
 */
enum flow_state {
	FLOW_NEW = 0, /* nothing seen in this direction but the SYN */
	FLOW_SYNACK = 1, /* opener: the receiver answered the SYN */
	FLOW_OPEN = 2,
	FLOW_CLOSING = 3, /* FIN or RST seen in this direction */
	FLOW_CLOSED = 4, /* FIN seen in this direction, and acknowledged */
};

/*
 * The verdict for one direction of a flow, with all that is needed to act on a packet. What every packet of a flow that
 * is not translated needs is in the first 64 bytes.
 */
struct flow {
	__u32 epoch; /* node.epoch this was decided in */
	__u32 last; /* low 32 bits of jiffies64 at the last packet */
	__u8 action; /* enum flow_action */
	__u8 flags; /* enum flow_flag */
	__u8 state; /* enum flow_state */
	__u8 proto;
	__u32 oif; /* device to send to; ACTION_PEER: host-side ifindex of the container */
	__u8 dmac[6]; /* ACTION_PEER: Ethernet addresses to write */
	__u8 smac[6];
	__u8 from_mac[6]; /* Ethernet source that a packet of this direction must have; 0: any */
	__u16 mtu; /* largest IP packet on the way out, 0: not checked */
	__u32 fin_end; /* FLOW_CLOSING: sequence number after the FIN, host order */
	__u64 packets;
	__u64 bytes; /* IP bytes */
	__u32 peer_ifindex; /* ifindex in the key of the other direction */
	__be32 outer; /* from the overlay: IPv4 address of the sending node; 0: it has to be looked up */
	struct ip_addr saddr; /* the tuple after translation (equal to the key's when no NAT) */
	struct ip_addr daddr;
	__be16 sport;
	__be16 dport;
	__u32 csum_addr; /* ones' complement difference of the addresses, for bpf_l4_csum_replace */
	__u32 csum_port; /* the same for the ports */
	struct ip_addr nexthop; /* ACTION_NEIGH: next hop, of the packet's family; ACTION_TUNNEL: the node */
	__u32 rule_egress; /* rule that allowed it on the sender's side, 0: not isolated */
	__u32 rule_ingress; /* the same on the receiver's side */
	__u32 src_identity; /* of the opener of the flow */
	__u32 dst_identity;
	__u8 reason; /* ACTION_DROP: enum drop_reason; with another action: what audit let pass */
	__u8 pad[3];
	__u64 created; /* jiffies64 */
};

/*
 * A TCP flow whose handshake is not complete, in a table of its own: where they go when cfg_half_limit of them are
 * in the flow table, so that a SYN flood pushes out nothing but itself. Its key is that of the answers with
 * ifindex 0 (macvlan: the device), so that both sides can find it; where the answers come in is f.peer_ifindex.
 */
struct half_flow {
	struct flow r; /* entry for the answers */
	struct flow f; /* entry for the opener's packets */
};

enum young_owner {
	YOUNG_FREE = 0,
	YOUNG_LIVE = 1,
	YOUNG_BUSY = 2, /* being written or removed: nobody else's business */
	YOUNG_MOVING = 3, /* still in use, while its entries are put into the flow table */
};

/*
 * A TCP connection between two containers, in its first packets, both directions in one place of an array: most end
 * before they would be worth two entries in the flow table. See lib/young.h.
 */
struct young_flow {
	struct flow_key fwd; /* packets of the opener */
	__u32 owner; /* enum young_owner */
	__u32 pad[4];
	struct flow f; /* entry for the opener's packets, on cache lines of its own as the next */
	__u32 pad1[10];
	struct flow r; /* entry for the answers */
	struct flow_key rev;
	__u32 pad2[15];
};

/*
 * Which connections have a place: for each its ports, 0: free. The first sets are by the pair of addresses, so that the next
 * connection gets the memory of the one before, which is in the cache. Where one is full, those behind them are used, by
 * addresses and ports.
 */
#define YOUNG_WAYS 8
struct young_set {
	__u32 ports[YOUNG_WAYS]; /* the same for both directions */
	__u32 more; /* connections of this set that have their places behind YOUNG_SETS */
	__u32 pad[7];
};
#define YOUNG_SETS 32
#define YOUNG_MORE_SETS 256
#define YOUNG_FLOWS ((YOUNG_SETS + YOUNG_MORE_SETS) * YOUNG_WAYS)

/*
 * Which TCP tuples may have entries in the flow table: a new connection whose mark is old needs no look at it. What is
 * inserted is marked with the present pass of expiry, and each pass marks what it leaves.
 */
#define FLOW_MARKS 4096
struct flow_marks {
	__u32 pass; /* whole passes of expiry so far */
	__u32 pad[15];
	__u16 seen[FLOW_MARKS]; /* low bits of the last pass that found an entry, by hash of the tuple */
};

struct frag_key {
	struct ip_addr saddr;
	struct ip_addr daddr;
	__u32 id; /* IPv4 identification or the IPv6 fragment header's, network order */
	__u32 ifindex;
	__u8 proto;
	__u8 pad[3];
};

struct frag {
	__be16 sport;
	__be16 dport;
};

enum endpoint_flag {
	EP_BRIDGE = 1, /* host side is a port of a bridge: broadcast and ARP pass */
	EP_L2 = 2, /* programs run inside the container's namespace (macvlan): judge only */
	EP_LIMIT = 4, /* it has an entry in `bandwidth` */
	EP_AUDIT = 8, /* what its policy denies is logged, not dropped */
	EP_NAMES = 16, /* its policy has domain names: its questions go to the name server of its gateway */
	EP_FOREIGN = 32, /* with EP_L2: the host side of another plugin's veth: published ports too */
	EP_ALSO = 0x10000, /* and above: networks that its container is in too, number % 16 */
};

/* One container interface; index of the array is the ifindex of its host side. */
struct endpoint {
	__u32 ifindex; /* equal to the index, or 0: no such endpoint (everything is dropped) */
	__u32 network; /* number of its Network */
	__u32 set_egress; /* policy set for what it sends, 0: not isolated */
	__u32 set_ingress; /* policy set for what it receives, 0: not isolated */
	__u32 identity4; /* identity of its IPv4 address */
	__u32 identity6;
	__u32 flags; /* enum endpoint_flag */
	__u16 mtu;
	__u8 mac[6]; /* the container's side */
	__u8 host_mac[6]; /* the host's side */
	__u8 pad[6];
	struct ip_addr addr4; /* v4-mapped, 0: none */
	struct ip_addr addr6; /* 0: none */
};

/*
 * A token bucket as virtual time (the generic cell rate algorithm): a packet moves `next` on by what it costs, and
 * may pass while `next` is not further ahead than `tolerance`.
 */
struct rate_limit {
	__u64 cost; /* nanoseconds a byte, times 2^20; 0: no limit */
	__u64 tolerance; /* nanoseconds: the burst */
	__u64 next; /* CLOCK_MONOTONIC; the programs write it */
};

/* Limits of an endpoint, by the ifindex of its endpoints slot. */
struct bandwidth {
	struct rate_limit ingress; /* towards the container */
	struct rate_limit egress;
};

enum addr_flag {
	ADDR_HOST = 1, /* an address of this host */
	ADDR_RESERVED = 2, /* inside a container network but nobody's: dropped */
	ADDR_NODEPORT = 4, /* with ADDR_HOST: node ports are served on it */
	ADDR_CLUSTER = 8, /* a pod's on another node, a range of pods, or a node's: never masqueraded */
	ADDR_NODE = 16, /* with ADDR_CLUSTER: an address of another node itself */
};

/* What is known of an address or a prefix. */
struct addr_info {
	__u32 identity;
	__u32 ifindex; /* host-side device of a container on this node, 0: elsewhere */
	__u32 network; /* number of its Network, 0: none */
	__u32 flags; /* enum addr_flag */
	struct ip_addr node; /* ADDR_CLUSTER: address of the node it is on, 0: not known or not needed */
};

struct cidr_key {
	__u32 prefixlen; /* 0 to 128; IPv4 prefixes are v4-mapped: 96 + n */
	struct ip_addr addr;
};

/* Identities below 256 are fixed. */
enum reserved_identity {
	IDENTITY_ANY = 0, /* in policy_peer_key only: peers that have no entry of their own */
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2, /* an address that no definition tells apart */
	IDENTITY_ANY_ENDPOINT =
		3, /* in policy_peer_key only, as the next: all of a kind, see policy_verdict */
	IDENTITY_ANY_NETWORK = 4,
	IDENTITY_FIRST = 256,
	IDENTITY_CLASS = 0x40000000, /* and above, in policy_peer_key: a class of identities */
};

struct policy_peer_key {
	__u32 set;
	__u32 identity; /* of the other side, or its class (see identity_class), or IDENTITY_ANY */
};

enum verdict {
	VERDICT_NONE = 0,
	VERDICT_ALLOW = 1,
	VERDICT_DENY = 2,
	VERDICT_PORTS = 3, /* policy_peer only: depends on protocol and port, see profile */
};

struct policy_peer {
	__u32 profile; /* VERDICT_PORTS: profile number in policy_ports */
	__u32 rule; /* rule that decided; VERDICT_PORTS: the rule when no port entry matches (deny) */
	__u8 verdict; /* enum verdict */
	__u8 pad[3];
};

/*
 * Longest prefix wins: 32 bits = any protocol, 48 = any port of the protocol, 48 + n = a block of
 * 2^(16-n) ports. pad0 is always 0 and part of the prefix.
 */
struct policy_port_key {
	__u32 prefixlen;
	__u32 profile;
	__u8 proto;
	__u8 pad0;
	__be16 port;
};

struct policy_port {
	__u32 rule;
	__u8 verdict; /* VERDICT_ALLOW or VERDICT_DENY */
	__u8 pad[3];
};

struct hostport_key {
	struct ip_addr addr; /* host address, or any: :: for IPv6, ::ffff:0.0.0.0 for IPv4 */
	__be16 port;
	__u8 proto;
	__u8 pad;
};

struct hostport {
	struct ip_addr addr; /* the container's */
	__u32 ifindex; /* host-side device of the container */
	__be16 port;
	__u8 pad[2];
};

/* An address and port that a service answers to. Node ports have the family's address 0 (:: or ::ffff:0.0.0.0). */
struct service_key {
	struct ip_addr addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

enum service_flag {
	SVC_AFFINITY = 1, /* a client keeps its backend for `affinity` seconds */
	SVC_MAGLEV = 2, /* the external list is a Maglev table */
	SVC_SNAT = 4, /* from outside: the source is translated, so that answers come back this way */
	SVC_RANGES = 8, /* only sources in service_ranges */
	SVC_LOCAL_INTERNAL = 16, /* internalTrafficPolicy Local */
	SVC_LOCAL_EXTERNAL =
		32, /* externalTrafficPolicy Local: without a backend here dropped, not refused */
	SVC_HOST_ALLOWED = 64, /* with SVC_RANGES: an address of this host is in them */
	SVC_NODEPORT = 128, /* of the host's own addresses: a process that listens on it goes first */
	SVC_LEAST = 256, /* for connections from here: the backend with the fewest */
	SVC_DSR = 512, /* from outside: backends on other nodes answer the client themselves */
	SVC_ELSEWHERE = 1024, /* there are backends on other nodes */
};

/*
 * What is behind one frontend. The lists are ranges of service_slots; the internal one is for containers and
 * processes of this host, the external one for what comes by an uplink.
 */
struct service {
	__u32 number; /* of the service port: all its frontends have the same */
	__u32 flags; /* enum service_flag */
	__u32 first_internal;
	__u32 count_internal;
	__u32 first_external;
	__u32 count_external;
	__u32 affinity; /* seconds */
	__u32 first_local; /* SVC_DSR: backends on this node, for what other nodes send on */
	__u32 count_local;
};

/* Index of the array is the backend's number; shared between services. */
struct backend {
	struct ip_addr addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

/* Sockets of this node that are connected to a backend, by its number. */
struct backend_load {
	__s32 sockets;
	__u32 use; /* another one when the number is given to another backend */
};

/* What the socket with a cookie counts as, see backend_load. */
struct socket_load {
	__u32 backend; /* number */
	__u32 use;
};

enum member_flag {
	MEMBER_CLUSTER = 1, /* under the policy Cluster */
	MEMBER_LOCAL = 2, /* under the policy Local */
	MEMBER_DRAINING = 4, /* terminates and still serves: open flows stay */
};

/* Which backends a service port has now. */
struct member_key {
	__u32 service;
	struct ip_addr addr;
	__be16 port;
	__u8 proto;
	__u8 pad;
};

struct member {
	__u32 backend;
	__u32 flags; /* enum member_flag */
};

struct affinity_key {
	struct ip_addr client; /* zero: this host */
	__u32 service;
};

struct affinity {
	__u32 backend;
	__u32 last; /* low 32 bits of jiffies64 at its last connection */
};

/* Sources that a service port takes; prefixlen counts the number's 32 bits too. */
struct range_key {
	__u32 prefixlen;
	__u32 service;
	struct ip_addr addr;
};

/* By service port and CPU. */
struct service_counter {
	__u64 connections; /* and UDP flows */
	__u64 refused; /* without a backend, or from a source that is not allowed */
	__u64 packets; /* both directions, of flows and sockets that have ended */
	__u64 bytes; /* of IP packets; of sockets, what they carried */
};

/* One entry, index 0; memory-mapped by the agent. */
struct service_state {
	__u32 active; /* frontends there are; 0: nothing is looked up */
	__u32 generation; /* incremented before slots and backends that were in use are written again */
	__u32 loads; /* 1: some socket has been counted in socket_loads, so the ends of sockets are looked at */
};

/* A network namespace whose sockets are translated, by its cookie. */
struct socket_netns {
	__u32 ifindex; /* endpoint whose address its sockets have; 0: no program sees its packets */
	__u32 network;
	struct ip_addr addr4;
	struct ip_addr addr6;
};

enum socket_direction {
	SOCKET_REVERSE = 0, /* key has the backend, value what the program asked for */
	SOCKET_FORWARD = 1, /* UDP: key has what the program asked for, value the backend */
};

/* Where questions of the host's processes go, to any server, while HostPolicies have domain names. */
struct name_server_key {
	struct ip_addr addr; /* 0.0.0.0 (v4-mapped) or ::, for the family */
	__be16 port; /* 53, or NAMES_DIRECT_PORT: the agent's own questions */
	__u8 pad[2];
};

/* Nobody serves anything there (TCPMUX): a question to this port goes to port 53, and not through the agent again. */
#define NAMES_DIRECT_PORT 1

struct name_server {
	__be16 port; /* where the question goes */
	__u8 local; /* 1: at the loopback address of the family, if somebody listens there; 0: at the server */
	__u8 pad;
};

struct socket_key {
	__u64 cookie;
	struct ip_addr addr; /* as the socket would see it */
	__be16 port;
	__u8 direction; /* enum socket_direction */
	__u8 proto;
	__u8 pad[4];
};

struct socket_origin {
	struct ip_addr addr;
	__be16 port;
	__u8 pad[2];
	__u32 service; /* number, 0: a host port */
	__u64 netns; /* cookie */
};

enum network_flag {
	NET_MASQUERADE4 = 1,
	NET_MASQUERADE6 = 2,
	NET_BRIDGE = 4,
	NET_INTERNAL = 8, /* no traffic but between its containers and with the host */
};

/* Index of the array is the Network's number (1 to 4095; 0 is none). */
struct network {
	__u32 flags; /* enum network_flag */
	__u32 pad;
	struct ip_addr gateway4; /* also the source when a container reaches itself by a host port */
	struct ip_addr gateway6;
};

/* Devices that lead out of this host, by ifindex. */
struct uplink {
	struct ip_addr snat4; /* address for masquerading, 0: none */
	struct ip_addr snat6;
	__u16 mtu;
	__u8 pad[6];
};

/* One entry, index 0; memory-mapped by the agent. */
struct node {
	__u32 epoch; /* incremented after each change that can alter a verdict */
	__u32 trace; /* 1: also report forwarded first packets as events */
	__u32 pickup; /* 1: TCP flows may begin without a SYN (after the flow table was lost) */
	__u32 published; /* 1: there are host ports, so the answers of two flows can look the same */
	__u64 gc_scanned; /* entries seen by the expiry program, ever */
	__u64 gc_expired;
	__u32 log_slot; /* which half of flow_log_map is written: 0 or 1 */
	__u32 tunnel; /* device of the overlay, 0: pods of other nodes are reached without */
	__u32 tunnel_id; /* VXLAN network identifier */
	__u32 pad[5];
	__s32 half_open; /* half-open flows in the flow table; on a cache line of its own: new connections write it */
	__u32 pad1[15];
};

/*
 * The busiest flows of local containers, IPv4, by CPU: what forwarding a packet of an established flow needs, in one
 * cache line; of one that is translated or leaves the host, in two. An entry is good for a second, in the epoch it was
 * made in; counts move to the flow's own entry then.
 */
struct hot_flow {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u32 ifindex; /* as in struct flow_key; 0: empty */
	__u32 epoch;
	__u32 until; /* low 32 bits of jiffies64 when it is no longer good; made, or its counts moved, a second before */
	__u8 from_mac[6]; /* as in the packet, with the type behind it */
	__be16 ethertype;
	__u8 dmac[6]; /* to write, with smac behind it */
	__u8 smac[6];
	__u32 oif;
	__u64 bytes;
	__u32 packets; /* not in the flow's entry yet */
	__u8 proto;
	__u8 unusual; /* not 0: FLOW_NAT or FLOW_TTL is in flags; the rest is only read then */
	__u8 action; /* enum flow_action: ACTION_PEER or ACTION_NEIGH */
	__u8 flags; /* enum flow_flag of the flow */
	__be32 new_saddr; /* the tuple after translation */
	__be32 new_daddr;
	__be16 new_sport;
	__be16 new_dport;
	__be32 nexthop; /* ACTION_NEIGH */
	__u32 csum_addr; /* as in struct flow */
	__u32 csum_port;
	__u16 mtu;
	__u8 pad1[38];
};
#define HOT_FLOWS 128

/*
 * Those of one CPU. Their packets that are not changed are counted here, not in metrics: forwarded on their way out of a
 * container.
 */
struct hot_table {
	__u64 packets;
	__u64 bytes;
	__u8 pad[48];
	struct hot_flow flows[HOT_FLOWS];
};

/* Counters: index is direction * METRIC_REASONS + reason; reason 0 counts forwarded packets. */
enum direction {
	DIR_EGRESS = 0, /* out of a container */
	DIR_INGRESS = 1, /* into a container, from uplink or host */
};
#define METRIC_REASONS 128
#define METRIC_SLOTS (2 * METRIC_REASONS)

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* What the flow log adds up: one entry for all flows that agree in this. See lib/flow_log.h. */
struct flow_log_key {
	struct ip_addr saddr; /* the opener's; 0: not told apart, see sample */
	struct ip_addr daddr; /* the receiver's, after translation */
	__u32 ifindex; /* as in the opener's flow_key */
	__u32 src_identity; /* of processes of the host: their subject */
	__u32 rule_egress;
	__u32 rule_ingress;
	__be16 dport; /* after translation; 0: the protocol has no ports. Of the host's ICMP flows: type and code */
	__u8 proto;
	__u8 reason; /* enum drop_reason, 0: allowed */
	__u8 direction; /* enum direction, of the drop */
	__u8 slot; /* node.log_slot */
	__u8 audit; /* 1: the reason is what would have been; it was allowed */
	__u8 pad;
};

/* The latest decisions about new flows, by CPU; see lib/repeat.h. */
struct decision {
	struct flow_key key; /* of the opener's packets; its source port does not count */
	__u32 epoch; /* 0: empty */
	struct flow r;
	struct flow f;
	struct flow_key rev; /* of the answers; its destination port does not count */
	__u32 device; /* that the opener's packet came in by: routes may depend on it */
	struct flow_log_key log;
};
#define DECISIONS 64

/* By CPU. Of flows that are allowed, packets are counted when they end. */
struct flow_log {
	__u64 packets; /* the opener's, and drops */
	__u64 bytes; /* IP bytes */
	__u64 reply_packets;
	__u64 reply_bytes;
	__u32 flows; /* new ones */
	__u32 dst_identity;
	struct ip_addr sample; /* one of the sources */
};

enum event_kind {
	EVENT_DROP = 1,
	EVENT_NEW_FLOW = 2,
	EVENT_AUDIT = 3, /* a new flow that would have been denied without EP_AUDIT */
};

/* Ring buffer record. */
struct event {
	__u64 time; /* nanoseconds, CLOCK_MONOTONIC */
	struct flow_key key;
	__u32 rule;
	__u32 src_identity;
	__u32 dst_identity;
	__s32 error; /* negative errno of a failed map update, 0: none */
	__u16 length; /* IP bytes */
	__u8 kind; /* enum event_kind */
	__u8 reason; /* enum drop_reason */
	__u8 direction; /* enum direction */
	__u8 tcp_flags;
	__u8 pad[6];
};

/* Context of the expiry program (BPF_PROG_TEST_RUN). Times are in jiffies. */
struct gc_args {
	__u32 start; /* in: entries to skip */
	__u32 count; /* in: entries to look at, at most */
	__u32 now; /* in: 0 = the current time */
	__u32 pressure; /* in: percent by which timeouts are shortened, 0 to 95 */
	__u32 scanned; /* out: entries looked at; less than count: the end was reached */
	__u32 expired; /* out: entries deleted */
	__u32 open; /* out: of those looked at, entries of established TCP flows */
	__u32 half; /* out: of those looked at, half-open TCP flows that stay */
};

/*
 * Result of a dry run: what the program decided for the packet it was given. A flow that a policy
 * denies is there as far as it was decided: translation of the destination, identities, both rules.
 */
struct trace {
	struct flow_key key;
	__u32 pad0;
	struct flow flow;
	__u32 reason; /* enum drop_reason, 0: forwarded */
	__u32 rule; /* for policy drops */
	__u32 src_identity;
	__u32 dst_identity;
	__u32 hit; /* 1: decided by an entry of the flow table */
	__u32 ingress; /* enum drop_reason of the receiver's policy, asked also when the sender's denies */
};
