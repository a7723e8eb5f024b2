/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The busiest flows of local containers, IPv4, TCP and UDP. A packet of one is forwarded from one small entry of an
 * array, found without a hash table; see struct hot_flow.
 */
#pragma once
#include "nat.h"
#include "work.h"

/* Packets of a flow before it may take a place. */
#define HOT_AFTER 8

/* Not one of the hot flows: the flow table decides. */
#define HOT_MISS (-100)

/* No CONFIG_HZ is more; for how many jiffies at most an entry is good. */
#define HOT_MOST_JIFFIES 1000

/* A source port and the destination port behind it. */
static __always_inline __u32 hot_ports(const __be16 *sport)
{
	return *(const __u32 *)sport;
}

/* Source and destination address side by side. */
static __always_inline __u64 hot_addrs(const __be32 *saddr)
{
	return *(const __u64 *)saddr;
}

/* An Ethernet address and the type behind it. */
static __always_inline __u64 hot_source(const __u8 *mac)
{
	return *(const __u64 *)mac;
}

/* The table of this CPU; none on one that was not there when the programs were loaded. */
static __always_inline struct hot_table *hot_table(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&hot_tables, &cpu);
}

static __always_inline __u32 hot_index(__u64 addrs, __u32 ports)
{
	__u64 h = addrs ^ (__u64)ports << 20;

	h *= 0x9e3779b97f4a7c15;
	return h >> 57;
}
_Static_assert(HOT_FLOWS == 1 << (64 - 57), "the bits that hot_index() leaves");

static __always_inline __u32 hot_index_of(const struct flow_key *k)
{
	return hot_index((__u64)k->daddr.w[3] << 32 | k->saddr.w[3], hot_ports(&k->sport));
}

static __always_inline bool hot_is(const struct hot_flow *h, const struct flow_key *k)
{
	return h->saddr == k->saddr.w[3] && h->daddr == k->daddr.w[3] && h->sport == k->sport &&
	       h->dport == k->dport && h->ifindex == k->ifindex && h->proto == k->proto;
}

/*
 * Of an IPv4 header, the four bytes with the flags and the offset of fragments, the time to live and the protocol: only
 * the protocol, if the packet is no fragment.
 */
static __always_inline __be32 hot_kind(const struct iphdr *ip)
{
	return *(const __be32 *)&ip->frag_off & bpf_htonl(0x3fff00ff);
}

/* Is the entry still good? */
static __always_inline bool hot_is_good(const struct hot_flow *h)
{
	return h->until - now() - 1 < HOT_MOST_JIFFIES;
}

/* Moves the counts of what has the place now to its flow. */
static __always_inline void hot_settle(struct hot_flow *h)
{
	struct flow_key k = {};
	struct flow *e;

	if (!h->packets)
		return;
	addr_set_v4(&k.saddr, h->saddr);
	addr_set_v4(&k.daddr, h->daddr);
	k.sport = h->sport;
	k.dport = h->dport;
	k.ifindex = h->ifindex;
	k.proto = h->proto;
	e = bpf_map_lookup_elem(&flows, &k);
	if (e) {
		e->packets += h->packets;
		e->bytes += h->bytes;
	}
	h->packets = 0;
	h->bytes = 0;
}

/*
 * May packets of e, the entry of p, go without a look at it? Those of services are counted when they end, which for
 * UDP nobody notices in time.
 */
static __always_inline bool hot_may(const struct packet *p, const struct flow *e)
{
	if (p->v6 || p->fragment || e->state != FLOW_OPEN || (e->flags & FLOW_LIMIT))
		return false;
	if (e->flags & FLOW_TTL ? e->mtu && p->len > e->mtu : e->action != ACTION_PEER)
		return false;
	return p->key.proto == IPPROTO_TCP || (p->key.proto == IPPROTO_UDP && !(e->flags & FLOW_SERVICE));
}

