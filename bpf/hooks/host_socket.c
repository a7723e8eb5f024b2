/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The policy of systemd units, cgroups and users, where their sockets send and receive. The subject is that of the
 * socket: the kernel gives it the cgroup that its process is in when it makes it, and the user that owns it.
 */
#pragma once
#include "host_decide.h"

#define CGROUP_LEVELS 16
#define PASS 1
#define DENY 0

/* From the IP header on: cgroup programs see no Ethernet header. Fragments do not get here. */
static __always_inline int parse_ip(struct __sk_buff *skb, struct packet *p)
{
	__u32 l4;
	__u8 proto;

	p->len = skb->len;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.ihl < 5)
			return DROP_INVALID;
		addr_set_v4(&p->key.saddr, ip.saddr);
		addr_set_v4(&p->key.daddr, ip.daddr);
		proto = ip.protocol;
		l4 = ip.ihl * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip6;

		if (bpf_skb_load_bytes(skb, 0, &ip6, sizeof(ip6)))
			return DROP_INVALID;
		p->v6 = 1;
		memcpy(&p->key.saddr, &ip6.saddr, 16);
		memcpy(&p->key.daddr, &ip6.daddr, 16);
		proto = ip6.nexthdr;
		l4 = sizeof(ip6);
		if (is_extension(proto)) {
			int reason = skip_extensions(skb, p, l4, &proto);

			if (reason)
				return reason;
			l4 = p->l4_off;
		}
	} else {
		p->kind = PACKET_OTHER;
		return DROP_NONE;
	}
	p->key.proto = proto;
	p->l4_off = l4;
	if (proto == IPPROTO_TCP) {
		struct tcphdr t;

		if (bpf_skb_load_bytes(skb, l4, &t, sizeof(t)))
			return DROP_INVALID;
		p->key.sport = t.source;
		p->key.dport = t.dest;
		p->tcp_flags = ((__u8 *)&t)[13];
	} else if (has_transport_ports(proto)) {
		__be16 ports[2];

		if (bpf_skb_load_bytes(skb, l4, ports, sizeof(ports)))
			return DROP_INVALID;
		p->key.sport = ports[0];
		p->key.dport = ports[1];
	} else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		struct icmphdr icmp;

		if (bpf_skb_load_bytes(skb, l4, &icmp, sizeof(icmp)))
			return DROP_INVALID;
		p->icmp_type = icmp.type;
		if (icmp.type == (p->v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO))
			p->key.sport = icmp.un.echo.id;
		else if (icmp.type == (p->v6 ? ICMPV6_ECHO_REPLY : ICMP_ECHOREPLY))
			p->key.dport = icmp.un.echo.id;
		else if (p->v6 && icmp.type >= 130 && icmp.type <= 143)
			p->kind = PACKET_NEIGHBOUR;
	}
	return DROP_NONE;
}

/* Number of the innermost cgroup around the socket that a policy names. At most CGROUP_LEVELS rounds. */
static __always_inline __u32 cgroup_number(struct __sk_buff *skb, __u32 generation)
{
	__u32 number = host_owner(generation, HOST_CGROUP, bpf_skb_cgroup_id(skb));

	if (number)
		return number;
	for (int level = 0; level < CGROUP_LEVELS; level++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);
		__u32 found;

		if (!id)
			break;
		found = host_owner(generation, HOST_CGROUP, id);
		if (found)
			number = found;
	}
	return number;
}

/* A question that goes to the agent's name service is judged as one to the server that the process asked. */
static __always_inline void as_asked(struct __sk_buff *skb, struct packet *p, const __u32 direction)
{
	struct ip_addr *there = direction == DIR_INGRESS ? &p->key.saddr : &p->key.daddr;
	__be16 *port = direction == DIR_INGRESS ? &p->key.sport : &p->key.dport;
	struct socket_key k = {.addr = *there, .port = *port, .proto = p->key.proto};
	struct socket_origin *so;

	if (!is_loopback(there))
		return;
	k.cookie = bpf_get_socket_cookie(skb);
	so = bpf_map_lookup_elem(&sockets, &k);
	if (!so || so->service || so->port != bpf_htons(53))
		return;
	*there = so->addr;
	*port = so->port;
}

static __always_inline int host_socket(struct __sk_buff *skb, const __u32 direction)
{
	struct host_state *st = host_state();
	struct packet p = {};
	struct host_query q = {};
	struct verdict_info info = {};
	__u32 cgroup, user;
	int reason;

	if (!st)
		return PASS;
	cgroup = cgroup_number(skb, st->generation);
	user = host_owner(st->generation, HOST_USER, bpf_get_socket_uid(skb));
	if (!cgroup && !user)
		return PASS;
	q.subject = host_owner(st->generation, HOST_PAIR, (__u64)cgroup << 32 | user);
	if (!q.subject)
		return PASS;
	q.generation = st->generation;
	q.direction = direction;
	reason = parse_ip(skb, &p);
	if (!reason) {
		if (p.kind != PACKET_FLOW)
			return PASS;
		as_asked(skb, &p, direction);
		q.key.scope = (__u16)q.subject;
		host_ask(skb, &q, &p, direction);
		reason = host_judge(skb, &p, &q, HOST_HOOK_SOCKET);
	} else if (st->panic == HOST_PANIC_OPEN) {
		return PASS;
	}
	if (!reason)
		return PASS;
	info.rule = q.rule;
	info.src_identity = q.key.scope;
	if (is_message(&q))
		host_log_message(&q, (__u32)reason);
	drop(&p, &info, (__u32)reason, direction);
	return DENY;
}

SEC("cgroup_skb/ingress")
int sluice_host_socket_in(struct __sk_buff *skb)
{
	return host_socket(skb, DIR_INGRESS);
}

SEC("cgroup_skb/egress")
int sluice_host_socket_out(struct __sk_buff *skb)
{
	return host_socket(skb, DIR_EGRESS);
}
