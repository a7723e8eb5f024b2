/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which device a packet came in through. */
#pragma once
#include "common.h"

/*
 * The host's index of the device. A dry run may name another in cb[0], which needs no device behind it:
 * BPF_PROG_TEST_RUN takes only indexes of devices that exist, `sluice policy test` has endpoints without any.
 */
static __always_inline __u32 ingress_ifindex(const struct __sk_buff *skb)
{
	if (cfg_dry_run) {
		__u32 given = skb->cb[0];

		if (given)
			return given;
	}
	return skb->ifindex;
}
