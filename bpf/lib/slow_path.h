/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A packet that no entry in force is for: the first one of its flow, or the first one after a change. Decides, writes
 * and forwards; a SYN like one just decided takes a shorter way.
 */
#pragma once
#include "commit.h"
#include "decide.h"
#include "decision_log.h"
#include "flow_marks.h"
#include "refuse.h"
#include "repeat.h"

/* Dry run: as much of a denied flow as was decided. */
static __always_inline void report_denied(const struct work *w)
{
	__u32 zero = 0;
	struct trace *t = bpf_map_lookup_elem(&trace_map, &zero);

	if (!t)
		return;
	t->flow = w->f;
	t->ingress = w->ingress;
}

/*
 * Decides the flow of p and acts. `known`: an entry that was found but is of an older epoch (or
 * NULL); in_half: it is in the half-open table.
 */
__noinline int slow_path(struct __sk_buff *skb, struct packet *p, struct flow *known, __u32 in_half,
			 const __u32 hook)
{
	const __u32 dir = hook == HOOK_CONTAINER ? DIR_EGRESS : DIR_INGRESS;
	struct work *w = work_area();
	struct node *node = node_state();
	bool reply;
	int reason;

	if (!p)
		return TC_ACT_SHOT;
	if (!w || !node)
		return drop(p, NULL, DROP_INTERNAL, dir);
	/* A port is used again after its connection has ended: who had the old one's backend need not be one any more. */
	if (known && is_syn(p) && !in_half && !(known->flags & FLOW_REPLY) && known->state >= FLOW_CLOSING &&
	    known->proto == IPPROTO_TCP && !cfg_dry_run && tcp_step(skb, p, known) == TCP_BEGINS)
		known = NULL;
	/* The first packet after a change may also be the last one. */
	if (known && p->key.proto == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST)) && !in_half &&
	    !cfg_dry_run)
		tcp_ends(skb, p, known);
	w->epoch = node->epoch;
	w->jiffies = now();
	w->tcp_flags = p->tcp_flags;
	w->pass = 0;
	w->claimed = 0;
	w->keep_port = 0;
	w->had_old = 0;
	w->redirected = 0;
	w->one_way = 0;
	w->service_direct = 0;
	w->len = p->len;
	w->half_ifindex = 0;
	w->pickup = node->pickup;
	w->tunnel = node->tunnel;
	w->published = node->published || services_active();
	w->reply = known && (known->flags & FLOW_REPLY);
	w->info.rule = 0;
	w->info.error = 0;
	w->info.src_identity = 0;
	w->info.dst_identity = 0;
	reply = w->reply;
	if (known) {
		w->known = *known;
		w->had_old = 1;
		other_key(&w->old_rev, &w->known);
		w->old_rev.proto = p->key.proto;
		if (reply) {
			w->fwd = w->old_rev;
			w->old_rev = p->key;
		} else {
			w->fwd = p->key;
		}
		if (w->known.flags & FLOW_SNAT)
			w->keep_port = w->old_rev.dport;
	} else {
		w->fwd = p->key;
	}
	w->direct = p->key.proto == IPPROTO_TCP && !known && opens_tcp(w) &&
		    node->half_open < (__s32)cfg_half_limit;
	if (known || hook == HOOK_HOST || !decided_before(w, skb->ifindex)) {
		reason = decide(skb);
		if (!reason && !known && hook != HOOK_HOST && !w->pass)
			keep_decision(skb->ifindex);
	} else {
		reason = DROP_NONE;
	}
	barrier_var(w); /* field addresses are worked out anew rather than kept on the stack */
	if (w->pass && !reason) {
		if (w->had_old && !cfg_dry_run)
			forget(&w->fwd, &w->old_rev);
		return CONTINUE;
	}
	if (!reason && !cfg_dry_run)
		reason = unlikely(w->one_way) ? commit_one_way() : commit(in_half);
	if (reason) {
		const bool refused = reason == DROP_SERVICE_EMPTY || reason == DROP_SERVICE_PORT ||
				     (reason == DROP_SERVICE_NOT_LOCAL && hook == HOOK_CONTAINER);

		if (known && !cfg_dry_run) {
			if (in_half)
				half_drop(w, &w->old_rev);
			else if (refused)
				forget(&w->fwd, &w->old_rev);
			else
				deny_known(known, reason);
		}
		if (cfg_dry_run)
			report_denied(w);
		log_decision(p, (__u32)reason);
		drop(p, &w->info, reason, w->direction);
		return refused && !reply ? refuse(skb, p, hook) : TC_ACT_SHOT;
	}
	log_decision(p, DROP_NONE);
	barrier_var(w);
	barrier_var(p);
	if (reply && !same_key(&p->key, &w->rev)) {
		/* The flow is translated in another way now; this answer belongs to the old one. */
		return drop(p, &w->info, DROP_ICMP_UNRELATED, dir);
	}
	if (!cfg_dry_run && !w->had_old && node->trace)
		emit_event(p, &w->info, EVENT_NEW_FLOW, 0, dir);
	return forward(skb, p, reply ? &w->r : &w->f, hook);
}

