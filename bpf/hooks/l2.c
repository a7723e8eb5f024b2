/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Macvlan: the programs sit on the container's own device inside its namespace and only judge. Both
 * directions of a flow have the device's index in their keys; there is no translation.
 *
 * An interface that another plugin of a CNI chain made (EP_FOREIGN): they sit on its host side. What the plugins do with
 * packets is left to them, so all is as for macvlan, and who has which address inside is theirs to say. Only published
 * ports are carried by the flow table, as those of other containers.
 */
#pragma once
#include "slow_path.h"
#include "group.h"
#include "icmp_error.h"
#include "ingress.h"
#include "neighbour.h"

/* Decides w->fwd for one endpoint: its egress or its ingress policy. */
static __always_inline int decide_l2(struct work *w, struct endpoint *ep, bool outgoing)
{
	reset_entry(&w->f, w);
	reset_entry(&w->r, w);
	w->f.saddr = w->fwd.saddr;
	w->f.daddr = w->fwd.daddr;
	w->f.sport = w->fwd.sport;
	w->f.dport = w->fwd.dport;
	w->f.action = ACTION_PASS;
	w->f.peer_ifindex = ep->ifindex;
	w->rev.saddr = w->fwd.daddr;
	w->rev.daddr = w->fwd.saddr;
	w->rev.sport = w->fwd.dport;
	w->rev.dport = w->fwd.sport;
	w->rev.proto = w->fwd.proto;
	w->rev.ifindex = ep->ifindex;
	w->rev.pad[0] = 0;
	w->rev.pad[1] = 0;
	w->rev.pad[2] = 0;
	w->r.saddr = w->rev.saddr;
	w->r.daddr = w->rev.daddr;
	w->r.sport = w->rev.sport;
	w->r.dport = w->rev.dport;
	w->r.action = ACTION_PASS;
	w->r.flags = FLOW_REPLY;
	if (ep->flags & EP_LIMIT) {
		w->f.flags |= FLOW_LIMIT;
		w->r.flags |= FLOW_LIMIT;
	}
	w->r.peer_ifindex = ep->ifindex;
	address_info(&w->fwd.saddr, &w->src);
	address_info(&w->fwd.daddr, &w->dst);
	w->info.src_identity = w->src.identity;
	w->info.dst_identity = w->dst.identity;
	w->f.src_identity = w->r.src_identity = w->src.identity;
	w->f.dst_identity = w->r.dst_identity = w->dst.identity;
	if (outgoing) {
		w->direction = DIR_EGRESS;
		if (!addr_equal(&w->fwd.saddr, addr_is_v4(&w->fwd.saddr) ? &ep->addr4 : &ep->addr6) &&
		    (!(ep->flags & EP_FOREIGN) || w->src.flags || w->src.identity != IDENTITY_WORLD))
			return DROP_SPOOFED_ADDR;
		return judge(w, ep, NULL);
	}
	w->direction = DIR_INGRESS;
	return judge(w, NULL, ep);
}

