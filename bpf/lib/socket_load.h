/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * How many sockets of this node are connected to a backend, for services that choose the one with the fewest: counted
 * when a socket connects, and back when it is closed. What finds no room is not counted.
 */
#pragma once
#include "service.h"

/* The socket is not connected to its backend any more. */
static __always_inline void forget_load(__u64 cookie)
{
	struct socket_load *l = bpf_map_lookup_elem(&socket_loads, &cookie);
	struct backend_load *load;
	__u32 number, use;

	if (!l)
		return;
	number = l->backend;
	use = l->use;
	if (bpf_map_delete_elem(&socket_loads, &cookie))
		return;
	load = bpf_map_lookup_elem(&backend_loads, &number);
	if (load && load->use == use)
		__sync_fetch_and_add(&load->sockets, -1);
}

/* The socket is about to be connected to the backend with this number. */
static __always_inline void note_load(__u64 cookie, __u32 number)
{
	struct backend_load *load = bpf_map_lookup_elem(&backend_loads, &number);
	struct service_state *s = service_state();
	struct socket_load l = {.backend = number};

	forget_load(cookie); /* of an attempt before */
	if (!load || !s)
		return;
	s->loads = 1;
	l.use = load->use;
	if (!bpf_map_update_elem(&socket_loads, &cookie, &l, BPF_NOEXIST))
		__sync_fetch_and_add(&load->sockets, 1);
}
