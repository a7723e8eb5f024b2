/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What happens to a flow, decided from policy, host ports, addresses and routes in the direction the flow was opened.
 * Input: w->fwd and what is known of the flow. Output: w->f, w->r, w->rev, or the reason to drop.
 */
#pragma once
#include "address.h"
#include "direct_return.h"
#include "flow.h"
#include "internal.h"
#include "judge.h"
#include "repeat.h"
#include "route.h"
#include "service_flow.h"
#include "young.h"

/* If the destination is a published port, e goes to the container behind it. */
__noinline int publish(const struct flow_key *k, struct flow *e)
{
	struct hostport *hp;

	if (!k || !e)
		return 0;
	hp = published_port(&k->daddr, k->dport, k->proto);
	if (!hp)
		return 0;
	e->daddr = hp->addr;
	e->dport = hp->port;
	e->flags |= FLOW_DNAT;
	return 1;
}

/* Fills e so that packets go into the container of ep. */
static __always_inline void to_endpoint(struct flow *e, const struct endpoint *ep)
{
	e->action = ACTION_PEER;
	e->oif = ep->ifindex;
	memcpy(e->dmac, ep->mac, ETH_ALEN);
	memcpy(e->smac, ep->host_mac, ETH_ALEN);
}

static __always_inline struct endpoint *endpoint_at(__u32 ifindex)
{
	struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &ifindex);

	return ep && ep->ifindex == ifindex ? ep : NULL;
}

/*
 * For what goes from container to container: the source is the gateway of the receiver's network if the receiver is the
 * sender itself, which would see its own source address, or is in the sender's network too, where it would answer by that
 * other interface. 16 bits tell networks apart by their numbers, so some other flow may get that source too.
 */
__noinline int source_for_answers(void)
{
	struct work *w = work_area();
	struct endpoint *sep, *dep;
	struct network *net;
	__u32 number;

	if (!w)
		return DROP_INTERNAL;
	sep = endpoint_at(w->src.ifindex);
	dep = endpoint_at(w->dst.ifindex);
	if (!sep || !dep)
		return DROP_INTERNAL;
	if (sep != dep && (sep->network == dep->network || !(dep->flags & (EP_ALSO << (sep->network & 15)))))
		return DROP_NONE;
	number = dep->network;
	net = bpf_map_lookup_elem(&networks, &number);
	if (!net)
		return DROP_INTERNAL;
	w->snat = addr_is_v4(&w->f.daddr) ? net->gateway4 : net->gateway6;
	if (sep->flags & EP_FOREIGN)
		w->snat = w->fwd.daddr; /* whatever its gateway is: it asked by that way */
	return sep == dep && addr_is_zero(&w->snat) ? DROP_SAME_ADDR : DROP_NONE;
}

/* The source address for what leaves through uplink oif. */
static __always_inline int masquerade(struct work *w, const struct endpoint *sep)
{
	bool v4 = addr_is_v4(&w->fwd.saddr);
	__u32 number = sep->network;
	struct network *net = bpf_map_lookup_elem(&networks, &number);
	__u32 oif = w->f.oif;
	struct uplink *up;

	if (!net || !(net->flags & (v4 ? NET_MASQUERADE4 : NET_MASQUERADE6)))
		return DROP_NONE;
	up = bpf_map_lookup_elem(&uplinks, &oif);
	if (!up)
		return DROP_INTERNAL;
	w->snat = v4 ? up->snat4 : up->snat6;
	return addr_is_zero(&w->snat) ? DROP_SNAT_ADDR : DROP_NONE;
}

static __always_inline void reset_entry(struct flow *e, const struct work *w)
{
	memset(e, 0, sizeof(*e));
	e->epoch = w->epoch;
	e->last = w->jiffies;
	e->proto = w->fwd.proto;
	e->state = w->fwd.proto == IPPROTO_TCP ? FLOW_NEW : FLOW_OPEN;
}

