/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Writing and reading the slots of xdp_slot.h, and the entries of the flow table that come of them. */
#pragma once
#include "address.h"
#include "nat.h"
#include "work.h"
#include "xdp_slot.h"

static __always_inline __u32 xdp_syn_version(const struct xdp_syn *s)
{
	return *(const volatile __u32 *)&s->version;
}

/* Begins a change of the slot, which had this version; 0: another program is at it. */
static __always_inline bool xdp_syn_lock(struct xdp_syn *s, __u32 version)
{
	return !(version & 1) && __sync_val_compare_and_swap(&s->version, version, version + 1) == version;
}

/* version: what it was locked with. Only who has locked the slot writes it. */
static __always_inline void xdp_syn_unlock(struct xdp_syn *s, __u32 version)
{
	barrier();
	*(volatile __u32 *)&s->version = version + 2;
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

/* Notes in s, their slot, that a packet k was sent on so that its answers look like rev. */
static __always_inline int xdp_syn_claim(struct xdp_syn *s, const struct flow_key *k,
					 const struct flow_key *rev, __u32 backend, __u32 epoch)
{
	__u32 version = xdp_syn_version(s);
	int result = XDP_CLAIMED;
	__u32 jiffies = now();

	if (!xdp_syn_lock(s, version))
		return XDP_TAKEN;
	if (xdp_syn_at(s, rev, backend) && jiffies - s->made < cfg_ttl_half * cfg_hz) {
		if (!xdp_syn_from(s, k))
			result = XDP_TAKEN;
		else
			result = s->state == FLOW_CLOSING ? XDP_LEFT : XDP_CLAIMED_BEFORE;
	} else {
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
	}
	xdp_syn_unlock(s, version);
	return result;
}

/* From now on the slot is in this state. */
static __always_inline void xdp_syn_set(const struct flow_key *rev, __u8 state)
{
	struct xdp_syn *s = xdp_syn_slot(rev);

	if (s && xdp_syn_is(s, rev))
		s->state = state;
}

/*
 * Reads the slot of an answer into *out. 0: nothing is known of it. `state`: what it is from now on.
 */
static __always_inline bool xdp_syn_take(const struct flow_key *rev, struct xdp_syn *out, __u32 jiffies,
					 __u8 state)
{
	struct xdp_syn *s = xdp_syn_slot(rev);
	__u32 version;
	bool found;

	if (!s || !xdp_syn_is(s, rev) || jiffies - s->made >= cfg_ttl_half * cfg_hz)
		return false;
	version = xdp_syn_version(s);
	if (!xdp_syn_lock(s, version))
		return false;
	found = xdp_syn_is(s, rev) && s->state != FLOW_CLOSING;
	if (found) {
		memcpy(out, s, sizeof(*out));
		xdp_syn_mark(rev); /* before the slot is free: the entry comes after it */
		s->state = state;
	}
	xdp_syn_unlock(s, version);
	return found;
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

/* The same for a connection in a slot, whose answers look like w->rev. */
static __always_inline void xdp_syn_entries(struct work *w, const struct xdp_syn *s)
{
	w->fwd.saddr = s->client;
	w->fwd.daddr = s->frontend;
	w->fwd.sport = s->client_port;
	w->fwd.dport = s->frontend_port;
	w->fwd.ifindex = FLOW_IF_UPLINK;
	w->fwd.proto = w->rev.proto;
	memset(w->fwd.pad, 0, sizeof(w->fwd.pad));
	xdp_syn_mark(&w->fwd);
	address_info(&w->rev.saddr, &w->dst);
	xdp_entries(w, w->dst.identity);
}
