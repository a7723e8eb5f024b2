/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * ICMP errors of our own: "packet too big" for path MTU discovery, to containers, and "time exceeded". The packet itself
 * becomes the error and goes back where it came from.
 */
#pragma once
#include "tunnel.h"

/* Bytes of the offending packet that are quoted: the long form if it has them. */
#define QUOTE4 28
#define QUOTE4_LONG 64
#define QUOTE6 48
#define QUOTE6_LONG 128

/* The error's headers and the quote; too large for the stack. */
struct icmp_head4 {
	struct iphdr ip;
	struct icmphdr icmp;
};

struct icmp_head6 {
	struct ipv6hdr ip6;
	struct icmp6hdr icmp;
};

struct icmp_scratch {
	struct icmp_head4 head4;
	struct icmp_head6 head6;
	__u8 quote[QUOTE6_LONG];
	struct ethhdr eth;
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct icmp_scratch)); /* private: its type is not exported */
	__uint(max_entries, 1);
} icmp_scratch_map SEC(".maps");

/* From a sum of 16 or 32 bit words to the checksum field's value. */
static __always_inline __sum16 finish_checksum(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

static __always_inline __u64 sum_of(void *from, __u32 size)
{
	return (__u32)bpf_csum_diff(0, 0, from, size, 0);
}

/* Cuts the packet to its quote, puts the new headers before it and turns it around. */
static __always_inline int turn_around(struct __sk_buff *skb, struct icmp_scratch *s, void *head,
				       __u32 head_size, __u32 keep)
{
	if (bpf_skb_change_tail(skb, L3_OFF + keep, 0) ||
	    bpf_skb_adjust_room(skb, (__s32)head_size, BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, L3_OFF, head, head_size, 0) ||
	    bpf_skb_store_bytes(skb, 0, s->eth.h_source, ETH_ALEN, 0) ||
	    bpf_skb_store_bytes(skb, ETH_ALEN, s->eth.h_dest, ETH_ALEN, 0))
		return DROP_INVALID;
	return DROP_NONE;
}

__noinline int icmp4_reply(struct __sk_buff *skb, const struct ip_addr *from, __u32 type_code, __u32 mtu)
{
	__u32 zero = 0;
	struct icmp_scratch *s = bpf_map_lookup_elem(&icmp_scratch_map, &zero);
	bool whole = skb->len >= L3_OFF + QUOTE4_LONG;
	__u32 keep = whole ? QUOTE4_LONG : QUOTE4;

	if (!from || !s)
		return DROP_INTERNAL;
	memset(s, 0, sizeof(*s));
	if (bpf_skb_load_bytes(skb, 0, &s->eth, sizeof(s->eth)))
		return DROP_INVALID;
	if (whole ? bpf_skb_load_bytes(skb, L3_OFF, s->quote, QUOTE4_LONG)
		  : bpf_skb_load_bytes(skb, L3_OFF, s->quote, QUOTE4))
		return DROP_INVALID;
	s->head4.ip.version = 4;
	s->head4.ip.ihl = 5;
	s->head4.ip.tot_len = bpf_htons((__u16)(sizeof(s->head4) + keep));
	s->head4.ip.ttl = 64;
	s->head4.ip.protocol = IPPROTO_ICMP;
	s->head4.ip.saddr = from->w[3];
	s->head4.ip.daddr = *(__be32 *)(s->quote + offsetof(struct iphdr, saddr));
	s->head4.ip.check = finish_checksum(sum_of(&s->head4.ip, sizeof(s->head4.ip)));
	s->head4.icmp.type = (__u8)(type_code >> 8);
	s->head4.icmp.code = (__u8)type_code;
	s->head4.icmp.un.frag.mtu = bpf_htons((__u16)mtu);
	s->head4.icmp.checksum = finish_checksum(sum_of(s->quote, QUOTE4_LONG) +
						 sum_of(&s->head4.icmp, sizeof(s->head4.icmp)));
	return turn_around(skb, s, &s->head4, sizeof(s->head4), keep);
}

__noinline int icmp6_reply(struct __sk_buff *skb, const struct ip_addr *from, __u32 type_code, __u32 mtu)
{
	__u32 zero = 0;
	struct icmp_scratch *s = bpf_map_lookup_elem(&icmp_scratch_map, &zero);
	bool whole = skb->len >= L3_OFF + QUOTE6_LONG;
	__u32 keep = whole ? QUOTE6_LONG : QUOTE6;
	__be32 pseudo[2];

	if (!from || !s)
		return DROP_INTERNAL;
	memset(s, 0, sizeof(*s));
	if (bpf_skb_load_bytes(skb, 0, &s->eth, sizeof(s->eth)))
		return DROP_INVALID;
	if (whole ? bpf_skb_load_bytes(skb, L3_OFF, s->quote, QUOTE6_LONG)
		  : bpf_skb_load_bytes(skb, L3_OFF, s->quote, QUOTE6))
		return DROP_INVALID;
	s->head6.ip6.version = 6;
	s->head6.ip6.payload_len = bpf_htons((__u16)(sizeof(s->head6.icmp) + keep));
	s->head6.ip6.nexthdr = IPPROTO_ICMPV6;
	s->head6.ip6.hop_limit = 64;
	memcpy(&s->head6.ip6.saddr, from, 16);
	memcpy(&s->head6.ip6.daddr, s->quote + offsetof(struct ipv6hdr, saddr), 16);
	s->head6.icmp.icmp6_type = (__u8)(type_code >> 8);
	s->head6.icmp.icmp6_code = (__u8)type_code;
	s->head6.icmp.icmp6_dataun.un_data32[0] = bpf_htonl(mtu);
	pseudo[0] = bpf_htonl((__u32)sizeof(s->head6.icmp) + keep);
	pseudo[1] = bpf_htonl(IPPROTO_ICMPV6);
	s->head6.icmp.icmp6_cksum = finish_checksum(
		sum_of(s->quote, QUOTE6_LONG) + sum_of(&s->head6.icmp, sizeof(s->head6.icmp)) +
		sum_of(&s->head6.ip6.saddr, 32) + sum_of(pseudo, sizeof(pseudo)));
	return turn_around(skb, s, &s->head6, sizeof(s->head6), keep);
}

/*
 * Answers a packet with an ICMP error and counts it as dropped for `reason`. To a container it comes from the gateway of
 * its network, to the outside and to other nodes from this node. Returns what the program returns.
 */
__noinline int reply_error(struct __sk_buff *skb, struct packet *p, __u32 reason, __u32 mtu)
{
	__u32 ifindex = skb->ifindex;
	struct ip_addr *from = NULL;
	__u32 type_code;
	bool outside;
	int failed;

	if (!p)
		return TC_ACT_SHOT;
	outside = p->key.ifindex == FLOW_IF_UPLINK || p->key.ifindex == FLOW_IF_TUNNEL;
	drop(p, NULL, reason, outside ? DIR_INGRESS : DIR_EGRESS);
	if (cfg_dry_run || p->fragment == FRAGMENT_LATER || p->kind != PACKET_FLOW)
		return TC_ACT_SHOT;
	if (outside) {
		struct uplink *up = bpf_map_lookup_elem(&uplinks, &ifindex);

		if (up)
			from = p->v6 ? &up->snat6 : &up->snat4;
	} else {
		struct endpoint *ep = bpf_map_lookup_elem(&endpoints, &ifindex);
		struct network *net;
		__u32 number;

		if (!ep)
			return TC_ACT_SHOT;
		number = ep->network;
		net = bpf_map_lookup_elem(&networks, &number);
		if (net)
			from = p->v6 ? &net->gateway6 : &net->gateway4;
	}
	if (!from || addr_is_zero(from))
		return TC_ACT_SHOT;
	if (p->v6)
		type_code = reason == DROP_TTL ? ICMPV6_TIME_EXCEED << 8 : ICMPV6_PKT_TOOBIG << 8;
	else
		type_code = reason == DROP_TTL ? ICMP_TIME_EXCEEDED << 8
					       : (ICMP_DEST_UNREACH << 8) | ICMP_FRAG_NEEDED;
	mtu = reason == DROP_TTL ? 0 : mtu;
	failed = p->v6 ? icmp6_reply(skb, from, type_code, mtu) : icmp4_reply(skb, from, type_code, mtu);
	if (failed)
		return TC_ACT_SHOT;
	return outside ? turn_back(skb, p) : (int)bpf_redirect_peer(ifindex, 0);
}
