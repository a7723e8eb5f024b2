/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * New TCP connections between two containers, out of the flow table: a connection of a few packets costs more in
 * insertions, look-ups of two cold entries and removals than in all the rest. Both directions are in one place of an
 * array, which both find without a hash table. Whatever is not the usual life of a short connection (a new epoch, more
 * packets, an ICMP error, a second without any) moves it to the flow table first. If its place is taken, a connection
 * begins in the flow table.
 */
#pragma once
#include "flow.h"
#include "flow_marks.h"

/* Packets of one direction after which a flow goes to the flow table, and from there to the busy ones. */
#define YOUNG_PACKETS 16

enum young_side {
	YOUNG_NEITHER = 0,
	YOUNG_OPENER = 1,
	YOUNG_ANSWER = 2,
};

/* No place: another flow's packet. */
#define YOUNG_NOWHERE YOUNG_FLOWS

/* With TCP flags: the packet is an answer. */
#define YOUNG_REPLY 256

/* The last words of both addresses. */
static __always_inline __u32 young_set_between(__be32 a, __be32 b)
{
	return (((a ^ b) * 0x9e3779b1) >> 16) & (YOUNG_SETS - 1);
}

static __always_inline __u32 young_set_of(const struct flow_key *k)
{
	return young_set_between(k->saddr.w[3], k->daddr.w[3]);
}

static __always_inline struct young_set *young_set_at(__u32 set)
{
	return bpf_map_lookup_elem(&young_sets, &set);
}

/* The same number for both directions, 0 for none that ever occurs. */
static __always_inline __u32 young_ports_of(__be16 a, __be16 b)
{
	return ((__u32)a + b) << 16 | (__u16)(a ^ b);
}

static __always_inline __u32 young_ports(const struct flow_key *k)
{
	return young_ports_of(k->sport, k->dport);
}

/* The set for flows with these ports when the one with this number, of their addresses, is full. */
static __always_inline __u32 young_set_behind(__u32 number, __u32 ports)
{
	return YOUNG_SETS + (((ports + number) * 0x9e3779b1) >> 24);
}
_Static_assert(YOUNG_MORE_SETS == 1 << (32 - 24), "the bits that young_set_behind() leaves");

/* The place in this set of the flow with these ports. At most YOUNG_WAYS rounds. */
static __always_inline __u32 young_way(const struct young_set *set, __u32 number, __u32 ports)
{
#pragma unroll
	for (__u32 i = 0; i < YOUNG_WAYS; i++)
		if (set->ports[i] == ports)
			return number * YOUNG_WAYS + i;
	return YOUNG_NOWHERE;
}

/* The place of the flow with these ports and addresses of the set with this number. */
static __always_inline __u32 young_slot_in(__u32 number, __u32 ports)
{
	struct young_set *set = young_set_at(number);
	__u32 slot;

	if (!set || !ports)
		return YOUNG_NOWHERE;
	slot = young_way(set, number, ports);
	if (slot != YOUNG_NOWHERE || likely(!set->more))
		return slot;
	number = young_set_behind(number, ports);
	set = young_set_at(number);
	return set ? young_way(set, number, ports) : YOUNG_NOWHERE;
}

/* The place of a young flow whose packets may look like k. */
static __always_inline __u32 young_slot(const struct flow_key *k)
{
	return young_slot_in(young_set_of(k), young_ports(k));
}

static __always_inline struct young_flow *young_at(__u32 slot)
{
	return bpf_map_lookup_elem(&young, &slot);
}

/* Whose packets look like k, which is of TCP? */
static __always_inline enum young_side young_side(const struct young_flow *y, const struct flow_key *k)
{
	if (!(y->owner & YOUNG_LIVE))
		return YOUNG_NEITHER;
	if (y->fwd.sport == k->sport && y->fwd.dport == k->dport && y->fwd.ifindex == k->ifindex &&
	    addr_equal(&y->fwd.saddr, &k->saddr) && addr_equal(&y->fwd.daddr, &k->daddr))
		return YOUNG_OPENER;
	if (y->fwd.sport == k->dport && y->fwd.dport == k->sport && y->f.peer_ifindex == k->ifindex &&
	    addr_equal(&y->fwd.saddr, &k->daddr) && addr_equal(&y->fwd.daddr, &k->saddr))
		return YOUNG_ANSWER;
	return YOUNG_NEITHER;
}

