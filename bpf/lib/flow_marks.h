/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which tuples are not in the flow table, without a look at it; see struct flow_marks. */
#pragma once
#include "maps.h"

/* Passes of expiry that a mark is good for: an entry that moves while a pass goes on may be passed over by it. */
#define MARK_PASSES 3

static __always_inline struct flow_marks *flow_marks(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&flow_marks_map, &zero);
}

/*
 * The same for both directions of a flow that is not translated. The connections of a client to a server have ports one
 * after the other: so have their marks, a few cache lines.
 */
static __always_inline __u32 mark_index(const struct flow_key *k)
{
	__u32 h = (k->saddr.w[3] ^ k->daddr.w[3]) * 0x9e3779b1;

	return ((h >> 16) + bpf_ntohs(k->sport ^ k->dport)) & (FLOW_MARKS - 1);
}

/* There is, or will be at once, an entry with the key k. */
static __always_inline void mark_flow(const struct flow_key *k)
{
	struct flow_marks *m = flow_marks();

	if (m)
		m->seen[mark_index(k)] = (__u16)m->pass;
}

/* May there be an entry with the key k? */
static __always_inline bool may_be_flow(const struct flow_key *k)
{
	struct flow_marks *m = flow_marks();

	return !m || (__u16)((__u16)m->pass - m->seen[mark_index(k)]) < MARK_PASSES;
}

/* The entry with the key k, which is that of a packet from a container: no look at the table for a new TCP connection. */
static __always_inline struct flow *known_flow(const struct flow_key *k)
{
	return cfg_dry_run || k->proto != IPPROTO_TCP || may_be_flow(k) ? bpf_map_lookup_elem(&flows, k)
									: NULL;
}
