/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * From outside, before the kernel: what goes to a service and on to a backend on another node, and the answers. It
 * is translated and sent back out of the device that it came by. All else goes on to sluice_from_uplink: local
 * backends (policy is asked there), refusals, FIN and RST, fragments, ICMP, and whatever has just changed.
 */
#pragma once
#include "flow.h"
#include "xdp_first.h"
#include "xdp_hot.h"
#include "xdp_service.h"

/* Beside the answers of XDP programs and XDP_MISS: it may complete the handshake of a connection that answers like w->rev. */
#define XDP_ACKNOWLEDGES (-2)

static __always_inline bool xdp_ends(const struct packet *p)
{
	return p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST);
}

/* A refusal: there will be no connection. */
static __always_inline bool xdp_ends_now(const struct packet *p)
{
	return p->tcp_flags & (TCP_FIN | TCP_RST);
}

/* Sends p as e, which is open, says. */
__noinline int xdp_known(struct xdp_md *ctx, struct packet *p, struct flow *e)
{
	struct node *node = node_state();
	struct xdp_route *rt;
	struct xdp_hot *h;

	if (!p || !e || !node)
		return XDP_PASS;
	rt = xdp_route(ctx, &e->saddr, &e->daddr, node->epoch);
	if (!rt || p->len > rt->mtu || !xdp_for_us(ctx, rt->smac) || xdp_by_stack(&rt->by_stack))
		return XDP_PASS;
	e->last = now();
	e->packets++;
	e->bytes += p->len;
	if (e->packets > XDP_HOT_AFTER && e->state == FLOW_OPEN && e->epoch == node->epoch) {
		h = xdp_hot_slot(&p->key);
		if (h)
			xdp_hot_remember(h, p, e, rt);
	}
	return xdp_send(ctx, p, xdp_change_of(e), rt->dmac, rt->smac);
}

/*
 * Puts w->f and w->r, whose ways out are found here, into the flow table. 0: not possible, TC has to see to it.
 * `half_open`: the opener has not answered yet.
 */
__noinline int xdp_insert(struct xdp_md *ctx, __u32 epoch, __u32 half_open)
{
	struct work *w = work_area();
	struct xdp_route *rt;
	struct flow *old;

	if (!w)
		return 0;
	/* An address of this host, or of a container here: the source was forged. */
	address_info(&w->fwd.saddr, &w->src);
	if (w->src.ifindex || (w->src.flags & ADDR_HOST))
		return 0;
	w->f.src_identity = w->src.identity;
	w->r.src_identity = w->src.identity;
	/* With epoch 0 the entry is decided again by TC, which finds the way. */
	rt = xdp_route(ctx, &w->f.saddr, &w->f.daddr, epoch);
	if (rt) {
		w->f.epoch = epoch;
		w->f.oif = rt->ifindex;
		w->f.mtu = rt->mtu;
		w->f.nexthop = rt->nexthop;
	}
	rt = xdp_route(ctx, &w->r.saddr, &w->r.daddr, epoch);
	if (rt) {
		w->r.epoch = epoch;
		w->r.oif = rt->ifindex;
		w->r.mtu = rt->mtu;
		w->r.nexthop = rt->nexthop;
	}
	w->f.created = bpf_jiffies64();
	w->r.created = w->f.created;
	if (half_open)
		w->f.state = FLOW_SYNACK;
	if (bpf_map_update_elem(&flows, &w->rev, &w->r, BPF_NOEXIST))
		return 0;
	old = bpf_map_lookup_elem(&flows, &w->fwd);
	if (old && old->state >= FLOW_CLOSING) {
		/* The client uses its port again. */
		other_key(&w->old_rev, old);
		bpf_map_delete_elem(&flows, &w->fwd);
		bpf_map_delete_elem(&flows, &w->old_rev);
	}
	if (bpf_map_update_elem(&flows, &w->fwd, &w->f, BPF_NOEXIST)) {
		bpf_map_delete_elem(&flows, &w->rev);
		return 0;
	}
	if (half_open)
		count_half_open(1);
	return 1;
}

