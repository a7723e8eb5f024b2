/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * TCP connections of which XDP has seen nothing but the SYN: an array of fixed size, found by a hash of the answer's
 * tuple. A flood of SYNs costs one write each, allocates nothing and displaces nothing but other SYNs. With the
 * backend's answer a connection moves to the flow table; while too many there are half-open it stays here until the
 * client has acknowledged.
 *
 * Two programs may meet in a slot: `version` is odd while one writes, and who reads looks at it before and after.
 */
#pragma once
#include "nat.h"
#include "work.h"

#define XDP_SYNS 32768

struct xdp_syn {
	__u32 version; /* odd: being written */
	__u32 made; /* jiffies */
	__u32 epoch;
	__u8 state; /* enum flow_state; FLOW_CLOSED: free */
	__u8 pad[3];
	struct flow_key rev; /* of the answers */
	struct ip_addr client;
	struct ip_addr frontend;
	__be16 client_port;
	__be16 frontend_port;
	__u32 identity; /* of the backend */
	__u32 pad1[7];
};
_Static_assert(sizeof(struct xdp_syn) == 128, "struct xdp_syn fits two cache lines");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xdp_syn)); /* private: its type is not exported */
	__uint(max_entries, XDP_SYNS);
} xdp_syns SEC(".maps");

static __always_inline struct xdp_syn *xdp_syn_slot(const struct flow_key *rev)
{
	__u32 h = rev->saddr.w[3] ^ ((__u32)rev->dport << 16 | rev->sport);
	__u32 slot;

	h *= 0x9e3779b1;
	slot = (h >> 15) & (XDP_SYNS - 1);

	return bpf_map_lookup_elem(&xdp_syns, &slot);
}

static __always_inline bool xdp_syn_is(const struct xdp_syn *s, const struct flow_key *rev)
{
	return s->rev.dport == rev->dport && s->rev.sport == rev->sport && s->state != FLOW_CLOSED &&
	       addr_equal(&s->rev.saddr, &rev->saddr) && addr_equal(&s->rev.daddr, &rev->daddr);
}

/* Begins a change of the slot; 0: another program is at it. */
static __always_inline bool xdp_syn_lock(struct xdp_syn *s, __u32 *version)
{
	*version = *(volatile __u32 *)&s->version;
	return !(*version & 1) &&
	       __sync_val_compare_and_swap(&s->version, *version, *version + 1) == *version;
}

static __always_inline void xdp_syn_unlock(struct xdp_syn *s)
{
	__sync_fetch_and_add(&s->version, 1);
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
};

/* Notes that a packet k was sent on so that its answers look like rev. */
static __always_inline int xdp_syn_claim(const struct flow_key *k, const struct flow_key *rev, __u32 identity,
					 __u32 epoch)
{
	struct xdp_syn *s = xdp_syn_slot(rev);
	int result = XDP_CLAIMED;
	__u32 jiffies = now();
	__u32 version;

	if (!s || !xdp_syn_lock(s, &version))
		return XDP_TAKEN;
	if (xdp_syn_is(s, rev) && jiffies - s->made < cfg_ttl_half * cfg_hz) {
		result = addr_equal(&s->client, &k->saddr) && s->client_port == k->sport &&
					 addr_equal(&s->frontend, &k->daddr) && s->frontend_port == k->dport
				 ? XDP_CLAIMED_BEFORE
				 : XDP_TAKEN;
	} else {
		s->made = jiffies;
		s->epoch = epoch;
		s->state = FLOW_NEW;
		s->rev = *rev;
		s->client = k->saddr;
		s->frontend = k->daddr;
		s->client_port = k->sport;
		s->frontend_port = k->dport;
		s->identity = identity;
	}
	xdp_syn_unlock(s);
	return result;
}

/* Takes a claim back. */
static __always_inline void xdp_syn_drop(const struct flow_key *rev)
{
	struct xdp_syn *s = xdp_syn_slot(rev);

	if (s && xdp_syn_is(s, rev))
		s->state = FLOW_CLOSED;
}

/*
 * Reads the slot of an answer into *out. 0: nothing is known of it. `state`: what it is from now on.
 */
static __always_inline bool xdp_syn_take(const struct flow_key *rev, struct xdp_syn *out, __u32 jiffies,
					 __u8 state)
{
	struct xdp_syn *s = xdp_syn_slot(rev);
	bool found;
	__u32 version;

	if (!s || !xdp_syn_is(s, rev) || jiffies - s->made >= cfg_ttl_half * cfg_hz ||
	    !xdp_syn_lock(s, &version))
		return false;
	found = xdp_syn_is(s, rev);
	if (found) {
		memcpy(out, s, sizeof(*out));
		s->state = state;
	}
	xdp_syn_unlock(s);
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

/* The same for a connection in a slot. */
static __always_inline void xdp_syn_entries(struct work *w, const struct xdp_syn *s)
{
	w->rev = s->rev;
	w->fwd.saddr = s->client;
	w->fwd.daddr = s->frontend;
	w->fwd.sport = s->client_port;
	w->fwd.dport = s->frontend_port;
	w->fwd.ifindex = FLOW_IF_UPLINK;
	w->fwd.proto = s->rev.proto;
	memset(w->fwd.pad, 0, sizeof(w->fwd.pad));
	xdp_entries(w, s->identity);
}