/* y, which is at slot, is nobody's any more. */
static __always_inline void young_free(struct young_flow *y, __u32 slot)
{
	struct young_set *set = young_set_at(slot / YOUNG_WAYS), *first;

	if (slot >= YOUNG_SETS * YOUNG_WAYS) {
		first = young_set_at(young_set_of(&y->fwd));
		if (first)
			__sync_fetch_and_add(&first->more, -1);
	}
	y->owner = YOUNG_FREE;
	barrier();
	if (set)
		set->ports[slot % YOUNG_WAYS] = 0;
}

/* What e, whose copy had so many packets and bytes, has got since goes to its entry in the flow table. */
static __always_inline void young_catch_up(const struct flow_key *k, const struct flow *e, __u64 packets,
					   __u64 bytes)
{
	struct flow *copy = bpf_map_lookup_elem(&flows, k);

	if (!copy)
		return;
	copy->packets += e->packets - packets;
	copy->bytes += e->bytes - bytes;
	copy->state = e->state;
	copy->fin_end = e->fin_end;
}

/* Says in the log that y was opened, and what went through it, if it ends. */
static __always_inline void young_log(const struct young_flow *y, __u32 log, bool ends)
{
	struct log_scratch *s = log_area(log);

	if (!s)
		return;
	log_flow(s, &y->fwd.saddr, y->fwd.ifindex, &y->f);
	if (ends)
		log_counts(s, &y->f, &y->r);
	s->value.flows = 1;
	log_add(s);
}

/* Ends a flow that is not open and finds no room in the flow table. */
__noinline int young_drop(__u32 slot, __u32 log)
{
	struct young_flow *y = young_at(slot);

	if (!y || __sync_val_compare_and_swap(&y->owner, YOUNG_LIVE, YOUNG_BUSY) != YOUNG_LIVE)
		return 1;
	young_log(y, log, true);
	young_free(y, slot);
	return 0;
}

/*
 * Moves a flow to the flow table, and says in the log that it was opened. Returns 0 if it is there and its place free.
 * What is half-open stays in a flood: the flow table has enough of these. log: the scratch of who calls.
 */
__noinline int young_move(__u32 slot, __u32 log)
{
	struct young_flow *y = young_at(slot);
	struct node *node = node_state();
	__u64 sent, sent_bytes, answered, answered_bytes;

	if (!y || !node || (y->f.state < FLOW_OPEN && node->half_open >= (__s32)cfg_half_limit) ||
	    __sync_val_compare_and_swap(&y->owner, YOUNG_LIVE, YOUNG_MOVING) != YOUNG_LIVE)
		return 1;
	sent = y->f.packets;
	sent_bytes = y->f.bytes;
	answered = y->r.packets;
	answered_bytes = y->r.bytes;
	mark_flow(&y->fwd);
	if (bpf_map_update_elem(&flows, &y->rev, &y->r, BPF_ANY)) {
		y->owner = YOUNG_LIVE;
		return 1;
	}
	if (bpf_map_update_elem(&flows, &y->fwd, &y->f, BPF_ANY)) {
		bpf_map_delete_elem(&flows, &y->rev);
		y->owner = YOUNG_LIVE;
		return 1;
	}
	y->owner = YOUNG_BUSY;
	barrier();
	/* Packets on another CPU, or between the instructions of expiry, in the meantime. */
	if (unlikely(y->f.packets != sent || y->r.packets != answered)) {
		young_catch_up(&y->fwd, &y->f, sent, sent_bytes);
		young_catch_up(&y->rev, &y->r, answered, answered_bytes);
	}
	if (y->f.state < FLOW_OPEN)
		count_half_open(1);
	young_log(y, log, false);
	young_free(y, slot);
	return 0;
}

