/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The overlay between nodes: one VXLAN device (RFC 7348) without addresses of its own, for which the programs choose
 * the other end packet by packet. UDP checksum and source port by flow are the kernel's defaults for such a device.
 */
#pragma once
#include "address.h"
#include "route.h"
#include "work.h"

/* Headers around a packet: Ethernet, VXLAN, UDP and IPv4 or IPv6. */
#define TUNNEL_HEAD4 50
#define TUNNEL_HEAD6 70
/* The part of struct bpf_tunnel_key that Linux 5.15 knows. */
#define TUNNEL_KEY offsetof(struct bpf_tunnel_key, local_ipv4)

/*
 * Ethernet addresses inside the tunnel, where there is no link to resolve anything on. The devices have others: VXLAN
 * drops what seems to come from the receiving device itself.
 */
static const __u8 tunnel_from[ETH_ALEN] = {0x02, 's', 'l', 'u', 'i', 'f'};
static const __u8 tunnel_to[ETH_ALEN] = {0x02, 's', 'l', 'u', 'i', 't'};

/* Sends the packet to the node e->nexthop through the device e->oif. Returns what the program returns. */
__noinline int tunnel_send(struct __sk_buff *skb, struct flow *e)
{
	struct bpf_tunnel_key key = {};
	struct node *node = node_state();
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	__u64 flags = 0;

	if (!e || !node || data + ETH_HLEN > end)
		return TC_ACT_SHOT;
	memcpy(data, tunnel_to, ETH_ALEN);
	memcpy(data + ETH_ALEN, tunnel_from, ETH_ALEN);
	key.tunnel_id = node->tunnel_id;
	key.tunnel_ttl = 64;
	if (addr_is_v4(&e->nexthop)) {
		key.remote_ipv4 = bpf_ntohl(e->nexthop.w[3]);
	} else {
		memcpy(key.remote_ipv6, &e->nexthop, sizeof(key.remote_ipv6));
		flags = BPF_F_TUNINFO_IPV6;
	}
	if (bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY, flags))
		return TC_ACT_SHOT;
	return (int)bpf_redirect(e->oif, 0);
}

/*
 * What a packet that came by an uplink or through the tunnel was made into goes back the same way. In the tunnel it needs
 * a key of its own, and w->f, which nobody needs any more. Returns what the program returns.
 */
__noinline int turn_back(struct __sk_buff *skb, struct packet *p)
{
	struct work *w = work_area();

	if (!p || !w)
		return TC_ACT_SHOT;
	if (p->key.ifindex != FLOW_IF_TUNNEL)
		return (int)bpf_redirect(skb->ifindex, 0);
	w->f.nexthop = w->sender;
	w->f.oif = skb->ifindex;
	return tunnel_send(skb, &w->f);
}

/* The sender of a packet that left the tunnel. Returns 0 if it is not of our network's number. */
__noinline int tunnel_source(struct __sk_buff *skb, struct ip_addr *out)
{
	struct bpf_tunnel_key key = {};
	struct node *node = node_state();

	if (!out || !node)
		return 0;
	if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY, 0)) {
		addr_set_v4(out, bpf_htonl(key.remote_ipv4));
	} else {
		if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY, BPF_F_TUNINFO_IPV6))
			return 0;
		memcpy(out, key.remote_ipv6, sizeof(key.remote_ipv6));
	}
	return key.tunnel_id == node->tunnel_id;
}

/* Whether `source` is on the node that sent the packet. Each may be known by several addresses. */
__noinline int tunnel_admits(const struct ip_addr *sender, const struct ip_addr *source)
{
	struct addr_info *from, inner;
	struct ip_addr key;

	if (!sender || !source)
		return 0;
	key = *sender;
	from = bpf_map_lookup_elem(&addrs, &key);
	if (!from || !(from->flags & ADDR_NODE))
		return 0;
	address_info(source, &inner);
	return (inner.flags & ADDR_CLUSTER) && !addr_is_zero(&inner.node) &&
	       addr_equal(&inner.node, &from->node);
}

/*
 * Whether a packet of a known flow comes from where its entry expects it. Only nodes with IPv4 addresses are in the
 * entry; others cost two lookups.
 */
static __always_inline bool tunnel_expects(const struct flow *e, const struct ip_addr *sender,
					   const struct ip_addr *source)
{
	if (likely(e->outer && addr_is_v4(sender) && e->outer == sender->w[3]))
		return true;
	return tunnel_admits(sender, source);
}

/* What an entry for packets from the tunnel keeps of the node that they come from. */
static __always_inline __be32 tunnel_outer(const struct addr_info *from)
{
	return addr_is_v4(&from->node) ? from->node.w[3] : 0;
}

static __always_inline __be32 tunnel_outer_of(const struct ip_addr *sender)
{
	return addr_is_v4(sender) ? sender->w[3] : 0;
}

/*
 * The way to what is not on this node, for the opener's packets (w->f) or the answers (w->r): a node of the cluster,
 * or where the host's routes lead. Answers go back the way that the opener came.
 */
__noinline int way_out(struct __sk_buff *skb, __u32 answers)
{
	struct work *w = work_area();
	struct addr_info *to;
	struct uplink *up;
	struct flow *e;
	bool tunnel;
	__u32 oif;

	if (!w)
		return DROP_INTERNAL;
	if (answers) {
		e = &w->r;
		to = &w->src;
		/* But not to a client whose packets another node has sent on (direct_return.h). */
		tunnel = w->fwd.ifindex == FLOW_IF_TUNNEL && (to->flags & ADDR_CLUSTER);
	} else {
		e = &w->f;
		to = &w->dst;
		/* The nodes know each other; what containers send has an address that only nodes know. */
		tunnel = w->tunnel && (to->flags & ADDR_CLUSTER) &&
			 (!(to->flags & ADDR_NODE) || from_container(w));
	}
	if (!tunnel) {
		const struct ip_addr *src = answers ? &w->f.daddr : &w->fwd.saddr;
		const struct ip_addr *dst = answers ? &w->fwd.saddr : &w->f.daddr;

		/* A pod on a neighbour of this node: where that is, whatever the routes say about the pod. */
		if (!w->tunnel && (to->flags & ADDR_CLUSTER) && !addr_is_zero(&to->node))
			dst = &to->node;
		return route_out(skb, e, src, dst);
	}
	oif = w->tunnel;
	up = bpf_map_lookup_elem(&uplinks, &oif);
	if (!up)
		return DROP_INTERNAL;
	if (addr_is_zero(&to->node))
		return DROP_NO_NODE;
	/* ::ffff:0.0.0.0 (NO_KEY in src/nodes/inner-address.ts) */
	if (addr_is_v4(&to->node) && !to->node.w[3])
		return DROP_NODE_NO_KEY;
	e->action = ACTION_TUNNEL;
	e->flags |= FLOW_TTL;
	e->oif = oif;
	e->nexthop = to->node;
	e->mtu = up->mtu - (addr_is_v4(&to->node) ? TUNNEL_HEAD4 : TUNNEL_HEAD6);
	return DROP_NONE;
}
