/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A decision becomes entries: both directions into the flow table, a TCP flow's into the half-open one in a flood, and
 * what a change denies keeps its entries with the reason.
 */
#pragma once
#include "flow.h"
#include "flow_marks.h"
#include "internal.h"
#include "work.h"
#include "xdp_slot.h"

static __always_inline void forget(const struct flow_key *fwd, const struct flow_key *rev)
{
	bpf_map_delete_elem(&flows, fwd);
	bpf_map_delete_elem(&flows, rev);
}

static __always_inline bool same_key(const struct flow_key *a, const struct flow_key *b)
{
	return addr_equal(&a->saddr, &b->saddr) && addr_equal(&a->daddr, &b->daddr) && a->sport == b->sport &&
	       a->dport == b->dport && a->ifindex == b->ifindex;
}

/* Both directions into the main table; all or nothing. */
static __always_inline int insert_pair(struct work *w)
{
	struct flow *e = w->reply ? &w->r : &w->f;
	long err;

	/* This packet: forward() only sees the copy. */
	e->packets++;
	e->bytes += w->len;
	if (!w->f.created) {
		w->f.created = bpf_jiffies64();
		w->r.created = w->f.created;
	}
	if (w->fwd.proto == IPPROTO_TCP) {
		mark_flow(&w->fwd);
		mark_flow(&w->rev);
		xdp_syn_mark(&w->fwd);
		xdp_syn_mark(&w->rev);
	}
	err = bpf_map_update_elem(&flows, &w->rev, &w->r, BPF_ANY);
	if (!err) {
		err = bpf_map_update_elem(&flows, &w->fwd, &w->f, BPF_ANY);
		if (!err)
			return DROP_NONE;
		bpf_map_delete_elem(&flows, &w->rev);
	}
	w->info.error = (__s32)err;
	return DROP_FLOW_FULL;
}

/* Writes the decision. In a SYN flood, a TCP flow enters the main table when its handshake is complete. */
__noinline int commit(__u32 in_half)
{
	struct work *w = work_area();
	struct half_flow *h;

	if (!w)
		return DROP_INTERNAL;
	if (w->fwd.proto != IPPROTO_TCP || (w->had_old && !in_half)) {
		if (w->had_old) {
			struct flow *old;

			if (!same_key(&w->old_rev, &w->rev))
				bpf_map_delete_elem(&flows, &w->old_rev);
			/* Counters and state go on. */
			old = bpf_map_lookup_elem(&flows, &w->fwd);
			if (old) {
				w->f.packets = old->packets;
				w->f.bytes = old->bytes;
				w->f.state = old->state;
				w->f.fin_end = old->fin_end;
				w->f.created = old->created;
			}
			old = bpf_map_lookup_elem(&flows, &w->rev);
			if (old) {
				w->r.packets = old->packets;
				w->r.bytes = old->bytes;
				w->r.state = old->state;
				w->r.fin_end = old->fin_end;
				w->r.created = old->created;
			}
		}
		return insert_pair(w);
	}
	if (w->direct) {
		int reason;

		/* Before the entries, as in open_again(). */
		count_half_open(1);
		reason = insert_pair(w);
		if (reason)
			count_half_open(-1);
		return reason;
	}
	if (!w->had_old && !w->claimed && (w->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_SYN) {
		if (!half_put(w, BPF_NOEXIST))
			return DROP_NONE;
	}
	h = half_of(w);
	if (h && h->r.state == FLOW_SYNACK && !in_half && (w->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_ACK) {
		int reason;

		w->r.packets = h->r.packets;
		w->r.bytes = h->r.bytes;
		w->f.packets = 1; /* the SYN */
		w->f.state = FLOW_OPEN;
		w->r.state = FLOW_OPEN;
		reason = insert_pair(w);
		if (!reason)
			half_drop(w, &w->rev);
		return reason;
	}
	if (!h && !opens_tcp(w))
		return DROP_TCP_NO_FLOW;
	if (h) {
		w->r.state = w->reply ? FLOW_SYNACK : h->r.state;
		w->r.packets = h->r.packets;
		w->r.bytes = h->r.bytes;
	}
	if (in_half && !same_key(&w->old_rev, &w->rev))
		half_drop(w, &w->old_rev);
	w->info.error = (__s32)half_put(w, BPF_ANY);
	return w->info.error ? DROP_FLOW_FULL : DROP_NONE;
}

/*
 * The acknowledgement that completes a handshake without translation: the entries made for the SYN move to the main
 * table as they are. Returns 1 and leaves the opener's entry in work.f, or 0: the slow path finds out.
 */
__noinline int complete_handshake(struct packet *p)
{
	struct work *w = work_area();
	struct node *node = node_state();
	struct half_flow *h;

	if (!p || !w || !node)
		return 0;
	w->fwd = p->key;
	w->rev.saddr = p->key.daddr;
	w->rev.daddr = p->key.saddr;
	w->rev.sport = p->key.dport;
	w->rev.dport = p->key.sport;
	w->rev.ifindex = 0;
	w->rev.proto = p->key.proto;
	w->rev.pad[0] = 0;
	w->rev.pad[1] = 0;
	w->rev.pad[2] = 0;
	h = bpf_map_lookup_elem(&half, &w->rev);
	if (!h)
		return 0;
	w->r = h->r;
	w->f = h->f;
	if (w->r.state != FLOW_SYNACK || w->r.epoch != node->epoch || w->f.epoch != node->epoch ||
	    !same_opener(&w->r, w))
		return 0;
	w->rev.ifindex = w->f.peer_ifindex;
	w->half_ifindex = 0;
	w->reply = 0;
	w->len = p->len;
	w->f.packets = 1; /* the SYN */
	w->f.last = now();
	w->f.state = FLOW_OPEN;
	w->r.state = FLOW_OPEN;
	if (insert_pair(w))
		return 0;
	half_drop(w, &w->rev);
	return 1;
}

static __always_inline void mark_denied(struct flow *e, const struct work *w, __u32 reason)
{
	e->action = ACTION_DROP;
	e->reason = (__u8)reason;
	if (w->direction == DIR_EGRESS)
		e->rule_egress = w->info.rule;
	else
		e->rule_ingress = w->info.rule;
	e->last = w->jiffies;
	/* The fast path looks at the epoch first: the rest must be there. */
	barrier();
	e->epoch = w->epoch;
}

/* The flow is denied from now on, in both directions, until a later epoch allows it. */
__noinline int deny_known(struct flow *known, __u32 reason)
{
	struct work *w = work_area();
	struct flow_key k;
	struct flow *other;

	if (!w || !known)
		return 0;
	other_key(&k, known);
	other = bpf_map_lookup_elem(&flows, &k);
	if (other)
		mark_denied(other, w, reason);
	mark_denied(known, w, reason);
	return 0;
}