/* forward() for the rare cases, out of the way of the others. */
__noinline int forward_from_container(struct __sk_buff *skb, struct packet *p, struct flow *e)
{
	if (!p || !e)
		return TC_ACT_SHOT;
	return forward(skb, p, e, HOOK_CONTAINER);
}

/*
 * p is the SYN of a connection that differs only in its source port from one just decided: both entries are made from
 * that decision, and the packet goes on. HOT_MISS: it has to be looked at. smac: the packet's Ethernet source.
 */
__noinline int open_again(struct __sk_buff *skb, struct packet *p, __u64 smac)
{
	__u64 jiffies = bpf_jiffies64();
	struct node *node = node_state();
	struct work *w = work_area();
	struct decision *d;

	if (!p || !node || !w || cfg_dry_run || node->trace || node->half_open >= (__s32)cfg_half_limit)
		return HOT_MISS;
	d = decision_about(&p->key, node->epoch);
	/* Its answers may be those of a flow to a service or a published port, which has a mark where this one's is. */
	if (d && (node->published || services_active()) && may_be_flow(&p->key))
		return HOT_MISS;
	if (!d || d->f.reason || smac != mac_bits(d->f.from_mac))
		return HOT_MISS;
	d->f.sport = p->key.sport;
	d->f.last = (__u32)jiffies;
	d->f.created = jiffies;
	d->f.packets = 1;
	d->f.bytes = p->len;
	d->r.dport = p->key.sport;
	d->r.last = (__u32)jiffies;
	d->r.created = jiffies;
	d->rev.dport = p->key.sport;
	w->fwd = p->key; /* before 6.2 an argument's memory can't be a map's key */
	if (young_may(d) && young_open(&w->fwd, d))
		return forward_from_container(skb, p, &d->f);
	/* Before the entries: a locked instruction behind them would wait until they are in the cache. */
	count_half_open(1);
	mark_flow(&w->fwd);
	/* Not new, or no room: the slow path sees to it. */
	if (bpf_map_update_elem(&flows, &w->fwd, &d->f, BPF_NOEXIST)) {
		count_half_open(-1);
		return HOT_MISS;
	}
	if (bpf_map_update_elem(&flows, &d->rev, &d->r, BPF_ANY)) {
		bpf_map_delete_elem(&flows, &w->fwd);
		count_half_open(-1);
		return HOT_MISS;
	}
	log_again(d, node);
	return forward_from_container(skb, p, &d->f);
}

/* p answers a half-open flow, whose entry for the answers is h: it is decided again, or goes on as h says. */
static __always_inline int forward_half(struct __sk_buff *skb, struct packet *p, struct flow *h,
					const struct node *node, const __u32 hook)
{
	if (h->epoch != node->epoch)
		return slow_path(skb, p, h, 1, hook);
	if (!cfg_dry_run)
		h->state = FLOW_SYNACK;
	return hook == HOOK_CONTAINER ? forward_from_container(skb, p, h) : forward(skb, p, h, hook);
}
