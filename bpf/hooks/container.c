/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Both directions of the host side of a container's veth. */
#pragma once
#include "slow_path.h"
#include "group.h"
#include "icmp_error.h"
#include "ingress.h"
#include "neighbour.h"

/* Everything from a container that is not part of a flow. */
__noinline int container_extra(struct __sk_buff *skb, struct packet *p)
{
	struct endpoint *ep = endpoint_at(ingress_ifindex(skb));
	struct verdict_info info = {};
	__u8 source[ETH_ALEN];
	int reason;

	if (!p)
		return TC_ACT_SHOT;
	if (!ep)
		return drop(p, NULL, DROP_NO_ENDPOINT, DIR_EGRESS);
	if (bpf_skb_load_bytes(skb, ETH_ALEN, source, ETH_ALEN))
		return drop(p, NULL, DROP_INVALID, DIR_EGRESS);
	if (__builtin_memcmp(source, ep->mac, ETH_ALEN))
		return drop(p, NULL, DROP_SPOOFED_MAC, DIR_EGRESS);
	if (p->kind == PACKET_ARP) {
		reason = arp_from_container(skb, p, ep);
		if (reason)
			return drop(p, NULL, reason, DIR_EGRESS);
		if (ep->flags & EP_BRIDGE)
			return CONTINUE;
		return (int)bpf_redirect(skb->ifindex, 0);
	}
	if (p->kind == PACKET_NEIGHBOUR) {
		if (ep->flags & EP_BRIDGE) {
			reason = check_neighbour(skb, p, ep);
			return reason ? drop(p, NULL, reason, DIR_EGRESS) : CONTINUE;
		}
		if (p->icmp_type != ND_SOLICIT)
			return drop(p, NULL, DROP_LINK_LOCAL, DIR_EGRESS);
		reason = answer_solicitation(skb, p, ep);
		if (reason)
			return drop(p, NULL, reason, DIR_EGRESS);
		return (int)bpf_redirect(skb->ifindex, 0);
	}
	if (!(ep->flags & EP_BRIDGE))
		return drop(p, NULL, p->kind == PACKET_GROUP ? DROP_MULTICAST : DROP_ETHERTYPE, DIR_EGRESS);
	info.src_identity = p->v6 ? ep->identity6 : ep->identity4;
	info.dst_identity = IDENTITY_WORLD;
	if (p->kind == PACKET_GROUP) {
		struct addr_info dst = {};

		if (!addr_equal(&p->key.saddr, p->v6 ? &ep->addr6 : &ep->addr4))
			return drop(p, &info, DROP_SPOOFED_ADDR, DIR_EGRESS);
		address_info(&p->key.daddr, &dst);
		info.dst_identity = dst.identity;
	}
	reason = judge_group(p, ep, info.dst_identity, DIR_EGRESS, &info);
	if (reason)
		return drop(p, &info, reason, DIR_EGRESS);
	count(DIR_EGRESS, DROP_NONE, p->len);
	return CONTINUE;
}

static __always_inline bool same_source(struct __sk_buff *skb, const struct flow *e)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	return data + L3_OFF <= end && mac_equal(data + ETH_ALEN, e->from_mac);
}

/* A packet from a container that is not one of the hot flows: apart, so that these have a short program of their own. */
__noinline int container_packet(struct __sk_buff *skb)
{
	struct packet p = {};
	struct node *node = node_state();
	struct flow *e;
	int reason;

	p.key.ifindex = ingress_ifindex(skb);
	reason = parse(skb, &p);
	if (unlikely(reason))
		return drop(&p, NULL, reason, DIR_EGRESS);
	if (likely(p.kind == PACKET_FLOW)) {
		void *data = (void *)(long)skb->data;
		void *end = (void *)(long)skb->data_end;

		if (unlikely(data + L3_OFF > end || !node))
			return drop(&p, NULL, DROP_INVALID, DIR_EGRESS);
		if (unlikely(*(__u8 *)data & 1)) {
			p.kind = PACKET_GROUP; /* broadcast of a subnet */
			return container_extra(skb, &p);
		}
		if (likely(p.key.proto == IPPROTO_TCP) && !cfg_dry_run) {
			__u64 smac = mac_bits(data + ETH_ALEN);
			int ret = young_packet(skb, &p);

			if (ret == HOT_MISS && is_syn(&p))
				ret = open_again(skb, &p, smac);
			if (ret != HOT_MISS)
				return ret;
			data = (void *)(long)skb->data;
			end = (void *)(long)skb->data_end;
			if (unlikely(data + L3_OFF > end))
				return drop(&p, NULL, DROP_INVALID, DIR_EGRESS);
		}
		e = unlikely(is_syn(&p)) ? known_flow(&p.key) : bpf_map_lookup_elem(&flows, &p.key);
		if (likely(e)) {
			if (unlikely(!mac_equal(data + ETH_ALEN, e->from_mac)))
				return drop(&p, NULL, DROP_SPOOFED_MAC, DIR_EGRESS);
			if (unlikely(e->epoch != node->epoch))
				return slow_path(skb, &p, e, 0, HOOK_CONTAINER);
			if (!tcp_is_plain(&p, e)) {
				struct work *w = work_area();
				int step = tcp_step(skb, &p, e);

				if (step == TCP_BEGINS || !w)
					return slow_path(skb, &p, NULL, 0, HOOK_CONTAINER);
				if (step == TCP_ENDED)
					e = &w->f;
			}
			return forward(skb, &p, e, HOOK_CONTAINER);
		}
		if (p.key.proto == IPPROTO_TCP && !is_syn(&p)) {
			if (!(p.tcp_flags & (TCP_SYN | TCP_RST | TCP_FIN)) && !cfg_dry_run &&
			    complete_handshake(&p)) {
				struct work *w = work_area();

				if (!w)
					return drop(&p, NULL, DROP_INTERNAL, DIR_EGRESS);
				if (!same_source(skb, &w->f))
					return drop(&p, NULL, DROP_SPOOFED_MAC, DIR_EGRESS);
				return forward_from_container(skb, &p, &w->f);
			}
			data = (void *)(long)skb->data;
			end = (void *)(long)skb->data_end;
			if (data + L3_OFF > end)
				return drop(&p, NULL, DROP_INVALID, DIR_EGRESS);
			e = half_answer(&p, 0);
			if (e) {
				if (!mac_equal(data + ETH_ALEN, e->from_mac))
					return drop(&p, NULL, DROP_SPOOFED_MAC, DIR_EGRESS);
				return forward_half(skb, &p, e, node, HOOK_CONTAINER);
			}
		}
		{
			struct endpoint *ep = endpoint_at(ingress_ifindex(skb));

			if (!ep)
				return drop(&p, NULL, DROP_NO_ENDPOINT, DIR_EGRESS);
			if (!mac_equal(data + ETH_ALEN, ep->mac))
				return drop(&p, NULL, DROP_SPOOFED_MAC, DIR_EGRESS);
		}
		return slow_path(skb, &p, NULL, 0, HOOK_CONTAINER);
	}
	if (p.kind == PACKET_ICMP_ERROR) {
		struct endpoint *ep = endpoint_at(ingress_ifindex(skb));
		struct ip_addr outer = {};

		if (!ep)
			return drop(&p, NULL, DROP_NO_ENDPOINT, DIR_EGRESS);
		if (outer_address(skb, &p, OUTER_SOURCE, &outer) ||
		    !addr_equal(&outer, p.v6 ? &ep->addr6 : &ep->addr4))
			return drop(&p, NULL, DROP_SPOOFED_ADDR, DIR_EGRESS);
		return forward_error(skb, &p, HOOK_CONTAINER);
	}
	return container_extra(skb, &p);
}