/* If packets like w->fwd, or w->rev, are those of a young flow, it is in the flow table afterwards. */
__noinline int young_settle(__u32 rev)
{
	struct work *w = work_area();
	struct young_flow *y;
	struct flow_key *k;
	__u32 slot;

	if (!w || cfg_dry_run)
		return 0;
	k = rev ? &w->rev : &w->fwd;
	if (k->proto != IPPROTO_TCP)
		return 0;
	slot = young_slot(k);
	y = young_at(slot);
	if (y && young_side(y, k) != YOUNG_NEITHER)
		young_move(slot, LOG_OF_PACKETS);
	return 0;
}

/* May a young flow have packets like w->rev? */
__noinline int young_answers(void)
{
	struct work *w = work_area();

	return w && young_slot(&w->rev) != YOUNG_NOWHERE;
}

/*
 * tcp_step() for the flow at slot and a packet with these flags and so many IP bytes, whose transport header is at off,
 * 0: there is none. TCP_ENDED: who called forwards the packet and frees the place.
 */
__noinline int young_step(struct __sk_buff *skb, __u32 slot, __u32 tcp_flags, __u32 len, __u32 off)
{
	const bool reply = tcp_flags & YOUNG_REPLY;
	const __u8 flags = (__u8)tcp_flags;
	struct young_flow *y = young_at(slot);
	struct flow *e, *other;
	__u32 tcp_end, ack;

	if (!y)
		return TCP_GOES_ON;
	e = reply ? &y->r : &y->f;
	other = reply ? &y->f : &y->r;
	if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
		/* Used again after its end, or opened from the other side at the same time. */
		if (reply || e->state < FLOW_CLOSING || young_move(slot, LOG_OF_PACKETS))
			return TCP_GOES_ON;
		return TCP_BEGINS;
	}
	if (!off)
		return TCP_GOES_ON;
	if (e->state < FLOW_OPEN && !(flags & TCP_RST)) {
		if (reply) {
			if (other->state == FLOW_NEW)
				other->state = FLOW_SYNACK;
			e->state = FLOW_OPEN;
		} else if (e->state == FLOW_SYNACK && (flags & TCP_ACK)) {
			e->state = FLOW_OPEN;
		}
		if (!(flags & TCP_FIN))
			return TCP_GOES_ON;
	}
	if (tcp_numbers(skb, off, len, &tcp_end, &ack))
		return TCP_GOES_ON;
	tcp_closing(flags, e, other, tcp_end, ack);
	if (e->state != FLOW_CLOSED || other->state != FLOW_CLOSED ||
	    __sync_val_compare_and_swap(&y->owner, YOUNG_LIVE, YOUNG_BUSY) != YOUNG_LIVE)
		return TCP_GOES_ON;
	/* This packet is the last one. */
	e->packets++;
	e->bytes += len;
	young_log(y, LOG_OF_PACKETS, true);
	return TCP_ENDED;
}

/* Forwards a packet of y, which is at slot. Arguments as for young_step(). HOT_MISS: the flow has been moved. */
static __always_inline int young_forward(struct __sk_buff *skb, struct young_flow *y, __u32 slot, __u32 flags,
					 __u32 len, __u32 off)
{
	struct flow *e = flags & YOUNG_REPLY ? &y->r : &y->f;
	int step = TCP_GOES_ON;
	void *data;
	__u32 oif;

	if (!tcp_goes_on((__u8)flags, e)) {
		step = young_step(skb, slot, flags, len, off);
		if (step == TCP_BEGINS)
			return HOT_MISS;
	}
	e->last = now();
	e->packets++;
	e->bytes += len;
	count(DIR_EGRESS, DROP_NONE, len);
	oif = e->oif;
	data = (void *)(long)skb->data;
	if (likely(data + L3_OFF <= (void *)(long)skb->data_end))
		write_macs(data, e->dmac);
	if (step == TCP_ENDED)
		young_free(y, slot);
	if (unlikely(skb->pkt_type != PACKET_HOST))
		bpf_skb_change_type(skb, PACKET_HOST);
	return (int)bpf_redirect_peer(oif, 0);
}

