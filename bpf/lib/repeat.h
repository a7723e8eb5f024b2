/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The latest decisions: a new flow that differs from one just decided only in its source port is decided the same way,
 * until the next epoch. So the second connection costs no look at addresses, policy and routes. Not for flows that are
 * translated, but for those to the backend of a service.
 */
#pragma once
#include "decision_log.h"
#include "flow.h"
#include "young.h"

static __always_inline struct decision *decision_slot(const struct flow_key *k)
{
	__u32 h = (k->saddr.w[3] ^ (k->daddr.w[3] << 5 | k->daddr.w[3] >> 27)) + k->dport + k->ifindex +
		  k->pad[0];
	__u32 slot;

	h *= 0x9e3779b1;
	slot = (h >> 16) & (DECISIONS - 1);
	return bpf_map_lookup_elem(&decisions, &slot);
}

/* The decision about flows like k in this epoch, or NULL. */
static __always_inline struct decision *decision_about(const struct flow_key *k, __u32 epoch)
{
	struct decision *d = decision_slot(k);

	return d && d->epoch == epoch && d->key.dport == k->dport && d->key.ifindex == k->ifindex &&
			       d->key.proto == k->proto && d->key.pad[0] == k->pad[0] &&
			       addr_equal(&d->key.saddr, &k->saddr) && addr_equal(&d->key.daddr, &k->daddr)
		       ? d
		       : NULL;
}

/* Fills w->f, w->r and w->rev as decide() would, for a packet that came in by device. False: it has to be asked. */
static __always_inline bool decided_before(struct work *w, __u32 device)
{
	const struct flow_key *k = &w->fwd;
	struct decision *d;

	if (cfg_dry_run)
		return false;
	d = decision_about(k, w->epoch);
	if (!d || d->device != device)
		return false;
	if (w->published) {
		/* The same answers may already belong to a flow that came by another address. */
		struct flow *taken;

		w->rev = d->rev;
		w->rev.dport = k->sport;
		taken = bpf_map_lookup_elem(&flows, &w->rev);
		if (taken && !same_opener(taken, w))
			return false;
	}
	w->f = d->f;
	w->r = d->r;
	w->f.sport = k->sport;
	w->r.dport = k->sport;
	w->f.last = w->jiffies;
	w->r.last = w->jiffies;
	/* open_again() used it. */
	w->f.packets = 0;
	w->f.bytes = 0;
	w->f.created = 0;
	w->r.created = 0;
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
	w->direction = from_container(w) ? DIR_EGRESS : DIR_INGRESS;
	return true;
}

/* Flags of a flow to a service, and of its answers, of which a decision holds for others too. */
#define REPEAT_SERVICE (FLOW_SERVICE | FLOW_DNAT | FLOW_NAT | FLOW_L4_NAT_PORT)
#define REPEAT_ANSWERS (FLOW_SERVICE | FLOW_REPLY | FLOW_NAT | FLOW_L4_NAT_PORT)

/*
 * Into *k the key of decisions about flows of w->fwd's opener to the backend in w->f: pad[0] tells them from those about
 * flows that go to the same address by themselves.
 */
static __always_inline void backend_key(struct flow_key *k, const struct work *w)
{
	*k = w->fwd;
	k->daddr = w->f.daddr;
	k->dport = w->f.dport;
	k->pad[0] = 1;
}

/*
 * Fills w->f, w->r and w->rev, as decide() would, for a flow from a container to a service, whose backend is in w->f.
 * Returns 0 if it has to be decided.
 */
