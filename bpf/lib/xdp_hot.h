/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The busiest flows that XDP sends back: one entry of an array by CPU has all that a packet needs, as hot.h has it for
 * local containers. Good for a second and for its epoch; counts move to the flow's own entry when it is made again.
 */
#pragma once
#include "xdp.h"

/* Beside the answers of XDP programs: nothing is known of the packet's flow. */
#define XDP_MISS (-1)
/* The same, and it is a SYN of IPv4 or IPv6. */
#define XDP_FIRST4 (-3)
#define XDP_FIRST6 (-4)

#define XDP_HOT_FLOWS 512
/* Packets of a flow before it may take a place. */
#define XDP_HOT_AFTER 4
/* A place is given to another flow when so many of its packets have come in a row between two of who has it. */
#define XDP_HOT_IDLE 4

struct xdp_hot {
	struct flow_key key;
	__u32 ifindex; /* device it came by; 0: empty */
	__u32 epoch;
	__u32 synced; /* jiffies when it was made */
	struct ip_addr saddr; /* the tuple after translation */
	struct ip_addr daddr;
	__be16 sport;
	__be16 dport;
	__u32 csum_addr;
	__u8 dmac[6];
	__u8 smac[6];
	__u16 mtu;
	__u16 csum_l4; /* differences of addresses and ports */
	__u16 seen; /* low bits of `packets` when another flow last wanted the place */
	__u8 idle; /* packets of others since then, while there was none of this one */
	__u8 pad;
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

/* saddr, daddr: the last words of the addresses; ports: source port and the destination port behind it. */
static __always_inline struct xdp_hot *xdp_hot_at(__be32 saddr, __be32 daddr, __u32 ports)
{
	__u32 h = (saddr ^ (daddr << 5 | daddr >> 27)) + ports;
	__u32 slot;

	h *= 0x9e3779b1;
	slot = (h >> 16) & (XDP_HOT_FLOWS - 1);
	return bpf_map_lookup_elem(&xdp_hot_flows, &slot);
}

static __always_inline struct xdp_hot *xdp_hot_slot(const struct flow_key *k)
{
	return xdp_hot_at(k->saddr.w[3], k->daddr.w[3], *(const __u32 *)&k->sport);
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

/* Another flow wants the place: has who has it gone quiet? */
static __always_inline bool xdp_hot_is_idle(struct xdp_hot *h)
{
	const __u16 packets = (__u16)h->packets;

	if (packets != h->seen) {
		h->seen = packets;
		h->idle = 0;
		return false;
	}
	return ++h->idle >= XDP_HOT_IDLE;
}

/* e, the entry of p, has more than a few packets. */
static __always_inline void xdp_hot_remember(struct xdp_hot *h, const struct packet *p, const struct flow *e,
					     const struct xdp_route *rt)
{
	__u32 jiffies = now();
	bool same = xdp_hot_is(h, &p->key);

	if (!same && h->ifindex && jiffies - h->synced < XDP_FRESH * cfg_hz && !xdp_hot_is_idle(h))
		return;
	xdp_hot_settle(h);
	if (!same)
		h->key = p->key;
	h->saddr = e->saddr;
	h->daddr = e->daddr;
	h->sport = e->sport;
	h->dport = e->dport;
	h->csum_addr = e->csum_addr;
	h->seen = 0;
	h->idle = 0;
	h->epoch = e->epoch;
	h->synced = jiffies;
	h->mtu = rt->mtu;
	h->csum_l4 = (__u16)fold(e->csum_addr + e->csum_port);
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

/* Is the entry good for a packet of len bytes (IP) that came by this device? */
static __always_inline bool xdp_hot_good(struct xdp_md *ctx, void *data, void *end, const struct xdp_hot *h,
					 const struct node *node, __u32 len)
{
	return h->ifindex == ctx->ingress_ifindex && h->epoch == node->epoch &&
	       now() - h->synced < XDP_FRESH * cfg_hz && len <= h->mtu && data + L3_OFF + len <= end &&
	       mac_equal(data, h->smac);
}

static __always_inline int xdp_hot_send(void *data, struct xdp_hot *h, __sum16 *check, __u8 proto, __u32 len)
{
	if (proto == IPPROTO_TCP) {
		xdp_add(check, h->csum_l4);
	} else if (*check) {
		xdp_add(check, h->csum_l4);
		if (!*check)
			*check = 0xffff;
	}
	xdp_set_macs(data, h->dmac, h->smac);
	h->packets++;
	h->bytes += len;
	count(DIR_INGRESS, DROP_NONE, len);
	return XDP_TX;
}

static __always_inline bool xdp_opens(__u8 flags)
{
	return (flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)) == TCP_SYN;
}

/*
 * Sends a packet of one of the busiest flows, or XDP_MISS. It reads no more of the packet than it must; packets that
 * may be another's business (options, fragments, SYN, FIN, RST, a hop limit that ends) have no place here.
 */
static __always_inline int xdp_hot_forward4(struct xdp_md *ctx, const struct node *node)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + L3_OFF;
	__be16 *l4 = (void *)(ip + 1);
	struct xdp_hot *h;
	__u32 ports, len;
	__sum16 *check;

	if ((void *)l4 + sizeof(struct tcphdr) > end)
		return XDP_MISS;
	if (*(__u8 *)ip != 0x45 || (ip->frag_off & bpf_htons(0x3fff)) || ip->ttl <= 1)
		return XDP_MISS;
	if (ip->protocol == IPPROTO_TCP) {
		const __u8 flags = ((__u8 *)l4)[13];

		if (flags & (TCP_SYN | TCP_FIN | TCP_RST))
			return xdp_opens(flags) ? XDP_FIRST4 : XDP_MISS;
		check = (void *)l4 + offsetof(struct tcphdr, check);
	} else if (ip->protocol == IPPROTO_UDP) {
		check = (void *)l4 + offsetof(struct udphdr, check);
	} else {
		return XDP_MISS;
	}
	ports = *(__u32 *)l4;
	len = bpf_ntohs(ip->tot_len);
	h = xdp_hot_at(ip->saddr, ip->daddr, ports);
	if (!h || h->key.saddr.w[3] != ip->saddr || h->key.daddr.w[3] != ip->daddr ||
	    *(__u32 *)&h->key.sport != ports || h->key.proto != ip->protocol || !addr_is_v4(&h->key.daddr) ||
	    !addr_is_v4(&h->key.saddr) || !xdp_hot_good(ctx, data, end, h, node, len))
		return XDP_MISS;
	ip->ttl--;
	ip->saddr = h->saddr.w[3];
	ip->daddr = h->daddr.w[3];
	/* The word with the lifetime has become smaller by 0x0100. */
	xdp_add(&ip->check, h->csum_addr + (__u16)~bpf_htons(0x0100));
	l4[0] = h->sport;
	l4[1] = h->dport;
	return xdp_hot_send(data, h, check, ip->protocol, len);
}

static __always_inline int xdp_hot_forward6(struct xdp_md *ctx, const struct node *node)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = data + L3_OFF;
	const struct ip_addr *saddr = (void *)&ip6->saddr, *daddr = (void *)&ip6->daddr;
	__be16 *l4 = (void *)(ip6 + 1);
	struct xdp_hot *h;
	__u32 ports, len;
	__sum16 *check;