/* The answer to a SYN that XDP sent on: the connection moves to the flow table. */
__noinline int xdp_syn_answer(struct xdp_md *ctx, struct packet *p)
{
	struct node *node = node_state();
	struct work *w = work_area();
	struct xdp_route *rt;
	struct xdp_syn *slot, *s;
	bool flood;

	if (!p || !node || !w)
		return XDP_PASS;
	w->jiffies = now();
	flood = node->half_open >= (__s32)cfg_half_limit;
	s = xdp_syn_room(w);
	slot = xdp_syn_read(w, &p->key, s);
	if (!slot)
		return XDP_PASS;
	if (flood && !xdp_ends_now(p))
		slot->state = FLOW_SYNACK;
	else if (!xdp_syn_take(&p->key, slot, s))
		return XDP_PASS;
	/* The port may be that of a connection of the host itself, which the backend answers. */
	if (xdp_socket(ctx, &p->key) == XDP_CONNECTED)
		return XDP_PASS;
	w->rev = p->key;
	xdp_syn_entries(w);
	w->f.packets = 1; /* the SYN */
	w->f.bytes = p->len;
	w->r.packets = 1;
	w->r.bytes = p->len;
	rt = xdp_route(ctx, &w->r.saddr, &w->r.daddr, node->epoch);
	if (!rt || !xdp_for_us(ctx, rt->smac)) {
		xdp_insert(ctx, node->epoch, 1);
		return XDP_PASS;
	}
	if (!flood && !xdp_ends_now(p)) {
		if (!xdp_insert(ctx, s->epoch == node->epoch ? s->epoch : 0, 1)) {
			xdp_syn_leave(&w->rev, s->check);
			return XDP_PASS;
		}
		if (xdp_by_stack(&rt->by_stack))
			return XDP_PASS;
	}
	return xdp_send(ctx, p, xdp_change_of(&w->r), rt->dmac, rt->smac);
}

/* A UDP packet of a new flow: both entries. 0: the port is taken, or it is TC's. */
__noinline int xdp_open_udp(struct xdp_md *ctx, struct packet *p, const struct flow_key *rev, __u32 identity)
{
	struct node *node = node_state();
	struct work *w = work_area();

	if (!w || !p || !rev || !node)
		return 0;
	if (xdp_socket(ctx, rev) != XDP_NO_SOCKET)
		return 0;
	w->jiffies = now();
	w->fwd = p->key;
	w->rev = *rev;
	xdp_entries(w, identity);
	w->f.packets = 1;
	w->f.bytes = p->len;
	return xdp_insert(ctx, node->epoch, 0);
}

/* In a flood, the acknowledgement that completes the handshake of a connection that answers like w->rev. */
__noinline int xdp_complete(struct xdp_md *ctx, struct packet *p)
{
	struct node *node = node_state();
	struct work *w = work_area();
	struct xdp_syn *slot, *syn;

	if (!p || !node || !w)
		return XDP_PASS;
	w->jiffies = now();
	syn = xdp_syn_room(w);
	slot = xdp_syn_read(w, &w->rev, syn);
	if (!slot || syn->state != FLOW_SYNACK || !xdp_syn_from(syn, &p->key) ||
	    !xdp_syn_take(&w->rev, slot, syn))
		return XDP_PASS;
	xdp_syn_entries(w);
	return xdp_insert(ctx, node->epoch, 0) ? xdp_known(ctx, p, &w->f) : XDP_PASS;
}

__noinline int xdp_report(struct packet *p, __u32 identity)
{
	struct verdict_info info = {.src_identity = IDENTITY_WORLD, .dst_identity = identity};

	if (p)
		emit_event(p, &info, EVENT_NEW_FLOW, 0, DIR_INGRESS);
	return 0;
}

/* Is e the entry of the answers to k? */
static __always_inline bool xdp_answers(const struct flow *e, const struct flow_key *k)
{
	return addr_equal(&e->daddr, &k->saddr) && e->dport == k->sport && addr_equal(&e->saddr, &k->daddr) &&
	       e->sport == k->dport;
}

