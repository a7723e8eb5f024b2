/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Direct server return: the node that the client asks sends the packet on as it is, through the overlay, to the node of
 * the backend that it has chosen. That node takes one of its own backends of the service, and the answers leave it with
 * the address of the service, straight to the client.
 *
 * The first node sees one direction only, so it can't tell an open connection from a forged one: its entries are short
 * of life until a few packets have come, and a SYN makes none. A packet without an entry is sent to where its hash leads.
 */
#pragma once
#include "address.h"
#include "service_flow.h"

/* Packets of a flow that keeps its entry for longer. */
#define ONE_WAY_LASTS 8

/* Is e the entry of the first node? */
static __always_inline bool is_one_way(const struct flow *e)
{
	return e->action == ACTION_TUNNEL &&
	       (e->flags & (FLOW_SERVICE | FLOW_DNAT | FLOW_REPLY)) == FLOW_SERVICE;
}

/* Nobody of the cluster: a client that no node answers for. w->src is filled. */
static __always_inline bool is_client(const struct addr_info *from)
{
	return !from->ifindex && !(from->flags & (ADDR_CLUSTER | ADDR_HOST | ADDR_RESERVED));
}

/* Has another node sent it on for us to answer? */
static __always_inline bool sent_on(const struct work *w)
{
	return w->fwd.ifindex == FLOW_IF_TUNNEL && is_client(&w->src);
}

/* Whether a packet from the overlay may be one that the node `sender` has sent on for a client. */
__noinline int tunnel_sends_on(const struct ip_addr *sender, const struct ip_addr *source)
{
	struct addr_info client = {}, *from;
	struct ip_addr key;

	if (!sender || !source)
		return 0;
	key = *sender;
	from = bpf_map_lookup_elem(&addrs, &key);
	if (!from || !(from->flags & ADDR_NODE))
		return 0;
	address_info(source, &client);
	return is_client(&client);
}

/* As to_backend, for what another node has sent on: the backend is one of this node, or there is none. */
__noinline int to_backend_here(void)
{
	struct work *w = work_area();
	struct service_state *s = service_state();
	struct service *svc;
	struct backend *b;
	__u32 *number;
	__u32 slot, n;
	bool open;

	if (!w || !s)
		return DROP_INTERNAL;
	w->service_snat = 0;
	open = w->had_old && (w->known.flags & FLOW_SERVICE);
	if (open && w->fwd.proto != IPPROTO_UDP) {
		set_backend(w, &w->old_rev.saddr, w->old_rev.sport);
		return DROP_NONE;
	}
	w->generation = *(volatile __u32 *)&s->generation;
	svc = service_find(&w->service, &w->fwd.daddr, w->fwd.dport, w->fwd.proto, false);
	if (!svc) {
		address_info(&w->fwd.daddr, &w->dst);
		if (!(w->dst.flags & ADDR_NODE))
			return DROP_TUNNEL_SOURCE;
		svc = service_of_node(&w->service);
	}
	if (!svc || !(svc->flags & SVC_DSR))
		return DROP_TUNNEL_SOURCE;
	if (!service_admits(&w->keys, svc, &w->fwd.saddr))
		return DROP_SERVICE_SOURCE;
	if (open) {
		struct member *m = service_member(&w->keys, svc->number, &w->old_rev.saddr, w->old_rev.sport,
						  w->fwd.proto);

		if (member_keeps(m, MEMBER_LOCAL)) {
			set_backend(w, &w->old_rev.saddr, w->old_rev.sport);
			return DROP_NONE;
		}
	}
	if (!svc->count_local)
		return DROP_SERVICE_NOT_LOCAL;
	/* Not the bits that chose this node. */
	slot = tuple_hash(&w->fwd);
	slot = svc->first_local + scaled(slot << 16 | slot >> 16, svc->count_local);
	number = bpf_map_lookup_elem(&service_slots, &slot);
	if (!number)
		return DROP_SERVICE_NOT_LOCAL;
	n = *number;
	b = bpf_map_lookup_elem(&backends, &n);
	if (!b)
		return DROP_SERVICE_NOT_LOCAL;
	w->backend = *b;
	barrier();
	/* It was changed meanwhile: the client sends the packet again. */
	if (*(volatile __u32 *)&s->generation != w->generation)
		return DROP_SERVICE_NOT_LOCAL;
	set_backend(w, &w->backend.addr, w->backend.port);
	if (!cfg_dry_run)
		count_service(svc->number, false);
	return DROP_NONE;
}

/* An open flow that goes on to another node stays with it. Returns 0 if w->fwd is none; UDP is sent where it belongs now. */
static __always_inline bool stays_one_way(struct work *w)
{
	if (!w->had_old || w->reply || !is_one_way(&w->known) || w->fwd.proto == IPPROTO_UDP)
		return false;
	w->f = w->known;
	w->f.epoch = w->epoch;
	w->f.last = w->jiffies;
	w->one_way = 1;
	return true;
}

/* May w->fwd, whose backend is on another node, be answered from there? */
static __always_inline bool may_return_directly(const struct work *w)
{
	return w->service_direct && w->tunnel &&
	       (w->dst.flags & (ADDR_CLUSTER | ADDR_NODE)) == ADDR_CLUSTER && !addr_is_zero(&w->dst.node) &&
	       is_client(&w->src);
}

/* Makes w->f, which has a way out, the entry of what goes on as it is. */
static __always_inline void send_as_it_is(struct work *w)
{
	w->f.daddr = w->fwd.daddr;
	w->f.dport = w->fwd.dport;
	w->f.flags = FLOW_SERVICE | FLOW_TTL;
	w->f.state = FLOW_OPEN;
	w->f.peer_ifindex = FLOW_IF_TUNNEL;
	w->f.src_identity = w->src.identity;
	w->f.dst_identity = w->dst.identity;
	w->one_way = 1;
}

/* Writes the entry of the first node. Without room for it, or for a SYN, there is none: the next packet goes the same way. */
__noinline int commit_one_way(void)
{
	struct work *w = work_area();

	if (!w || (w->fwd.proto == IPPROTO_TCP && (w->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))))
		return 0;
	if (w->had_old) {
		w->f.packets = w->known.packets;
		w->f.bytes = w->known.bytes;
		w->f.created = w->known.created;
		w->f.state = w->known.state;
		if (!is_one_way(&w->known))
			bpf_map_delete_elem(&flows, &w->old_rev);
	} else {
		w->f.created = bpf_jiffies64();
	}
	w->f.packets++;
	w->f.bytes += w->len;
	bpf_map_update_elem(&flows, &w->fwd, &w->f, BPF_ANY);
	return 0;
}
