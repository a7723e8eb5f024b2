/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Writing and reading the slots of xdp_slot.h, and the entries of the flow table that come of them. */
#pragma once
#include "address.h"
#include "nat.h"
#include "work.h"
#include "xdp_slot.h"

/* `check` of a connection whose packets have this hash; which state it is in does not count. */
static __always_inline __u32 xdp_syn_check(__u32 hash, __u32 backend, __be32 snat, __be16 port)
{
	const __u32 check = ((hash ^ snat) + backend) * 0x9e3779b1 + port;

	return check ? check : 1;
}

/* Room for a copy of a slot: nothing is decided again in XDP. */
static __always_inline struct xdp_syn *xdp_syn_room(struct work *w)
{
	_Static_assert(sizeof(struct xdp_syn) <= sizeof(w->known), "a slot fits the room");
	return (struct xdp_syn *)&w->known;
}

enum xdp_claim {
	XDP_CLAIMED = 0,
	XDP_CLAIMED_BEFORE = 1, /* by the same opener */
	XDP_TAKEN = 2,
	XDP_LEFT = 3, /* to TC: the opener has a connection with these ports */
	XDP_CLAIMED_AFTER = 4, /* after another opener whose answers look the same */
};

/* Is s that of packets k, which are TC's? */
static __always_inline bool xdp_syn_is_left(const struct xdp_syn *s, const struct flow_key *k,
					    const struct flow_key *rev, __u32 backend)
{
	return s->state == FLOW_CLOSING && xdp_syn_at(s, rev, backend) && xdp_syn_from(s, k);
}

/* Notes in s, their slot, that a packet k, whose hash is h, was sent on so that its answers look like rev. */
static __always_inline int xdp_syn_claim(struct xdp_syn *s, const struct flow_key *k, __u32 h,
					 const struct flow_key *rev, __u32 backend, __u32 epoch)
{
	int result = XDP_CLAIMED;
	__u32 jiffies = now();

	if (xdp_syn_at(s, rev, backend) && xdp_syn_is_fresh(s, jiffies)) {
		if (!xdp_syn_from(s, k))
			return XDP_TAKEN;
		return s->state == FLOW_CLOSING ? XDP_LEFT : XDP_CLAIMED_BEFORE;
	}
	if (s->port == rev->dport && s->backend == backend && s->snat == rev->daddr.w[3])
		result = XDP_CLAIMED_AFTER;
	s->made = jiffies;
	s->epoch = epoch;
	s->state = FLOW_NEW;
	s->backend = backend;
	s->port = rev->dport;
	s->snat = rev->daddr.w[3];
	s->client = k->saddr;
	s->frontend = k->daddr;
	s->client_port = k->sport;
	s->frontend_port = k->dport;
	s->check = xdp_syn_check(h, backend, rev->daddr.w[3], rev->dport);
	return result;
}

/* The slot is free, if nobody has taken it since. */
static __always_inline bool xdp_syn_free(struct xdp_syn *s, __u32 check)
{
	return __sync_val_compare_and_swap(&s->check, check, 0) == check;
}

/* The opener of a connection whose slot has just been freed has another one, of TC's. */
static __always_inline void xdp_syn_leave(const struct flow_key *rev, __u32 check)
{
	struct xdp_syn *s = xdp_syn_slot(rev);

	if (!s || s->check)
		return;
	s->state = FLOW_CLOSING;
	__sync_val_compare_and_swap(&s->check, 0, check);
}

/*
 * The slot of answers like rev, with a copy of it in *out and the key of the opener's packets in w->fwd. NULL: nothing is
 * known of them.
 */
static __always_inline struct xdp_syn *xdp_syn_read(struct work *w, const struct flow_key *rev,
						    struct xdp_syn *out)
{
	struct xdp_syn *s = xdp_syn_slot(rev);

	if (!s)
		return NULL;
	memcpy(out, s, sizeof(*out));
	barrier();
	if (out->state == FLOW_CLOSING || !xdp_syn_is(out, rev) || !xdp_syn_is_fresh(out, w->jiffies))
		return NULL;
	w->fwd.saddr = out->client;
	w->fwd.daddr = out->frontend;
	w->fwd.sport = out->client_port;
	w->fwd.dport = out->frontend_port;
	w->fwd.ifindex = FLOW_IF_UPLINK;
	w->fwd.proto = rev->proto;
	memset(w->fwd.pad, 0, sizeof(w->fwd.pad));
	if (out->check != xdp_syn_check(tuple_hash(&w->fwd), out->backend, out->snat, out->port))
		return NULL;
	return s;
}

/* Takes the connection of which s was *out out of its slot. False: another program has. */
static __always_inline bool xdp_syn_take(const struct flow_key *rev, struct xdp_syn *s,
					 const struct xdp_syn *out)
{
	xdp_syn_mark(rev); /* before the slot is free: a SYN that finds it so sees the mark */
	return xdp_syn_free(s, out->check);
}

/* Both entries of a flow from w->fwd and w->rev; the ways out and the epochs are not in them yet. */
static __always_inline void xdp_entries(struct work *w, __u32 identity)
{
	const __u8 flags = FLOW_SNAT | FLOW_SERVICE | FLOW_TTL;

	memset(&w->r, 0, sizeof(w->r));
	memset(&w->f, 0, sizeof(w->f));
	w->f.last = w->jiffies;
	w->f.proto = w->fwd.proto;
	w->f.state = FLOW_OPEN;
	w->f.action = ACTION_NEIGH;
	w->f.flags = flags | FLOW_DNAT;
	w->f.saddr = w->rev.daddr;
	w->f.daddr = w->rev.saddr;
	w->f.sport = w->rev.dport;
	w->f.dport = w->rev.sport;
	w->f.peer_ifindex = FLOW_IF_UPLINK;
	w->f.dst_identity = identity;
	w->r.last = w->jiffies;
	w->r.proto = w->fwd.proto;
	w->r.state = FLOW_OPEN;
	w->r.action = ACTION_NEIGH;
	w->r.flags = flags | FLOW_REPLY;
	w->r.saddr = w->fwd.daddr;
	w->r.daddr = w->fwd.saddr;
	w->r.sport = w->fwd.dport;
	w->r.dport = w->fwd.sport;
	w->r.peer_ifindex = FLOW_IF_UPLINK;
	w->r.dst_identity = identity;
	finish_translation(&w->fwd, &w->f);
	finish_translation(&w->rev, &w->r);
}

/* The same for a connection that xdp_syn_read has found, whose answers look like w->rev. */
static __always_inline void xdp_syn_entries(struct work *w)
{
	xdp_syn_mark(&w->fwd);
	address_info(&w->rev.saddr, &w->dst);
	xdp_entries(w, w->dst.identity);
}