SEC("tc")
int sluice_from_container(struct __sk_buff *skb)
{
	int ret = quick_forward(skb);

	if (unlikely(ret == HOT_MISS))
		return container_packet(skb);
	return ret;
}

/* From the host or the bridge, and not part of a flow that begins here. */
__noinline int host_extra(struct __sk_buff *skb, struct packet *p)
{
	struct endpoint *ep = endpoint_at(ingress_ifindex(skb));
	struct verdict_info info = {};
	struct addr_info src = {};
	int reason;

	if (!p)
		return TC_ACT_SHOT;
	if (!ep)
		return drop(p, NULL, DROP_NO_ENDPOINT, DIR_INGRESS);
	if (p->kind == PACKET_NEIGHBOUR)
		return CONTINUE;
	if (p->kind == PACKET_ICMP_ERROR) {
		/*
		 * Errors of the host itself are about packets that it carried for the container, or that were
		 * for one of its processes, perhaps in the name of a service.
		 */
		struct ip_addr outer = {};

		if (outer_address(skb, p, OUTER_SOURCE, &outer))
			return drop(p, NULL, DROP_INVALID, DIR_INGRESS);
		address_info(&outer, &src);
		if (!(src.flags & ADDR_HOST) && !related_flow(p))
			return drop(p, NULL, DROP_ICMP_UNRELATED, DIR_INGRESS);
		return forward_error(skb, p, HOOK_HOST);
	}
	address_info(&p->key.saddr, &src);
	if (p->kind == PACKET_OTHER)
		src.identity = IDENTITY_WORLD;
	info.src_identity = src.identity;
	info.dst_identity = p->v6 ? ep->identity6 : ep->identity4;
	if (!(src.flags & ADDR_HOST)) {
		reason = judge_group(p, ep, src.identity, DIR_INGRESS, &info);
		if (reason)
			return drop(p, &info, reason, DIR_INGRESS);
	}
	count(DIR_INGRESS, DROP_NONE, p->len);
	return CONTINUE;
}

/* From the host's own stack, or flooded by the bridge of a bridged network. */
SEC("tc")
int sluice_to_container(struct __sk_buff *skb)
{
	struct packet p = {};
	struct node *node = node_state();
	struct endpoint *ep;
	struct flow *e;
	int reason;

	p.key.ifindex = FLOW_IF_HOST;
	reason = parse(skb, &p);
	if (reason)
		return drop(&p, NULL, reason, DIR_INGRESS);
	if (!node)
		return drop(&p, NULL, DROP_INTERNAL, DIR_INGRESS);
	if (p.kind == PACKET_ARP)
		return CONTINUE;
	if (p.kind == PACKET_FLOW) {
		e = bpf_map_lookup_elem(&flows, &p.key);
		if (e) {
			if (e->epoch != node->epoch)
				return slow_path(skb, &p, e, 0, HOOK_HOST);
			if (tcp_is_plain(&p, e) || tcp_step(skb, &p, e) != TCP_BEGINS)
				return forward(skb, &p, e, HOOK_HOST);
			return slow_path(skb, &p, NULL, 0, HOOK_HOST);
		}
		if (p.key.proto == IPPROTO_TCP && !is_syn(&p)) {
			e = half_answer(&p, 0);
			if (e)
				return forward_half(skb, &p, e, node, HOOK_HOST);
		}
	}
	ep = endpoint_at(ingress_ifindex(skb));
	if (!ep)
		return drop(&p, NULL, DROP_NO_ENDPOINT, DIR_INGRESS);
	if (p.kind == PACKET_FLOW && addr_equal(&p.key.daddr, p.v6 ? &ep->addr6 : &ep->addr4))
		return slow_path(skb, &p, NULL, 0, HOOK_HOST);
	return host_extra(skb, &p);
}
