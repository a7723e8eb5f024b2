/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The way out: the host's routing table, asked once per flow. */
#pragma once
#include "work.h"

/*
 * Fills action, oif, nexthop and mtu of e for packets that go to dst. Devices that are not uplinks
 * are left to the stack. Returns the reason to drop.
 */
__noinline int route_out(struct __sk_buff *skb, struct flow *e, const struct ip_addr *src,
			 const struct ip_addr *dst)
{
	struct bpf_fib_lookup fib = {};
	struct uplink *up;
	bool v4;
	long ret;

	if (!e || !src || !dst)
		return DROP_INTERNAL;
	v4 = addr_is_v4(dst);
	fib.family = v4 ? AF_INET : AF_INET6;
	fib.ifindex = skb->ifindex;
	if (v4) {
		fib.ipv4_src = src->w[3];
		fib.ipv4_dst = dst->w[3];
	} else {
		memcpy(fib.ipv6_src, src, 16);
		memcpy(fib.ipv6_dst, dst, 16);
	}
	ret = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	switch (ret) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		break;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return DROP_UNREACHABLE;
	default:
		/* Local, not forwarded or of a kind that the helper does not know: the stack decides. */
		e->action = ACTION_STACK;
		return DROP_NONE;
	}
	up = bpf_map_lookup_elem(&uplinks, &fib.ifindex);
	if (!up) {
		e->action = ACTION_STACK;
		return DROP_NONE;
	}
	e->action = ACTION_NEIGH;
	e->flags |= FLOW_TTL;
	e->oif = fib.ifindex;
	e->mtu = up->mtu;
	if (v4)
		addr_set_v4(&e->nexthop, fib.ipv4_dst);
	else
		memcpy(&e->nexthop, fib.ipv6_dst, 16);
	return DROP_NONE;
}