/* Forwards a TCP packet of a container, if it is one of a young flow, or HOT_MISS. */
__noinline int young_packet(struct __sk_buff *skb, struct packet *p)
{
	struct node *node = node_state();
	struct young_flow *y;
	enum young_side side;
	void *data, *end;
	struct flow *e;
	__u32 slot;

	if (!p || !node)
		return HOT_MISS;
	slot = young_slot(&p->key);
	y = young_at(slot);
	if (!y)
		return HOT_MISS;
	side = young_side(y, &p->key);
	if (side == YOUNG_NEITHER)
		return HOT_MISS;
	e = side == YOUNG_ANSWER ? &y->r : &y->f;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + L3_OFF > end)
		return drop(p, NULL, DROP_INVALID, DIR_EGRESS);
	if (unlikely(!mac_equal(data + ETH_ALEN, e->from_mac)))
		return drop(p, NULL, DROP_SPOOFED_MAC, DIR_EGRESS);
	if (unlikely(e->epoch != node->epoch || e->packets >= YOUNG_PACKETS)) {
		if (!young_move(slot, LOG_OF_PACKETS))
			return HOT_MISS;
		if (y->f.state < FLOW_OPEN && !young_drop(slot, LOG_OF_PACKETS))
			return HOT_MISS;
		if (e->epoch != node->epoch)
			return drop(p, NULL, DROP_FLOW_FULL, DIR_EGRESS);
	}
	return young_forward(skb, y, slot, p->tcp_flags | (side == YOUNG_ANSWER ? YOUNG_REPLY : 0), p->len,
			     p->fragment == FRAGMENT_LATER ? 0 : p->l4_off);
}

/*
 * young_packet() for what most packets are: IPv4 with 20 bytes of header, no fragment, not the first SYN, headers read
 * by quick_forward(). HOT_MISS: it has to be looked at with all its headers.
 */
__noinline int young_usual(struct __sk_buff *skb, __u32 saddr, __u32 daddr, __u32 ports)
{
	const __u32 turned = ports >> 16 | ports << 16;
	struct node *node = node_state();
	__u32 number = young_set_between(saddr, daddr);
	__u32 slot = young_slot_in(number, young_ports_of((__be16)ports, (__be16)(ports >> 16)));
	struct young_flow *y = young_at(slot);
	void *data = (void *)(long)skb->data;
	__u8 *tcp = data + L3_OFF + sizeof(struct iphdr);
	const struct flow *e;
	__u32 flags;

	if (!node || !y || tcp + 14 > (__u8 *)(long)skb->data_end || !(y->owner & YOUNG_LIVE) ||
	    !addr_is_v4(&y->fwd.saddr))
		return HOT_MISS;
	flags = tcp[13];
	if (y->fwd.saddr.w[3] == saddr && y->fwd.daddr.w[3] == daddr && hot_ports(&y->fwd.sport) == ports &&
	    y->fwd.ifindex == skb->ifindex) {
		e = &y->f;
	} else if (y->fwd.saddr.w[3] == daddr && y->fwd.daddr.w[3] == saddr &&
		   hot_ports(&y->fwd.sport) == turned && y->f.peer_ifindex == skb->ifindex) {
		e = &y->r;
		flags |= YOUNG_REPLY;
	} else {
		return HOT_MISS;
	}
	if (((struct ethhdr *)data)->h_proto != bpf_htons(ETH_P_IP) ||
	    !mac_equal(data + ETH_ALEN, e->from_mac) || (*(__u8 *)data & 1) || e->epoch != node->epoch ||
	    e->packets >= YOUNG_PACKETS)
		return HOT_MISS;
	return young_forward(skb, y, slot, flags, skb->len - L3_OFF, L3_OFF + sizeof(struct iphdr));
}

/* May flows that are decided like d begin here: do both directions lead into a container as they are? */
static __always_inline bool young_may(const struct decision *d)
{
	return d->f.action == ACTION_PEER && d->r.action == ACTION_PEER && !d->f.flags &&
	       d->r.flags == FLOW_REPLY;
}

