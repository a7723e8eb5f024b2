/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Translation: claiming a source port in the slow path, rewriting a packet in the fast one. */
#pragma once
#include "work.h"
#include "flow_marks.h"
#include "sctp.h"
#include "xdp_slot.h"

/* Ports tried for one flow before it is given up. */
#define SNAT_TRIES 32

static __always_inline __u32 mix(__u32 h, __u32 v)
{
	h ^= v;
	h *= 0x85ebca6b;
	return h ^ (h >> 13);
}

static __always_inline __u32 tuple_hash(const struct flow_key *k)
{
	__u32 h = 0x9e3779b9;

	h = mix(h, k->saddr.w[3] ^ k->saddr.w[0]);
	h = mix(h, k->saddr.w[2] ^ k->saddr.w[1]);
	h = mix(h, k->daddr.w[3] ^ k->daddr.w[0]);
	h = mix(h, k->daddr.w[2] ^ k->daddr.w[1]);
	h = mix(h, ((__u32)k->sport << 16) | k->dport);
	h = mix(h, k->proto);
	return h ^ (h >> 16);
}

/* The i-th source port to try for a flow with this hash; not the bits that choose the backend come first. */
static __always_inline __be16 snat_port(__u32 h, __u32 i)
{
	__u32 range = (__u32)cfg_snat_max - cfg_snat_min + 1;
	__u32 port = scaled(h << 16 | h >> 16, range) + i * 7;

	if (i)
		port %= range;
	return bpf_htons((__u16)(cfg_snat_min + port));
}

/* Fills t, which is zero, for sockets that packets like k reach. Returns how much of it counts. */
static __always_inline __u32 socket_tuple(struct bpf_sock_tuple *t, const struct flow_key *k)
{
	if (addr_is_v4(&k->daddr)) {
		t->ipv4.saddr = k->saddr.w[3];
		t->ipv4.daddr = k->daddr.w[3];
		t->ipv4.sport = k->sport;
		t->ipv4.dport = k->dport;
		return sizeof(t->ipv4);
	}
	memcpy(t->ipv6.saddr, &k->saddr, 16);
	memcpy(t->ipv6.daddr, &k->daddr, 16);
	t->ipv6.sport = k->sport;
	t->ipv6.dport = k->dport;
	return sizeof(t->ipv6);
}

