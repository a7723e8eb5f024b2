/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * New flows in XDP: node ports, external and load balancer addresses whose backend is on another node. The rules are
 * those of service_flow.h and decide.h for what comes by an uplink and leaves by one; whatever is not the plain case
 * is left to them. Frontends and backends that were looked up are kept by CPU for a second, or until something changes.
 */
#pragma once
#include "service_flow.h"
#include "xdp.h"
#include "xdp_syn.h"

#define XDP_FRONTENDS 64
#define XDP_BACKENDS 256
/* Source ports tried here; more are the TC program's. */
#define XDP_PORT_TRIES 4

struct xdp_frontend {
	struct ip_addr addr; /* as the packet has it */
	__be16 port;
	__u8 proto;
	__u8 usable; /* enum xdp_usable */
	__u32 epoch;
	__u32 generation;
	__u32 made; /* jiffies */
	__u32 number;
	__u32 flags;
	__u32 first;
	__u32 count;
	__u32 pad[4];
};
_Static_assert(sizeof(struct xdp_frontend) == 64, "struct xdp_frontend is a cache line");

enum xdp_usable {
	XDP_UNUSABLE = 0, /* not a service, or one that XDP leaves to TC */
	XDP_BY_ADDRESS = 1, /* its row has the address */
	XDP_BY_NODE_PORT = 2, /* its row has none */
};

/* What IPv4 needs is in the first cache line. */
struct xdp_backend {
	__u32 number; /* and 1; 0: empty */
	__u32 epoch;
	__u32 generation;
	__u32 made; /* jiffies */
	__u32 ifindex; /* device that it was looked up for */
	__u32 identity;
	__be16 port;
	__u16 mtu;
	__u8 dmac[6];
	__u8 smac[6];
	__u8 usable; /* 0: here, or not to be reached by the device */
	__u8 by_stack; /* see struct xdp_route */
	__u8 pad[2];
	__be32 snat4; /* the last words of snat and addr */
	__be32 addr4;
	__u32 sum; /* of both addresses, folded */
	__u32 pad1[2];
	struct ip_addr snat; /* source of what is sent to it */
	struct ip_addr addr;
	__u32 pad2[8];
};
_Static_assert(offsetof(struct xdp_backend, snat) == 64 && sizeof(struct xdp_backend) == 128,
	       "struct xdp_backend is two cache lines");

/* What one CPU, which alone writes it, has looked up. As hot_tables it is not per-CPU memory. */
struct xdp_table {
	struct xdp_frontend frontends[XDP_FRONTENDS];
	struct xdp_backend backends[XDP_BACKENDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct xdp_table)); /* private: its type is not exported */
	__uint(max_entries, 64); /* the loader sets it to the number of CPUs */
	__uint(map_flags, BPF_F_MMAPABLE);
} xdp_tables SEC(".maps");

static __always_inline struct xdp_table *xdp_table(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&xdp_tables, &cpu);
}

/* Ones' complement sum of an address, folded. */
static __always_inline __u32 sum_words(const struct ip_addr *a)
{
	__u64 sum = (__u64)a->w[0] + a->w[1] + a->w[2] + a->w[3];

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return fold((__u32)sum);
}

enum xdp_socket {
	XDP_NO_SOCKET = 0,
	XDP_LISTENS = 1, /* for TCP connections like it */
	XDP_CONNECTED = 2, /* has this tuple; any socket of UDP */
};

/* What socket the host has for a packet with this tuple. */
__noinline int xdp_socket(struct xdp_md *ctx, const struct flow_key *k)
{
	struct bpf_sock_tuple t = {};
	int found = XDP_CONNECTED;
	struct bpf_sock *sk;
	__u32 size;

	if (!k)
		return 0;
	size = socket_tuple(&t, k);
	if (k->proto == IPPROTO_TCP) {
		sk = bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
		if (!sk)
			return XDP_NO_SOCKET;
		if (sk->state == BPF_TCP_LISTEN)
			found = XDP_LISTENS;
		bpf_sk_release(sk);
		return found;
	}
	sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return XDP_NO_SOCKET;
	bpf_sk_release(sk);
	return found;
}

