/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What is asked about one packet of the host: its flow's key, who opened the flow, and what is open whatever the policy says. */
#pragma once
#include "host_class.h"
#include "packet.h"

#define DHCP4_SERVER 67
#define DHCP4_CLIENT 68
#define DHCP6_CLIENT 546
#define DHCP6_SERVER 547

static __always_inline bool has_transport_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == PROTO_SCTP;
}

/* One packet as the policy sees it. */
struct host_query {
	struct host_flow_key key;
	__u32 subject;
	__u32 generation;
	__u32 direction; /* enum direction, of the packet */
	__u32 len; /* IP bytes */
	__u32 rule; /* out: that decided */
	__u32 class; /* of the peer, when the flow is decided */
	__be16 port; /* if this packet opens the flow: its destination port; ICMP: type and code */
	__u8 tcp_flags;
	__u8 stateless; /* ICMP that is no echo: has no flow */
};

/* Where a TCP packet without a flow belongs. */
enum host_opener {
	OPENED_INGRESS = DIR_INGRESS,
	OPENED_EGRESS = DIR_EGRESS,
	OPENED_NEVER = 2,
};

/* Fills the flow's key and what is asked from a packet whose addresses and ports are in p->key. */
static __always_inline void host_ask(struct __sk_buff *skb, struct host_query *q, const struct packet *p,
				     __u32 direction)
{
	__u8 code = 0;
	const bool in = direction == DIR_INGRESS;
	const bool icmp = p->key.proto == IPPROTO_ICMP || p->key.proto == IPPROTO_ICMPV6;

	q->key.local = in ? p->key.daddr : p->key.saddr;
	q->key.remote = in ? p->key.saddr : p->key.daddr;
	q->key.local_port = in ? p->key.dport : p->key.sport;
	q->key.remote_port = in ? p->key.sport : p->key.dport;
	q->key.proto = p->key.proto;
	q->direction = direction;
	q->len = p->len;
	q->tcp_flags = p->tcp_flags;
	q->port = p->key.dport;
	if (icmp) {
		bpf_skb_load_bytes(skb, p->l4_off + 1, &code, 1);
		q->port = bpf_htons((__u16)(p->icmp_type << 8 | code));
		q->stateless = !(p->icmp_type == (p->v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO) ||
				 p->icmp_type == (p->v6 ? ICMPV6_ECHO_REPLY : ICMP_ECHOREPLY));
	}
}

/* What keeps an address, and the failsafe ports, whatever the policy says; without regard to flows. */
static __always_inline bool always_open(const struct host_query *q)
{
	const __u16 here = bpf_ntohs(q->key.local_port), there = bpf_ntohs(q->key.remote_port);

	if (q->key.proto == IPPROTO_UDP && ((here == DHCP4_CLIENT && there == DHCP4_SERVER) ||
					    (here == DHCP6_CLIENT && there == DHCP6_SERVER)))
		return true;
	if (q->key.proto != IPPROTO_TCP && q->key.proto != IPPROTO_UDP)
		return false;
	/* The answers too: also of connections that were open before there was a policy. */
	return is_failsafe(DIR_INGRESS, q->key.proto, q->key.local_port) ||
	       is_failsafe(DIR_EGRESS, q->key.proto, q->key.remote_port);
}

/* Who opened a TCP connection that no flow is known of: the side with the listening socket was called. */
static __always_inline int tcp_opener(void *ctx, const struct host_query *q)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool listens;
	__u32 size;

	if (addr_is_v4(&q->key.local)) {
		t.ipv4.saddr = q->key.remote.w[3];
		t.ipv4.daddr = q->key.local.w[3];
		t.ipv4.sport = q->key.remote_port;
		t.ipv4.dport = q->key.local_port;
		size = sizeof(t.ipv4);
	} else {
		memcpy(t.ipv6.saddr, &q->key.remote, 16);
		memcpy(t.ipv6.daddr, &q->key.local, 16);
		t.ipv6.sport = q->key.remote_port;
		t.ipv6.dport = q->key.local_port;
		size = sizeof(t.ipv6);
	}
	sk = bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return OPENED_NEVER;
	listens = sk->state == BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	if (listens)
		return OPENED_INGRESS;
	/* Nobody has port 0: this finds a listening socket or none. */
	if (size == sizeof(t.ipv4))
		t.ipv4.sport = 0;
	else
		t.ipv6.sport = 0;
	sk = bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return OPENED_EGRESS;
	bpf_sk_release(sk);
	return OPENED_INGRESS;
}

/* Is it only routed through this host? Asked once for each flow. */
static __always_inline bool is_forwarded(struct __sk_buff *skb, const struct host_query *q)
{
	struct bpf_fib_lookup fib = {};
	long found;

	fib.ifindex = skb->ifindex;
	if (addr_is_v4(&q->key.local)) {
		fib.family = AF_INET;
		fib.ipv4_src = q->key.remote.w[3];
		fib.ipv4_dst = q->key.local.w[3];
	} else {
		fib.family = AF_INET6;
		memcpy(fib.ipv6_src, &q->key.remote, 16);
		memcpy(fib.ipv6_dst, &q->key.local, 16);
	}
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	return found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH ||
	       found == BPF_FIB_LKUP_RET_FRAG_NEEDED || found == BPF_FIB_LKUP_RET_UNSUPP_LWT;
}