/* e, the entry of p, forwards to a local container or by an uplink: it takes its place among the hot flows if that is free. */
__noinline int hot_remember(struct packet *p, struct flow *e)
{
	struct hot_table *t = hot_table();
	struct hot_flow *h;
	__u32 slot;

	if (!p || !e || !t)
		return 0;
	if (!hot_may(p, e))
		return 0;
	slot = hot_index_of(&p->key);
	h = &t->flows[slot];
	if (!hot_is(h, &p->key)) {
		if (h->ifindex && hot_is_good(h))
			return 0;
		hot_settle(h);
		h->saddr = p->key.saddr.w[3];
		h->daddr = p->key.daddr.w[3];
		h->sport = p->key.sport;
		h->dport = p->key.dport;
		h->ifindex = p->key.ifindex;
		h->proto = p->key.proto;
	} else if (h->packets) {
		e->packets += h->packets;
		e->bytes += h->bytes;
		h->packets = 0;
		h->bytes = 0;
	}
	h->epoch = e->epoch;
	h->oif = e->oif;
	h->action = e->action;
	h->flags = e->flags;
	h->unusual = e->flags & (FLOW_NAT | FLOW_TTL);
	h->until = now() + cfg_hz;
	write_macs(h->dmac, e->dmac);
	memcpy(h->from_mac, e->from_mac, ETH_ALEN);
	h->ethertype = bpf_htons(ETH_P_IP);
	h->new_saddr = e->saddr.w[3];
	h->new_daddr = e->daddr.w[3];
	h->new_sport = e->sport;
	h->new_dport = e->dport;
	h->nexthop = e->nexthop.w[3];
	h->csum_addr = e->csum_addr;
	h->csum_port = e->csum_port;
	h->mtu = e->mtu;
	return 0;
}

/* The flow with the packets k and the entry e ends. */
static __always_inline void hot_forget(const struct flow_key *k, struct flow *e)
{
	struct hot_table *t = hot_table();
	struct hot_flow *h;
	__u32 slot;

	if (!addr_is_v4(&k->saddr) || !t)
		return;
	slot = hot_index_of(k);
	h = &t->flows[slot];
	if (!hot_is(h, k))
		return;
	e->packets += h->packets;
	e->bytes += h->bytes;
	h->packets = 0;
	h->bytes = 0;
	h->ifindex = 0;
}

/*
 * Translates the packet and takes it one hop further, as rewrite() does. False: nothing has been changed, and the
 * packet is not one that goes this way.
 */
static __always_inline bool hot_rewrite(struct __sk_buff *skb, const struct hot_flow *h, __u32 len)
{
	const __u32 l4 = L3_OFF + sizeof(struct iphdr);
	const bool tcp = h->proto == IPPROTO_TCP;
	const __u32 check = l4 + (tcp ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check));
	const __u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;
	struct iphdr *ip = (void *)(long)skb->data + L3_OFF;
	__be16 *ports;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return false;
	if ((h->flags & FLOW_TTL) && (ip->ttl <= 1 || (h->mtu && len > h->mtu)))
		return false;
	if (h->flags & FLOW_NAT) {
		/* The checksums first: these fail, if ever, before the packet is another one. They make pointers stale. */
		if (bpf_l4_csum_replace(skb, check, 0, h->csum_addr, flags | BPF_F_PSEUDO_HDR))
			return false;
		if (h->flags & FLOW_L4_NAT_PORT)
			bpf_l4_csum_replace(skb, check, 0, h->csum_port, flags);
		ip = (void *)(long)skb->data + L3_OFF;
		ports = (void *)(ip + 1);
		if ((void *)(ports + 2) > (void *)(long)skb->data_end)
			return false;
		ip->saddr = h->new_saddr;
		ip->daddr = h->new_daddr;
		ip->check = (__sum16)~fold((__u32)(__u16)~ip->check + h->csum_addr);
		ports[0] = h->new_sport;
		ports[1] = h->new_dport;
	}
	if (h->flags & FLOW_TTL)
		ip_decrease_ttl(ip);
	return true;
}

/*
 * quick_forward() for hot flows that are translated or leave the host, and packets that are not addressed to the host's
 * device (of a shared segment), out of the way of the others.
 */
__noinline int hot_unusual(struct __sk_buff *skb, struct hot_flow *h)
{
	struct bpf_redir_neigh nh = {.nh_family = AF_INET};
	__u32 len = skb->len - L3_OFF;
	void *data = (void *)(long)skb->data;

	if (!h || data + L3_OFF > (void *)(long)skb->data_end || (*(__u8 *)data & 1))
		return HOT_MISS;
	if (!hot_rewrite(skb, h, len))
		return HOT_MISS;
	h->packets++;
	h->bytes += len;
	count(DIR_EGRESS, DROP_NONE, len);
	if (h->action == ACTION_NEIGH) {
		nh.ipv4_nh = h->nexthop;
		return (int)bpf_redirect_neigh(h->oif, &nh, sizeof(nh), 0);
	}
	data = (void *)(long)skb->data;
	if (data + L3_OFF > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	write_macs(data, h->dmac);
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	return (int)bpf_redirect_peer(h->oif, 0);
}
