/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Refusing a packet at once: TCP is reset (RFC 9293, section 3.10.7.1), anything else gets "port unreachable" from
 * the address that it was sent to. The packet itself becomes the answer and goes back where it came from.
 */
#pragma once
#include "icmp_reply.h"
#include "metrics.h"

struct tcp_reset4 {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct tcp_reset6 {
	struct ipv6hdr ip6;
	struct tcphdr tcp;
};

/* Header fields of the reset that answers p; the checksum covers the pseudo header. */
static __always_inline int fill_reset(struct __sk_buff *skb, struct packet *p, struct tcphdr *tcp)
{
	struct tcphdr was;
	__be32 rest[2] = {bpf_htonl(sizeof(*tcp)), bpf_htonl(IPPROTO_TCP)};
	__u64 addresses = sum_of(&p->key.saddr, 32);
	__u32 head, payload;

	if (bpf_skb_load_bytes(skb, p->l4_off, &was, sizeof(was)) || was.rst)
		return DROP_INVALID;
	head = p->l4_off - L3_OFF + was.doff * 4;
	payload = p->len > head ? p->len - head : 0;
	tcp->source = was.dest;
	tcp->dest = was.source;
	if (was.ack) {
		tcp->seq = was.ack_seq;
	} else {
		tcp->ack = 1;
		tcp->ack_seq = bpf_htonl(bpf_ntohl(was.seq) + payload + was.syn + was.fin);
	}
	tcp->rst = 1;
	tcp->doff = sizeof(*tcp) / 4;
	/* The prefix of a mapped address adds ffff, which is 0 in ones' complement. */
	tcp->check = finish_checksum(addresses + sum_of(rest, sizeof(rest)) + sum_of(tcp, sizeof(*tcp)));
	return DROP_NONE;
}

static __always_inline int swap_mac(struct __sk_buff *skb)
{
	struct ethhdr eth;

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) ||
	    bpf_skb_store_bytes(skb, 0, eth.h_source, ETH_ALEN, 0) ||
	    bpf_skb_store_bytes(skb, ETH_ALEN, eth.h_dest, ETH_ALEN, 0))
		return DROP_INVALID;
	return DROP_NONE;
}

__noinline int reset_reply(struct __sk_buff *skb, struct packet *p)
{
	struct icmp_scratch *s;
	__u32 zero = 0;

	if (!p)
		return DROP_INTERNAL;
	s = bpf_map_lookup_elem(&icmp_scratch_map, &zero);
	if (!s)
		return DROP_INTERNAL;
	memset(s->quote, 0, sizeof(s->quote));
	if (p->v6) {
		struct tcp_reset6 *r = (struct tcp_reset6 *)s->quote;

		if (fill_reset(skb, p, &r->tcp))
			return DROP_INVALID;
		r->ip6.version = 6;
		r->ip6.payload_len = bpf_htons(sizeof(r->tcp));
		r->ip6.nexthdr = IPPROTO_TCP;
		r->ip6.hop_limit = 64;
		memcpy(&r->ip6.saddr, &p->key.daddr, 16);
		memcpy(&r->ip6.daddr, &p->key.saddr, 16);
		if (bpf_skb_change_tail(skb, L3_OFF + sizeof(*r), 0) ||
		    bpf_skb_store_bytes(skb, L3_OFF, r, sizeof(*r), 0))
			return DROP_INVALID;
	} else {
		struct tcp_reset4 *r = (struct tcp_reset4 *)s->quote;

		if (fill_reset(skb, p, &r->tcp))
			return DROP_INVALID;
		r->ip.version = 4;
		r->ip.ihl = 5;
		r->ip.tot_len = bpf_htons(sizeof(*r));
		r->ip.ttl = 64;
		r->ip.protocol = IPPROTO_TCP;
		r->ip.saddr = p->key.daddr.w[3];
		r->ip.daddr = p->key.saddr.w[3];
		r->ip.check = finish_checksum(sum_of(&r->ip, sizeof(r->ip)));
		if (bpf_skb_change_tail(skb, L3_OFF + sizeof(*r), 0) ||
		    bpf_skb_store_bytes(skb, L3_OFF, r, sizeof(*r), 0))
			return DROP_INVALID;
	}
	return swap_mac(skb);
}

/*
 * Answers p, which was counted as dropped already, with a refusal. `hook`: HOOK_CONTAINER or HOOK_UPLINK. Returns
 * what the program returns.
 */
__noinline int refuse(struct __sk_buff *skb, struct packet *p, const __u32 hook)
{
	int failed;

	if (!p || cfg_dry_run || p->fragment == FRAGMENT_LATER || p->kind != PACKET_FLOW)
		return TC_ACT_SHOT;
	if (p->key.proto == IPPROTO_TCP)
		failed = reset_reply(skb, p);
	else if (p->v6)
		failed = icmp6_reply(skb, &p->key.daddr, (ICMPV6_DEST_UNREACH << 8) | ICMPV6_PORT_UNREACH, 0);
	else
		failed = icmp4_reply(skb, &p->key.daddr, (ICMP_DEST_UNREACH << 8) | ICMP_PORT_UNREACH, 0);
	if (failed)
		return TC_ACT_SHOT;
	return hook == HOOK_CONTAINER ? (int)bpf_redirect_peer(skb->ifindex, 0) : turn_back(skb, p);
}
