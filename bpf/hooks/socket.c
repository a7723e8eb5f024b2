/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Services and published ports where there is a socket: the address is replaced when it connects or sends, so
 * packets go to the container directly and an established connection pays nothing. Sockets of the host's namespace
 * and of containers; all others are left alone.
 */
#pragma once
#include "address.h"
#include "service.h"
#include "socket_load.h"

#define ECONNREFUSED 111
#define SOCK_DGRAM 2

enum socket_verdict {
	SOCKET_AS_IS = 0,
	SOCKET_TRANSLATED = 1,
	SOCKET_REFUSED = 2,
};

/* Who owns a socket. */
struct socket_owner {
	struct socket_netns netns;
	__u64 cookie; /* of the network namespace */
	bool host;
};

static __always_inline bool owner_of(struct bpf_sock_addr *ctx, struct socket_owner *o)
{
	struct socket_netns *n;

	o->cookie = bpf_get_netns_cookie(ctx);
	o->host = o->cookie == cfg_netns_cookie;
	if (o->host)
		return true;
	n = bpf_map_lookup_elem(&socket_netns_map, &o->cookie);
	if (!n)
		return false;
	o->netns = *n;
	return true;
}

/* Whether node ports are served on the loopback addresses of this host. */
static __always_inline bool node_loopback(const struct socket_owner *o, const struct ip_addr *addr)
{
	return o->host && (cfg_node_loopback & (addr_is_v4(addr) ? 1 : 2));
}