/* A container's address as the source of a packet that did not come from that container. */
static __always_inline bool source_is_local(const struct work *w)
{
	struct endpoint *ep;

	if (w->src.ifindex <= FLOW_IF_HOST)
		return false;
	ep = endpoint_at(w->src.ifindex);
	return ep && !(ep->flags & EP_L2);
}

/*
 * A question to a name server of a container whose policy has domain names, and which it may ask: it goes to the name
 * server at its gateway, which asks the one it was meant for, and lets the answer go when its addresses are in the
 * maps. Without an agent nobody listens there, and the question goes its own way. Returns 1 if it is redirected.
 */
__noinline int to_name_server(struct __sk_buff *skb)
{
	struct work *w = work_area();
	struct network *net;
	__u32 number;

	if (!w || w->f.dport != bpf_htons(53) || (w->fwd.proto != IPPROTO_UDP && w->fwd.proto != IPPROTO_TCP))
		return 0;
	number = w->src.network;
	net = bpf_map_lookup_elem(&networks, &number);
	if (!net)
		return 0;
	w->rev = w->fwd;
	w->rev.daddr = addr_is_v4(&w->fwd.daddr) ? net->gateway4 : net->gateway6;
	if (addr_is_zero(&w->rev.daddr) || addr_equal(&w->rev.daddr, &w->f.daddr) ||
	    !host_socket(skb, &w->rev))
		return 0;
	w->f.daddr = w->rev.daddr;
	w->f.flags |= FLOW_DNAT;
	w->dst.flags = ADDR_HOST;
	w->dst.ifindex = 0;
	w->redirected = 1;
	return 1;
}

