/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The first packet of a TCP connection from outside, when this CPU knows the frontend and the backend that Maglev says:
 * it takes one slot of xdp_slot.h, and is sent on. Whatever else may be about it (the port is taken, the client has a
 * backend of its own, sources are looked at, something has changed) is xdp_new's, which begins again.
 */
#pragma once
#include "xdp_hot.h"
#include "xdp_service.h"

/* An address as two words; little-endian, as all that BPF runs on here. */
struct xdp_words {
	__u64 high;
	__u64 low;
};

static __always_inline struct xdp_words xdp_words_v4(__be32 v4)
{
	return (struct xdp_words){.high = 0, .low = (__u64)v4 << 32 | V4_MAPPED};
}

static __always_inline struct xdp_words xdp_words_of(const void *addr)
{
	return (struct xdp_words){.high = ((const __u64 *)addr)[0], .low = ((const __u64 *)addr)[1]};
}

static __always_inline bool xdp_words_are(const struct xdp_words *w, const struct ip_addr *a)
{
	const __u64 *x = (const __u64 *)a;

	return x[0] == w->high && x[1] == w->low;
}

static __always_inline void xdp_words_to(struct ip_addr *a, const struct xdp_words *w)
{
	((__u64 *)a)[0] = w->high;
	((__u64 *)a)[1] = w->low;
}

static __always_inline bool xdp_words_v4_mapped(const struct xdp_words *w)
{
	return !w->high && (__u32)w->low == V4_MAPPED;
}

/* tuple_hash() of a TCP packet. */
static __always_inline __u32 xdp_first_hash(const struct xdp_words *s, const struct xdp_words *d, __u32 ports)
{
	__u32 h = 0x9e3779b9;

	h = mix(h, (__u32)(s->low >> 32) ^ (__u32)s->high);
	h = mix(h, (__u32)s->low ^ (__u32)(s->high >> 32));
	h = mix(h, (__u32)(d->low >> 32) ^ (__u32)d->high);
	h = mix(h, (__u32)d->low ^ (__u32)(d->high >> 32));
	h = mix(h, ports << 16 | ports >> 16);
	h = mix(h, IPPROTO_TCP);
	return h ^ (h >> 16);
}

/* What an address takes from a ones' complement sum that it is no longer in. */
static __always_inline __u64 xdp_without(const struct xdp_words *w)
{
	return (__u64)(__u32)~w->high + (__u32)(~w->high >> 32) + (__u32)~w->low + (__u32)(~w->low >> 32);
}

static __always_inline __sum16 xdp_checksum(__sum16 check, __u64 difference)
{
	__u64 sum = (__u64)(__u16)~check + difference;

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~fold((__u32)sum);
}

/* The frontend of a TCP packet to d, if it is known and every client may use it, each connection by itself. */
static __always_inline struct xdp_frontend *xdp_plain_frontend(struct xdp_table *t, const struct xdp_words *d,
							       __be16 dport, __u32 epoch)
{
	struct xdp_frontend *fe =
		xdp_frontend_at(t, (__u32)(d->low >> 32), (__u32)d->low, dport, IPPROTO_TCP);

	if (!fe->usable || (fe->flags & (SVC_RANGES | SVC_AFFINITY)) || fe->port != dport ||
	    fe->proto != IPPROTO_TCP || fe->epoch != epoch || now() - fe->made >= XDP_FRESH * cfg_hz ||
	    !xdp_words_are(d, &fe->addr))
		return NULL;
	return fe;
}

/* Takes the slot for a connection from s to d, with the hash h, that goes to be by this port of the node. */
static __always_inline bool xdp_first_claim(struct xdp_syn *syn, const struct xdp_words *s,
					    const struct xdp_words *d, __u32 ports, __u32 h,
					    const struct xdp_backend *be, __be16 port)
{
	__u32 number = be->number - 1;
	__u32 jiffies = now();

	if (syn->backend == number && syn->check && syn->port == port && syn->snat == be->snat4 &&
	    xdp_syn_is_fresh(syn, jiffies))
		return false;
	/* Who takes a connection out of a slot marks it first. */
	barrier();
	if (xdp_syn_may_be_flow(syn, be->addr4, be->port))
		return false;
	syn->made = jiffies;
	syn->epoch = be->epoch;
	syn->backend = number;
	xdp_words_to(&syn->client, s);
	xdp_words_to(&syn->frontend, d);
	*(__u32 *)&syn->client_port = ports;
	syn->port = port;
	syn->state = FLOW_NEW;
	syn->snat = be->snat4;
	syn->check = xdp_syn_check(h, number, be->snat4, port);
	return true;
}

