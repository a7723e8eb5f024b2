/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* From other nodes, through the overlay: what is inside counts only if its source is on the node that sent it. */
#pragma once
#include "slow_path.h"
#include "icmp_error.h"

static __always_inline bool to_host(const struct packet *p)
{
	struct addr_info *info = bpf_map_lookup_elem(&addrs, &p->key.daddr);

	return info && (info->flags & ADDR_HOST);
}

SEC("tc")
int sluice_from_tunnel(struct __sk_buff *skb)
{
	struct packet p = {};
	struct node *node = node_state();
	struct work *w = work_area();
	struct flow *e, *half = NULL;
	int reason;

	/* It is for this node, whatever the Ethernet header inside says. */
	if (skb->pkt_type != PACKET_HOST && bpf_skb_change_type(skb, PACKET_HOST))
		return TC_ACT_SHOT;
	p.key.ifindex = FLOW_IF_TUNNEL;
	reason = parse(skb, &p);
	if (!node || !w)
		return drop(&p, NULL, DROP_INTERNAL, DIR_INGRESS);
	if (!tunnel_source(skb, &w->sender))
		return drop(&p, NULL, DROP_TUNNEL_SOURCE, DIR_INGRESS);
	if (reason) {
		/* The host reassembles its own. */
		if (reason == DROP_FRAG_NO_FIRST && to_host(&p) && tunnel_admits(&w->sender, &p.key.saddr))
			return CONTINUE;
		return drop(&p, NULL, reason, DIR_INGRESS);
	}
	if (p.kind == PACKET_ICMP_ERROR) {
		struct addr_info *from = bpf_map_lookup_elem(&addrs, &w->sender);

		if (!from || !(from->flags & ADDR_NODE))
			return drop(&p, NULL, DROP_TUNNEL_SOURCE, DIR_INGRESS);
		return forward_error(skb, &p, HOOK_UPLINK);
	}
	if (p.kind != PACKET_FLOW)
		return drop(&p, NULL, DROP_MULTICAST, DIR_INGRESS);
	e = bpf_map_lookup_elem(&flows, &p.key);
	if (likely(e && e->epoch == node->epoch)) {
		if (unlikely(!tunnel_expects(e, &w->sender, &p.key.saddr)) &&
		    !((e->flags & FLOW_SERVICE) && tunnel_sends_on(&w->sender, &p.key.saddr)))
			return drop(&p, NULL, DROP_TUNNEL_SOURCE, DIR_INGRESS);
		if (tcp_is_plain(&p, e) || tcp_step(skb, &p, e) != TCP_BEGINS)
			return forward(skb, &p, e, HOOK_UPLINK);
		return slow_path(skb, &p, NULL, 0, HOOK_UPLINK);
	}
	if (!tunnel_admits(&w->sender, &p.key.saddr)) {
		if (!has_ports(p.key.proto) || !tunnel_sends_on(&w->sender, &p.key.saddr))
			return drop(&p, NULL, DROP_TUNNEL_SOURCE, DIR_INGRESS);
		return slow_path(skb, &p, e, 0, HOOK_UPLINK); /* to a service, or dropped there */
	}
	if (e)
		return slow_path(skb, &p, e, 0, HOOK_UPLINK);
	if (p.key.proto == IPPROTO_TCP && !is_syn(&p))
		half = half_answer(&p, 0);
	if (half)
		return forward_half(skb, &p, half, node, HOOK_UPLINK);
	if (host_only(&p))
		return CONTINUE;
	return slow_path(skb, &p, NULL, 0, HOOK_UPLINK);
}