/* A packet to a service, of a flow that is in no table. */
__noinline int xdp_new(struct xdp_md *ctx, struct packet *p)
{
	struct service_state *s = service_state();
	struct node *node = node_state();
	struct xdp_table *t = xdp_table();
	struct xdp_frontend *fe;
	struct xdp_backend *be;
	int claim = XDP_TAKEN;
	struct xdp_syn *syn;
	struct flow *known;
	struct xdp_change c;
	struct flow_key rev;
	__u32 h;

	if (!p || !s || !node || !t || (p->tcp_flags & (TCP_FIN | TCP_RST)))
		return XDP_PASS;
	fe = xdp_frontend(ctx, t, &p->key, node->epoch, *(volatile __u32 *)&s->generation);
	if (!fe)
		return XDP_PASS;
	h = tuple_hash(&p->key);
	be = xdp_choose(ctx, t, &p->key, h, fe, s);
	if (!be || p->len > be->mtu || !xdp_for_us(ctx, be->smac) || xdp_by_stack(&be->by_stack))
		return XDP_PASS;
	if (unlikely((fe->flags & SVC_RANGES) && !xdp_admits(&p->key, fe)))
		return XDP_PASS;
	for (__u32 i = 0; i < XDP_PORT_TRIES && claim == XDP_TAKEN; i++) {
		xdp_reverse(&rev, be, p->key.proto, h, i);
		if (p->key.proto == IPPROTO_UDP) {
			claim = xdp_open_udp(ctx, p, &rev, be->identity) ? XDP_CLAIMED : XDP_TAKEN;
			continue;
		}
		if (unlikely(!is_syn(p))) {
			struct work *w = work_area();

			if (!w)
				return XDP_PASS;
			w->rev = rev;
			return XDP_ACKNOWLEDGES;
		}
		/* An open flow may have the port. The look-up comes first, so that the processor waits for both at once. */
		known = bpf_map_lookup_elem(&flows, &rev);
		syn = xdp_syn_slot(&rev);
		if (!syn)
			return XDP_PASS;
		if (known) {
			if (xdp_answers(known, &p->key) ||
			    xdp_syn_is_left(syn, &p->key, &rev, be->number - 1))
				return XDP_PASS;
			continue;
		}
		claim = xdp_syn_claim(syn, &p->key, h, &rev, be->number - 1, node->epoch);
		if (claim == XDP_LEFT)
			return XDP_PASS;
		if (unlikely(claim == XDP_CLAIMED_AFTER)) {
			/* Who had the slot may have moved to the flow table in between. */
			claim = XDP_CLAIMED;
			known = bpf_map_lookup_elem(&flows, &rev);
			if (known) {
				xdp_syn_free(syn,
					     xdp_syn_check(h, be->number - 1, rev.daddr.w[3], rev.dport));
				if (xdp_answers(known, &p->key))
					return XDP_PASS;
				claim = XDP_TAKEN;
			}
		}
	}
	if (claim == XDP_TAKEN)
		return XDP_PASS;
	c.saddr = be->snat;
	c.daddr = be->addr;
	c.sport = rev.dport;
	c.dport = be->port;
	c.csum_addr = fold(be->sum + (__u16)~sum_words(&p->key.saddr) + (__u16)~sum_words(&p->key.daddr));
	c.csum_port = fold((__u32)(__u16)~p->key.sport + c.sport + (__u16)~p->key.dport + c.dport);
	if (claim == XDP_CLAIMED)
		count_service(fe->number, false);
	if (unlikely(node->trace))
		xdp_report(p, be->identity);
	return xdp_send(ctx, p, &c, be->dmac, be->smac);
}

/* A packet that is not one of the hot flows, or XDP_MISS: it is of no flow that is known. */
__noinline int xdp_flow(struct xdp_md *ctx, struct packet *p)
{
	struct node *node = node_state();
	struct work *w = work_area();
	struct xdp_syn *syn;
	struct flow *e;

	if (!p || !node || !w)
		return XDP_PASS;
	w->fwd = p->key; /* before 6.2 an argument's memory can't be a map's key */
	e = bpf_map_lookup_elem(&flows, &w->fwd);
	if (e) {
		if (e->epoch != node->epoch || e->action != ACTION_NEIGH || (e->flags & FLOW_LIMIT) ||
		    xdp_ends(p)) {
			xdp_hot_forget(xdp_hot_slot(&p->key), p);
			return XDP_PASS;
		}
		if (e->state == FLOW_SYNACK && !(e->flags & FLOW_REPLY) && (p->tcp_flags & TCP_ACK)) {
			e->state = FLOW_OPEN;
			count_half_open(-1);
		}
		return e->state == FLOW_OPEN ? xdp_known(ctx, p, e) : XDP_PASS;
	}
	if (p->key.proto == IPPROTO_TCP) {
		syn = xdp_syn_slot(&p->key);
		if (syn && xdp_syn_is(syn, &p->key))
			return xdp_syn_answer(ctx, p);
	}
	return XDP_MISS;
}

/* Services for which this node is not the end. */
static __always_inline int xdp_forward(struct xdp_md *ctx)
{
	struct service_state *s = service_state();
	struct node *node = node_state();
	struct packet p = {};
	int ret;

	if (cfg_dry_run || !s || !s->active || !node)
		return XDP_PASS;
	ret = xdp_hot_forward(ctx, node);
	if (ret == XDP_FIRST4)
		ret = xdp_first4(ctx);
	else if (ret == XDP_FIRST6)
		ret = xdp_first6(ctx);
	if (likely(ret != XDP_MISS))
		return ret;
	if (!xdp_parse(ctx, &p))
		return XDP_PASS;
	ret = is_syn(&p) ? XDP_MISS : xdp_flow(ctx, &p);
	if (ret == XDP_MISS)
		ret = xdp_new(ctx, &p);
	return ret == XDP_ACKNOWLEDGES ? xdp_complete(ctx, &p) : ret;
}