__noinline int decided_for_backend(void)
{
	struct work *w = work_area();
	struct decision *d;
	struct flow *taken;

	if (!w || cfg_dry_run || w->had_old || !from_container(w))
		return 0;
	backend_key(&w->rev, w);
	d = decision_about(&w->rev, w->epoch);
	if (!d)
		return 0;
	w->rev = d->rev;
	w->rev.dport = w->fwd.sport;
	/* The same answers may already belong to a flow that came by another address. */
	young_settle(1);
	taken = known_flow(&w->rev);
	if (taken && !same_opener(taken, w))
		return 0;
	w->f = d->f;
	w->r = d->r;
	w->f.sport = w->fwd.sport;
	w->f.last = w->jiffies;
	w->r.saddr = w->fwd.daddr;
	w->r.sport = w->fwd.dport;
	w->r.dport = w->fwd.sport;
	w->r.last = w->jiffies;
	w->info.src_identity = w->f.src_identity;
	w->info.dst_identity = w->f.dst_identity;
	w->info.rule = w->f.rule_ingress ? w->f.rule_ingress : w->f.rule_egress;
	w->direction = DIR_EGRESS;
	finish_translation(&w->fwd, &w->f);
	finish_translation(&w->rev, &w->r);
	return 1;
}

/* Does the opener of w->fwd ask a name server, and may the answer be another one by the time of the next question? */
static __always_inline bool asks_names(const struct work *w)
{
	__u32 ifindex = w->fwd.ifindex;
	struct endpoint *ep;

	if (w->f.dport != bpf_htons(53))
		return false;
	ep = bpf_map_lookup_elem(&endpoints, &ifindex);
	return !ep || (ep->flags & EP_NAMES);
}

/* Does one direction lead into a container or to another node as it is? flags: those that the other direction lacks. */
static __always_inline bool leads_on(const struct flow *e, __u8 flags)
{
	return (e->flags & ~FLOW_TTL) == flags &&
	       (e->action == ACTION_PEER || e->action == ACTION_NEIGH || e->action == ACTION_TUNNEL);
}

/* Keeps what decide() said about a packet that came in by device, if it holds for any source port. */
__noinline int keep_decision(__u32 device)
{
	struct work *w = work_area();
	struct decision *d;
	bool service;

	if (!w || cfg_dry_run)
		return 0;
	service = w->f.flags & FLOW_SERVICE;
	if (service ? w->f.action != ACTION_PEER || w->r.action != ACTION_PEER ||
			      (w->f.flags & ~REPEAT_SERVICE) || (w->r.flags & ~REPEAT_ANSWERS) ||
			      !from_container(w) || asks_names(w)
		    : !leads_on(&w->f, 0) || !leads_on(&w->r, FLOW_REPLY))
		return 0;
	if (service)
		backend_key(&w->old_rev, w);
	else
		w->old_rev = w->fwd;
	d = decision_slot(&w->old_rev);
	if (!d || (service && decision_about(&w->old_rev, w->epoch)))
		return 0;
	d->key = w->old_rev;
	d->epoch = w->epoch;
	d->f = w->f;
	d->r = w->r;
	if (service) {
		d->f.flags = FLOW_SERVICE | FLOW_DNAT;
		d->r.flags = FLOW_SERVICE | FLOW_REPLY;
	}
	d->rev = w->rev;
	d->device = device;
	decision_key(&d->log, w, DROP_NONE);
	return 0;
}

/* A new flow for the log, of which there is no entry with this key. */
__noinline int log_first(const struct flow_log_key *k, __u32 dst_identity)
{
	struct log_scratch *s = log_area(LOG_OF_PACKETS);

	if (!k || !s)
		return 0;
	log_begin(s);
	s->key = *k;
	s->value.flows = 1;
	s->value.dst_identity = dst_identity;
	s->value.sample = k->saddr;
	log_add(s);
	return 0;
}

/* Another flow that has been decided as d says, for the log. */
static __always_inline void log_again(struct decision *d, const struct node *node)
{
	struct flow_log *log;

	d->log.slot = (__u8)(node->log_slot & 1);
	log = bpf_map_lookup_elem(&flow_log_map, &d->log);
	if (likely(log))
		log->flows++;
	else
		log_first(&d->log, d->f.dst_identity);
}
