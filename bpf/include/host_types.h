/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The host enforcer's part of the contract with the control plane; the rules are those of types.h. */
#pragma once
#include "types.h"

/*
 * A flow of the host itself, one entry for both directions: "local" is the host's side, whoever opened it. `scope` is
 * 0 where packets pass a device, else the number of the subject (a unit, a cgroup, a user) that judges them at the
 * socket.
 */
struct host_flow_key {
	struct ip_addr local;
	struct ip_addr remote;
	__be16 local_port; /* ICMP echo: the id, at the side that asks */
	__be16 remote_port;
	__u16 scope;
	__u8 proto;
	__u8 pad;
};

enum host_flow_flag {
	HOST_FLOW_ANSWERED = 1, /* the other side has sent something */
	HOST_FLOW_LIMITED = 2, /* its rule limits packets */
	HOST_FLOW_FAILSAFE = 4, /* allowed by a failsafe port */
	HOST_FLOW_FORWARDED = 8, /* not of this host: routed through it */
	HOST_FLOW_AUDIT = 16, /* it would be dropped, for `reason`; see host_state.audit */
};

struct host_flow {
	__u32 epoch; /* host_state.epoch that this was decided in */
	__u32 last; /* low 32 bits of jiffies64 at the last packet */
	__u32 rule; /* 0: no rule decided */
	__u32 subject;
	__be16 port; /* what the rules saw: destination port of the opener; ICMP: type and code */
	__u8 direction; /* enum direction: how it was opened */
	__u8 verdict; /* VERDICT_ALLOW or VERDICT_DENY */
	__u8 flags; /* enum host_flow_flag */
	__u8 reason; /* VERDICT_DENY and HOST_FLOW_AUDIT: enum drop_reason */
	__u8 pad[2];
	__u64 packets[2]; /* by enum direction */
	__u64 bytes[2]; /* IP bytes */
	__u64 created; /* jiffies64 */
};

enum host_panic {
	HOST_PANIC_NONE = 0,
	HOST_PANIC_OPEN = 1, /* everything passes */
	HOST_PANIC_CLOSE = 2, /* nothing but the failsafe ports */
};

#define HOST_LENGTHS6 129
#define HOST_LENGTHS4 33

/*
 * One entry, index 0; memory-mapped by the agent. Keys of the maps below carry `generation`: a starting agent writes
 * all under the next one and switches by writing one number.
 */
struct host_state {
	__u32 epoch;
	__u32 panic; /* enum host_panic */
	__u32 generation;
	__u32 count4; /* prefix lengths in use in host_prefixes, longest first */
	__u32 count6;
	__u32 anchors4; /* bit i: host_lines has prefixes whose anchor is HOST_ANCHOR_BITS * (HOST_ANCHORS - 1 - i) bits */
	__u32 last_line
		[2]; /* of host_lines, by the lowest bit of the generation: lines in use - 1, a power of two less 1 */
	__u32 audit; /* 1: what policy would drop is logged, not dropped */
	__u8 lengths4[HOST_LENGTHS4]; /* 0 to 32 */
	__u8 lengths6[HOST_LENGTHS6]; /* 0 to 128 */
	__u8 pad[2];
};

/*
 * IPv4 prefixes, 64 bytes of them that are looked at together: those that begin with the same 24 bits, their anchor,
 * and others that share the line by its hash. Shorter prefixes have anchors of 16, 8 or 0 bits. What finds no room is
 * in host_prefixes, and the line says so. The array has a half for each value of the generation's lowest bit.
 *
 * The hash of an anchor is one to one (HOST_HASH_BITS of it: the anchor and which of the four it is). Its lowest bits
 * are the number of the line; of the others, HOST_TAG_BITS stand in the entry, so that no other anchor is like it:
 *
 *   HOST_TAG_BITS   the hash without its lowest HOST_HASH_BITS - HOST_TAG_BITS
 *   9               the bits of the prefix after its anchor, a 1, zeros
 *   HOST_CLASS_BITS class
 */
#define HOST_ANCHORS 4
#define HOST_ANCHOR_BITS 8
#define HOST_HASH_BITS 26
#define HOST_TAG_BITS 12
#define HOST_CLASS_BITS 11
#define HOST_LINE_ENTRIES 15

struct host_line {
	__u32 entries[HOST_LINE_ENTRIES]; /* 0: empty */
	__u32 spilled; /* how many found no room */
};

/* An exact prefix: a look-up tries each length in use, so its cost does not depend on how many prefixes there are. */
struct host_prefix_key {
	struct ip_addr addr; /* bits beyond the prefix are 0; IPv4 v4-mapped */
	__u32 length; /* as in the state: 0 to 32 for IPv4 */
	__u32 generation;
};

/* A device, a cgroup, a user or a pair of those, and what it is in the tables below. */
enum host_owner_kind {
	HOST_DEVICE = 1, /* id: ifindex; value: subject */
	HOST_CGROUP = 2, /* id: cgroup; value: number of the cgroup in HOST_PAIR */
	HOST_USER = 3, /* id: user id; value: number of the user in HOST_PAIR */
	HOST_PAIR = 4, /* id: number of the cgroup << 32 | number of the user, 0: any other; value: subject */
	HOST_EARLY = 5, /* id: ifindex; value: subject; there its deny lists count in XDP */
};

struct host_owner_key {
	__u64 id;
	__u32 kind; /* enum host_owner_kind */
	__u32 generation;
};

/*
 * Index of the array is twice the number of the subject, plus the lowest bit of the generation. Sets are numbers in
 * host_peers; 0: no policy, all is allowed.
 */
struct host_subject {
	__u32 ingress;
	__u32 egress;
};

/* What a rule does beside allowing and denying. */
enum host_rule_flag {
	HOST_RULE_LOG = 1, /* report what it allows */
	HOST_RULE_PER_SOURCE = 2, /* the limits are for each peer */
	HOST_RULE_PACKETS = 4, /* packets are limited */
	HOST_RULE_CONNECTIONS = 8, /* new flows are limited */
};

struct host_rule {
	__u32 flags; /* enum host_rule_flag */
	__u32 pad;
	struct rate_limit packets; /* cost: nanoseconds a packet */
	struct rate_limit connections; /* cost: nanoseconds a new flow */
};

struct host_bucket_key {
	struct ip_addr addr;
	__u32 rule;
};

/* As rate_limit.next, of one peer. */
struct host_bucket {
	__u64 packets;
	__u64 connections;
};

struct host_failsafe_key {
	__u8 direction; /* enum direction: how a connection to this port is opened */
	__u8 proto;
	__be16 port; /* the port that is connected to */
};
