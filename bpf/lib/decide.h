/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The slow path: what happens to a flow, decided from policy, host ports, addresses and routes in
 * the direction the flow was opened. Input: w->fwd and what is known of the flow. Output: w->f,
 * w->r, w->rev, or the reason to drop.
 */
#pragma once
#include "address.h"
#include "decision_log.h"
#include "direct_return.h"
#include "flow.h"
#include "flow_marks.h"
#include "internal.h"
#include "policy.h"
#include "repeat.h"
#include "route.h"
#include "service_flow.h"

/* From another machine, by an uplink or through the overlay. */
static __always_inline bool from_outside(const struct work *w)
{
	return w->fwd.ifindex == FLOW_IF_UPLINK || w->fwd.ifindex == FLOW_IF_TUNNEL;
}

/*
 * With an overlay, pods of other nodes come through it and nowhere else, and nothing that leaves it is carried on
 * to anybody but this host and its containers.
 */
static __always_inline int judge_tunnel(const struct work *w, const struct endpoint *dep)
{
	/* A dry run asks about pods of other nodes here: it has no packet that left a tunnel. */
	if (!cfg_dry_run && w->fwd.ifindex == FLOW_IF_UPLINK && w->tunnel &&
	    (w->src.flags & (ADDR_CLUSTER | ADDR_NODE)) == ADDR_CLUSTER)
		return DROP_SPOOFED_ADDR;
	if (w->fwd.ifindex == FLOW_IF_TUNNEL && !dep && !(w->dst.flags & ADDR_HOST) &&
	    !(w->f.flags & FLOW_SERVICE))
		return DROP_RESERVED;
	return DROP_NONE;
}

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

/* What one policy set says: DROP_NONE, `denied`, or that the set is missing. Sets *rule if it decides. */
static __always_inline int judge_side(struct work *w, __u32 set, __u32 identity, __u32 *rule, int denied)
{
	__u32 dport = has_ports(w->f.proto) ? w->f.dport : 0;
	int v = policy_verdict(set, identity, w->f.proto, dport, &w->info.rule);

	*rule = w->info.rule;
	if (v == VERDICT_ALLOW)
		return DROP_NONE;
	return v == VERDICT_DENY ? denied : DROP_POLICY_MISSING;
}

/*
 * Both policies. The host's own traffic and a container talking to itself are always allowed. A dry run asks
 * the receiver also when the sender may not: it has to say what both think.
 */
