/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Carrying out what a flow entry says: the fast path. */
#pragma once
#include "bandwidth.h"
#include "nat.h"
#include "hot.h"
#include "icmp_reply.h"
#include "tunnel.h"

/* The key of the other direction, from e's translated tuple. */
static __always_inline void other_key(struct flow_key *k, const struct flow *e)
{
	k->saddr = e->daddr;
	k->daddr = e->saddr;
	k->sport = e->dport;
	k->dport = e->sport;
	k->proto = e->proto;
	k->ifindex = e->peer_ifindex;
	k->pad[0] = 0;
	k->pad[1] = 0;
	k->pad[2] = 0;
}

/* The entry of a half-open flow for p, if p is one of its answers. */
static __always_inline struct flow *half_answer(struct packet *p, __u32 half_ifindex)
{
	struct work *w = work_area();
	struct half_flow *h;

	if (!w)
		return NULL;
	w->fwd = p->key;
	w->fwd.ifindex = half_ifindex;
	h = bpf_map_lookup_elem(&half, &w->fwd);
	return h && h->f.peer_ifindex == p->key.ifindex ? &h->r : NULL;
}

enum tcp_step {
	TCP_GOES_ON = 0,
	TCP_BEGINS = 1, /* the tuple is used for a new connection; both entries are gone */
	TCP_ENDED = 2, /* both entries are gone; a copy for this last packet is in work.f */
};

/* Sequence numbers of a packet of len IP bytes, header at off, in host order; the FIN counts as one byte. */
static __always_inline int tcp_numbers(struct __sk_buff *skb, __u32 off, __u32 len, __u32 *end, __u32 *ack)
{
	void *data = (void *)(long)skb->data;
	struct tcphdr t;
	__u32 head;

	if (likely(off <= 512 && data + off + sizeof(t) <= (void *)(long)skb->data_end))
		memcpy(&t, data + off, sizeof(t));
	else if (bpf_skb_load_bytes(skb, off, &t, sizeof(t)))
		return -1;
	head = off - L3_OFF + t.doff * 4;
	*end = bpf_ntohl(t.seq) + (len > head ? len - head : 0) + 1;
	*ack = bpf_ntohl(t.ack_seq);
	return 0;
}

static __always_inline void count_half_open(__s32 n)
{
	struct node *node = node_state();

	if (node)
		__sync_fetch_and_add(&node->half_open, n);
}

/*
 * A packet of a flow that is not open in this direction. The answer tells the opener's entry, whose next
 * acknowledgement then opens it: what only sends, and forges its address, stays half-open.
 */
static __always_inline void tcp_handshake(const struct packet *p, struct flow *e)
{
	struct flow_key k;
	struct flow *other;

	if (e->flags & FLOW_REPLY) {
		other_key(&k, e);
		other = bpf_map_lookup_elem(&flows, &k);
		if (other && other->state == FLOW_NEW)
			other->state = FLOW_SYNACK;
		e->state = FLOW_OPEN;
	} else if (e->state == FLOW_SYNACK && (p->tcp_flags & TCP_ACK)) {
		e->state = FLOW_OPEN;
		count_half_open(-1);
	}
}

/* What a packet with these flags and numbers does to a flow that ends. */
static __always_inline void tcp_closing(__u8 flags, struct flow *e, struct flow *other, __u32 end, __u32 ack)
{
	if ((flags & TCP_FIN) && e->state != FLOW_CLOSED) {
		e->fin_end = end;
		e->state = FLOW_CLOSING;
	}
	if (other && other->state == FLOW_CLOSING && (flags & TCP_ACK) && ack == other->fin_end)
		other->state = FLOW_CLOSED;
	if (flags & TCP_RST) {
		e->state = FLOW_CLOSED;
		if (other)
			other->state = FLOW_CLOSED;
	}
}

/* What a packet that may end the flow e does to it; other: the entry of the other direction, at k. False: it is cut off. */
static __always_inline bool tcp_note_end(struct __sk_buff *skb, const struct packet *p, struct flow *e,
					 const struct flow_key *k, struct flow *other)
{
	__u32 end, ack;

	if (tcp_numbers(skb, p->l4_off, p->len, &end, &ack))
		return false;
	if ((p->tcp_flags & (TCP_FIN | TCP_RST)) && e->state < FLOW_CLOSING) {
		struct flow *opener = e->flags & FLOW_REPLY ? other : e;

		hot_forget(&p->key, e);
		if (other && (p->tcp_flags & TCP_RST))
			hot_forget(k, other);
		if (opener && opener->state < FLOW_OPEN && ((p->tcp_flags & TCP_RST) || opener == e))
			count_half_open(-1);
	}
	tcp_closing(p->tcp_flags, e, other, end, ack);
	return true;
}

