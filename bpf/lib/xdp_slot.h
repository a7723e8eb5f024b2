/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * TCP connections of which XDP has seen nothing but the SYN: an array of fixed size, found by a hash of the answer's
 * tuple. A flood of SYNs costs one write each, allocates nothing and displaces nothing but other SYNs. With the
 * backend's answer a connection moves to the flow table; while too many there are half-open it stays here until the
 * client has acknowledged.
 *
 * Two programs may meet in a slot: `version` is odd while one writes, and who reads looks at it before and after.
 */
#pragma once
#include "maps.h"

#define XDP_SYNS 32768

struct xdp_syn {
	__u32 version; /* odd: being written */
	__u32 made; /* jiffies */
	__u32 epoch;
	/*
	 * enum flow_state. FLOW_CLOSED: free; FLOW_CLOSING: the opener has another connection with the same ports in
	 * the flow table, whose SYNs are TC's.
	 */
	__u8 state;
	__u8 pad[3];
	struct flow_key rev; /* of the answers */
	struct ip_addr client;
	struct ip_addr frontend;
	__be16 client_port;
	__be16 frontend_port;
	__u32 identity; /* of the backend */
	__u32 pad1[7];
};
_Static_assert(sizeof(struct xdp_syn) == 128, "struct xdp_syn fits two cache lines");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xdp_syn)); /* private: its type is not exported */
	__uint(max_entries, XDP_SYNS);
} xdp_syns SEC(".maps");

static __always_inline struct xdp_syn *xdp_syn_slot(const struct flow_key *rev)
{
	__u32 h = rev->saddr.w[3] ^ ((__u32)rev->dport << 16 | rev->sport);
	__u32 slot;

	h *= 0x9e3779b1;
	slot = (h >> 15) & (XDP_SYNS - 1);
	return bpf_map_lookup_elem(&xdp_syns, &slot);
}

static __always_inline bool xdp_syn_is(const struct xdp_syn *s, const struct flow_key *rev)
{
	return s->rev.dport == rev->dport && s->rev.sport == rev->sport && s->state != FLOW_CLOSED &&
	       addr_equal(&s->rev.saddr, &rev->saddr) && addr_equal(&s->rev.daddr, &rev->daddr);
}

static __always_inline bool xdp_syn_from(const struct xdp_syn *s, const struct flow_key *fwd)
{
	return addr_equal(&s->client, &fwd->saddr) && s->client_port == fwd->sport &&
	       addr_equal(&s->frontend, &fwd->daddr) && s->frontend_port == fwd->dport;
}

/* Has XDP given the port of rev to another opener than fwd? */
static __always_inline bool xdp_syn_taken(const struct flow_key *rev, const struct flow_key *fwd)
{
	struct xdp_syn *s = xdp_syn_slot(rev);

	return s && xdp_syn_is(s, rev) && now() - s->made < cfg_ttl_half * cfg_hz && !xdp_syn_from(s, fwd);
}
