/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The busiest flows that XDP sends back: one entry of an array by CPU has all that a packet needs, as hot.h has it for
 * local containers. Good for a second and for its epoch; counts move to the flow's own entry when it is made again.
 */
#pragma once
#include "xdp.h"

#define XDP_HOT_FLOWS 512
/* Packets of a flow before it may take a place. */
#define XDP_HOT_AFTER 4

struct xdp_hot {
	struct flow_key key;
	__u32 ifindex; /* device it came by; 0: empty */
	__u32 epoch;
	__u32 synced; /* jiffies when it was made */
	struct xdp_change change;
	__u8 dmac[6];
	__u8 smac[6];
	__u16 mtu;
	__u8 pad[2];
	__u32 packets; /* not in the flow's entry yet */
	__u64 bytes;
};
_Static_assert(sizeof(struct xdp_hot) == 128, "struct xdp_hot fits two cache lines");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xdp_hot)); /* private: its type is not exported */
	__uint(max_entries, XDP_HOT_FLOWS);
} xdp_hot_flows SEC(".maps");

static __always_inline struct xdp_hot *xdp_hot_slot(const struct flow_key *k)
{
	__u32 h = (k->saddr.w[3] ^ (k->daddr.w[3] << 5 | k->daddr.w[3] >> 27)) + *(const __u32 *)&k->sport;
	__u32 slot;

	h *= 0x9e3779b1;
	slot = (h >> 16) & (XDP_HOT_FLOWS - 1);
	return bpf_map_lookup_elem(&xdp_hot_flows, &slot);
}

static __always_inline bool xdp_hot_is(const struct xdp_hot *h, const struct flow_key *k)
{
	return h->key.saddr.w[3] == k->saddr.w[3] &&
	       *(const __u32 *)&h->key.sport == *(const __u32 *)&k->sport && h->key.proto == k->proto &&
	       addr_equal(&h->key.daddr, &k->daddr) && addr_equal(&h->key.saddr, &k->saddr);
}

/* Moves the counts of what has the place now to its flow. */
__noinline int xdp_hot_settle(struct xdp_hot *h)
{
	struct work *w = work_area();
	struct flow *e;

	if (!h || !w || !h->packets)
		return 0;
	w->old_rev = h->key; /* before 6.2 an argument's memory can't be a map's key */
	e = bpf_map_lookup_elem(&flows, &w->old_rev);
	if (e) {
		e->packets += h->packets;
		e->bytes += h->bytes;
	}
	h->packets = 0;
	h->bytes = 0;
	return 0;
}

/* e, the entry of p, has more than a few packets. */
static __always_inline void xdp_hot_remember(struct xdp_hot *h, const struct packet *p, const struct flow *e,
					     const struct xdp_route *rt)
{
	__u32 jiffies = now();
	bool same = xdp_hot_is(h, &p->key);

	if (!same && h->ifindex && jiffies - h->synced < XDP_FRESH * cfg_hz)
		return;
	xdp_hot_settle(h);
	if (!same)
		h->key = p->key;
	h->change = *xdp_change_of(e);
	h->epoch = e->epoch;
	h->synced = jiffies;
	h->mtu = rt->mtu;
	memcpy(h->dmac, rt->dmac, ETH_ALEN);
	memcpy(h->smac, rt->smac, ETH_ALEN);
	h->ifindex = rt->ifindex;
}

/* The flow of p ends or is decided again. */
static __always_inline void xdp_hot_forget(struct xdp_hot *h, const struct packet *p)
{
	if (!h || !h->ifindex || !xdp_hot_is(h, &p->key))
		return;
	xdp_hot_settle(h);
	h->ifindex = 0;
}
