/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Published ports for the host's own processes: the address is replaced when the socket connects or
 * sends, so packets go to the container directly. Sockets of other namespaces are left alone.
 */
#pragma once
#include "address.h"

struct socket_key {
	__u64 cookie;
	struct ip_addr addr; /* the container's, as the socket would see it */
	__be16 port;
	__u8 pad[6];
};

struct socket_origin {
	struct ip_addr addr; /* what the program asked for */
	__be16 port;
	__u8 pad[2];
};

MAP(sockets, BPF_MAP_TYPE_LRU_HASH, struct socket_key, struct socket_origin, 16384, 0);

static __always_inline bool is_loopback(const struct ip_addr *a)
{
	if (addr_is_v4(a))
		return (bpf_ntohl(a->w[3]) >> 24) == 127;
	return !(a->w[0] | a->w[1] | a->w[2]) && a->w[3] == bpf_htonl(1);
}

/* Replaces *addr and *port if they are a published port. Returns true if they were. */
static __always_inline bool to_container(struct bpf_sock_addr *ctx, struct ip_addr *addr, __be16 *port)
{
	struct socket_key sk = {};
	struct socket_origin so = {};
	struct addr_info *info;
	struct hostport *hp;

	if (bpf_get_netns_cookie(ctx) != cfg_netns_cookie)
		return false;
	if (!is_loopback(addr)) {
		info = bpf_map_lookup_elem(&addrs, addr);
		if (!info || !(info->flags & ADDR_HOST))
			return false;
	}
	hp = published_port(addr, *port, (__u8)ctx->protocol);
	if (!hp)
		return false;
	so.addr = *addr;
	so.port = *port;
	sk.cookie = bpf_get_socket_cookie(ctx);
	sk.addr = hp->addr;
	sk.port = hp->port;
	bpf_map_update_elem(&sockets, &sk, &so, BPF_ANY);
	*addr = hp->addr;
	*port = hp->port;
	return true;
}

/* The other way, for recvmsg and getpeername. */
static __always_inline bool to_origin(struct bpf_sock_addr *ctx, struct ip_addr *addr, __be16 *port)
{
	struct socket_key sk = {.addr = *addr, .port = *port};
	struct socket_origin *so;

	if (bpf_get_netns_cookie(ctx) != cfg_netns_cookie)
		return false;
	sk.cookie = bpf_get_socket_cookie(ctx);
	so = bpf_map_lookup_elem(&sockets, &sk);
	if (!so)
		return false;
	*addr = so->addr;
	*port = so->port;
	return true;
}

static __always_inline void socket4(struct bpf_sock_addr *ctx, bool outgoing)
{
	struct ip_addr addr;
	__be16 port = (__be16)ctx->user_port;

	addr_set_v4(&addr, ctx->user_ip4);
	if (!(outgoing ? to_container(ctx, &addr, &port) : to_origin(ctx, &addr, &port)))
		return;
	ctx->user_ip4 = addr.w[3];
	ctx->user_port = port;
}

static __always_inline void socket6(struct bpf_sock_addr *ctx, bool outgoing)
{
	struct ip_addr addr;
	__be16 port = (__be16)ctx->user_port;

	addr.w[0] = ctx->user_ip6[0];
	addr.w[1] = ctx->user_ip6[1];
	addr.w[2] = ctx->user_ip6[2];
	addr.w[3] = ctx->user_ip6[3];
	if (!(outgoing ? to_container(ctx, &addr, &port) : to_origin(ctx, &addr, &port)))
		return;
	ctx->user_ip6[0] = addr.w[0];
	ctx->user_ip6[1] = addr.w[1];
	ctx->user_ip6[2] = addr.w[2];
	ctx->user_ip6[3] = addr.w[3];
	ctx->user_port = port;
}

#define SOCKET_HOOK(name, section, family, outgoing)                                                         \
	SEC(section)                                                                                         \
	int name(struct bpf_sock_addr *ctx)                                                                  \
	{                                                                                                    \
		family(ctx, outgoing);                                                                       \
		return 1;                                                                                    \
	}

SOCKET_HOOK(sluice_connect4, "cgroup/connect4", socket4, true)
SOCKET_HOOK(sluice_connect6, "cgroup/connect6", socket6, true)
SOCKET_HOOK(sluice_sendmsg4, "cgroup/sendmsg4", socket4, true)
SOCKET_HOOK(sluice_sendmsg6, "cgroup/sendmsg6", socket6, true)
SOCKET_HOOK(sluice_recvmsg4, "cgroup/recvmsg4", socket4, false)
SOCKET_HOOK(sluice_recvmsg6, "cgroup/recvmsg6", socket6, false)
SOCKET_HOOK(sluice_getpeername4, "cgroup/getpeername4", socket4, false)
SOCKET_HOOK(sluice_getpeername6, "cgroup/getpeername6", socket6, false)
