/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Packets before the kernel has made anything of them (XDP): reading, translating and sending back those of services
 * whose backend is on another node. The flow table and its entries are the ones of the TC programs: what is passed on,
 * they decide as if it were the first time.
 */
#pragma once
#include "address.h"
#include "nat.h"
#include "work.h"
#include "xdp_parse.h"

/* For how many seconds a next hop, a listening socket and so on are believed. */
#define XDP_FRESH 1
#define XDP_ROUTES 256

/* Next hop of what is sent from saddr to daddr back out of the device it came by. */
struct xdp_route {
	struct ip_addr saddr; /* as the packet leaves */
	struct ip_addr daddr;
	struct ip_addr nexthop;
	__u32 ifindex; /* device that the packet came by and leaves by; 0: empty */
	__u32 epoch;
	__u32 made; /* jiffies */
	__u16 mtu;
	__u8 dmac[6];
	__u8 smac[6];
	__u8 by_stack; /* the next packet goes by the stack, so that the kernel looks after the neighbour */
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xdp_route)); /* private: its type is not exported */
	__uint(max_entries, XDP_ROUTES);
} xdp_routes SEC(".maps");

/*
 * The way back out of the device for what leaves with these addresses; NULL: it leaves by another one, or its
 * neighbour is not known, or the packet does not fit, so the stack has to send it.
 */
__noinline int xdp_find_route(struct xdp_md *ctx, const struct ip_addr *saddr, const struct ip_addr *daddr,
			      struct xdp_route *rt)
{
	struct bpf_fib_lookup fib = {};
	struct node *node = node_state();
	__u32 ifindex = ctx->ingress_ifindex;
	struct uplink *up;
	bool v4;

	if (!saddr || !daddr || !rt || !node)
		return 0;
	v4 = addr_is_v4(daddr);
	fib.family = v4 ? AF_INET : AF_INET6;
	fib.ifindex = ifindex;
	if (v4) {
		fib.ipv4_src = saddr->w[3];
		fib.ipv4_dst = daddr->w[3];
	} else {
		memcpy(fib.ipv6_src, saddr, 16);
		memcpy(fib.ipv6_dst, daddr, 16);
	}
	rt->ifindex = 0;
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS || fib.ifindex != ifindex)
		return 0;
	up = bpf_map_lookup_elem(&uplinks, &ifindex);
	if (!up)
		return 0;
	rt->saddr = *saddr;
	rt->daddr = *daddr;
	if (v4)
		addr_set_v4(&rt->nexthop, fib.ipv4_dst);
	else
		memcpy(&rt->nexthop, fib.ipv6_dst, 16);
	memcpy(rt->dmac, fib.dmac, ETH_ALEN);
	memcpy(rt->smac, fib.smac, ETH_ALEN);
	rt->mtu = up->mtu;
	rt->epoch = node->epoch;
	rt->made = now();
	rt->by_stack = 1;
	rt->ifindex = ifindex;
	return 1;
}

static __always_inline struct xdp_route *xdp_route(struct xdp_md *ctx, const struct ip_addr *saddr,
						   const struct ip_addr *daddr, __u32 epoch)
{
	__u32 h = saddr->w[3] ^ (daddr->w[3] << 5 | daddr->w[3] >> 27) ^ daddr->w[1];
	struct xdp_route *rt;
	__u32 slot;

	h *= 0x9e3779b1;
	slot = (h >> 16) & (XDP_ROUTES - 1);
	rt = bpf_map_lookup_elem(&xdp_routes, &slot);
	if (!rt)
		return NULL;
	if (rt->ifindex == ctx->ingress_ifindex && rt->epoch == epoch &&
	    now() - rt->made < XDP_FRESH * cfg_hz && addr_equal(&rt->daddr, daddr) &&
	    addr_equal(&rt->saddr, saddr))
		return rt;
	return xdp_find_route(ctx, saddr, daddr, rt) ? rt : NULL;
}

/*
 * Is it this packet's turn to go by the stack? One in a second does: what XDP sends leaves no trace in the kernel's
 * table of neighbours, which would never ask again whether the other one is still there.
 */
