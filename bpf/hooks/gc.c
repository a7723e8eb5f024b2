/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Expiry: looks at a slice of the flow table; started by the agent through BPF_PROG_TEST_RUN. */
#pragma once
#include "maps.h"
#include "packet.h"
#include "direct_return.h"
#include "flow_log.h"
#include "service.h"
#include "young.h"

struct gc_state {
	__u32 skip;
	__u32 left;
	__u32 now;
	__u32 pressure;
	__u32 scanned;
	__u32 expired;
	__u32 open;
	__u32 half;
	__s32 half_gone;
	__u32 pad;
};

static __always_inline bool is_half_open(const struct flow *e, const struct flow *other)
{
	const struct flow *opener = e->flags & FLOW_REPLY ? other : e;

	return e->proto == IPPROTO_TCP && opener && opener->state < FLOW_OPEN;
}

static __always_inline __u32 lifetime(const struct flow *e, const struct flow *other)
{
	if (e->action == ACTION_DROP)
		return e->proto == IPPROTO_TCP ? cfg_ttl_denied : cfg_ttl_udp_new;
	if (is_one_way(e))
		return e->packets > ONE_WAY_LASTS && e->state == FLOW_OPEN ? cfg_ttl_fin : cfg_ttl_udp_new;
	if (e->proto == IPPROTO_TCP) {
		if (is_half_open(e, other))
			return cfg_ttl_half;
		if (e->state >= FLOW_CLOSING && (!other || other->state >= FLOW_CLOSING))
			return cfg_ttl_closing;
		if (e->state >= FLOW_CLOSING || (other && other->state >= FLOW_CLOSING))
			return cfg_ttl_fin;
		return cfg_ttl_tcp;
	}
	return (other && e->packets && other->packets) ? cfg_ttl_udp : cfg_ttl_udp_new;
}

static __always_inline __u32 shortest(const struct flow *e)
{
	if (is_one_way(e))
		return cfg_ttl_udp_new;
	if (e->proto == IPPROTO_TCP && e->state < FLOW_OPEN)
		return cfg_ttl_half;
	if (e->proto == IPPROTO_TCP && e->action == ACTION_DROP)
		return cfg_ttl_denied;
	if (e->proto == IPPROTO_TCP)
		return e->state >= FLOW_CLOSING ? cfg_ttl_closing : cfg_ttl_fin;
	return cfg_ttl_udp_new;
}

static long gc_visit(void *map, struct flow_key *k, struct flow *e, struct gc_state *s)
{
	struct flow_key ok = {};
	struct flow *other;
	__u32 age, limit;

	(void)map;
	if (s->skip) {
		s->skip--;
		return 0;
	}
	if (!s->left)
		return 1;
	s->left--;
	s->scanned++;
	age = s->now - e->last;
	if ((__s32)age < 0)
		age = 0;
	if (e->proto == IPPROTO_TCP && e->state == FLOW_OPEN)
		s->open++;
	if (!(e->flags & FLOW_REPLY) && is_half_open(e, NULL))
		s->half++;
	limit = shortest(e) * cfg_hz;
	if (e->proto == IPPROTO_TCP) {
		mark_flow(k);
		xdp_syn_mark(k);
	}
	if (age < limit - limit / 100 * s->pressure)
		return 0;
	ok.saddr = e->daddr;
	ok.daddr = e->saddr;
	ok.sport = e->dport;
	ok.dport = e->sport;
	ok.proto = e->proto;
	ok.ifindex = e->peer_ifindex;
	other = bpf_map_lookup_elem(&flows, &ok);
	limit = lifetime(e, other) * cfg_hz;
	limit -= limit / 100 * s->pressure;
	if (other) {
		__u32 other_age = s->now - other->last;

		if ((__s32)other_age < 0)
			other_age = 0;
		if (other_age < age)
			age = other_age;
	}
	if (age < limit)
		return 0;
	if (is_half_open(e, other)) {
		s->half_gone++;
		if (!(e->flags & FLOW_REPLY))
			s->half--;
	}
	if (e->flags & FLOW_SERVICE) {
		struct flow_key opener = e->flags & FLOW_REPLY ? ok : *k;

		service_ends(&opener, e, other);
	}
	{
		struct log_scratch *l = log_area(LOG_OF_EXPIRY);

		if (l && !(e->flags & FLOW_REPLY))
			log_end(l, &k->saddr, k->ifindex, e, other);
		else if (l && other)
			log_end(l, &ok.saddr, ok.ifindex, other, e);
	}
	bpf_map_delete_elem(&flows, &ok);
	if (!bpf_map_delete_elem(&flows, k))
		s->expired += other ? 2 : 1;
	return 0;
}

/* What has been quiet for a second is not worth its place: it goes to the flow table, and expires there. */
__noinline int young_expire(__u32 slot, __u32 jiffies)
{
	struct young_flow *y = young_at(slot);
	__s32 age, other;

	if (!y)
		return 0;
	age = (__s32)(jiffies - y->f.last);
	other = (__s32)(jiffies - y->r.last);
	if (other < age)
		age = other;
	if (!(y->owner & YOUNG_LIVE) || age < (__s32)cfg_hz || !young_move(slot, LOG_OF_EXPIRY))
		return 0;
	if (y->f.state < FLOW_OPEN && age >= (__s32)(cfg_ttl_half * cfg_hz))
		young_drop(slot, LOG_OF_EXPIRY);
	return 0;
}

static long young_visit(void *map, __u32 *number, struct young_set *set, struct gc_state *s)
{
	__u32 slot = *number * YOUNG_WAYS;

	(void)map;
#pragma unroll
	for (__u32 i = 0; i < YOUNG_WAYS; i++)
		if (set->ports[i])
			young_expire(slot + i, s->now);
	return 0;
}

SEC("syscall")
int sluice_gc(struct gc_args *args)
{
	struct flow_marks *marks;
	struct gc_state s = {};
	struct node *node;
	__u32 zero = 0;

	s.skip = args->start;
	s.left = args->count;
	s.now = args->now ? args->now : (__u32)bpf_jiffies64();
	s.pressure = args->pressure > 95 ? 95 : args->pressure;
	bpf_for_each_map_elem(&young_sets, young_visit, &s, 0);
	bpf_for_each_map_elem(&flows, gc_visit, &s, 0);
	args->now = s.now;
	args->scanned = s.scanned;
	args->expired = s.expired;
	args->open = s.open;
	args->half = s.half;
	marks = flow_marks();
	if (marks && s.left)
		marks->pass++; /* the end was reached */
	node = bpf_map_lookup_elem(&node_map, &zero);
	if (node) {
		node->gc_scanned += s.scanned;
		node->gc_expired += s.expired;
		__sync_fetch_and_add(&node->half_open, -s.half_gone);
	}
	return 0;
}
