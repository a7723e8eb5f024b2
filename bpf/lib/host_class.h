/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who a peer is: the class of the longest prefix that contains its address. */
#pragma once
#include "host_maps.h"

#define HOST_CLASS_MASK ((1U << 26) - 1)

/* Without branches: the verifier would follow each of them in every round of the loops below. */
static __always_inline __u64 mask_of(__u32 length)
{
	return ~((~0ULL >> (length >> 1)) >> (length - (length >> 1)));
}

/* Every bit of x counts for each bit of the result. The agent computes the same (src/host/lines.ts). */
static __always_inline __u32 line_hash(__u32 x)
{
	x ^= x >> 16;
	x *= 0x7feb352d;
	x ^= x >> 15;
	x *= 0x846ca68b;
	return x ^ x >> 16;
}

/*
 * Length << 26 | class of the longest prefix in a line that contains the address; 0: none. Without branches: which entry
 * it is can't be foreseen, and what comes next does not have to wait until the line is there.
 */
static __always_inline __u32 line_match(const struct host_line *line, __u32 addr)
{
	__u64 best = 0;

#pragma unroll
	for (int i = 0; i < HOST_LINE_ENTRIES; i++) {
		const __u64 entry = *(const volatile __u64 *)&line->entries[i];
		const __u64 found = entry >> 32;
		const __u64 mask = 0xffffffffULL ^ (0xffffffffULL >> (found >> 26));
		const __u64 differs = (entry ^ addr) & mask;
		__u64 more = (found & -((differs - 1) >> 63)) - best;

		asm volatile("" : "+r"(more)); /* else the compiler makes a branch of it */
		best += more & ~((__s64)more >> 63);
	}
	return (__u32)best;
}

/*
 * What the lines say of an address, as line_match; *spilled: host_prefixes has to be asked too. Prefixes of a later
 * anchor are shorter, so the first one found decides.
 */
static __always_inline __u32 lines_of4(const struct host_state *st, __u32 addr, bool *spilled)
{
	for (__u32 i = 0; i < HOST_ANCHORS; i++) {
		const __u32 bits = (__u32)((__u64)addr >> (HOST_ANCHOR_BITS * (i + 1)));
		struct host_line *line;
		__u32 slot, found;

		if (!(st->anchors4 & 1U << i))
			continue;
		slot = (line_hash(bits | i << 24) & (cfg_host_lines - 1)) +
		       (st->generation & 1) * cfg_host_lines;
		line = bpf_map_lookup_elem(&host_lines, &slot);
		if (!line)
			continue;
		if (unlikely(line->spilled))
			*spilled = true;
		found = line_match(line, addr);
		if (found)
			return found;
	}
	return 0;
}

/* IPv4: one line in most cases; at most HOST_LENGTHS4 rounds of the rest. */
static __always_inline __u32 class_of4(const struct host_state *st, struct host_prefix_key *k, __u32 addr)
{
	bool spilled = false;
	const __u32 best = lines_of4(st, addr, &spilled);

	if (likely(!spilled))
		return best & HOST_CLASS_MASK;
	for (int i = 0; i < HOST_LENGTHS4; i++) {
		__u32 *class;

		if ((__u32)i >= st->count4)
			break;
		k->length = st->lengths4[i];
		if (k->length <= best >> 26)
			break;
		k->addr.w[3] = bpf_htonl(addr & (__u32)(mask_of(k->length) >> 32));
		class = bpf_map_lookup_elem(&host_prefixes, k);
		if (class)
			return *class;
	}
	return best & HOST_CLASS_MASK;
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