/* Fills fe for the destination of k. */
__noinline int xdp_find_frontend(struct xdp_md *ctx, const struct flow_key *k, struct xdp_frontend *fe)
{
	struct service_state *s = service_state();
	struct node *node = node_state();
	struct work *w = work_area();
	struct addr_info *info;
	struct service *svc;

	if (!k || !fe || !s || !node || !w)
		return 0;
	fe->usable = 0;
	fe->addr = k->daddr;
	fe->port = k->dport;
	fe->proto = k->proto;
	fe->epoch = node->epoch;
	fe->generation = *(volatile __u32 *)&s->generation;
	fe->made = now();
	w->service.addr = k->daddr; /* before 6.2 an argument's memory can't be a map's key */
	info = bpf_map_lookup_elem(&addrs, &w->service.addr);
	svc = service_find(&w->service, &k->daddr, k->dport, k->proto,
			   info && (info->flags & (ADDR_HOST | ADDR_NODEPORT)) ==
					   (ADDR_HOST | ADDR_NODEPORT));
	if (!svc || !svc->count_external || !(svc->flags & SVC_SNAT) || (svc->flags & SVC_DSR))
		return 0;
	if ((svc->flags & SVC_NODEPORT) && xdp_socket(ctx, k))
		return 0;
	fe->number = svc->number;
	fe->flags = svc->flags;
	fe->first = svc->first_external;
	fe->count = svc->count_external;
	fe->usable = addr_equal(&w->service.addr, &k->daddr) ? XDP_BY_ADDRESS : XDP_BY_NODE_PORT;
	return 1;
}

/* Where a frontend has its place; w3, w2: the last words of its address. */
static __always_inline struct xdp_frontend *xdp_frontend_at(struct xdp_table *t, __be32 w3, __be32 w2,
							    __be16 port, __u8 proto)
{
	__u32 h = (w3 ^ w2 ^ port) + proto;

	h *= 0x9e3779b1;
	return &t->frontends[(h >> 16) & (XDP_FRONTENDS - 1)];
}

static __always_inline struct xdp_frontend *
xdp_frontend(struct xdp_md *ctx, struct xdp_table *t, const struct flow_key *k, __u32 epoch, __u32 generation)
{
	struct xdp_frontend *fe = xdp_frontend_at(t, k->daddr.w[3], k->daddr.w[2], k->dport, k->proto);

	if (fe->epoch != epoch || fe->generation != generation || fe->port != k->dport ||
	    fe->proto != k->proto || now() - fe->made >= XDP_FRESH * cfg_hz ||
	    !addr_equal(&fe->addr, &k->daddr))
		xdp_find_frontend(ctx, k, fe);
	return fe->usable && fe->epoch == epoch && fe->generation == generation ? fe : NULL;
}

/* Fills be for a backend's number. */
__noinline int xdp_find_backend(struct xdp_md *ctx, struct xdp_backend *be, __u32 number)
{
	struct service_state *s = service_state();
	struct node *node = node_state();
	__u32 ifindex = ctx->ingress_ifindex;
	struct addr_info info = {};
	struct xdp_route *rt;
	struct uplink *up;
	struct backend *b;

	if (!be || !s || !node)
		return 0;
	be->usable = 0;
	be->number = number + 1;
	be->epoch = node->epoch;
	be->generation = *(volatile __u32 *)&s->generation;
	be->made = now();
	be->ifindex = ifindex;
	b = bpf_map_lookup_elem(&backends, &number);
	up = bpf_map_lookup_elem(&uplinks, &ifindex);
	if (!b || !up)
		return 0;
	be->addr = b->addr;
	be->port = b->port;
	be->snat = addr_is_v4(&be->addr) ? up->snat4 : up->snat6;
	address_info(&be->addr, &info);
	be->identity = info.identity;
	if (addr_is_zero(&be->snat) || info.ifindex || (info.flags & (ADDR_HOST | ADDR_RESERVED)))
		return 0;
	if (node->tunnel && (info.flags & ADDR_CLUSTER))
		return 0; /* through the overlay */
	rt = xdp_route(ctx, &be->snat, &be->addr, be->epoch);
	if (!rt) {
		be->number = 0; /* the stack asks for its neighbour now: look again */
		return 0;
	}
	be->mtu = rt->mtu;
	memcpy(be->dmac, rt->dmac, ETH_ALEN);
	memcpy(be->smac, rt->smac, ETH_ALEN);
	be->by_stack = rt->by_stack;
	rt->by_stack = 0;
	be->snat4 = be->snat.w[3];
	be->addr4 = be->addr.w[3];
	be->sum = sum_words(&be->addr) + sum_words(&be->snat);
	be->usable = 1;
	return 0;
}

