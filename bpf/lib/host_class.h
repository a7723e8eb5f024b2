/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who a peer is: the class of the longest prefix that contains its address. */
#pragma once
#include "host_maps.h"

/* Without branches: the verifier would follow each of them in every round of the loops below. */
static __always_inline __u64 mask_of(__u32 length)
{
	return ~((~0ULL >> (length >> 1)) >> (length - (length >> 1)));
}

/* IPv4: at most HOST_LENGTHS4 rounds, as many as there are prefix lengths in use. */
static __always_inline __u32 class_of4(const struct host_state *st, struct host_prefix_key *k, __u32 addr)
{
	for (int i = 0; i < HOST_LENGTHS4; i++) {
		__u32 *class;

		if ((__u32)i >= st->count4)
			break;
		k->length = st->lengths4[i];
		k->addr.w[3] = bpf_htonl(addr & (__u32)(mask_of(k->length) >> 32));
		class = bpf_map_lookup_elem(&host_prefixes, k);
		if (class)
			return *class;
	}
	return 0;
}

/* IPv6: the lengths go down, so each round only clears more bits. At most HOST_LENGTHS6 rounds. */
static __always_inline __u32 class_of6(const struct host_state *st, struct host_prefix_key *k)
{
	for (int i = 0; i < HOST_LENGTHS6; i++) {
		__u32 length, high, *class;
		__u64 mask;

		if ((__u32)i >= st->count6)
			break;
		length = st->lengths6[i];
		/* The first 64 bits at most. */
		high = length - ((length >> 6 | length >> 7) & 1) * (length - 64);
		mask = bpf_cpu_to_be64(mask_of(high));
		k->addr.w[0] &= (__u32)mask;
		k->addr.w[1] &= (__u32)(mask >> 32);
		mask = bpf_cpu_to_be64(mask_of(length - high));
		k->addr.w[2] &= (__u32)mask;
		k->addr.w[3] &= (__u32)(mask >> 32);
		k->length = length;
		class = bpf_map_lookup_elem(&host_prefixes, k);
		if (class)
			return *class;
	}
	return 0;
}

/* Class of an address, 0: it is in no prefix. */
__noinline int host_class(const struct ip_addr *a)
{
	struct host_prefix_key k = {};
	struct host_state *st = host_state();

	if (!a || !st)
		return 0;
	k.addr = *a;
	k.generation = st->generation;
	if (addr_is_v4(a))
		return (int)class_of4(st, &k, bpf_ntohl(a->w[3]));
	return (int)class_of6(st, &k);
}

static __always_inline __u32 host_owner(__u32 generation, __u32 kind, __u64 id)
{
	struct host_owner_key k = {.id = id, .kind = kind, .generation = generation};
	__u32 *value = bpf_map_lookup_elem(&host_owners, &k);

	return value ? *value : 0;
}

static __always_inline bool is_failsafe(__u32 direction, __u8 proto, __be16 port)
{
	struct host_failsafe_key k = {.direction = (__u8)direction, .proto = proto, .port = port};

	return bpf_map_lookup_elem(&host_failsafe, &k) != NULL;
}
