/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* From bytes to struct packet: both families, fragments, extension headers, ICMP. */
#pragma once
#include "maps.h"

enum packet_kind {
	PACKET_FLOW = 0, /* belongs to a flow: key is complete */
	PACKET_ICMP_ERROR = 1, /* key holds the reverse of the embedded packet's tuple */
	PACKET_NEIGHBOUR = 2, /* neighbour or router discovery, MLD */
	PACKET_GROUP = 3, /* to a multicast or broadcast address */
	PACKET_ARP = 4,
	PACKET_OTHER = 5, /* not IP */
};

enum fragment {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2, /* no transport header */
};

#define L3_OFF ((__u32)sizeof(struct ethhdr))
#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

struct packet {
	struct flow_key key;
	__u32 len; /* IP bytes */
	__u32 l4_off; /* of the transport header, from the start of the frame */
	__u32 inner_off; /* PACKET_ICMP_ERROR: embedded IP header */
	__u32 inner_l4; /* PACKET_ICMP_ERROR: embedded transport header */
	__be32 frag_id;
	__u8 v6;
	__u8 kind; /* enum packet_kind */
	__u8 fragment; /* enum fragment */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 ttl;
	__u8 pad[2];
};

/* Extension headers that are followed before the packet is refused. */
#define MAX_EXT_HEADERS 6
#define EXT_HOP 0
#define EXT_ROUTING 43
#define EXT_FRAGMENT 44
#define EXT_AUTH 51
#define EXT_NONE 59
#define EXT_DEST 60
#define EXT_MOBILITY 135
#define PROTO_SCTP 132

static __always_inline bool is_extension(__u8 h)
{
	return h == EXT_HOP || h == EXT_ROUTING || h == EXT_FRAGMENT || h == EXT_AUTH || h == EXT_DEST ||
	       h == EXT_MOBILITY;
}

/*
 * Follows extension headers from *off. Returns the reason to drop, or sets *next to the transport
 * protocol and *off to its header. At most MAX_EXT_HEADERS rounds.
 */
__noinline int skip_extensions(struct __sk_buff *skb, struct packet *p, __u32 off, __u8 *next)
{
	__u8 h;

	if (!p || !next)
		return DROP_INTERNAL;
	h = *next;
	for (int i = 0; i < MAX_EXT_HEADERS; i++) {
		struct {
			__u8 next;
			__u8 len;
			__be16 frag_off;
			__be32 id;
		} ext;

		if (!is_extension(h)) {
			*next = h;
			p->l4_off = off;
			return DROP_NONE;
		}
		if (bpf_skb_load_bytes(skb, off, &ext, sizeof(ext)))
			return DROP_EXT_HEADERS;
		if (h == EXT_FRAGMENT) {
			__u16 fo = bpf_ntohs(ext.frag_off);

			/* An atomic fragment (offset 0, nothing follows) is a whole packet. */
			if (fo & 0xfff8)
				p->fragment = FRAGMENT_LATER;
			else if (fo & 1)
				p->fragment = FRAGMENT_FIRST;
			p->frag_id = ext.id;
			off += 8;
		} else if (h == EXT_AUTH) {
			off += ((__u32)ext.len + 2) * 4;
		} else {
			off += ((__u32)ext.len + 1) * 8;
		}
		h = ext.next;
		if (p->fragment == FRAGMENT_LATER) {
			*next = h;
			p->l4_off = off;
			return DROP_NONE;
		}
	}
	if (is_extension(h))
		return DROP_EXT_HEADERS;
	*next = h;
	p->l4_off = off;
	return DROP_NONE;
}

/* A SYN that opens a connection is never an answer in the half-open table. */
static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* The ports of a fragment come from its first one. */
__noinline int fragment_ports(struct packet *p)
{
	struct frag_key k = {};
	struct frag *known;

	if (!p)
		return DROP_INTERNAL;
	k.saddr = p->key.saddr;
	k.daddr = p->key.daddr;
	k.id = p->frag_id;
	k.ifindex = p->key.ifindex;
	k.proto = p->key.proto;
	if (p->fragment == FRAGMENT_FIRST) {
		struct frag v = {.sport = p->key.sport, .dport = p->key.dport};

		if (!cfg_dry_run)
			bpf_map_update_elem(&frags, &k, &v, BPF_ANY);
		return DROP_NONE;
	}
	known = bpf_map_lookup_elem(&frags, &k);
	if (!known)
		return DROP_FRAG_NO_FIRST;
	p->key.sport = known->sport;
	p->key.dport = known->dport;
	return DROP_NONE;
}