static __always_inline struct xdp_backend *xdp_backend_at(struct xdp_table *t, __u32 number)
{
	return &t->backends[number & (XDP_BACKENDS - 1)];
}

/* Is be what was found for the backend with this number, not too long ago? */
static __always_inline bool xdp_backend_good(struct xdp_md *ctx, const struct xdp_backend *be, __u32 number,
					     __u32 epoch, __u32 generation)
{
	return be->number == number + 1 && be->epoch == epoch && be->generation == generation &&
	       be->ifindex == ctx->ingress_ifindex && now() - be->made < XDP_FRESH * cfg_hz;
}

static __always_inline struct xdp_backend *xdp_backend(struct xdp_md *ctx, struct xdp_table *t, __u32 number,
						       __u32 epoch, __u32 generation)
{
	struct xdp_backend *be = xdp_backend_at(t, number);

	if (!xdp_backend_good(ctx, be, number, epoch, generation))
		xdp_find_backend(ctx, be, number);
	return be->usable && be->epoch == epoch && be->generation == generation ? be : NULL;
}

/* The backend that affinity says: its number + 1. */
__noinline int xdp_affine(const struct flow_key *k, const struct xdp_frontend *fe)
{
	struct work *w = work_area();

	if (!w || !k || !fe)
		return 0;
	w->fwd = *k;
	w->service.addr = k->daddr;
	w->service.port = k->dport;
	w->service.proto = k->proto;
	w->service.pad = 0;
	if (fe->usable == XDP_BY_NODE_PORT)
		node_port_key(&w->service);
	return pick_backend(1, tuple_hash(k), NULL);
}

/* The backend for a packet with this tuple, whose hash is h. NULL: it is TC's. */
static __always_inline struct xdp_backend *xdp_choose(struct xdp_md *ctx, struct xdp_table *t,
						      const struct flow_key *k, __u32 h,
						      struct xdp_frontend *fe, const struct service_state *s)
{
	__u32 slot = fe->first + scaled(h, fe->count);
	struct xdp_backend *be;
	__u32 *number;
	__u32 n;

	if (fe->flags & SVC_AFFINITY) {
		n = (__u32)xdp_affine(k, fe);
		if (!n)
			return NULL;
		n--;
	} else {
		number = bpf_map_lookup_elem(&service_slots, &slot);
		if (!number)
			return NULL;
		n = *number;
	}
	be = xdp_backend(ctx, t, n, fe->epoch, fe->generation);
	barrier();
	/* What was read may have been written again meanwhile: see service.h. */
	return be && *(volatile __u32 *)&s->generation == fe->generation ? be : NULL;
}

/* service_admits for a frontend that was looked up before. */
__noinline int xdp_admits(const struct flow_key *k, const struct xdp_frontend *fe)
{
	struct work *w = work_area();

	if (!w || !k || !fe)
		return 0;
	w->keys.range.prefixlen = 160;
	w->keys.range.service = fe->number;
	w->keys.range.addr = k->saddr;
	return bpf_map_lookup_elem(&service_ranges, &w->keys.range) != NULL;
}

/* The tuple of the answers from be that come to its i-th port for a flow with the hash h, as in claim_port. */
static __always_inline void xdp_reverse(struct flow_key *rev, const struct xdp_backend *be, __u8 proto,
					__u32 h, __u32 i)
{
	rev->saddr = be->addr;
	rev->daddr = be->snat;
	rev->sport = be->port;
	rev->dport = snat_port(h, i);
	rev->ifindex = FLOW_IF_UPLINK;
	rev->proto = proto;
	memset(rev->pad, 0, sizeof(rev->pad));
}
