/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Uplinks, before the kernel has made anything of a packet. A device has room for one XDP program: what has to be done
 * this early is a step here, in the order of what it may decide. XDP_PASS leaves a packet to the next step and in the
 * end to sluice_from_uplink.
 */
#pragma once
#include "../lib/xdp_forward.h"

/* The step of the host's policy (hooks/host_xdp.c), while that has one: it is in an object of its own. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} xdp_host SEC(".maps");

SEC("xdp")
int sluice_xdp(struct xdp_md *ctx)
{
	const int action = xdp_forward(ctx);

	if (action == XDP_PASS && !cfg_dry_run)
		bpf_tail_call(ctx, &xdp_host, 0);
	return action;
}