/* Verified once and not once per caller: it takes the working memory from the map again. */
__noinline int decide(struct __sk_buff *skb)
{
	struct work *w = work_area();
	struct endpoint *sep = NULL, *dep = NULL;
	int reason;

	if (!w)
		return DROP_INTERNAL;
	reset_entry(&w->f, w);
	reset_entry(&w->r, w);
	w->f.saddr = w->fwd.saddr;
	w->f.daddr = w->fwd.daddr;
	w->f.sport = w->fwd.sport;
	w->f.dport = w->fwd.dport;
	memset(&w->snat, 0, sizeof(w->snat));
	w->direction = DIR_INGRESS;
	if (cfg_dry_run)
		w->ingress = DROP_NONE;

	/* Who sends it? */
	if (from_container(w)) {
		w->direction = DIR_EGRESS;
		sep = endpoint_at(w->fwd.ifindex);
		if (!sep)
			return DROP_NO_ENDPOINT;
		if (addr_is_v4(&w->fwd.saddr)) {
			if (!addr_equal(&w->fwd.saddr, &sep->addr4))
				return DROP_SPOOFED_ADDR;
			w->src.identity = sep->identity4;
		} else {
			if (addr_is_zero(&sep->addr6) || !addr_equal(&w->fwd.saddr, &sep->addr6))
				return DROP_SPOOFED_ADDR;
			w->src.identity = sep->identity6;
		}
		w->src.flags = 0;
		w->src.ifindex = sep->ifindex;
		w->src.network = sep->network;
		memcpy(w->f.from_mac, sep->mac, ETH_ALEN);
	} else {
		address_info(&w->fwd.saddr, &w->src);
	}

	/* Who gets it? */
	if (has_ports(w->fwd.proto)) {
		if (stays_one_way(w))
			return DROP_NONE;
		reason = sent_on(w) ? to_backend_here() : to_backend(skb);
		if (reason)
			return reason;
		if (w->f.flags & FLOW_SERVICE) {
			if (decided_for_backend())
				return DROP_NONE;
		} else if (w->dst.flags & ADDR_HOST) {
			publish(&w->fwd, &w->f);
		}
		if (w->f.flags & FLOW_DNAT)
			address_info(&w->f.daddr, &w->dst);
		if (unlikely(w->service_direct) && may_return_directly(w)) {
			reason = way_out(skb, 0);
			send_as_it_is(w);
			return reason;
		}
	} else {
		address_info(&w->fwd.daddr, &w->dst);
	}
	w->info.src_identity = w->src.identity;
	w->info.dst_identity = w->dst.identity;
	if (w->dst.ifindex > FLOW_IF_HOST) {
		dep = endpoint_at(w->dst.ifindex);
		if (!dep && from_container(w))
			return DROP_NO_ENDPOINT;
		/* On a segment or behind another plugin's device; judged where it is received. */
		if (dep && (dep->flags & EP_L2) && !((dep->flags & EP_FOREIGN) && (w->f.flags & FLOW_DNAT)))
			dep = NULL;
	}
	reason = judge_tunnel(w, dep);
	if (reason)
		return reason;
	if (!from_container(w) && !dep && !(w->f.flags & FLOW_SERVICE)) {
		/* Between the host and the outside: the host's own business. */
		w->pass = 1;
		return DROP_NONE;
	}
	if (from_outside(w) && (w->src.flags & ADDR_HOST))
		return DROP_SOURCE_HOST;
	if (!from_container(w) && ((w->src.flags & ADDR_RESERVED) || source_is_local(w)))
		return DROP_SPOOFED_ADDR;
	if (w->dst.flags & ADDR_RESERVED)
		return DROP_RESERVED;
	if (sep && dep && sep->network != dep->network && !(w->f.flags & FLOW_DNAT))
		return DROP_NETWORK;
	if (((w->src.flags | w->dst.flags) & ADDR_CLUSTER) && w->src.network && w->dst.network &&
	    w->src.network != w->dst.network && !(w->f.flags & FLOW_DNAT))
		return DROP_NETWORK;

	reason = judge_internal(w, sep, dep);
	if (reason)
		return reason;
	reason = judge(w, sep, dep);
	if (reason)
		return reason;
	/* A bridge would carry what is for a container on it past the host. */
	if (unlikely(sep && (sep->flags & EP_NAMES)) && !(dep && (sep->flags & EP_BRIDGE)) &&
	    to_name_server(skb))
		dep = NULL;

	/* Which way does it go, and which way do the answers come? */
	w->rev.proto = w->fwd.proto;
	w->rev.pad[0] = 0;
	w->rev.pad[1] = 0;
	w->rev.pad[2] = 0;
	if (dep) {
		if (w->fwd.ifindex == FLOW_IF_HOST)
			w->f.action = ACTION_PASS;
		else
			to_endpoint(&w->f, dep);
		w->rev.ifindex = dep->ifindex;
		memcpy(w->r.from_mac, dep->mac, ETH_ALEN);
		if (from_outside(w))
			w->f.flags |= FLOW_TTL;
		if (sep && (sep->ifindex == dep->ifindex || unlikely(dep->flags >= EP_ALSO))) {
			reason = source_for_answers();
			if (reason)
				return reason;
		}
	} else if (w->dst.flags & ADDR_HOST) {
		w->f.action = ACTION_STACK;
		w->rev.ifindex = FLOW_IF_HOST;
	} else {
		reason = way_out(skb, 0);
		if (reason)
			return reason;
		if (w->f.action == ACTION_TUNNEL) {
			w->rev.ifindex = FLOW_IF_TUNNEL;
			w->r.outer = tunnel_outer(&w->dst);
		} else if (w->f.action == ACTION_NEIGH) {
			w->rev.ifindex = FLOW_IF_UPLINK;
			if (sep && (w->dst.flags & ADDR_CLUSTER)) {
				/* Pods and nodes of the cluster see each other's own addresses. */
			} else if (sep) {
				reason = masquerade(w, sep);
				if (reason)
					return reason;
			} else if (!(w->f.flags & FLOW_SERVICE)) {
				return DROP_INTERNAL;
			}
		} else {
			w->rev.ifindex = FLOW_IF_HOST;
		}
	}
	if (sep) {
		to_endpoint(&w->r, sep);
		if (w->rev.ifindex == FLOW_IF_HOST)
			w->r.action = ACTION_PASS;
		else if (w->rev.ifindex == FLOW_IF_UPLINK || w->rev.ifindex == FLOW_IF_TUNNEL)
			w->r.flags |= FLOW_TTL;
	} else if (w->fwd.ifindex == FLOW_IF_HOST || (!dep && (w->dst.flags & ADDR_HOST))) {
		/* The host's own, for itself or, as a service's backend, on their way out (sluice_to_uplink). */
		w->r.action = ACTION_STACK;
	} else {
		reason = way_out(skb, 1);
		if (reason)
			return reason;
	}
	if (w->fwd.ifindex == FLOW_IF_TUNNEL)
		w->f.outer = sent_on(w) ? tunnel_outer_of(&w->sender) : tunnel_outer(&w->src);

	if (w->service_snat && addr_is_zero(&w->snat) && !(dep && w->service_direct)) {
		reason = service_source(w, dep ? dep->network : 0);
		if (reason)
			return reason;
	}

	/* What the compiler knows of them from above, the verifier of Linux 6.1 does not: both are checked again. */
	barrier_var(sep);
	barrier_var(dep);
	if (unlikely((sep && (sep->flags & EP_LIMIT)) || (dep && (dep->flags & EP_LIMIT)))) {
		w->f.flags |= FLOW_LIMIT;
		w->r.flags |= FLOW_LIMIT;
	}
	/* The answers, before and after translation. */
	w->rev.saddr = w->f.daddr;
	w->rev.sport = w->f.dport;
	w->rev.daddr = w->fwd.saddr;
	w->rev.dport = w->fwd.sport;
	w->r.flags |= FLOW_REPLY | (w->f.flags & FLOW_SERVICE);
	w->r.saddr = w->fwd.daddr;
	w->r.sport = w->fwd.dport;
	w->r.daddr = w->fwd.saddr;
	w->r.dport = w->fwd.sport;
	w->r.peer_ifindex = w->fwd.ifindex;
	w->f.peer_ifindex = w->rev.ifindex;
	w->f.src_identity = w->src.identity;
	w->f.dst_identity = w->dst.identity;
	w->r.src_identity = w->src.identity;
	w->r.dst_identity = w->dst.identity;
	w->r.rule_egress = w->f.rule_egress;
	w->r.rule_ingress = w->f.rule_ingress;
	if (addr_is_zero(&w->snat) && w->keep_port && addr_equal(&w->old_rev.daddr, &w->fwd.saddr)) {
		/* It got its port for the reason that follows, and has it to its end, whatever became of the other. */
		w->snat = w->fwd.saddr;
	} else if (addr_is_zero(&w->snat) && ((w->published && (sep || dep || (w->f.flags & FLOW_SERVICE))) ||
					      unlikely(w->redirected))) {
		/* The same answers may already belong to a flow that came by another address, to a service or not. */
		struct flow *taken;

		young_settle(1);
		taken = bpf_map_lookup_elem(&flows, &w->rev);

		if (taken && !same_opener(taken, w))
			w->snat = w->fwd.saddr;
	}
	if (!addr_is_zero(&w->snat)) {
		w->f.flags |= FLOW_SNAT;
		w->r.flags |= FLOW_SNAT;
		w->rev.daddr = w->snat;
		if (has_ports(w->fwd.proto) || w->fwd.proto == IPPROTO_ICMP ||
		    w->fwd.proto == IPPROTO_ICMPV6) {
			/* An echo's id is in one of the two port fields; other ICMP messages have none. */
			if (w->fwd.sport || has_ports(w->fwd.proto)) {
				reason = claim_port(skb);
				if (reason)
					return reason;
				w->r.epoch = w->epoch; /* the claim itself was made with 0 */
			}
		} else {
			/* Without a port to choose, one opener at a time has this destination. */
			struct flow *taken = bpf_map_lookup_elem(&flows, &w->rev);

			if (taken && !same_opener(taken, w))
				return DROP_SNAT_PORTS;
		}
		w->f.saddr = w->rev.daddr;
		w->f.sport = w->rev.dport;
	}
	finish_translation(&w->fwd, &w->f);
	finish_translation(&w->rev, &w->r);
	return DROP_NONE;
}
