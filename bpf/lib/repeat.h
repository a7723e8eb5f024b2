/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The latest decisions: a new flow between two local containers that differs from one just decided only in its source
 * port is decided the same way, until the next epoch. So the second connection costs no look at addresses and policy.
 */
#pragma once
#include "work.h"

static __always_inline struct decision *decision_slot(const struct flow_key *k)
{
	__u32 h = (k->saddr.w[3] ^ (k->daddr.w[3] << 5 | k->daddr.w[3] >> 27)) + k->dport + k->ifindex;
	__u32 slot;

	h *= 0x9e3779b1;
	slot = (h >> 16) & (DECISIONS - 1);
	return bpf_map_lookup_elem(&decisions, &slot);
}

/* Fills w->f, w->r and w->rev as decide() would. False: it has to be asked. */
static __always_inline bool decided_before(struct work *w)
{
	const struct flow_key *k = &w->fwd;
	struct decision *d;

	if (cfg_dry_run || w->published)
		return false;
	d = decision_slot(k);
	if (!d || d->epoch != w->epoch || d->key.dport != k->dport || d->key.ifindex != k->ifindex ||
	    d->key.proto != k->proto || !addr_equal(&d->key.saddr, &k->saddr) ||
	    !addr_equal(&d->key.daddr, &k->daddr))
		return false;
	w->f = d->f;
	w->r = d->r;
	w->f.sport = k->sport;
	w->r.dport = k->sport;
	w->f.last = w->jiffies;
	w->r.last = w->jiffies;
	w->rev.saddr = k->daddr;
	w->rev.daddr = k->saddr;
	w->rev.sport = k->dport;
	w->rev.dport = k->sport;
	w->rev.ifindex = w->f.peer_ifindex;
	w->rev.proto = k->proto;
	w->rev.pad[0] = 0;
	w->rev.pad[1] = 0;
	w->rev.pad[2] = 0;
	w->info.src_identity = w->f.src_identity;
	w->info.dst_identity = w->f.dst_identity;
	w->info.rule = w->f.rule_ingress ? w->f.rule_ingress : w->f.rule_egress;
	w->direction = DIR_EGRESS;
	return true;
}

/* Keeps what decide() said, if it holds for any source port. */
static __always_inline void keep_decision(struct work *w)
{
	struct decision *d;

	if (cfg_dry_run || w->published || w->f.action != ACTION_PEER || w->r.action != ACTION_PEER ||
	    w->f.flags || w->r.flags != FLOW_REPLY)
		return;
	d = decision_slot(&w->fwd);
	if (!d)
		return;
	d->key = w->fwd;
	d->epoch = w->epoch;
	d->f = w->f;
	d->r = w->r;
}