	if ((void *)l4 + sizeof(struct tcphdr) > end)
		return XDP_MISS;
	if (*(__u8 *)ip6 >> 4 != 6 || ip6->hop_limit <= 1)
		return XDP_MISS;
	if (ip6->nexthdr == IPPROTO_TCP) {
		const __u8 flags = ((__u8 *)l4)[13];

		if (flags & (TCP_SYN | TCP_FIN | TCP_RST))
			return xdp_opens(flags) ? XDP_FIRST6 : XDP_MISS;
		check = (void *)l4 + offsetof(struct tcphdr, check);
	} else if (ip6->nexthdr == IPPROTO_UDP) {
		check = (void *)l4 + offsetof(struct udphdr, check);
	} else {
		return XDP_MISS;
	}
	ports = *(__u32 *)l4;
	len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	h = xdp_hot_at(saddr->w[3], daddr->w[3], ports);
	if (!h || *(__u32 *)&h->key.sport != ports || h->key.proto != ip6->nexthdr ||
	    !xdp_same_address(&h->key.saddr, saddr) || !xdp_same_address(&h->key.daddr, daddr) ||
	    !xdp_hot_good(ctx, data, end, h, node, len))
		return XDP_MISS;
	ip6->hop_limit--;
	xdp_set_address(&ip6->saddr, &h->saddr);
	xdp_set_address(&ip6->daddr, &h->daddr);
	l4[0] = h->sport;
	l4[1] = h->dport;
	return xdp_hot_send(data, h, check, ip6->nexthdr, len);
}

static __always_inline int xdp_hot_forward(struct xdp_md *ctx, const struct node *node)
{
	void *data = (void *)(long)ctx->data;

	if (data + sizeof(struct ethhdr) > (void *)(long)ctx->data_end)
		return XDP_MISS;
	if (((struct ethhdr *)data)->h_proto == bpf_htons(ETH_P_IP))
		return xdp_hot_forward4(ctx, node);
	if (((struct ethhdr *)data)->h_proto == bpf_htons(ETH_P_IPV6))
		return xdp_hot_forward6(ctx, node);
	return XDP_MISS;
}