/* A free place in this set, now that of the flow with these ports. At most YOUNG_WAYS rounds. */
static __always_inline __u32 young_take(struct young_set *set, __u32 number, __u32 ports)
{
#pragma unroll
	for (__u32 i = 0; i < YOUNG_WAYS; i++)
		if (!set->ports[i] && !__sync_val_compare_and_swap(&set->ports[i], 0, ports))
			return number * YOUNG_WAYS + i;
	return YOUNG_NOWHERE;
}

/* A free place for the flow with the key k, now taken; YOUNG_NOWHERE: none, or one with these ports is there. */
static __always_inline __u32 young_claim(const struct flow_key *k)
{
	__u32 number = young_set_of(k), ports = young_ports(k), behind, slot;
	struct young_set *first = young_set_at(number), *set;

	if (!first || !ports || young_slot(k) != YOUNG_NOWHERE)
		return YOUNG_NOWHERE;
	slot = young_take(first, number, ports);
	if (slot != YOUNG_NOWHERE)
		return slot;
	behind = young_set_behind(number, ports);
	set = young_set_at(behind);
	/* Flows of other addresses may have it. */
	if (!set || young_way(set, behind, ports) != YOUNG_NOWHERE)
		return YOUNG_NOWHERE;
	slot = young_take(set, behind, ports);
	if (slot != YOUNG_NOWHERE)
		__sync_fetch_and_add(&first->more, 1);
	return slot;
}

/* The SYN with the key k opens a flow as d says. False: there is one, or no place. */
static __always_inline bool young_open(const struct flow_key *k, const struct decision *d)
{
	struct young_flow *y;

	if (may_be_flow(k) && bpf_map_lookup_elem(&flows, k))
		return false;
	y = young_at(young_claim(k));
	if (!y)
		return false;
	y->fwd = *k;
	y->rev = d->rev;
	y->f = d->f;
	y->r = d->r;
	barrier();
	y->owner = YOUNG_LIVE;
	return true;
}

/*
 * Forwards a packet of a hot flow or a young one, or HOT_MISS: what is done for nearly every packet, so it has as few
 * instructions as it can, in one piece, and touches three cache lines of ours.
 */
static __always_inline int quick_forward(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	struct iphdr *ip = data + L3_OFF;
	__u8 *l4 = (void *)(ip + 1);
	struct hot_table *t;
	struct hot_flow *h;
	struct node *node;
	__u32 ports, len;
	__u64 addrs;
	__be32 kind;

	if (unlikely(l4 + 14 > (__u8 *)(long)skb->data_end || *(__u8 *)ip != 0x45))
		return HOT_MISS;
	kind = hot_kind(ip);
	ports = hot_ports((__be16 *)l4);
	if (kind == bpf_htonl(IPPROTO_TCP) && unlikely(l4[13] & (TCP_SYN | TCP_FIN | TCP_RST)))
		goto other;
	t = hot_table();
	if (unlikely(!t))
		return HOT_MISS;
	addrs = hot_addrs(&ip->saddr);
	h = &t->flows[hot_index(addrs, ports)];
	if (unlikely(hot_addrs(&h->saddr) != addrs || hot_ports(&h->sport) != ports))
		goto other;
	if (unlikely(bpf_htonl(h->proto) != kind || h->ifindex != skb->ifindex ||
		     hot_source(h->from_mac) != hot_source(data + ETH_ALEN) || !hot_is_good(h)))
		return HOT_MISS;
	node = node_state();
	if (unlikely(!node || h->epoch != node->epoch))
		return HOT_MISS;
	if (unlikely(h->unusual | skb->pkt_type))
		return hot_unusual(skb, h);
	len = skb->len - L3_OFF;
	h->packets++;
	h->bytes += len;
	t->packets++;
	t->bytes += len;
	write_macs(data, h->dmac);
	return (int)bpf_redirect_peer(h->oif, 0);
other:
	/* A dry run has no hot flows, its table is its own; but it shares the young ones. */
	if (cfg_dry_run || kind != bpf_htonl(IPPROTO_TCP) || (l4[13] & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return HOT_MISS;
	return young_usual(skb, ip->saddr, ip->daddr, ports);
}
