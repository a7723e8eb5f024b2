/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Deny lists before anything else is done with a packet. Dropped is only what the program at TC would drop for sure: a
 * peer that the ingress policy of the device denies whatever it sends, to an address of the host, that belongs to no
 * flow, no published port, no service and no failsafe port. All else goes on.
 */
#pragma once
#include "address.h"
#include "host_decide.h"
#include "service.h"

struct xdp_headers {
	struct flow_key key;
	__u32 len;
};

/* At least the ports of TCP and UDP. Returns false for what TC is to look at. */
static __always_inline bool xdp_parse(struct xdp_md *ctx, struct xdp_headers *h)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__be16 *ports;
	void *l4;

	if ((void *)(eth + 1) > end)
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > end || ip->ihl != 5 || (ip->frag_off & bpf_htons(0x3fff)))
			return false;
		addr_set_v4(&h->key.saddr, ip->saddr);
		addr_set_v4(&h->key.daddr, ip->daddr);
		h->key.proto = ip->protocol;
		h->len = bpf_ntohs(ip->tot_len);
		l4 = ip + 1;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = (void *)(eth + 1);

		if ((void *)(ip6 + 1) > end)
			return false;
		memcpy(&h->key.saddr, &ip6->saddr, 16);
		memcpy(&h->key.daddr, &ip6->daddr, 16);
		h->key.proto = ip6->nexthdr;
		h->len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
		l4 = ip6 + 1;
	} else {
		return false;
	}
	if (!has_transport_ports(h->key.proto))
		return false;
	ports = l4;
	if ((void *)(ports + 2) > end)
		return false;
	h->key.sport = ports[0];
	h->key.dport = ports[1];
	return true;
}

/* For the host itself, and nobody waits for it? */
static __always_inline bool xdp_unwanted(const struct xdp_headers *h)
{
	struct host_flow_key k = {};
	struct addr_info *info = bpf_map_lookup_elem(&addrs, &h->key.daddr);
	struct node *node = node_state();
	struct service_key sk;

	if (!info || !(info->flags & ADDR_HOST) || !node)
		return false;
	if (bpf_map_lookup_elem(&flows, &h->key) || bpf_map_lookup_elem(&half, &h->key))
		return false;
	if (node->published && published_port(&h->key.daddr, h->key.dport, h->key.proto))
		return false;
	if (services_active() &&
	    service_find(&sk, &h->key.daddr, h->key.dport, h->key.proto, info->flags & ADDR_NODEPORT))
		return false;
	if (is_failsafe(DIR_INGRESS, h->key.proto, h->key.dport) ||
	    is_failsafe(DIR_EGRESS, h->key.proto, h->key.sport))
		return false;
	k.local = h->key.daddr;
	k.remote = h->key.saddr;
	k.local_port = h->key.dport;
	k.remote_port = h->key.sport;
	k.proto = h->key.proto;
	return !bpf_map_lookup_elem(&host_flows, &k) && !bpf_map_lookup_elem(&host_fresh, &k);
}

SEC("xdp")
int sluice_host_xdp(struct xdp_md *ctx)
{
	struct host_state *st = host_state();
	struct policy_peer_key pk = {};
	struct xdp_headers h = {};
	struct policy_peer *peer;
	struct host_subject *s;
	__u32 subject, class;

	if (!st || st->panic || !st->early || !xdp_parse(ctx, &h))
		return XDP_PASS;
	class = (__u32)host_class(&h.key.saddr);
	if (!class)
		return XDP_PASS;
	subject = host_owner(st->generation, HOST_DEVICE, ctx->ingress_ifindex) << 1 | (st->generation & 1);
	s = bpf_map_lookup_elem(&host_subjects, &subject);
	if (!s || !s->ingress)
		return XDP_PASS;
	pk.set = s->ingress;
	pk.identity = class;
	peer = bpf_map_lookup_elem(&host_peers, &pk);
	if (!peer || peer->verdict != VERDICT_DENY || !xdp_unwanted(&h))
		return XDP_PASS;
	count(DIR_INGRESS, DROP_HOST_EARLY, h.len);
	return XDP_DROP;
}
