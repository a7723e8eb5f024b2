/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Uplinks, before the kernel has made anything of a packet. A device has room for one XDP program: what has to be done
 * this early is a step here, in the order of what it may decide. XDP_PASS leaves a packet to the next step and in the
 * end to sluice_from_uplink.
 */
#pragma once
#include "../lib/xdp_forward.h"

SEC("xdp")
int sluice_xdp(struct xdp_md *ctx)
{
	return xdp_forward(ctx);
}