static __always_inline int judge(struct work *w, struct endpoint *sep, struct endpoint *dep)
{
	int egress = DROP_NONE, ingress = DROP_NONE;

	if (sep && dep && sep->ifindex == dep->ifindex)
		return DROP_NONE;
	if (sep && sep->set_egress && !(w->dst.flags & ADDR_HOST)) {
		egress = judge_side(w, sep->set_egress, w->dst.identity, &w->f.rule_egress,
				    DROP_POLICY_EGRESS);
		if (egress == DROP_POLICY_EGRESS && (sep->flags & EP_AUDIT)) {
			w->f.reason = DROP_POLICY_EGRESS;
			egress = DROP_NONE;
		}
		if (egress) {
			w->direction = DIR_EGRESS;
			if (!cfg_dry_run)
				return egress;
		}
	}
	if (dep && dep->set_ingress && !(w->src.flags & ADDR_HOST)) {
		ingress = judge_side(w, dep->set_ingress, w->src.identity, &w->f.rule_ingress,
				     DROP_POLICY_INGRESS);
		if (ingress == DROP_POLICY_INGRESS && (dep->flags & EP_AUDIT)) {
			if (!w->f.reason)
				w->f.reason = DROP_POLICY_INGRESS;
			ingress = DROP_NONE;
		}
		if (cfg_dry_run)
			w->ingress = (__u32)ingress;
		if (cfg_dry_run && egress) {
			w->info.rule = w->f.rule_egress;
			return egress;
		}
		if (ingress)
			w->direction = DIR_INGRESS;
	}
	return egress ? egress : ingress;
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
		if (sep && sep->ifindex == dep->ifindex) {
			/* A container that reaches itself by a host port would see its own source address. */
			__u32 number = sep->network;
			struct network *net = bpf_map_lookup_elem(&networks, &number);

			if (!net)
				return DROP_INTERNAL;
			w->snat = addr_is_v4(&w->f.daddr) ? net->gateway4 : net->gateway6;
			if (sep->flags & EP_FOREIGN)
				w->snat = w->fwd.daddr; /* whatever its gateway is: it asked by that way */
			if (addr_is_zero(&w->snat))
				return DROP_SAME_ADDR;
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

static __always_inline void forget(const struct flow_key *fwd, const struct flow_key *rev)
{
	bpf_map_delete_elem(&flows, fwd);
	bpf_map_delete_elem(&flows, rev);
}

static __always_inline bool same_key(const struct flow_key *a, const struct flow_key *b)
{
	return addr_equal(&a->saddr, &b->saddr) && addr_equal(&a->daddr, &b->daddr) && a->sport == b->sport &&
	       a->dport == b->dport && a->ifindex == b->ifindex;
}

/* Both directions into the main table; all or nothing. */
static __always_inline int insert_pair(struct work *w)
{
	struct flow *e = w->reply ? &w->r : &w->f;
	long err;

	/* This packet: forward() only sees the copy. */
	e->packets++;
	e->bytes += w->len;
	if (!w->f.created) {
		w->f.created = bpf_jiffies64();
		w->r.created = w->f.created;
	}
	if (w->fwd.proto == IPPROTO_TCP) {
		mark_flow(&w->fwd);
		mark_flow(&w->rev);
		xdp_syn_mark(&w->fwd);
		xdp_syn_mark(&w->rev);
	}
	err = bpf_map_update_elem(&flows, &w->rev, &w->r, BPF_ANY);
	if (!err) {
		err = bpf_map_update_elem(&flows, &w->fwd, &w->f, BPF_ANY);
		if (!err)
			return DROP_NONE;
		bpf_map_delete_elem(&flows, &w->rev);
	}
	w->info.error = (__s32)err;
	return DROP_FLOW_FULL;
}

/* Writes the decision. In a SYN flood, a TCP flow enters the main table when its handshake is complete. */
__noinline int commit(__u32 in_half)
{
	struct work *w = work_area();
	struct half_flow *h;

	if (!w)
		return DROP_INTERNAL;
	if (w->fwd.proto != IPPROTO_TCP || (w->had_old && !in_half)) {
		if (w->had_old) {
			struct flow *old;

			if (!same_key(&w->old_rev, &w->rev))
				bpf_map_delete_elem(&flows, &w->old_rev);
			/* Counters and state go on. */
			old = bpf_map_lookup_elem(&flows, &w->fwd);
			if (old) {
				w->f.packets = old->packets;
				w->f.bytes = old->bytes;
				w->f.state = old->state;
				w->f.fin_end = old->fin_end;
				w->f.created = old->created;
			}
			old = bpf_map_lookup_elem(&flows, &w->rev);
			if (old) {
				w->r.packets = old->packets;
				w->r.bytes = old->bytes;
				w->r.state = old->state;
				w->r.fin_end = old->fin_end;
				w->r.created = old->created;
			}
		}
		return insert_pair(w);
	}
	if (w->direct) {
		int reason;

		/* Before the entries, as in open_again(). */
		count_half_open(1);
		reason = insert_pair(w);
		if (reason)
			count_half_open(-1);
		return reason;
	}
	if (!w->had_old && !w->claimed && (w->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_SYN) {
		if (!half_put(w, BPF_NOEXIST))
			return DROP_NONE;
	}
	h = half_of(w);
	if (h && h->r.state == FLOW_SYNACK && !in_half && (w->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_ACK) {
		int reason;

		w->r.packets = h->r.packets;
		w->r.bytes = h->r.bytes;
		w->f.packets = 1; /* the SYN */
		w->f.state = FLOW_OPEN;
		w->r.state = FLOW_OPEN;
		reason = insert_pair(w);
		if (!reason)
			half_drop(w, &w->rev);
		return reason;
	}
	if (!h && !opens_tcp(w))
		return DROP_TCP_NO_FLOW;
	if (h) {
		w->r.state = w->reply ? FLOW_SYNACK : h->r.state;
		w->r.packets = h->r.packets;
		w->r.bytes = h->r.bytes;
	}
	if (in_half && !same_key(&w->old_rev, &w->rev))
		half_drop(w, &w->old_rev);
	w->info.error = (__s32)half_put(w, BPF_ANY);
	return w->info.error ? DROP_FLOW_FULL : DROP_NONE;
}

/*
 * The acknowledgement that completes a handshake without translation: the entries made for the SYN move to the main
 * table as they are. Returns 1 and leaves the opener's entry in work.f, or 0: the slow path finds out.
 */
__noinline int complete_handshake(struct packet *p)
{
	struct work *w = work_area();
	struct node *node = node_state();
	struct half_flow *h;

	if (!p || !w || !node)
		return 0;
	w->fwd = p->key;
	w->rev.saddr = p->key.daddr;
	w->rev.daddr = p->key.saddr;
	w->rev.sport = p->key.dport;
	w->rev.dport = p->key.sport;
	w->rev.ifindex = 0;
	w->rev.proto = p->key.proto;
	w->rev.pad[0] = 0;
	w->rev.pad[1] = 0;
	w->rev.pad[2] = 0;
	h = bpf_map_lookup_elem(&half, &w->rev);
	if (!h)
		return 0;
	w->r = h->r;
	w->f = h->f;
	if (w->r.state != FLOW_SYNACK || w->r.epoch != node->epoch || w->f.epoch != node->epoch ||
	    !same_opener(&w->r, w))
		return 0;
	w->rev.ifindex = w->f.peer_ifindex;
	w->half_ifindex = 0;
	w->reply = 0;
	w->len = p->len;
	w->f.packets = 1; /* the SYN */
	w->f.last = now();
	w->f.state = FLOW_OPEN;
	w->r.state = FLOW_OPEN;
	if (insert_pair(w))
		return 0;
	half_drop(w, &w->rev);
	return 1;
}

static __always_inline void mark_denied(struct flow *e, const struct work *w, __u32 reason)
{
	e->action = ACTION_DROP;
	e->reason = (__u8)reason;
	if (w->direction == DIR_EGRESS)
		e->rule_egress = w->info.rule;
	else
		e->rule_ingress = w->info.rule;
	e->last = w->jiffies;
	/* The fast path looks at the epoch first: the rest must be there. */
	barrier();
	e->epoch = w->epoch;
}

/* The flow is denied from now on, in both directions, until a later epoch allows it. */
__noinline int deny_known(struct flow *known, __u32 reason)
{
	struct work *w = work_area();
	struct flow_key k;
	struct flow *other;

	if (!w || !known)
		return 0;
	other_key(&k, known);
	other = bpf_map_lookup_elem(&flows, &k);
	if (other)
		mark_denied(other, w, reason);
	mark_denied(known, w, reason);
	return 0;
}

/* Dry run: as much of a denied flow as was decided. */
static __always_inline void report_denied(const struct work *w)
{
	__u32 zero = 0;
	struct trace *t = bpf_map_lookup_elem(&trace_map, &zero);

	if (!t)
		return;
	t->flow = w->f;
	t->ingress = w->ingress;
}

/*
 * Decides the flow of p and acts. `known`: an entry that was found but is of an older epoch (or
 * NULL); in_half: it is in the half-open table.
 */
__noinline int slow_path(struct __sk_buff *skb, struct packet *p, struct flow *known, __u32 in_half,
			 const __u32 hook)
{
	const __u32 dir = hook == HOOK_CONTAINER ? DIR_EGRESS : DIR_INGRESS;
	struct work *w = work_area();
	struct node *node = node_state();
	bool reply;
	int reason;

	if (!p)
		return TC_ACT_SHOT;
	if (!w || !node)
		return drop(p, NULL, DROP_INTERNAL, dir);
	/* A port is used again after its connection has ended: who had the old one's backend need not be one any more. */
	if (known && is_syn(p) && !in_half && !(known->flags & FLOW_REPLY) && known->state >= FLOW_CLOSING &&
	    known->proto == IPPROTO_TCP && !cfg_dry_run && tcp_step(skb, p, known) == TCP_BEGINS)
		known = NULL;
	/* The first packet after a change may also be the last one. */
	if (known && p->key.proto == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST)) && !in_half &&
	    !cfg_dry_run)
		tcp_ends(skb, p, known);
	w->epoch = node->epoch;
	w->jiffies = now();
	w->tcp_flags = p->tcp_flags;
	w->pass = 0;
	w->claimed = 0;
	w->keep_port = 0;
	w->had_old = 0;
	w->redirected = 0;
	w->one_way = 0;
	w->service_direct = 0;
	w->len = p->len;
	w->half_ifindex = 0;
	w->pickup = node->pickup;
	w->tunnel = node->tunnel;
	w->published = node->published || services_active();
	w->reply = known && (known->flags & FLOW_REPLY);
	w->info.rule = 0;
	w->info.error = 0;
	w->info.src_identity = 0;
	w->info.dst_identity = 0;
	reply = w->reply;
	if (known) {
		w->known = *known;
		w->had_old = 1;
		other_key(&w->old_rev, &w->known);
		w->old_rev.proto = p->key.proto;
		if (reply) {
			w->fwd = w->old_rev;
			w->old_rev = p->key;
		} else {
			w->fwd = p->key;
		}
		if (w->known.flags & FLOW_SNAT)
			w->keep_port = w->old_rev.dport;
	} else {
		w->fwd = p->key;
	}
	w->direct = p->key.proto == IPPROTO_TCP && !known && opens_tcp(w) &&
		    node->half_open < (__s32)cfg_half_limit;
	if (known || hook == HOOK_HOST || !decided_before(w, skb->ifindex)) {
		reason = decide(skb);
		if (!reason && !known && hook != HOOK_HOST && !w->pass)
			keep_decision(skb->ifindex);
	} else {
		reason = DROP_NONE;
	}
	barrier_var(w); /* field addresses are worked out anew rather than kept on the stack */
	if (w->pass && !reason) {
		if (w->had_old && !cfg_dry_run)
			forget(&w->fwd, &w->old_rev);
		return CONTINUE;
	}
	if (!reason && !cfg_dry_run)
		reason = unlikely(w->one_way) ? commit_one_way() : commit(in_half);
	if (reason) {
		const bool refused = reason == DROP_SERVICE_EMPTY || reason == DROP_SERVICE_PORT ||
				     (reason == DROP_SERVICE_NOT_LOCAL && hook == HOOK_CONTAINER);

		if (known && !cfg_dry_run) {
			if (in_half)
				half_drop(w, &w->old_rev);
			else if (refused)
				forget(&w->fwd, &w->old_rev);
			else
				deny_known(known, reason);
		}
		if (cfg_dry_run)
			report_denied(w);
		log_decision(p, (__u32)reason);
		drop(p, &w->info, reason, w->direction);
		return refused && !reply ? refuse(skb, p, hook) : TC_ACT_SHOT;
	}
	log_decision(p, DROP_NONE);
	barrier_var(w);
	barrier_var(p);
	if (reply && !same_key(&p->key, &w->rev)) {
		/* The flow is translated in another way now; this answer belongs to the old one. */
		return drop(p, &w->info, DROP_ICMP_UNRELATED, dir);
	}
	if (!cfg_dry_run && !w->had_old && node->trace)
		emit_event(p, &w->info, EVENT_NEW_FLOW, 0, dir);
	return forward(skb, p, reply ? &w->r : &w->f, hook);
}

/* forward() for the rare cases, out of the way of the others. */
__noinline int forward_from_container(struct __sk_buff *skb, struct packet *p, struct flow *e)
{
	if (!p || !e)
		return TC_ACT_SHOT;
	return forward(skb, p, e, HOOK_CONTAINER);
}

/*
 * p is the SYN of a connection that differs only in its source port from one just decided: both entries are made from
 * that decision, and the packet goes on. HOT_MISS: it has to be looked at. smac: the packet's Ethernet source.
 */
__noinline int open_again(struct __sk_buff *skb, struct packet *p, __u64 smac)
{
	__u64 jiffies = bpf_jiffies64();
	struct node *node = node_state();
	struct work *w = work_area();
	struct decision *d;

	if (!p || !node || !w || cfg_dry_run || node->trace || node->half_open >= (__s32)cfg_half_limit)
		return HOT_MISS;
	d = decision_about(&p->key, node->epoch);
	/* Its answers may be those of a flow to a service or a published port, which has a mark where this one's is. */
	if (d && (node->published || services_active()) && may_be_flow(&p->key))
		return HOT_MISS;
	if (!d || d->f.reason || smac != mac_bits(d->f.from_mac))
		return HOT_MISS;
	d->f.sport = p->key.sport;
	d->f.last = (__u32)jiffies;
	d->f.created = jiffies;
	d->f.packets = 1;
	d->f.bytes = p->len;
	d->r.dport = p->key.sport;
	d->r.last = (__u32)jiffies;
	d->r.created = jiffies;
	d->rev.dport = p->key.sport;
	w->fwd = p->key; /* before 6.2 an argument's memory can't be a map's key */
	if (young_may(d) && young_open(&w->fwd, d))
		return forward_from_container(skb, p, &d->f);
	/* Before the entries: a locked instruction behind them would wait until they are in the cache. */
	count_half_open(1);
	mark_flow(&w->fwd);
	/* Not new, or no room: the slow path sees to it. */
	if (bpf_map_update_elem(&flows, &w->fwd, &d->f, BPF_NOEXIST)) {
		count_half_open(-1);
		return HOT_MISS;
	}
	if (bpf_map_update_elem(&flows, &d->rev, &d->r, BPF_ANY)) {
		bpf_map_delete_elem(&flows, &w->fwd);
		count_half_open(-1);
		return HOT_MISS;
	}
	log_again(d, node);
	return forward_from_container(skb, p, &d->f);
}

/* p answers a half-open flow, whose entry for the answers is h: it is decided again, or goes on as h says. */
static __always_inline int forward_half(struct __sk_buff *skb, struct packet *p, struct flow *h,
					const struct node *node, const __u32 hook)
{
	if (h->epoch != node->epoch)
		return slow_path(skb, p, h, 1, hook);
	if (!cfg_dry_run)
		h->state = FLOW_SYNACK;
	return hook == HOOK_CONTAINER ? forward_from_container(skb, p, h) : forward(skb, p, h, hook);
}