/* Whether a process of this host listens on the node port itself. */
static __always_inline bool host_listens(struct bpf_sock_addr *ctx, const struct ip_addr *addr, __be16 port)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size;

	if (addr_is_v4(addr)) {
		t.ipv4.daddr = addr->w[3];
		t.ipv4.dport = port;
		size = sizeof(t.ipv4);
	} else {
		memcpy(t.ipv6.daddr, addr, 16);
		t.ipv6.dport = port;
		size = sizeof(t.ipv6);
	}
	if (ctx->protocol == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else if (ctx->protocol == IPPROTO_UDP)
		sk = bpf_sk_lookup_udp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	else
		return false;
	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

static __always_inline void remember(__u64 cookie, const struct socket_owner *o, __u32 service, __u8 proto,
				     const struct ip_addr *asked, __be16 asked_port,
				     const struct ip_addr *got, __be16 got_port, bool both)
{
	struct socket_key sk = {.cookie = cookie, .addr = *got, .port = got_port, .proto = proto};
	struct socket_origin so = {
		.addr = *asked, .port = asked_port, .service = service, .netns = o->cookie};

	bpf_map_update_elem(&sockets, &sk, &so, BPF_ANY);
	if (!both)
		return;
	sk.addr = *asked;
	sk.port = asked_port;
	sk.direction = SOCKET_FORWARD;
	so.addr = *got;
	so.port = got_port;
	bpf_map_update_elem(&sockets, &sk, &so, BPF_ANY);
}

/* A socket that sends without connecting keeps its backend while that is one. */
static __always_inline bool same_backend(struct service_keys *keys, __u64 cookie, __u8 proto,
					 const struct service *svc, struct ip_addr *addr, __be16 *port)
{
	struct socket_key sk = {
		.cookie = cookie, .addr = *addr, .port = *port, .proto = proto, .direction = SOCKET_FORWARD};
	struct socket_origin *so = bpf_map_lookup_elem(&sockets, &sk);
	struct member *m;

	if (!so || so->service != svc->number)
		return false;
	m = service_member(keys, svc->number, &so->addr, so->port, proto);
	if (!member_keeps(m, member_wanted(svc, false)))
		return false;
	*addr = so->addr;
	*port = so->port;
	return true;
}

/*
 * Replaces *addr and *port if they are a service's. What cannot be translated here (no backend, a backend on another
 * network, a source that is not allowed) is left to the programs that see the packets, if there are any.
 */
static __always_inline int to_service(struct bpf_sock_addr *ctx, const struct socket_owner *o,
				      struct ip_addr *addr, __be16 *port, bool sends)
{
	const int unable = o->netns.ifindex ? SOCKET_AS_IS : SOCKET_REFUSED;
	const __u8 proto = (__u8)ctx->protocol;
	struct service_state *s = service_state();
	struct addr_info *info = NULL;
	struct service_keys keys = {};
	struct ip_addr client = {};
	struct service_key k;
	struct service *svc;
	struct backend b;
	__u64 cookie;
	__u32 number, picked, generation;
	bool node = false, least;

	if (!s || !s->active)
		return SOCKET_AS_IS;
	generation = *(volatile __u32 *)&s->generation;
	svc = service_find(&k, addr, *port, proto, false);
	if (!svc) {
		if (is_loopback(addr)) {
			node = node_loopback(o, addr);
		} else {
			info = bpf_map_lookup_elem(&addrs, addr);
			node = info &&
			       (info->flags & (ADDR_HOST | ADDR_NODEPORT)) == (ADDR_HOST | ADDR_NODEPORT);
		}
		if (node)
			svc = service_of_node(&k);
	}
	if (!svc) /* where packets are seen they are refused there */
		return unable == SOCKET_REFUSED && !node && is_cluster_address(&k) ? SOCKET_REFUSED
										   : SOCKET_AS_IS;
	number = svc->number;
	least = svc->flags & SVC_LEAST;
	if ((svc->flags & SVC_NODEPORT) && o->host && host_listens(ctx, addr, *port))
		return SOCKET_AS_IS;
	if ((svc->flags & SVC_NODEPORT) && !o->host && unable == SOCKET_AS_IS)
		return SOCKET_AS_IS; /* whether the host listens on it is seen per packet */
	if ((svc->flags & SVC_NODEPORT) && !(addr->w[0] | addr->w[3]) && !node_loopback(o, addr))
		return SOCKET_AS_IS; /* 0.0.0.0 and :: are the socket's own loopback */
	if (!o->host)
		client = addr_is_v4(addr) ? o->netns.addr4 : o->netns.addr6;
	if (o->host ? (svc->flags & (SVC_RANGES | SVC_HOST_ALLOWED)) == SVC_RANGES
		    : !service_admits(&keys, svc, &client)) {
		count_service(number, true);
		return unable;
	}
	cookie = bpf_get_socket_cookie(ctx);
	if (sends && same_backend(&keys, cookie, proto, svc, addr, port))
		return SOCKET_TRANSLATED;
	picked = service_pick(&keys, &k, false, bpf_get_prandom_u32(), &client, &b, svc, generation);
	if (!picked) {
		if (unable == SOCKET_REFUSED || proto == IPPROTO_TCP) {
			count_service(number, true);
			return SOCKET_REFUSED;
		}
		return SOCKET_AS_IS;
	}
	if (o->netns.ifindex) {
		info = bpf_map_lookup_elem(&addrs, &b.addr);
		if (info && info->network && info->network != o->netns.network)
			return SOCKET_AS_IS;
	}
	count_service(number, false);
	if (least && !sends)
		note_load(cookie, picked - 1);
	remember(cookie, o, number, proto, addr, *port, &b.addr, b.port, sends);
	*addr = b.addr;
	*port = b.port;
	return SOCKET_TRANSLATED;
}

/* Replaces *addr and *port if they are a published port of this host. */
static __always_inline int to_container(struct bpf_sock_addr *ctx, const struct socket_owner *o,
					struct ip_addr *addr, __be16 *port)
{
	struct addr_info *info;
	struct hostport *hp;

	if (!o->host)
		return SOCKET_AS_IS;
	if (!(addr->w[0] | addr->w[3])) /* 0.0.0.0 and :: are the socket's own loopback */
		addr->w[3] = addr_is_v4(addr) ? bpf_htonl(0x7f000001) : bpf_htonl(1);
	if (!is_loopback(addr)) {
		info = bpf_map_lookup_elem(&addrs, addr);
		if (!info || !(info->flags & ADDR_HOST))
			return SOCKET_AS_IS;
	}
	hp = published_port(addr, *port, (__u8)ctx->protocol);
	if (!hp)
		return SOCKET_AS_IS;
	remember(bpf_get_socket_cookie(ctx), o, 0, (__u8)ctx->protocol, addr, *port, &hp->addr, hp->port,
		 false);
	*addr = hp->addr;
	*port = hp->port;
	return SOCKET_TRANSLATED;
}

/*
 * A question of the host goes to the agent, which asks the same server (it finds it in `sockets`) and passes on what it
 * has learned; without an agent, to the server. What a name server sends from its own port is no question.
 */
static __always_inline int to_names(struct bpf_sock_addr *ctx, const struct socket_owner *o,
				    struct ip_addr *addr, __be16 *port)
{
	struct name_server_key k = {.port = *port};
	struct name_server *n;
	struct ip_addr to = {};

	if (!o->host || (k.port != bpf_htons(53) && k.port != bpf_htons(NAMES_DIRECT_PORT)))
		return SOCKET_AS_IS;
	if (addr_is_v4(addr))
		addr_set_v4(&k.addr, 0);
	n = bpf_map_lookup_elem(&name_servers, &k);
	if (!n)
		return SOCKET_AS_IS;
	if (!n->local) {
		*port = n->port;
		return SOCKET_TRANSLATED;
	}
	if (addr_is_v4(addr))
		addr_set_v4(&to, bpf_htonl(0x7f000001));
	else
		to.w[3] = bpf_htonl(1);
	if ((ctx->sk && (ctx->sk->bound_dev_if || ctx->sk->src_port == 53)) ||
	    !host_listens(ctx, &to, n->port))
		return SOCKET_AS_IS;
	remember(bpf_get_socket_cookie(ctx), o, 0, (__u8)ctx->protocol, addr, *port, &to, n->port, false);
	*addr = to;
	*port = n->port;
	return SOCKET_TRANSLATED;
}

static __always_inline int outgoing(struct bpf_sock_addr *ctx, struct ip_addr *addr, __be16 *port, bool sends)
{
	struct socket_owner o = {};
	int verdict;

	if (!owner_of(ctx, &o))
		return SOCKET_AS_IS;
	if (to_names(ctx, &o, addr, port) == SOCKET_TRANSLATED)
		return SOCKET_TRANSLATED;
	verdict = to_service(ctx, &o, addr, port, sends);
	return verdict == SOCKET_AS_IS ? to_container(ctx, &o, addr, port) : verdict;
}

/* The other way, for recvmsg and getpeername. */
static __always_inline int to_origin(struct bpf_sock_addr *ctx, struct ip_addr *addr, __be16 *port)
{
	struct socket_key sk = {.addr = *addr, .port = *port, .proto = (__u8)ctx->protocol};
	struct socket_origin *so;

	sk.cookie = bpf_get_socket_cookie(ctx);
	so = bpf_map_lookup_elem(&sockets, &sk);
	if (!so)
		return SOCKET_AS_IS;
	*addr = so->addr;
	*port = so->port;
	return SOCKET_TRANSLATED;
}

enum socket_call {
	CALL_CONNECT = 0,
	CALL_SEND = 1,
	CALL_NAME = 2, /* what came in, or the peer's name */
};

/* What the program returns: 0 refuses the call. */
static __always_inline int refused(void)
{
	if (cfg_set_retval)
		bpf_set_retval(-ECONNREFUSED);
	return 0;
}

static __always_inline int socket4(struct bpf_sock_addr *ctx, const enum socket_call call)
{
	struct ip_addr addr;
	__be16 port = (__be16)ctx->user_port;
	int verdict;

	addr_set_v4(&addr, ctx->user_ip4);
	verdict = call == CALL_NAME ? to_origin(ctx, &addr, &port)
				    : outgoing(ctx, &addr, &port, call == CALL_SEND);
	if (call != CALL_NAME && verdict == SOCKET_REFUSED)
		return refused();
	if (verdict == SOCKET_TRANSLATED && addr_is_v4(&addr)) {
		ctx->user_ip4 = addr.w[3];
		ctx->user_port = port;
	}
	return 1;
}

static __always_inline int socket6(struct bpf_sock_addr *ctx, const enum socket_call call)
{
	struct ip_addr addr;
	__be16 port = (__be16)ctx->user_port;
	int verdict;

	addr.w[0] = ctx->user_ip6[0];
	addr.w[1] = ctx->user_ip6[1];
	addr.w[2] = ctx->user_ip6[2];
	addr.w[3] = ctx->user_ip6[3];
	verdict = call == CALL_NAME ? to_origin(ctx, &addr, &port)
				    : outgoing(ctx, &addr, &port, call == CALL_SEND);
	if (call != CALL_NAME && verdict == SOCKET_REFUSED)
		return refused();
	if (verdict == SOCKET_TRANSLATED) {
		ctx->user_ip6[0] = addr.w[0];
		ctx->user_ip6[1] = addr.w[1];
		ctx->user_ip6[2] = addr.w[2];
		ctx->user_ip6[3] = addr.w[3];
		ctx->user_port = port;
	}
	return 1;
}

#define SOCKET_HOOK(name, section, family, call)                                                             \
	SEC(section)                                                                                         \
	int name(struct bpf_sock_addr *ctx)                                                                  \
	{                                                                                                    \
		return family(ctx, call);                                                                    \
	}

SOCKET_HOOK(sluice_connect4, "cgroup/connect4", socket4, CALL_CONNECT)
SOCKET_HOOK(sluice_connect6, "cgroup/connect6", socket6, CALL_CONNECT)
SOCKET_HOOK(sluice_sendmsg4, "cgroup/sendmsg4", socket4, CALL_SEND)
SOCKET_HOOK(sluice_sendmsg6, "cgroup/sendmsg6", socket6, CALL_SEND)
SOCKET_HOOK(sluice_recvmsg4, "cgroup/recvmsg4", socket4, CALL_NAME)
SOCKET_HOOK(sluice_recvmsg6, "cgroup/recvmsg6", socket6, CALL_NAME)
SOCKET_HOOK(sluice_getpeername4, "cgroup/getpeername4", socket4, CALL_NAME)
SOCKET_HOOK(sluice_getpeername6, "cgroup/getpeername6", socket6, CALL_NAME)