static __always_inline bool xdp_by_stack(__u8 *by_stack)
{
	if (likely(!*by_stack))
		return false;
	*by_stack = 0;
	return true;
}

/* Was the frame sent to this device (and not to a neighbour of it that shares the wire)? */
static __always_inline bool xdp_for_us(struct xdp_md *ctx, const __u8 *mac)
{
	void *data = (void *)(long)ctx->data;

	return data + ETH_ALEN <= (void *)(long)ctx->data_end && mac_equal(data, mac);
}

/* Both addresses of a frame, in words: the compiler would copy bytes. */
static __always_inline void xdp_set_macs(void *frame, const __u8 *dmac, const __u8 *smac)
{
	*(__u32 *)frame = *(const __u32 *)dmac;
	*(__u16 *)(frame + 4) = *(const __u16 *)(dmac + 4);
	*(__u16 *)(frame + 6) = *(const __u16 *)smac;
	*(__u32 *)(frame + 8) = *(const __u32 *)(smac + 2);
}

/* In words of 64 bits, which packets are not aligned to; every machine that BPF compiles for takes that. */
static __always_inline void xdp_set_address(void *to, const struct ip_addr *from)
{
	((__u64 *)to)[0] = ((const __u64 *)from)[0];
	((__u64 *)to)[1] = ((const __u64 *)from)[1];
}

static __always_inline bool xdp_same_address(const struct ip_addr *a, const struct ip_addr *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline void xdp_add(__sum16 *check, __u32 difference)
{
	*check = (__sum16)~fold((__u32)(__u16) ~*check + difference);
}

/* Addresses and ports after translation, and what that does to the checksums: the part of struct flow. */
struct xdp_change {
	struct ip_addr saddr;
	struct ip_addr daddr;
	__be16 sport;
	__be16 dport;
	__u32 csum_addr;
	__u32 csum_port;
};
_Static_assert(sizeof(struct xdp_change) ==
		       offsetof(struct flow, csum_port) + sizeof(__u32) - offsetof(struct flow, saddr),
	       "struct xdp_change is a part of struct flow");

static __always_inline const struct xdp_change *xdp_change_of(const struct flow *e)
{
	return (const struct xdp_change *)&e->saddr;
}

/* Translates the packet, one hop further, and sends it back out of the device. */
static __always_inline int xdp_send(struct xdp_md *ctx, const struct packet *p, const struct xdp_change *c,
				    const __u8 *dmac, const __u8 *smac)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__sum16 *check;
	void *l4;

	if (p->v6) {
		struct ipv6hdr *ip6 = data + L3_OFF;

		l4 = ip6 + 1;
		if (l4 + sizeof(struct udphdr) > end)
			return XDP_PASS;
		ip6->hop_limit--;
		xdp_set_address(&ip6->saddr, &c->saddr);
		xdp_set_address(&ip6->daddr, &c->daddr);
	} else {
		struct iphdr *ip = data + L3_OFF;

		l4 = ip + 1;
		if (l4 + sizeof(struct udphdr) > end)
			return XDP_PASS;
		ip_decrease_ttl(ip);
		ip->saddr = c->saddr.w[3];
		ip->daddr = c->daddr.w[3];
		xdp_add(&ip->check, c->csum_addr);
	}
	*(__be16 *)l4 = c->sport;
	*(__be16 *)(l4 + 2) = c->dport;
	xdp_set_macs(data, dmac, smac);
	if (p->key.proto == IPPROTO_TCP) {
		if (l4 + sizeof(struct tcphdr) > end)
			return XDP_PASS;
		xdp_add(l4 + offsetof(struct tcphdr, check), c->csum_addr + c->csum_port);
	} else {
		check = l4 + offsetof(struct udphdr, check);
		if (*check) {
			xdp_add(check, c->csum_addr + c->csum_port);
			if (!*check)
				*check = 0xffff;
		}
	}
	count(DIR_INGRESS, DROP_NONE, p->len);
	return XDP_TX;
}
