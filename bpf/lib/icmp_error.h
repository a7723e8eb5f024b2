/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * ICMP errors about known flows (RFC 5508, RFC 7915 for the families' rules): translated like an
 * answer of the flow, the embedded packet in the other sense.
 */
#pragma once
#include "young.h"

/* The flow entry that an answer to the embedded packet would use; NULL: unknown flow. */
static __always_inline struct flow *related_flow(struct packet *p)
{
	struct work *w = work_area();
	struct flow *e;

	if (!w)
		return NULL;
	w->fwd = p->key; /* before 6.2 an argument's memory can't be a map's key */
	young_settle(0);
	e = bpf_map_lookup_elem(&flows, &w->fwd);
	if (!e && p->key.proto == IPPROTO_TCP)
		e = half_answer(p, 0);
	return e;
}

static __always_inline int store_address(struct __sk_buff *skb, const struct packet *p, __u32 off,
					 const struct ip_addr *a)
{
	if (p->v6)
		return (int)bpf_skb_store_bytes(skb, off, a, 16, 0);
	return (int)bpf_skb_store_bytes(skb, off, &a->w[3], 4, 0);
}

/* Rewrites the embedded packet and the outer addresses. */
__noinline int translate_error(struct __sk_buff *skb, struct packet *p, struct flow *e)
{
	struct ip_addr outer_s, outer_d, now_s, now_d;
	__u32 icmp_check, saddr_off, daddr_off;
	__be16 ports[2];
	bool ported;
	__u32 diff;

	if (!p || !e)
		return DROP_INTERNAL;
	ported = p->key.proto == IPPROTO_TCP || p->key.proto == IPPROTO_UDP || p->key.proto == PROTO_SCTP;
	icmp_check = p->l4_off + 2;
	saddr_off = p->v6 ? (__u32)offsetof(struct ipv6hdr, saddr) : (__u32)offsetof(struct iphdr, saddr);
	daddr_off = p->v6 ? (__u32)offsetof(struct ipv6hdr, daddr) : (__u32)offsetof(struct iphdr, daddr);
	if (outer_address(skb, p, OUTER_SOURCE, &now_s) || outer_address(skb, p, OUTER_DESTINATION, &now_d))
		return DROP_INVALID;
	outer_s = addr_equal(&now_s, &p->key.saddr) ? e->saddr : now_s;
	outer_d = e->daddr;

	/* Embedded addresses: it was sent from e->daddr to e->saddr, seen from where the error goes. */
	if (store_address(skb, p, p->inner_off + saddr_off, &e->daddr) ||
	    store_address(skb, p, p->inner_off + daddr_off, &e->saddr))
		return DROP_INVALID;
	diff = fold((__u32)bpf_csum_diff((__be32 *)&p->key.saddr, 32, (__be32 *)&e->saddr, 32, 0));
	if (p->v6) {
		if (bpf_l4_csum_replace(skb, icmp_check, 0, diff, 0))
			return DROP_CSUM;
	} else if (bpf_l3_csum_replace(skb, p->inner_off + offsetof(struct iphdr, check), 0, diff, 0)) {
		/* The header's own checksum balances the addresses in the ICMP checksum. */
		return DROP_CSUM;
	}

	/* Embedded ports or echo id. */
	diff = fold((__u32)(__u16)~p->key.sport + e->sport + (__u16)~p->key.dport + e->dport);
	if (ported) {
		ports[0] = e->dport;
		ports[1] = e->sport;
		if (bpf_skb_store_bytes(skb, p->inner_l4, ports, 4, 0))
			return DROP_INVALID;
	} else if (p->key.proto == IPPROTO_ICMP || p->key.proto == IPPROTO_ICMPV6) {
		ports[0] = e->sport | e->dport;
		if (bpf_skb_store_bytes(skb, p->inner_l4 + 4, ports, 2, 0))
			return DROP_INVALID;
	} else {
		diff = 0;
	}
	if (diff && bpf_l4_csum_replace(skb, icmp_check, 0, diff, 0))
		return DROP_CSUM;

	/* Outer addresses. */
	if (store_address(skb, p, L3_OFF + saddr_off, &outer_s) ||
	    store_address(skb, p, L3_OFF + daddr_off, &outer_d))
		return DROP_INVALID;
	diff = (__u32)bpf_csum_diff((__be32 *)&now_s, 16, (__be32 *)&outer_s, 16, 0);
	diff = fold(fold((__u32)bpf_csum_diff((__be32 *)&now_d, 16, (__be32 *)&outer_d, 16, 0)) + fold(diff));
	if (p->v6) {
		if (bpf_l4_csum_replace(skb, icmp_check, 0, diff, BPF_F_PSEUDO_HDR | cfg_csum6_flags))
			return DROP_CSUM;
	} else if (bpf_l3_csum_replace(skb, L3_OFF + offsetof(struct iphdr, check), 0, diff, 0)) {
		return DROP_CSUM;
	}
	return DROP_NONE;
}

/* An ICMP error about a flow that we know goes where the flow's answers go. */
__noinline int forward_error(struct __sk_buff *skb, struct packet *p, const __u32 hook)
{
	const __u32 dir = hook == HOOK_CONTAINER || hook == HOOK_L2_EGRESS ? DIR_EGRESS : DIR_INGRESS;
	struct ip_addr outer = {};
	struct flow *e;
	int reason;

	if (!p)
		return TC_ACT_SHOT;
	e = related_flow(p);
	if (!e) {
		/* The host's own flows are not in the table. */
		if (hook == HOOK_UPLINK || hook == HOOK_HOST)
			return CONTINUE;
		return drop(p, NULL, DROP_ICMP_UNRELATED, dir);
	}
	if (cfg_dry_run)
		return report(p, e);
	if (outer_address(skb, p, OUTER_DESTINATION, &outer) || !addr_equal(&outer, &p->key.daddr))
		return drop(p, NULL, DROP_ICMP_UNRELATED, dir);
	if (e->flags & FLOW_NAT) {
		reason = translate_error(skb, p, e);
		if (reason)
			return drop(p, NULL, reason, dir);
	}
	count(dir, DROP_NONE, p->len);
	if (hook == HOOK_HOST || hook == HOOK_L2_EGRESS || hook == HOOK_L2_INGRESS)
		return CONTINUE;
	if (e->action == ACTION_PEER) {
		if (bpf_skb_store_bytes(skb, 0, e->dmac, ETH_ALEN, 0) ||
		    bpf_skb_store_bytes(skb, ETH_ALEN, e->smac, ETH_ALEN, 0))
			return drop(p, NULL, DROP_INVALID, dir);
		if (skb->pkt_type != PACKET_HOST)
			bpf_skb_change_type(skb, PACKET_HOST);
		return (int)bpf_redirect_peer(e->oif, 0);
	}
	if (e->action == ACTION_NEIGH)
		return (int)bpf_redirect_neigh(e->oif, NULL, 0, 0);
	if (e->action == ACTION_TUNNEL)
		return tunnel_send(skb, e);
	return CONTINUE;
}