static __always_inline int l2_packet(struct __sk_buff *skb, const __u32 hook)
{
	const __u32 dir = hook == HOOK_L2_EGRESS ? DIR_EGRESS : DIR_INGRESS;
	struct packet p = {};
	struct node *node = node_state();
	struct work *w = work_area();
	struct verdict_info info = {};
	struct addr_info other = {};
	struct endpoint *ep;
	struct flow *e;
	__u32 in_half = 0;
	int reason;

	p.key.ifindex = ingress_ifindex(skb);
	reason = parse(skb, &p);
	if (reason)
		return drop(&p, NULL, reason, dir);
	ep = endpoint_at(ingress_ifindex(skb));
	if (!ep || !node || !w)
		return drop(&p, NULL, DROP_NO_ENDPOINT, dir);
	if (ep->flags & EP_FOREIGN) {
		if (p.kind == PACKET_ARP || p.kind == PACKET_NEIGHBOUR)
			return CONTINUE;
	} else if (hook == HOOK_L2_EGRESS) {
		__u8 source[ETH_ALEN];

		if (bpf_skb_load_bytes(skb, ETH_ALEN, source, ETH_ALEN) ||
		    __builtin_memcmp(source, ep->mac, ETH_ALEN))
			return drop(&p, NULL, DROP_SPOOFED_MAC, dir);
		if (p.kind == PACKET_ARP) {
			reason = arp_from_container(skb, &p, ep);
			return reason ? drop(&p, NULL, reason, dir) : CONTINUE;
		}
		if (p.kind == PACKET_NEIGHBOUR) {
			reason = check_neighbour(skb, &p, ep);
			return reason ? drop(&p, NULL, reason, dir) : CONTINUE;
		}
	} else if (p.kind == PACKET_ARP || p.kind == PACKET_NEIGHBOUR) {
		return CONTINUE;
	}
	if (p.kind == PACKET_ICMP_ERROR)
		return forward_error(skb, &p, hook);
	if (p.kind != PACKET_FLOW) {
		address_info(hook == HOOK_L2_EGRESS ? &p.key.daddr : &p.key.saddr, &other);
		reason = judge_group(&p, ep, other.identity, dir, &info);
		if (reason)
			return drop(&p, &info, reason, dir);
		count(dir, DROP_NONE, p.len);
		return CONTINUE;
	}
	e = bpf_map_lookup_elem(&flows, &p.key);
	if (e && e->epoch == node->epoch) {
		if (tcp_is_plain(&p, e) || tcp_step(skb, &p, e) != TCP_BEGINS)
			return forward(skb, &p, e, hook);
		e = NULL;
	}
	if (!e && p.key.proto == IPPROTO_TCP && !is_syn(&p)) {
		e = half_answer(&p, p.key.ifindex);
		if (e) {
			if (e->epoch == node->epoch) {
				if (!cfg_dry_run)
					e->state = FLOW_SYNACK;
				return forward(skb, &p, e, hook);
			}
			in_half = 1;
		}
	}
	w->epoch = node->epoch;
	w->jiffies = now();
	w->tcp_flags = p.tcp_flags;
	w->redirected = 0;
	w->had_old = e != NULL;
	w->reply = e && (e->flags & FLOW_REPLY);
	w->len = p.len;
	w->half_ifindex = p.key.ifindex;
	w->pickup = node->pickup;
	w->claimed = 0;
	w->info.rule = 0;
	w->info.error = 0;
	w->direct =
		p.key.proto == IPPROTO_TCP && !e && opens_tcp(w) && node->half_open < (__s32)cfg_half_limit;
	w->fwd = p.key;
	if (w->reply) {
		w->fwd.saddr = p.key.daddr;
		w->fwd.daddr = p.key.saddr;
		w->fwd.sport = p.key.dport;
		w->fwd.dport = p.key.sport;
	}
	reason = decide_l2(w, ep, (hook == HOOK_L2_EGRESS) != (w->reply != 0));
	w->old_rev = w->rev;
	if (!reason && !cfg_dry_run)
		reason = commit(in_half);
	if (reason) {
		if (e && !cfg_dry_run) {
			if (in_half)
				half_drop(w, &p.key);
			else
				deny_known(e, (__u32)reason);
		}
		log_decision(&p, (__u32)reason);
		return drop(&p, &w->info, reason, w->direction);
	}
	log_decision(&p, DROP_NONE);
	return forward(skb, &p, w->reply ? &w->r : &w->f, hook);
}

/*
 * From another plugin's interface: answers from published ports, and what goes to one. HOT_MISS: it is neither, and only
 * judged.
 */
__noinline int foreign_port(struct __sk_buff *skb)
{
	struct packet p = {};
	struct node *node = node_state();
	struct addr_info *info;
	struct flow *e;

	p.key.ifindex = ingress_ifindex(skb);
	if (!node || parse(skb, &p))
		return HOT_MISS;
	if (p.kind == PACKET_ICMP_ERROR)
		return forward_error(skb, &p, HOOK_CONTAINER);
	if (p.kind != PACKET_FLOW)
		return HOT_MISS;
	e = bpf_map_lookup_elem(&flows, &p.key);
	if (!e && p.key.proto == IPPROTO_TCP && !is_syn(&p)) {
		e = half_answer(&p, 0);
		if (e && (e->flags & FLOW_NAT))
			return forward_half(skb, &p, e, node, HOOK_CONTAINER);
		return HOT_MISS;
	}
	if (e) {
		int step = TCP_GOES_ON;

		if (!(e->flags & FLOW_NAT))
			return HOT_MISS;
		if (e->epoch != node->epoch)
			return slow_path(skb, &p, e, 0, HOOK_CONTAINER);
		if (!tcp_is_plain(&p, e))
			step = tcp_step(skb, &p, e);
		if (step != TCP_BEGINS) {
			struct work *w = work_area();

			if (!w)
				return drop(&p, NULL, DROP_INTERNAL, DIR_EGRESS);
			return forward_from_container(skb, &p, step == TCP_ENDED ? &w->f : e);
		}
	}
	if (!node->published || !has_ports(p.key.proto))
		return HOT_MISS;
	info = bpf_map_lookup_elem(&addrs, &p.key.daddr);
	if (!info || !(info->flags & ADDR_HOST) || !published_port(&p.key.daddr, p.key.dport, p.key.proto))
		return HOT_MISS;
	return slow_path(skb, &p, NULL, 0, HOOK_CONTAINER);
}

/* Apart, so that its working memory and that of the slow path do not add up. */
__noinline int l2_outgoing(struct __sk_buff *skb)
{
	return l2_packet(skb, HOOK_L2_EGRESS);
}

SEC("tc")
int sluice_l2_egress(struct __sk_buff *skb)
{
	if (cfg_foreign) {
		struct endpoint *ep = endpoint_at(ingress_ifindex(skb));
		int ret = HOT_MISS;

		if (ep && (ep->flags & EP_FOREIGN))
			ret = foreign_port(skb);
		if (ret != HOT_MISS)
			return ret;
	}
	return l2_outgoing(skb);
}

SEC("tc")
int sluice_l2_ingress(struct __sk_buff *skb)
{
	return l2_packet(skb, HOOK_L2_INGRESS);
}
