/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * From outside: answers to masqueraded flows, published ports, containers' own addresses. To the outside: what the
 * host's own processes answer as backends of services.
 */
#pragma once
#include "slow_path.h"
#include "icmp_error.h"

/* To the host itself and neither to a published port nor to a service: nothing to decide. */
static __always_inline bool host_only(const struct packet *p)
{
	struct addr_info *info = bpf_map_lookup_elem(&addrs, &p->key.daddr);
	struct service_key k;

	if (!info || !(info->flags & ADDR_HOST))
		return false;
	if (!has_ports(p->key.proto))
		return true;
	if (services_active() &&
	    service_find(&k, &p->key.daddr, p->key.dport, p->key.proto, info->flags & ADDR_NODEPORT))
		return false;
	return !published_port(&p->key.daddr, p->key.dport, p->key.proto);
}

SEC("tc")
int sluice_from_uplink(struct __sk_buff *skb)
{
	struct packet p = {};
	struct node *node = node_state();
	struct addr_info *info;
	struct flow *e;
	int reason;

	if (skb->pkt_type != PACKET_HOST)
		return CONTINUE;
	p.key.ifindex = FLOW_IF_UPLINK;
	reason = parse(skb, &p);
	if (reason == DROP_FRAG_NO_FIRST) {
		/* The host reassembles its own. */
		info = bpf_map_lookup_elem(&addrs, &p.key.daddr);
		if (!info || (info->flags & ADDR_HOST))
			return CONTINUE;
		return drop(&p, NULL, reason, DIR_INGRESS);
	}
	if (reason || !node)
		return CONTINUE; /* not well formed: the stack knows what to do with it */
	if (p.kind == PACKET_FLOW) {
		e = bpf_map_lookup_elem(&flows, &p.key);
		if (e) {
			if (e->epoch != node->epoch)
				return slow_path(skb, &p, e, 0, HOOK_UPLINK);
			if (tcp_is_plain(&p, e) || tcp_step(skb, &p, e) != TCP_BEGINS)
				return forward(skb, &p, e, HOOK_UPLINK);
			return slow_path(skb, &p, NULL, 0, HOOK_UPLINK);
		}
		if (p.key.proto == IPPROTO_TCP && !is_syn(&p)) {
			e = half_answer(&p, 0);
			if (e)
				return forward_half(skb, &p, e, node, HOOK_UPLINK);
		}
		if (host_only(&p))
			return CONTINUE;
		return slow_path(skb, &p, NULL, 0, HOOK_UPLINK);
	}
	if (p.kind == PACKET_ICMP_ERROR)
		return forward_error(skb, &p, HOOK_UPLINK);
	return CONTINUE;
}

/*
 * The host's own packets on an uplink or in the overlay. A process that was reached through a service answers from its
 * own address and port, and the client knows those of the service. On a device only since there is such a backend.
 */
SEC("tc")
int sluice_to_uplink(struct __sk_buff *skb)
{
	struct packet p = {};
	struct node *node = node_state();
	struct flow *e;
	__u32 in_half = 0;

	if (skb->ingress_ifindex || !node)
		return CONTINUE; /* carried for others, and translated where it came in */
	p.key.ifindex = FLOW_IF_HOST;
	if (parse(skb, &p))
		return CONTINUE;
	if (p.kind == PACKET_ICMP_ERROR)
		return forward_error(skb, &p, HOOK_HOST);
	if (p.kind != PACKET_FLOW)
		return CONTINUE;
	e = bpf_map_lookup_elem(&flows, &p.key);
	if (!e && (p.tcp_flags & (TCP_SYN | TCP_RST)) && !is_syn(&p)) {
		e = half_answer(&p, 0);
		in_half = 1;
	}
	if (!e || (~e->flags & (FLOW_REPLY | FLOW_SERVICE)))
		return CONTINUE;
	if (e->epoch != node->epoch)
		return slow_path(skb, &p, e, in_half, HOOK_HOST);
	if (in_half)
		e->state = FLOW_SYNACK;
	else if (p.key.proto == IPPROTO_TCP && !tcp_is_plain(&p, e) && tcp_step(skb, &p, e) != TCP_GOES_ON)
		return CONTINUE;
	return forward(skb, &p, e, HOOK_HOST);
}
