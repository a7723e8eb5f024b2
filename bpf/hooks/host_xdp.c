/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Deny lists before the kernel has made anything of a packet: the last step of sluice_xdp. Dropped is only what the
 * program at TC would drop for sure, and it is counted and reported in the same way: the first packet of a connection
 * (a SYN, or UDP of no flow), to an address of the host and to no published port or service, from a peer whose entry
 * denies it everything. All else goes on to TC.
 */
#pragma once
#include "address.h"
#include "host_decide.h"
#include "service.h"
#include "xdp_parse.h"

/* To the host itself, and of no flow of a container or of the host? */
static __always_inline bool opens_to_host(const struct packet *p, const struct host_query *q)
{
	struct addr_info *info = bpf_map_lookup_elem(&addrs, &p->key.daddr);
	struct service_key k;

	if (!info || !(info->flags & ADDR_HOST))
		return false;
	if (p->key.proto == IPPROTO_TCP ? !is_syn(p) : !!bpf_map_lookup_elem(&host_fresh, &q->key))
		return false;
	if (bpf_map_lookup_elem(&flows, &p->key) || published_port(&p->key.daddr, p->key.dport, p->key.proto))
		return false;
	return !services_active() ||
	       !service_find(&k, &p->key.daddr, p->key.dport, p->key.proto, info->flags & ADDR_NODEPORT);
}

SEC("xdp")
int sluice_host_xdp(struct xdp_md *ctx)
{
	struct host_state *st = host_state();
	struct policy_peer_key pk = {};
	struct verdict_info info = {};
	struct policy_peer *peer;
	struct host_query q = {};
	struct host_subject *s;
	struct packet p = {};
	__u32 subject;
	long size;

	if (!st || st->panic || st->audit || !xdp_parse(ctx, &p))
		return XDP_PASS;
	pk.identity = (__u32)host_class(&p.key.saddr);
	subject = host_owner(st->generation, HOST_EARLY, ctx->ingress_ifindex);
	if (!subject || !pk.identity)
		return XDP_PASS;
	q.key.local = p.key.daddr;
	q.key.remote = p.key.saddr;
	q.key.local_port = p.key.dport;
	q.key.remote_port = p.key.sport;
	q.key.proto = p.key.proto;
	subject = subject << 1 | (st->generation & 1);
	s = bpf_map_lookup_elem(&host_subjects, &subject);
	if (!s || !s->ingress)
		return XDP_PASS;
	pk.set = s->ingress;
	peer = bpf_map_lookup_elem(&host_peers, &pk);
	if (!peer || peer->verdict != VERDICT_DENY || always_open(&q) || !opens_to_host(&p, &q))
		return XDP_PASS;
	info.rule = peer->rule;
	size = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	asm volatile("" : "+r"(size)); /* pointers have no 32 bit difference */
	p.len = (__u32)size - L3_OFF; /* as at TC, with what pads a short frame */
	drop(&p, &info, DROP_HOST_POLICY, DIR_INGRESS);
	return XDP_DROP;
}