/* The same for a packet after which the flow is decided again: both entries stay. Returns 0. */
__noinline int tcp_ends(struct __sk_buff *skb, struct packet *p, struct flow *e)
{
	struct flow_key k;
	struct flow *other;

	if (!p || !e || p->fragment == FRAGMENT_LATER)
		return 0;
	other_key(&k, e);
	other = bpf_map_lookup_elem(&flows, &k);
	tcp_note_end(skb, p, e, &k, other);
	return 0;
}

/*
 * Rare: FIN, RST or SYN, or a flow that is being opened or closed. Between two containers nothing is lost after this hook, so
 * their entries go with the last acknowledgement and the next connection finds them in the cache; others expire.
 */
__noinline int tcp_step(struct __sk_buff *skb, struct packet *p, struct flow *e)
{
	struct work *w = work_area();
	struct flow_key k;
	struct flow *other;

	if (!p || !e || !w)
		return TCP_GOES_ON;
	if (is_syn(p)) {
		/* Used again after its end, or opened from the other side while it is denied from this one. */
		if (e->flags & FLOW_REPLY ? e->action != ACTION_DROP : e->state < FLOW_CLOSING)
			return TCP_GOES_ON;
		if (!cfg_dry_run) {
			other_key(&k, e);
			bpf_map_delete_elem(&flows, &k);
			w->fwd = p->key; /* before 6.2 an argument's memory can't be a map's key */
			bpf_map_delete_elem(&flows, &w->fwd);
		}
		return TCP_BEGINS;
	}
	if (cfg_dry_run || p->fragment == FRAGMENT_LATER)
		return TCP_GOES_ON;
	if (e->state < FLOW_OPEN && !(p->tcp_flags & TCP_RST)) {
		tcp_handshake(p, e);
		if (!(p->tcp_flags & TCP_FIN))
			return TCP_GOES_ON;
	}
	other_key(&k, e);
	other = bpf_map_lookup_elem(&flows, &k);
	if (!tcp_note_end(skb, p, e, &k, other))
		return TCP_GOES_ON;
	if (!other || e->state != FLOW_CLOSED || other->state != FLOW_CLOSED || e->action != ACTION_PEER ||
	    other->action != ACTION_PEER)
		return TCP_GOES_ON;
	{
		struct log_scratch *s = log_area(LOG_OF_PACKETS);

		/* This packet is the last one. */
		e->packets++;
		e->bytes += p->len;
		if (unlikely(e->flags & FLOW_SERVICE))
			service_ends(e->flags & FLOW_REPLY ? &k : &p->key, e, other);
		if (s && (e->flags & FLOW_REPLY))
			log_end(s, &k.saddr, k.ifindex, other, e);
		else if (s)
			log_end(s, &p->key.saddr, p->key.ifindex, e, other);
	}
	w->f = *e;
	bpf_map_delete_elem(&flows, &k);
	w->fwd = p->key;
	bpf_map_delete_elem(&flows, &w->fwd);
	return TCP_ENDED;
}

static __always_inline bool tcp_goes_on(__u8 flags, const struct flow *e)
{
	return likely(!(flags & (TCP_SYN | TCP_FIN | TCP_RST)) && e->state == FLOW_OPEN);
}

static __always_inline bool tcp_is_plain(const struct packet *p, const struct flow *e)
{
	return tcp_goes_on(p->tcp_flags, e);
}

/* Is the packet, or a segment of it, larger than what the way out carries? */
static __always_inline bool too_big(struct __sk_buff *skb, struct packet *p, const struct flow *e)
{
	__u32 size = p->len;

	if (!e->mtu || size <= e->mtu)
		return false;
	if (skb->gso_size) {
		/* Transport header: TCP with options is at most 60 bytes, UDP 8; options cost 12 as a rule. */
		size = skb->gso_size + (p->l4_off - L3_OFF) + (p->key.proto == IPPROTO_TCP ? 20 : 8);
	}
	return size > e->mtu;
}

static __always_inline int report(struct packet *p, const struct flow *e)
{
	__u32 zero = 0;
	struct trace *t = bpf_map_lookup_elem(&trace_map, &zero);

	if (t) {
		t->key = p->key;
		t->flow = *e;
		t->reason = DROP_NONE;
		t->rule = 0;
		t->src_identity = e->src_identity;
		t->dst_identity = e->dst_identity;
	}
	return TC_ACT_OK;
}

