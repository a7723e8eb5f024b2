/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Bandwidth limits of containers. What is over the limit is dropped: there is no queue here, and TCP adapts. Flows of
 * endpoints without a limit do not have FLOW_LIMIT and never come here.
 */
#pragma once
#include "work.h"

/* Whether a packet of len bytes is within the limit; if so it is counted. */
static __always_inline bool take_tokens(struct rate_limit *l, __u32 len, __u64 time)
{
	__u64 seen = l->next;
	__u64 from = seen > time ? seen : time;
	__u64 cost = (l->cost * len) >> 20;

	if (!l->cost)
		return true;
	/* The bucket may go below zero by one packet, so that a large one passes a small bucket. */
	if (from - time > l->tolerance)
		return false;
	if (__sync_val_compare_and_swap(&l->next, seen, from + cost) != seen)
		__sync_fetch_and_add(&l->next, cost); /* another CPU was faster, and has moved it up to now */
	return true;
}

/*
 * Takes a packet off the buckets of its sender and its receiver; 0 is neither. Returns 1 if it is over a limit. A
 * packet that the receiver's limit drops has used the sender's.
 */
__noinline int over_limit(__u32 sender, __u32 receiver, __u32 len)
{
	__u64 time = bpf_ktime_get_ns();
	struct bandwidth *b;

	/* A GSO packet has at most 65535 bytes of payload, with BIG TCP more: the product must fit. */
	if (len > 1 << 19)
		len = 1 << 19;
	if (sender) {
		b = bpf_map_lookup_elem(&bandwidths, &sender);
		if (b && !take_tokens(&b->egress, len, time))
			return 1;
	}
	if (receiver) {
		b = bpf_map_lookup_elem(&bandwidths, &receiver);
		if (b && !take_tokens(&b->ingress, len, time))
			return 1;
	}
	return 0;
}