/* A socket of the host has this tuple: its port is not ours to take. */
__noinline int host_socket(struct __sk_buff *skb, const struct flow_key *rev)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size;

	if (!rev)
		return 0;
	size = socket_tuple(&t, rev);
	if (rev->proto == IPPROTO_TCP)
		sk = bpf_skc_lookup_tcp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	else if (rev->proto == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		return 0;
	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

static __always_inline bool same_opener(const struct flow *e, const struct work *w)
{
	return addr_equal(&e->daddr, &w->fwd.saddr) && e->dport == w->fwd.sport &&
	       e->peer_ifindex == w->fwd.ifindex && addr_equal(&e->saddr, &w->fwd.daddr) &&
	       e->sport == w->fwd.dport;
}

/* May this packet be the first one of a TCP flow? */
static __always_inline bool opens_tcp(const struct work *w)
{
	return w->pickup || w->had_old || (w->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_SYN;
}

int young_answers(void); /* young.h */

/*
 * Claims a source port for w: the reply key is inserted with BPF_NOEXIST into the table where the
 * flow starts its life, so the flow table is the port table. A retransmitted first
 * packet finds its own claim again. At most SNAT_TRIES rounds.
 */
__noinline int claim_port(struct __sk_buff *skb)
{
	struct work *w = work_area();
	bool tcp, in_half;
	__u32 h;

	if (!w)
		return DROP_INTERNAL;
	tcp = w->fwd.proto == IPPROTO_TCP;
	in_half = tcp && !w->direct;
	h = tuple_hash(&w->fwd);
	for (int i = 0; i < SNAT_TRIES; i++) {
		struct flow *taken;
		__be16 port = snat_port(h, (__u32)i);
		long err;

		if (i == 0 && w->keep_port)
			port = (__be16)w->keep_port;
		w->rev.dport = port;
		taken = bpf_map_lookup_elem(&flows, &w->rev);
		if (!taken && tcp) {
			struct half_flow *h = half_of(w);

			taken = h ? &h->r : NULL;
		}
		if (taken) {
			if (!same_opener(taken, w))
				continue;
			w->claimed = 1;
			return DROP_NONE;
		}
		if (tcp && !opens_tcp(w))
			continue; /* its claim may be at a later port */
		if (tcp && w->rev.ifindex == FLOW_IF_UPLINK && xdp_syn_taken(&w->rev, &w->fwd))
			continue;
		if (host_socket(skb, &w->rev) || (tcp && young_answers()))
			continue;
		if (cfg_dry_run)
			return DROP_NONE;
		if (tcp) {
			mark_flow(&w->rev);
			xdp_syn_mark(&w->rev);
		}
		w->r.epoch = 0; /* decided again until the entry is complete */
		w->r.daddr = w->fwd.saddr;
		w->r.dport = w->fwd.sport;
		w->r.saddr = w->fwd.daddr;
		w->r.sport = w->fwd.dport;
		w->r.peer_ifindex = w->fwd.ifindex;
		w->r.last = w->jiffies;
		if (!in_half) {
			err = bpf_map_update_elem(&flows, &w->rev, &w->r, BPF_NOEXIST);
			if (!err && tcp && half_of(w)) {
				/* Claimed in the other table in between. */
				bpf_map_delete_elem(&flows, &w->rev);
				continue;
			}
			if (!err) {
				w->claimed = 1;
				return DROP_NONE;
			}
			w->info.error = (__s32)err;
			if (err != -17) /* EEXIST: another CPU was faster */
				return DROP_FLOW_FULL;
			continue;
		}
		err = half_put(w, BPF_NOEXIST);
		if (err) {
			w->info.error = (__s32)err;
			continue;
		}
		/* A handshake that completed in between moved its claim to the main table first. */
		if (bpf_map_lookup_elem(&flows, &w->rev)) {
			half_drop(w, &w->rev);
			continue;
		}
		w->claimed = 1;
		return DROP_NONE;
	}
	return tcp && !opens_tcp(w) ? DROP_TCP_NO_FLOW : DROP_SNAT_PORTS;
}

static __always_inline __u32 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Precomputes the checksum differences between the packet as it comes (k) and as it leaves (e). */
static __always_inline void finish_translation(struct flow_key *k, struct flow *e)
{
	__u32 ports;

	if (addr_equal(&k->saddr, &e->saddr) && addr_equal(&k->daddr, &e->daddr) && k->sport == e->sport &&
	    k->dport == e->dport)
		return;
	e->flags |= FLOW_NAT;
	e->csum_addr = fold((__u32)bpf_csum_diff((__be32 *)&k->saddr, 32, (__be32 *)&e->saddr, 32, 0));
	ports = (__u32)(__u16)~k->sport + e->sport + (__u16)~k->dport + e->dport;
	e->csum_port = fold(ports);
	if (k->sport != e->sport || k->dport != e->dport)
		e->flags |= FLOW_L4_NAT_PORT;
}

static __always_inline void ip_decrease_ttl(struct iphdr *ip)
{
	__u32 check = ip->check;

	check += bpf_htons(0x0100);
	ip->check = (__sum16)(check + (check >= 0xffff));
	ip->ttl--;
}

static __always_inline int rewrite_l4(struct __sk_buff *skb, struct packet *p, struct flow *e)
{
	__u32 l4 = p->l4_off;
	__u64 flags = 0;
	__u32 off;

	switch (p->key.proto) {
	case IPPROTO_TCP:
		off = l4 + offsetof(struct tcphdr, check);
		break;
	case IPPROTO_UDP:
		off = l4 + offsetof(struct udphdr, check);
		flags = BPF_F_MARK_MANGLED_0;
		break;
	case IPPROTO_ICMP:
		/* No pseudo header; the id counts. */
		if (!(e->flags & FLOW_L4_NAT_PORT))
			return DROP_NONE;
		return bpf_l4_csum_replace(skb, l4 + 2, 0, e->csum_port, 0) ? DROP_CSUM : DROP_NONE;
	case IPPROTO_ICMPV6:
		off = l4 + 2;
		break;
	case PROTO_SCTP:
		return (e->flags & FLOW_L4_NAT_PORT) ? sctp_fix(skb, p, e->sport, e->dport) : DROP_NONE;
	default:
		return DROP_NONE;
	}
	if (p->v6)
		flags |= cfg_csum6_flags;
	if (bpf_l4_csum_replace(skb, off, 0, e->csum_addr, flags | BPF_F_PSEUDO_HDR))
		return DROP_CSUM;
	/* Before 6.16 the kernel takes the addresses out of that sum, but they are in the packet as well. */
	if (p->v6 && !cfg_csum6_flags)
		bpf_csum_update(skb, e->csum_addr);
	if ((e->flags & FLOW_L4_NAT_PORT) &&
	    bpf_l4_csum_replace(skb, off, 0, e->csum_port, flags & BPF_F_MARK_MANGLED_0))
		return DROP_CSUM;
	return DROP_NONE;
}

/* Applies e to the packet: addresses, ports, TTL, checksums. */
static __always_inline int rewrite(struct __sk_buff *skb, struct packet *p, struct flow *e)
{
	void *data, *end;
	__u32 l4;

	/*
	 * The IPv6 header has no checksum that would balance the smaller hop limit. Where the kernel has summed the packet
	 * up (CHECKSUM_COMPLETE: the device did, or a tunnel around it was verified), it would take the sum for wrong and
	 * drop UDP. First of all, because older verifiers forget what is known of the packet at each call.
	 */
	if (p->v6 && (e->flags & FLOW_TTL))
		bpf_csum_update(skb, (__u16)~bpf_htons(1));
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	l4 = p->l4_off;
	if (!p->v6) {
		struct iphdr *ip = data + L3_OFF;

		if ((void *)(ip + 1) > end)
			return DROP_INVALID;
		if (e->flags & FLOW_TTL)
			ip_decrease_ttl(ip);
		if (!(e->flags & FLOW_NAT))
			return DROP_NONE;
		ip->saddr = e->saddr.w[3];
		ip->daddr = e->daddr.w[3];
		ip->check = (__sum16)~fold((__u32)(__u16)~ip->check + e->csum_addr);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if ((void *)(ip6 + 1) > end)
			return DROP_INVALID;
		if (e->flags & FLOW_TTL)
			ip6->hop_limit--;
		if (!(e->flags & FLOW_NAT))
			return DROP_NONE;
		memcpy(&ip6->saddr, &e->saddr, 16);
		memcpy(&ip6->daddr, &e->daddr, 16);
	}
	if (p->fragment == FRAGMENT_LATER)
		return DROP_NONE;
	if (e->flags & FLOW_L4_NAT_PORT) {
		if (p->key.proto == IPPROTO_ICMP || p->key.proto == IPPROTO_ICMPV6) {
			/* One of the two is the id, the other 0. */
			__be16 id = e->sport | e->dport;

			if (bpf_skb_store_bytes(skb, l4 + 4, &id, 2, 0))
				return DROP_INVALID;
		} else if (l4 <= 512 && data + l4 + 4 <= end) {
			*(__be16 *)(data + l4) = e->sport;
			*(__be16 *)(data + l4 + 2) = e->dport;
		} else {
			__be16 ports[2] = {e->sport, e->dport};

			if (bpf_skb_store_bytes(skb, l4, ports, 4, 0))
				return DROP_INVALID;
		}
	}
	return rewrite_l4(skb, p, e);
}