static __always_inline int xdp_first(struct xdp_md *ctx, const bool v6)
{
	const __u32 header = v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct service_state *state = service_state();
	struct xdp_table *table = xdp_table();
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct node *node = node_state();
	struct ipv6hdr *ip6 = data + L3_OFF;
	struct iphdr *ip = data + L3_OFF;
	struct tcphdr *tcp = data + L3_OFF + header;
	struct xdp_words s, d;
	struct xdp_frontend *fe;
	struct xdp_backend *be;
	struct xdp_syn *syn;
	__u32 ports, len, h, slot;
	__u32 *number;
	__u64 change;
	__be16 port;

	if (!state || !node || !table || node->trace || (void *)(tcp + 1) > end)
		return XDP_MISS;
	if (v6) {
		s = xdp_words_of(&ip6->saddr);
		d = xdp_words_of(&ip6->daddr);
		if (xdp_words_v4_mapped(&s) || xdp_words_v4_mapped(&d))
			return XDP_MISS;
		len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	} else {
		s = xdp_words_v4(ip->saddr);
		d = xdp_words_v4(ip->daddr);
		len = bpf_ntohs(ip->tot_len);
	}
	ports = *(__u32 *)tcp;
	h = xdp_first_hash(&s, &d, ports);
	port = snat_port(h, 0);
	syn = xdp_syn_of_port(port);
	fe = xdp_plain_frontend(table, &d, (__be16)(ports >> 16), node->epoch);
	if (!syn || !fe)
		return XDP_MISS;
	slot = fe->first + scaled(h, fe->count);
	number = bpf_map_lookup_elem(&service_slots, &slot);
	if (!number)
		return XDP_MISS;
	be = xdp_backend_at(table, *number);
	if (!xdp_backend_good(ctx, be, *number, fe->epoch, fe->generation) || !be->usable || be->by_stack ||
	    len > be->mtu || data + L3_OFF + len > end || !mac_equal(data, be->smac))
		return XDP_MISS;
	barrier();
	/* What was read may have been written again meanwhile: see service.h. */
	if (*(volatile __u32 *)&state->generation != fe->generation ||
	    !xdp_first_claim(syn, &s, &d, ports, h, be, port))
		return XDP_MISS;
	change = be->sum + xdp_without(&s) + xdp_without(&d);
	if (v6) {
		ip6->hop_limit--;
		xdp_set_address(&ip6->saddr, &be->snat);
		xdp_set_address(&ip6->daddr, &be->addr);
	} else {
		ip->ttl--;
		/* The word with the lifetime has become smaller by 0x0100. */
		ip->check = xdp_checksum(ip->check, change + (__u16)~bpf_htons(0x0100));
		ip->saddr = be->snat4;
		ip->daddr = be->addr4;
	}
	tcp->check =
		xdp_checksum(tcp->check, change + (__u16)~ports + (__u16) ~(ports >> 16) + port + be->port);
	*(__u32 *)tcp = (__u32)be->port << 16 | port;
	xdp_set_macs(data, be->dmac, be->smac);
	count_service(fe->number, false);
	count(DIR_INGRESS, DROP_NONE, len);
	return XDP_TX;
}

/* A SYN that xdp_hot_forward4 has looked at; XDP_MISS: it is xdp_new's. */
__noinline int xdp_first4(struct xdp_md *ctx)
{
	return xdp_first(ctx, false);
}

/* The same for xdp_hot_forward6. */
__noinline int xdp_first6(struct xdp_md *ctx)
{
	return xdp_first(ctx, true);
}
