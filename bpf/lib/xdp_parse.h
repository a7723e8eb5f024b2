/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What an XDP program has to know of a packet. */
#pragma once
#include "packet.h"

/*
 * Reads a TCP or UDP packet without options, extension headers or fragments, to one address. p->key.ifindex is that of
 * uplinks. False: something else, which is the TC program's.
 */
static __always_inline bool xdp_parse(struct xdp_md *ctx, struct packet *p)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	void *l4;

	if (data + L3_OFF + sizeof(struct iphdr) + sizeof(struct udphdr) > end || (eth->h_dest[0] & 1))
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + L3_OFF;

		if (*(__u8 *)ip != 0x45 || (ip->frag_off & bpf_htons(0x3fff)))
			return false;
		addr_set_v4(&p->key.saddr, ip->saddr);
		addr_set_v4(&p->key.daddr, ip->daddr);
		p->key.proto = ip->protocol;
		p->ttl = ip->ttl;
		p->len = bpf_ntohs(ip->tot_len);
		p->l4_off = L3_OFF + sizeof(*ip);
		l4 = ip + 1;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if ((void *)(ip6 + 1) + sizeof(struct udphdr) > end || ip6->version != 6)
			return false;
		p->v6 = 1;
		memcpy(&p->key.saddr, &ip6->saddr, 16);
		memcpy(&p->key.daddr, &ip6->daddr, 16);
		if (addr_is_v4(&p->key.saddr) || addr_is_v4(&p->key.daddr))
			return false;
		p->key.proto = ip6->nexthdr;
		p->ttl = ip6->hop_limit;
		p->len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
		p->l4_off = L3_OFF + sizeof(*ip6);
		l4 = ip6 + 1;
	} else {
		return false;
	}
	if (p->key.proto == IPPROTO_TCP) {
		if (l4 + sizeof(struct tcphdr) > end)
			return false;
		p->tcp_flags = *(__u8 *)(l4 + 13);
	} else if (p->key.proto != IPPROTO_UDP) {
		return false;
	}
	p->key.sport = *(__be16 *)l4;
	p->key.dport = *(__be16 *)(l4 + 2);
	return data + L3_OFF + p->len <= end && p->ttl > 1;
}