/* A packet of a flow that was denied while it was open. */
__noinline int drop_denied(struct packet *p, struct flow *e)
{
	struct verdict_info info = {};
	__u32 direction = DIR_INGRESS;

	if (!p || !e)
		return TC_ACT_SHOT;
	info.rule = e->rule_ingress;
	info.src_identity = e->src_identity;
	info.dst_identity = e->dst_identity;
	if (e->reason == DROP_POLICY_EGRESS) {
		info.rule = e->rule_egress;
		direction = DIR_EGRESS;
	}
	if (!cfg_dry_run) {
		struct log_scratch *s = log_area(LOG_OF_PACKETS);

		e->last = now();
		if (s) {
			const bool reply = e->flags & FLOW_REPLY;

			log_begin(s);
			s->key.saddr = reply ? e->daddr : p->key.saddr;
			s->key.daddr = reply ? p->key.saddr : e->daddr;
			s->key.ifindex = reply ? e->peer_ifindex : p->key.ifindex;
			s->value.sample = s->key.saddr;
			if (s->key.ifindex <= FLOW_IF_HOST)
				memset(&s->key.saddr, 0, sizeof(s->key.saddr));
			s->key.src_identity = e->src_identity;
			s->key.rule_egress = e->rule_egress;
			s->key.rule_ingress = e->rule_ingress;
			s->key.proto = e->proto;
			if (has_ports(e->proto))
				s->key.dport = reply ? p->key.sport : e->dport;
			s->key.reason = e->reason;
			s->key.direction = (__u8)direction;
			s->value.dst_identity = e->dst_identity;
			s->prepared = 1;
		}
	}
	return drop(p, &info, e->reason, direction);
}

/* Sends the packet on as e says. `hook` is a constant. */
static __always_inline int forward(struct __sk_buff *skb, struct packet *p, struct flow *e, const __u32 hook)
{
	const __u32 dir = (hook == HOOK_CONTAINER || hook == HOOK_L2_EGRESS) ? DIR_EGRESS : DIR_INGRESS;
	__u8 action = e->action;
	__u32 oif = e->oif;
	int reason;

	if (unlikely(action == ACTION_DROP))
		return drop_denied(p, e);
	if (cfg_dry_run)
		return report(p, e);
	if (unlikely(e->flags & (FLOW_TTL | FLOW_LIMIT))) {
		if (e->flags & FLOW_LIMIT) {
			const bool inside = hook == HOOK_HOST || hook == HOOK_L2_INGRESS;
			__u32 device = skb->ifindex, own;

			/* Kept apart: the verifier refuses a pointer that is one or the other. */
			asm volatile("" : "+r"(device));
			own = hook == HOOK_HOST ? device : p->key.ifindex;
			if (over_limit(dir == DIR_EGRESS ? own : 0,
				       inside                  ? own
				       : action == ACTION_PEER ? oif
							       : 0,
				       p->len))
				return drop(p, NULL, DROP_BANDWIDTH, dir);
		}
		if ((hook == HOOK_CONTAINER || hook == HOOK_UPLINK) && (e->flags & FLOW_TTL)) {
			if (p->ttl <= 1)
				return reply_error(skb, p, DROP_TTL, 0);
			if (hook == HOOK_CONTAINER && too_big(skb, p, e))
				return reply_error(skb, p, DROP_TOO_BIG, e->mtu);
		}
	}
	e->last = now();
	e->packets++;
	e->bytes += p->len;
	count(dir, DROP_NONE, p->len);
	if (hook == HOOK_HOST && (e->flags & FLOW_NAT)) {
		/* The answer of a service's backend that is this host itself. */
		reason = rewrite(skb, p, e);
		return reason ? drop(p, NULL, reason, dir) : CONTINUE;
	}
	if (hook == HOOK_HOST || hook == HOOK_L2_EGRESS || hook == HOOK_L2_INGRESS)
		return CONTINUE;
	if (likely(action == ACTION_PEER)) {
		void *data = (void *)(long)skb->data;
		void *end = (void *)(long)skb->data_end;

		if (unlikely(data + L3_OFF > end))
			return drop(p, NULL, DROP_INVALID, dir);
		/* Ethernet first: the checksum helpers below make the pointers stale. */
		write_macs(data, e->dmac);
	}
	if (unlikely(e->flags & (FLOW_NAT | FLOW_TTL))) {
		reason = rewrite(skb, p, e);
		if (reason)
			return drop(p, NULL, reason, dir);
	}
	if (hook == HOOK_CONTAINER && unlikely(e->packets > HOT_AFTER) &&
	    (action == ACTION_PEER || action == ACTION_NEIGH))
		hot_remember(p, e);
	if (likely(action == ACTION_PEER)) {
		if (unlikely(skb->pkt_type != PACKET_HOST))
			bpf_skb_change_type(skb, PACKET_HOST);
		return (int)bpf_redirect_peer(oif, 0);
	}
	if (action == ACTION_NEIGH) {
		struct bpf_redir_neigh nh = {};

		if (p->v6) {
			nh.nh_family = AF_INET6;
			memcpy(nh.ipv6_nh, &e->nexthop, 16);
		} else {
			nh.nh_family = AF_INET;
			nh.ipv4_nh = e->nexthop.w[3];
		}
		return (int)bpf_redirect_neigh(oif, &nh, sizeof(nh), 0);
	}
	if (action == ACTION_TUNNEL)
		return tunnel_send(skb, e);
	return CONTINUE;
}
