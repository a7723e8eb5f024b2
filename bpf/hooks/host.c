/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The host's policy on its devices. These programs run after those for containers, which have taken what is theirs;
 * what is routed through the host is not judged.
 */
#pragma once
#include "host_decide.h"

static __always_inline int host_drop(struct packet *p, struct host_query *q, int reason)
{
	struct verdict_info info = {.rule = q->rule};

	if (unlikely(is_message(q)))
		host_log_message(q, (__u32)reason);
	return drop(p, &info, (__u32)reason, q->direction);
}

/* An ICMP error belongs to the flow that it is about, else it is judged like any ICMP message. */
static __always_inline int host_icmp_error(struct __sk_buff *skb, struct packet *p, struct host_query *q,
					   const __u32 hook)
{
	struct host_flow *e;
	struct host_state *st = host_state();

	/* The key is that of an answer to the packet which the error quotes. */
	host_ask(skb, q, p, q->direction);
	e = bpf_map_lookup_elem(&host_flows, &q->key);
	if (!e)
		e = bpf_map_lookup_elem(&host_fresh, &q->key);
	if (e && st && !st->panic) {
		if (e->epoch != st->epoch)
			host_decide_again(q, e, st->epoch);
		if (e->verdict == VERDICT_ALLOW)
			return DROP_NONE;
	}
	if (outer_address(skb, p, OUTER_SOURCE, &p->key.saddr) ||
	    outer_address(skb, p, OUTER_DESTINATION, &p->key.daddr))
		return DROP_INVALID;
	p->key.sport = 0;
	p->key.dport = 0;
	p->key.proto = p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
	host_ask(skb, q, p, q->direction);
	return host_judge(skb, p, q, hook);
}

static __always_inline int host_device(struct __sk_buff *skb, const __u32 hook)
{
	const __u32 direction = hook == HOST_HOOK_INGRESS ? DIR_INGRESS : DIR_EGRESS;
	struct packet p = {};
	struct host_query q = {};
	struct host_state *st = host_state();
	int reason;

	if (!st || skb->vlan_present)
		return CONTINUE; /* seen again on the VLAN's own device */
	p.key.ifindex = FLOW_IF_UPLINK;
	reason = parse(skb, &p);
	if (reason == DROP_FRAG_NO_FIRST)
		return CONTINUE; /* nothing comes of it without the first one, which is judged */
	q.direction = direction;
	if (reason) {
		if (st->panic == HOST_PANIC_OPEN)
			return CONTINUE;
		return host_drop(&p, &q, reason);
	}
	if (p.kind == PACKET_ARP || p.kind == PACKET_OTHER || p.kind == PACKET_NEIGHBOUR)
		return CONTINUE;
	q.generation = st->generation;
	q.subject = host_owner(st->generation, HOST_DEVICE, skb->ifindex);
	if (p.kind == PACKET_ICMP_ERROR) {
		reason = host_icmp_error(skb, &p, &q, hook);
	} else {
		if (p.kind == PACKET_GROUP && has_transport_ports(p.key.proto)) {
			__be16 ports[2] = {};

			bpf_skb_load_bytes(skb, p.l4_off, ports, sizeof(ports));
			p.key.sport = ports[0];
			p.key.dport = ports[1];
		}
		host_ask(skb, &q, &p, direction);
		reason = host_judge(skb, &p, &q, hook);
	}
	return reason ? host_drop(&p, &q, reason) : CONTINUE;
}

SEC("tc")
int sluice_host_ingress(struct __sk_buff *skb)
{
	if (skb->pkt_type == PACKET_OTHERHOST)
		return CONTINUE;
	return host_device(skb, HOST_HOOK_INGRESS);
}

/* What has come in by another device is routed, not the host's own. */
SEC("tc")
int sluice_host_egress(struct __sk_buff *skb)
{
	if (skb->ingress_ifindex)
		return CONTINUE;
	return host_device(skb, HOST_HOOK_EGRESS);
}
