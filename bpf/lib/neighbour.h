/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * ARP (RFC 826) and neighbour discovery (RFC 4861) from containers. In a routed network every
 * address is behind the host's side of the veth, so any question is answered with its MAC address;
 * in a bridged one they pass if they tell the truth about the sender.
 */
#pragma once
#include "work.h"

struct arp_ipv4 {
	struct arphdr head;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender_ip[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target_ip[4];
} __attribute__((packed));

__noinline int arp_from_container(struct __sk_buff *skb, struct packet *p, struct endpoint *ep)
{
	struct arp_ipv4 arp;
	__u8 eth[12];
	__be32 sender;

	if (!p || !ep)
		return DROP_INTERNAL;
	if (bpf_skb_load_bytes(skb, L3_OFF, &arp, sizeof(arp)))
		return DROP_INVALID;
	memcpy(&sender, arp.sender_ip, 4);
	if (arp.head.ar_hrd != bpf_htons(ARPHRD_ETHER) || arp.head.ar_pro != bpf_htons(ETH_P_IP))
		return DROP_ARP;
	/* A probe for duplicates has sender 0 (RFC 5227). */
	if (__builtin_memcmp(arp.sender_mac, ep->mac, ETH_ALEN) ||
	    (sender && (sender != ep->addr4.w[3] || !addr_is_v4(&ep->addr4))))
		return DROP_ARP;
	if (ep->flags & (EP_BRIDGE | EP_L2))
		return DROP_NONE;
	if (arp.head.ar_op != bpf_htons(ARPOP_REQUEST) || !sender)
		return DROP_ARP;
	{
		/* The answer swaps the two sides. */
		__u8 ip[4];

		memcpy(ip, arp.target_ip, 4);
		memcpy(arp.target_mac, arp.sender_mac, ETH_ALEN);
		memcpy(arp.target_ip, arp.sender_ip, 4);
		memcpy(arp.sender_mac, ep->host_mac, ETH_ALEN);
		memcpy(arp.sender_ip, ip, 4);
	}
	arp.head.ar_op = bpf_htons(ARPOP_REPLY);
	memcpy(eth, arp.target_mac, ETH_ALEN);
	memcpy(eth + ETH_ALEN, ep->host_mac, ETH_ALEN);
	if (bpf_skb_store_bytes(skb, L3_OFF, &arp, sizeof(arp), 0) ||
	    bpf_skb_store_bytes(skb, 0, eth, sizeof(eth), 0))
		return DROP_INVALID;
	return DROP_NONE;
}

struct neighbour_message {
	struct icmp6hdr icmp; /* flags of an advertisement are in the second word */
	struct ip_addr target;
	__u8 option_type;
	__u8 option_len;
	__u8 option_mac[ETH_ALEN];
};

#define ND_SOLICIT 135
#define ND_ADVERT 136
#define ND_ADVERT_FLAGS 0xe0000000 /* router, solicited, override */

/* Turns a solicitation into the advertisement that answers it. */
__noinline int answer_solicitation(struct __sk_buff *skb, struct packet *p, struct endpoint *ep)
{
	struct neighbour_message m = {};
	struct {
		struct ip_addr saddr;
		struct ip_addr daddr;
	} ips;
	__be32 pseudo[2];
	__u8 eth[12];
	__u64 s;

	if (!p || !ep)
		return DROP_INTERNAL;
	/* Without options before it, and with a sender (not a probe for duplicates). */
	if (p->l4_off != L3_OFF + sizeof(struct ipv6hdr) || addr_is_zero(&p->key.saddr))
		return DROP_LINK_LOCAL;
	if (p->len < sizeof(struct ipv6hdr) + sizeof(m) || bpf_skb_load_bytes(skb, p->l4_off, &m, sizeof(m)))
		return DROP_LINK_LOCAL;
	ips.saddr = m.target;
	ips.daddr = p->key.saddr;
	m.icmp.icmp6_type = ND_ADVERT;
	m.icmp.icmp6_code = 0;
	m.icmp.icmp6_cksum = 0;
	m.icmp.icmp6_dataun.un_data32[0] = bpf_htonl(ND_ADVERT_FLAGS);
	m.option_type = 2; /* target link-layer address */
	m.option_len = 1;
	memcpy(m.option_mac, ep->host_mac, ETH_ALEN);
	pseudo[0] = bpf_htonl(sizeof(m));
	pseudo[1] = bpf_htonl(IPPROTO_ICMPV6);
	s = (__u32)bpf_csum_diff(0, 0, (__be32 *)&m, sizeof(m), 0);
	s += (__u32)bpf_csum_diff(0, 0, (__be32 *)&ips, sizeof(ips), 0);
	s += (__u32)bpf_csum_diff(0, 0, pseudo, sizeof(pseudo), 0);
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	m.icmp.icmp6_cksum = (__sum16)~s;
	memcpy(eth, ep->mac, ETH_ALEN);
	memcpy(eth + ETH_ALEN, ep->host_mac, ETH_ALEN);
	if (bpf_skb_change_tail(skb, L3_OFF + sizeof(struct ipv6hdr) + sizeof(m), 0))
		return DROP_INVALID;
	{
		__be16 payload = bpf_htons(sizeof(m));

		if (bpf_skb_store_bytes(skb, p->l4_off, &m, sizeof(m), 0) ||
		    bpf_skb_store_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, saddr), &ips, 32, 0) ||
		    bpf_skb_store_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, payload_len), &payload, 2,
					0) ||
		    bpf_skb_store_bytes(skb, 0, eth, sizeof(eth), 0))
			return DROP_INVALID;
	}
	return DROP_NONE;
}

/* In a bridged network: only truth about its own addresses, and it is no router. */
__noinline int check_neighbour(struct __sk_buff *skb, struct packet *p, struct endpoint *ep)
{
	bool link_local;

	if (!p || !ep)
		return DROP_INTERNAL;
	link_local = (p->key.saddr.w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
	if (!link_local && !addr_is_zero(&p->key.saddr) && !addr_equal(&p->key.saddr, &ep->addr6))
		return DROP_SPOOFED_ADDR;
	if (p->icmp_type == 134 || p->icmp_type == 137)
		return DROP_ARP;
	if (p->icmp_type == ND_ADVERT) {
		struct ip_addr target = {};

		if (bpf_skb_load_bytes(skb, p->l4_off + sizeof(struct icmp6hdr), &target, sizeof(target)))
			return DROP_INVALID;
		if (!addr_equal(&target, &ep->addr6) &&
		    (target.w[0] & bpf_htonl(0xffc00000)) != bpf_htonl(0xfe800000))
			return DROP_ARP;
	}
	return DROP_NONE;
}