static __always_inline bool icmp4_is_error(__u8 type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB ||
	       type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT;
}

/* Source (offset 0) or destination (offset 1) of the packet itself, where the key is that of an embedded one. */
__noinline int outer_address(struct __sk_buff *skb, struct packet *p, __u32 which, struct ip_addr *a)
{
	__be32 v4 = 0;

	if (!p || !a)
		return DROP_INTERNAL;
	if (p->v6)
		return bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, saddr) + 16 * (which & 1), a,
					  16)
			       ? DROP_INVALID
			       : DROP_NONE;
	if (bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct iphdr, saddr) + 4 * (which & 1), &v4, 4))
		return DROP_INVALID;
	addr_set_v4(a, v4);
	return DROP_NONE;
}

#define OUTER_SOURCE 0
#define OUTER_DESTINATION 1

/* Puts the reverse of the embedded packet's tuple into p->key. */
__noinline int parse_embedded(struct __sk_buff *skb, struct packet *p)
{
	__u8 proto;
	__u32 off;

	if (!p)
		return DROP_INTERNAL;
	off = p->l4_off + 8;
	p->inner_off = off;
	if (p->v6) {
		struct ipv6hdr ip6;
		__u8 fragment = p->fragment;
		__u32 l4 = p->l4_off;
		int reason;

		if (bpf_skb_load_bytes(skb, off, &ip6, sizeof(ip6)))
			return DROP_INVALID;
		memcpy(&p->key.saddr, &ip6.daddr, 16);
		memcpy(&p->key.daddr, &ip6.saddr, 16);
		proto = ip6.nexthdr;
		reason = skip_extensions(skb, p, off + sizeof(ip6), &proto);
		if (reason)
			return reason;
		p->inner_l4 = p->l4_off;
		p->l4_off = l4;
		if (p->fragment == FRAGMENT_LATER)
			return DROP_ICMP_UNRELATED;
		p->fragment = fragment;
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)))
			return DROP_INVALID;
		if (ip.version != 4 || ip.ihl < 5)
			return DROP_INVALID;
		if (bpf_ntohs(ip.frag_off) & 0x1fff)
			return DROP_ICMP_UNRELATED;
		addr_set_v4(&p->key.saddr, ip.daddr);
		addr_set_v4(&p->key.daddr, ip.saddr);
		proto = ip.protocol;
		p->inner_l4 = off + ip.ihl * 4;
	}
	p->key.proto = proto;
	if (proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == PROTO_SCTP) {
		__be16 ports[2];

		if (bpf_skb_load_bytes(skb, p->inner_l4, ports, sizeof(ports)))
			return DROP_INVALID;
		p->key.sport = ports[1];
		p->key.dport = ports[0];
	} else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		struct icmphdr icmp;

		if (bpf_skb_load_bytes(skb, p->inner_l4, &icmp, sizeof(icmp)))
			return DROP_INVALID;
		p->key.sport = 0;
		p->key.dport = 0;
		if (icmp.type == ICMP_ECHO || icmp.type == ICMPV6_ECHO_REQUEST)
			p->key.dport = icmp.un.echo.id;
		else if (icmp.type == ICMP_ECHOREPLY || icmp.type == ICMPV6_ECHO_REPLY)
			p->key.sport = icmp.un.echo.id;
		else
			return DROP_ICMP_UNRELATED;
	} else {
		p->key.sport = 0;
		p->key.dport = 0;
	}
	p->kind = PACKET_ICMP_ERROR;
	return DROP_NONE;
}

static __always_inline bool daddr_is_group(const struct packet *p)
{
	__u32 d = bpf_ntohl(p->key.daddr.w[3]);

	if (p->v6)
		return (bpf_ntohl(p->key.daddr.w[0]) >> 24) == 0xff;
	return (d >> 28) == 0xe || d == 0xffffffff;
}

