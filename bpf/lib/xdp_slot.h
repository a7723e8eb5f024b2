/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * TCP connections of which XDP has seen nothing but the SYN: an array of fixed size, found by the port of the node that
 * the answers come to. A flood of SYNs costs one write each, allocates nothing and displaces nothing but other SYNs.
 * With the backend's answer a connection moves to the flow table; while too many there are half-open it stays here until
 * the client has acknowledged.
 *
 * A slot also says whether the flow table may have entries for packets to its port, as struct flow_marks does: so a SYN
 * whose port is free asks for one cache line.
 *
 * Nothing is locked. `check` is a hash of the rest: where two programs have written at once, it tells, and the client
 * sends its SYN again.
 */
#pragma once
#include "flow_marks.h"

#define XDP_SYNS 32768

struct xdp_syn {
	__u32 check; /* see xdp_syn_check; 0: free */
	__u32 made; /* jiffies */
	__u32 epoch;
	__u32 backend; /* its number */
	struct ip_addr client;
	struct ip_addr frontend;
	__be16 client_port;
	__be16 frontend_port;
	__be16 port; /* of the node, where the answers come to */
	/*
	 * enum flow_state. FLOW_CLOSING: the opener has another connection with the same ports in the flow table, whose
	 * SYNs are TC's.
	 */
	__u8 state;
	__u8 pad;
	__be32 snat; /* the last word of the node's address */
	/* When the flow table last had entries for packets to the port, see xdp_syn_mark; in two by where they come from. */
	__u16 seen[2];
};
_Static_assert(sizeof(struct xdp_syn) == 64, "struct xdp_syn is a cache line");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xdp_syn)); /* private: its type is not exported */
	__uint(max_entries, XDP_SYNS);
	__uint(map_flags, BPF_F_MMAPABLE); /* page-aligned, so that a slot is one cache line */
} xdp_syns SEC(".maps");

static __always_inline struct xdp_syn *xdp_syn_of_port(__be16 port)
{
	__u32 slot = bpf_ntohs(port) & (XDP_SYNS - 1);

	return bpf_map_lookup_elem(&xdp_syns, &slot);
}

static __always_inline struct xdp_syn *xdp_syn_slot(const struct flow_key *rev)
{
	return xdp_syn_of_port(rev->dport);
}

/* The mark of this pass of expiry; never 0, which a slot without marks has. */
static __always_inline __u16 xdp_syn_pass(const struct flow_marks *m)
{
	return (__u16)(m->pass << 1 | 1);
}

static __always_inline __u32 xdp_syn_side(__be32 from, __be16 port)
{
	__u32 h = (from ^ port) * 0x9e3779b1;

	return h >> 31;
}

/* There is, or will be at once, an entry with the key k in the flow table; in XDP too, where answers to the port arrive. */
static __always_inline void xdp_syn_mark(const struct flow_key *k)
{
	struct flow_marks *m = flow_marks();
	struct xdp_syn *s;
	__u16 pass;

	if (k->ifindex != FLOW_IF_UPLINK || bpf_ntohs(k->dport) < cfg_snat_min ||
	    bpf_ntohs(k->dport) > cfg_snat_max)
		return;
	s = xdp_syn_slot(k);
	if (!m || !s)
		return;
	pass = xdp_syn_pass(m);
	if (s->seen[xdp_syn_side(k->saddr.w[3], k->sport)] != pass)
		s->seen[xdp_syn_side(k->saddr.w[3], k->sport)] = pass;
}

/* May the flow table have an entry for packets from this address (its last word) and port to the slot's port? */
static __always_inline bool xdp_syn_may_be_flow(const struct xdp_syn *s, __be32 from, __be16 port)
{
	const __u16 seen = s->seen[xdp_syn_side(from, port)];
	struct flow_marks *m;

	if (likely(!seen))
		return false;
	m = flow_marks();
	return !m || (__u16)(xdp_syn_pass(m) - seen) < 2 * MARK_PASSES;
}

/* Is it the slot of a connection that answers like rev, from this backend? */
static __always_inline bool xdp_syn_at(const struct xdp_syn *s, const struct flow_key *rev, __u32 backend)
{
	return s->check && s->port == rev->dport && s->backend == backend && s->snat == rev->daddr.w[3];
}

/* The same without knowing the backend's number. */
static __always_inline bool xdp_syn_is(const struct xdp_syn *s, const struct flow_key *rev)
{
	__u32 number = s->backend;
	struct backend *b;

	if (!s->check || s->port != rev->dport || s->snat != rev->daddr.w[3])
		return false;
	b = bpf_map_lookup_elem(&backends, &number);
	return b && b->port == rev->sport && b->proto == rev->proto && addr_equal(&b->addr, &rev->saddr);
}

static __always_inline bool xdp_syn_from(const struct xdp_syn *s, const struct flow_key *fwd)
{
	return s->client_port == fwd->sport && s->frontend_port == fwd->dport &&
	       addr_equal(&s->client, &fwd->saddr) && addr_equal(&s->frontend, &fwd->daddr);
}

static __always_inline bool xdp_syn_is_fresh(const struct xdp_syn *s, __u32 jiffies)
{
	return jiffies - s->made < cfg_ttl_half * cfg_hz;
}

/* Has XDP given the port of rev to another opener than fwd? */
static __always_inline bool xdp_syn_taken(const struct flow_key *rev, const struct flow_key *fwd)
{
	struct xdp_syn *s = xdp_syn_slot(rev);

	return s && s->port == rev->dport && xdp_syn_is_fresh(s, now()) && !xdp_syn_from(s, fwd) &&
	       xdp_syn_is(s, rev);
}
