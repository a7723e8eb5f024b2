/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Services per packet: the slow path's part, before policy is asked about the real backend. */
#pragma once
#include "address.h"
#include "nat.h"
#include "refuse.h"
#include "service.h"

static __always_inline void set_backend(struct work *w, const struct ip_addr *addr, __be16 port)
{
	w->f.daddr = *addr;
	w->f.dport = port;
	w->f.flags |= FLOW_DNAT | FLOW_SERVICE;
}

/*
 * Chooses a backend for w->service into w->backend. Returns its number + 1, or 0 if there is none. known: the service
 * itself, if it was looked up after w->generation was read.
 */
__noinline int pick_backend(__u32 external, __u32 hash, const struct service *known)
{
	struct work *w = work_area();

	if (!w)
		return 0;
	return (int)service_pick(&w->keys, &w->service, external, hash, &w->fwd.saddr, &w->backend, known,
				 w->generation);
}

/*
 * If w->fwd goes to a service, w->f goes to one of its backends; else w->dst is filled. A flow that is open keeps its
 * backend; UDP as long as it is one. Returns the reason to refuse.
 */
__noinline int to_backend(struct __sk_buff *skb)
{
	struct work *w = work_area();
	struct service_state *s = service_state();
	bool external, open;
	struct service *svc;

	if (!w || !s)
		return DROP_INTERNAL;
	w->service_snat = 0;
	w->service_direct = 0;
	if (w->fwd.ifindex == FLOW_IF_HOST || !s->active) {
		address_info(&w->fwd.daddr, &w->dst);
		return DROP_NONE;
	}
	external = w->fwd.ifindex == FLOW_IF_UPLINK || w->fwd.ifindex == FLOW_IF_TUNNEL;
	open = w->had_old && (w->known.flags & FLOW_SERVICE);
	if (open && w->fwd.proto != IPPROTO_UDP) {
		set_backend(w, &w->old_rev.saddr, w->old_rev.sport);
		w->service_snat = external && (w->known.flags & FLOW_SNAT);
		return DROP_NONE;
	}
	w->generation = *(volatile __u32 *)&s->generation;
	svc = service_find(&w->service, &w->fwd.daddr, w->fwd.dport, w->fwd.proto, false);
	if (!svc) {
		address_info(&w->fwd.daddr, &w->dst);
		if ((w->dst.flags & (ADDR_HOST | ADDR_NODEPORT)) != (ADDR_HOST | ADDR_NODEPORT))
			return is_cluster_address(&w->service) ? DROP_SERVICE_PORT : DROP_NONE;
		svc = service_of_node(&w->service);
		if (!svc)
			return DROP_NONE;
	}
	if ((svc->flags & SVC_NODEPORT) && host_socket(skb, &w->fwd)) {
		/* No port is taken from a process of the host. */
		address_info(&w->fwd.daddr, &w->dst);
		return DROP_NONE;
	}
	if (!service_admits(&w->keys, svc, &w->fwd.saddr)) {
		if (!cfg_dry_run)
			count_service(svc->number, true);
		return DROP_SERVICE_SOURCE;
	}
	w->service_snat = external && (svc->flags & SVC_SNAT);
	w->service_direct = w->fwd.ifindex == FLOW_IF_UPLINK && (svc->flags & SVC_DSR);
	if (open) {
		struct member *m = service_member(&w->keys, svc->number, &w->old_rev.saddr, w->old_rev.sport,
						  w->fwd.proto);

		if (member_keeps(m, member_wanted(svc, external))) {
			set_backend(w, &w->old_rev.saddr, w->old_rev.sport);
			return DROP_NONE;
		}
	}
	if (!pick_backend(external, tuple_hash(&w->fwd), svc)) {
		bool local = svc->flags & (external ? SVC_LOCAL_EXTERNAL : SVC_LOCAL_INTERNAL);

		if (!cfg_dry_run)
			count_service(svc->number, true);
		return local && (svc->flags & SVC_ELSEWHERE) ? DROP_SERVICE_NOT_LOCAL : DROP_SERVICE_EMPTY;
	}
	set_backend(w, &w->backend.addr, w->backend.port);
	if (!cfg_dry_run)
		count_service(svc->number, false);
	return DROP_NONE;
}

/* The source for what came from outside and goes to a backend: an address to which the answers come back. */
static __always_inline int service_source(struct work *w, __u32 network)
{
	struct uplink *up;
	__u32 oif;
	bool v4 = addr_is_v4(&w->f.daddr);

	if (network) {
		struct network *net = bpf_map_lookup_elem(&networks, &network);

		if (net)
			w->snat = v4 ? net->gateway4 : net->gateway6;
		if (!addr_is_zero(&w->snat))
			return DROP_NONE;
	}
	if (w->f.action == ACTION_STACK)
		return DROP_NONE; /* the backend is this host, and answers by itself */
	oif = w->f.oif;
	up = bpf_map_lookup_elem(&uplinks, &oif);
	if (!up)
		return network ? DROP_NONE : DROP_SNAT_ADDR;
	w->snat = v4 ? up->snat4 : up->snat6;
	return addr_is_zero(&w->snat) ? DROP_SNAT_ADDR : DROP_NONE;
}
