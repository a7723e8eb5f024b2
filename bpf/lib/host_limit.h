/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Rate limits of rules, for all peers together or for each: the generic cell rate algorithm, as in bandwidth.h. */
#pragma once
#include "host_maps.h"

/* Takes one from a bucket whose virtual time is *next. */
static __always_inline bool host_take(__u64 *next, __u64 cost, __u64 tolerance, __u64 time)
{
	__u64 seen = *next;
	__u64 from = seen > time ? seen : time;

	if (from - time > tolerance)
		return false;
	if (__sync_val_compare_and_swap(next, seen, from + cost) != seen)
		__sync_fetch_and_add(next, cost); /* another CPU was faster, and has moved it up to now */
	return true;
}

static __always_inline struct host_bucket *bucket_of(__u32 rule, const struct ip_addr *peer)
{
	struct host_bucket_key k = {.addr = *peer, .rule = rule};
	struct host_bucket fresh = {};
	struct host_bucket *b = bpf_map_lookup_elem(&host_buckets, &k);

	if (b)
		return b;
	bpf_map_update_elem(&host_buckets, &k, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&host_buckets, &k);
}

/* Counts a new flow (`connection`) or a packet against the limits of a rule. Returns 1 if there is one too many. */
__noinline int host_over_limit(__u32 rule, const struct ip_addr *peer, __u32 connection)
{
	struct host_rule *r = bpf_map_lookup_elem(&host_rules, &rule);
	struct host_bucket *b = NULL;
	__u64 time;

	if (!r || !peer)
		return 0;
	if (!(r->flags & (connection ? HOST_RULE_CONNECTIONS : HOST_RULE_PACKETS)))
		return 0;
	time = bpf_ktime_get_ns();
	if (r->flags & HOST_RULE_PER_SOURCE) {
		b = bucket_of(rule, peer);
		if (!b)
			return 1;
		if (connection)
			return !host_take(&b->connections, r->connections.cost, r->connections.tolerance,
					  time);
		return !host_take(&b->packets, r->packets.cost, r->packets.tolerance, time);
	}
	if (connection)
		return !host_take(&r->connections.next, r->connections.cost, r->connections.tolerance, time);
	return !host_take(&r->packets.next, r->packets.cost, r->packets.tolerance, time);
}