/* Reads the headers; p->key.ifindex must be set. Returns the reason to drop, if any. */
static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	__u16 ethertype;
	void *l4;
	__u8 proto;

	if (unlikely(data + L3_OFF + sizeof(struct iphdr) + 20 > end)) {
		/* Short, or the headers are not in the linear part. */
		if (skb->len > L3_OFF + sizeof(struct iphdr) + 20)
			bpf_skb_pull_data(skb, skb->len < 128 ? skb->len : 128);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		eth = data;
		if (data + L3_OFF > end)
			return DROP_INVALID;
	}
	p->len = skb->len - L3_OFF;
	ethertype = eth->h_proto;
	if (likely(ethertype == bpf_htons(ETH_P_IP))) {
		struct iphdr *ip = data + L3_OFF;
		__u16 fo;

		if (unlikely((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5))
			return DROP_INVALID;
		addr_set_v4(&p->key.saddr, ip->saddr);
		addr_set_v4(&p->key.daddr, ip->daddr);
		proto = ip->protocol;
		p->ttl = ip->ttl;
		p->l4_off = L3_OFF + ip->ihl * 4;
		fo = bpf_ntohs(ip->frag_off);
		if (unlikely(fo & 0x3fff)) {
			p->fragment = (fo & 0x1fff) ? FRAGMENT_LATER : FRAGMENT_FIRST;
			p->frag_id = ip->id;
		}
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if (unlikely((void *)(ip6 + 1) > end || ip6->version != 6))
			return DROP_INVALID;
		p->v6 = 1;
		memcpy(&p->key.saddr, &ip6->saddr, 16);
		memcpy(&p->key.daddr, &ip6->daddr, 16);
		/* A v4-mapped address on the wire would be taken for IPv4 (RFC 4291, 2.5.5.2). */
		if (addr_is_v4(&p->key.saddr) || addr_is_v4(&p->key.daddr))
			return DROP_INVALID;
		proto = ip6->nexthdr;
		p->ttl = ip6->hop_limit;
		p->l4_off = L3_OFF + sizeof(*ip6);
		if (unlikely(is_extension(proto))) {
			int reason = skip_extensions(skb, p, p->l4_off, &proto);

			if (reason)
				return reason;
			data = (void *)(long)skb->data;
			end = (void *)(long)skb->data_end;
		}
	} else {
		p->kind = ethertype == bpf_htons(ETH_P_ARP) ? PACKET_ARP : PACKET_OTHER;
		return DROP_NONE;
	}
	p->key.proto = proto;
	if (unlikely(daddr_is_group(p))) {
		p->kind = PACKET_GROUP;
		if (p->v6 && proto == IPPROTO_ICMPV6 && p->fragment != FRAGMENT_LATER) {
			__u8 type = 0;

			bpf_skb_load_bytes(skb, p->l4_off, &type, 1);
			p->icmp_type = type;
			if ((type >= 130 && type <= 137) || type == 143)
				p->kind = PACKET_NEIGHBOUR;
		}
		return DROP_NONE;
	}
	if (unlikely(p->fragment == FRAGMENT_LATER))
		return fragment_ports(p);
	if (unlikely(p->l4_off > 512))
		return DROP_EXT_HEADERS;
	l4 = data + p->l4_off;
	if (likely(proto == IPPROTO_TCP)) {
		if (unlikely(l4 + 20 > end)) {
			struct tcphdr t;

			if (bpf_skb_load_bytes(skb, p->l4_off, &t, sizeof(t)))
				return DROP_INVALID;
			p->key.sport = t.source;
			p->key.dport = t.dest;
			p->tcp_flags = ((__u8 *)&t)[13];
		} else {
			p->key.sport = *(__be16 *)l4;
			p->key.dport = *(__be16 *)(l4 + 2);
			p->tcp_flags = *(__u8 *)(l4 + 13);
		}
	} else if (proto == IPPROTO_UDP || proto == PROTO_SCTP) {
		__be16 ports[2];

		if (unlikely(l4 + 8 > end)) {
			if (bpf_skb_load_bytes(skb, p->l4_off, ports, sizeof(ports)))
				return DROP_INVALID;
			p->key.sport = ports[0];
			p->key.dport = ports[1];
		} else {
			p->key.sport = *(__be16 *)l4;
			p->key.dport = *(__be16 *)(l4 + 2);
		}
	} else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		struct icmphdr icmp;
		__u8 echo, answer;

		if ((proto == IPPROTO_ICMPV6) != p->v6)
			return DROP_INVALID;
		if (bpf_skb_load_bytes(skb, p->l4_off, &icmp, sizeof(icmp)))
			return DROP_INVALID;
		p->icmp_type = icmp.type;
		echo = p->v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO;
		answer = p->v6 ? ICMPV6_ECHO_REPLY : ICMP_ECHOREPLY;
		if (icmp.type == echo)
			p->key.sport = icmp.un.echo.id;
		else if (icmp.type == answer)
			p->key.dport = icmp.un.echo.id;
		else if (p->v6 && ((icmp.type >= 130 && icmp.type <= 137) || icmp.type == 143))
			p->kind = PACKET_NEIGHBOUR;
		else if (p->v6 ? icmp.type < 128 : icmp4_is_error(icmp.type))
			return parse_embedded(skb, p);
	}
	if (unlikely(p->fragment))
		return fragment_ports(p);
	return DROP_NONE;
}
