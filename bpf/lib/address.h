/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who has an address: exact entries first, then the longest prefix, then the world. */
#pragma once
#include "maps.h"

/* Always fills *out. */
__noinline int address_info(const struct ip_addr *a, struct addr_info *out)
{
	struct addr_info *info;
	struct cidr_key k;

	if (!a || !out)
		return 0;
	/* On the stack: before 6.2 an argument's memory can't be a map's key. */
	k.prefixlen = 128;
	k.addr = *a;
	info = bpf_map_lookup_elem(&addrs, &k.addr);
	if (!info)
		info = bpf_map_lookup_elem(&cidrs, &k);
	if (info) {
		*out = *info;
		return 0;
	}
	out->identity = IDENTITY_WORLD;
	out->ifindex = 0;
	out->network = 0;
	out->flags = 0;
	memset(&out->node, 0, sizeof(out->node));
	return 0;
}

/* The published port of an address of this host: its own entry, else the one for every address of the family. */
static __always_inline struct hostport *published_port(const struct ip_addr *a, __be16 port, __u8 proto)
{
	struct hostport_key hk = {.addr = *a, .port = port, .proto = proto};
	struct hostport *hp = bpf_map_lookup_elem(&hostports, &hk);

	if (hp)
		return hp;
	hk.addr.w[3] = 0;
	if (hk.addr.w[2] != V4_MAPPED) {
		hk.addr.w[0] = 0;
		hk.addr.w[1] = 0;
		hk.addr.w[2] = 0;
	}
	return bpf_map_lookup_elem(&hostports, &hk);
}
