/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who has an address: exact entries first, then the longest prefix, then the world. */
#pragma once
#include "maps.h"

/* Always fills *out. */
__noinline int address_info(const struct ip_addr *a, struct addr_info *out)
{
	struct addr_info *info;

	if (!a || !out)
		return 0;
	info = bpf_map_lookup_elem(&addrs, a);
	if (!info) {
		struct cidr_key k = {.prefixlen = 128, .addr = *a};

		info = bpf_map_lookup_elem(&cidrs, &k);
	}
	if (info) {
		*out = *info;
		return 0;
	}
	out->identity = IDENTITY_WORLD;
	out->ifindex = 0;
	out->network = 0;
	out->flags = 0;
	return 0;
}
