/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The end of sockets that were translated: what they carried counts for their service, and no longer as a load. */
#pragma once
#include "service.h"
#include "socket_load.h"

/*
 * The service of a TCP socket that is connected to one of its backends; 0: none. ends: nobody will ask again. What is
 * removed at once leaves its place to the next one, while it is in the cache.
 */
static __always_inline __u32 service_of(struct bpf_sock_ops *ctx, bool ends)
{
	struct socket_key sk = {.cookie = bpf_get_socket_cookie(ctx), .proto = IPPROTO_TCP};
	struct socket_origin *so;
	__u32 service;

	if (ctx->family == AF_INET) {
		addr_set_v4(&sk.addr, ctx->remote_ip4);
	} else {
		sk.addr.w[0] = ctx->remote_ip6[0];
		sk.addr.w[1] = ctx->remote_ip6[1];
		sk.addr.w[2] = ctx->remote_ip6[2];
		sk.addr.w[3] = ctx->remote_ip6[3];
	}
	sk.port = (__be16)(ctx->remote_port >> 16); /* network byte order in 32 bits */
	so = bpf_map_lookup_elem(&sockets, &sk);
	if (!so)
		return 0;
	service = so->service;
	if (ends)
		bpf_map_delete_elem(&sockets, &sk);
	return service;
}

SEC("sockops")
int sluice_sockops(struct bpf_sock_ops *ctx)
{
	const __u32 op = ctx->op;

	if (op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		if (services_active() && service_of(ctx, false))
			bpf_sock_ops_cb_flags_set(ctx, (int)ctx->bpf_sock_ops_cb_flags |
							       BPF_SOCK_OPS_STATE_CB_FLAG);
	} else if (op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE) {
		__u32 service = service_of(ctx, true);

		if (service)
			count_traffic(service, (__u64)ctx->segs_in + ctx->segs_out,
				      ctx->bytes_received + ctx->bytes_acked);
	}
	ctx->reply = (__u32)-1; /* nothing to say to whatever else was asked */
	return 1;
}

SEC("cgroup/sock_release")
int sluice_sock_release(struct bpf_sock *sk)
{
	struct service_state *s = service_state();

	if (s && s->loads)
		forget_load(bpf_get_socket_cookie(sk));
	return 1;
}
