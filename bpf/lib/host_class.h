/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who a peer is: the class of the longest prefix that contains its address. */
#pragma once
#include "host_maps.h"

#define HOST_CLASS_MASK ((1U << HOST_CLASS_BITS) - 1)
#define HOST_HASH_MASK ((1U << HOST_HASH_BITS) - 1)
/* Bits of a hash that are no part of the tag. */
#define HOST_UNTAGGED_BITS (HOST_HASH_BITS - HOST_TAG_BITS)
/* No entry of a line. */
#define HOST_NO_MATCH 0xffffffffU

/* Without branches: the verifier would follow each of them in every round of the loops below. */
static __always_inline __u64 mask_of(__u32 length)
{
	return ~((~0ULL >> (length >> 1)) >> (length - (length >> 1)));
}

/* One to one, and every bit of x counts for each bit of the result. The agent computes the same (src/host/lines.ts). */
static __always_inline __u32 line_hash(__u32 x)
{
	x ^= x >> 13;
	x = x * 0x2c1b3c6d & HOST_HASH_MASK;
	x ^= x >> 14;
	x = x * 0x297a2d39 & HOST_HASH_MASK;
	return x ^ x >> 15;
}

/*
 * The entry of the longest prefix that contains an address: ones up to the 1 that ends the prefix, with the class's
 * bits inverted; HOST_NO_MATCH: none. `wanted` is an entry with all bits of the address. Without branches: which entry
 * it is can't be foreseen, and what comes next does not have to wait until the line is there.
 */
static __always_inline __u32 line_match(const struct host_line *line, __u32 wanted)
{
	__u64 best[2] = {HOST_NO_MATCH, HOST_NO_MATCH};

#pragma unroll
	for (int i = 0; i < HOST_LINE_ENTRIES; i++) {
		const __u32 entry = *(const volatile __u32 *)&line->entries[i];
		const __u32 prefix = entry & ~HOST_CLASS_MASK;
		/* Of an empty entry it is HOST_NO_MATCH. A difference in the prefix is larger than it. */
		__u64 found = (prefix - 1) ^ entry;
		const __u64 differs = prefix ^ wanted;
		__u64 less;

		found |= (found - differs) >> 32;
		less = found - best[i & 1];
		asm volatile("" : "+r"(less)); /* else the compiler makes a branch of it */
		best[i & 1] += less & (__u64)((__s64)less >> 63);
	}
	best[0] -= best[1];
	asm volatile("" : "+r"(best[0]));
	return (__u32)(best[1] + (best[0] & (__u64)((__s64)best[0] >> 63)));
}

/* Length of a prefix that line_match has found. */
static __always_inline __u32 matched_length(__u32 found, __u32 anchor)
{
	__u32 length = anchor;

#pragma unroll
	for (int bit = HOST_CLASS_BITS + 1; bit < 32 - HOST_TAG_BITS; bit++)
		length += ~found >> bit & 1;
	return length;
}

struct line_answer {
	__u32 found; /* as line_match */
	__u32 anchor; /* bits */
	bool spilled; /* host_prefixes has to be asked too */
};

/* What the lines say of an address. Prefixes of a later anchor are shorter, so the first one found decides. */
static __always_inline struct line_answer lines_of4(const struct host_state *st, __u32 addr)
{
	const __u32 half = st->generation & 1;
	struct line_answer out = {.found = HOST_NO_MATCH};

	for (__u32 i = 0; i < HOST_ANCHORS; i++) {
		const __u32 bits = (__u32)((__u64)addr >> (HOST_ANCHOR_BITS * (i + 1)));
		struct host_line *line;
		__u32 hash, slot;

		if (!(st->anchors4 & 1U << i))
			continue;
		hash = line_hash(bits | i << 24);
		slot = (hash & st->last_line[half]) + half * cfg_host_lines;
		line = bpf_map_lookup_elem(&host_lines, &slot);
		if (!line)
			continue;
		if (unlikely(line->spilled))
			out.spilled = true;
		out.found = line_match(line, hash >> HOST_UNTAGGED_BITS << (32 - HOST_TAG_BITS) |
						     (addr >> (HOST_ANCHOR_BITS * i) & 0xff)
							     << (HOST_CLASS_BITS + 1));
		out.anchor = HOST_ANCHOR_BITS * (HOST_ANCHORS - 1 - i);
		if (out.found != HOST_NO_MATCH)
			break;
	}
	return out;
}

/* IPv4: one line in most cases; at most HOST_LENGTHS4 rounds of the rest. */
static __always_inline __u32 class_of4(const struct host_state *st, struct host_prefix_key *k, __u32 addr)
{
	const struct line_answer line = lines_of4(st, addr);
	const __u32 class = ~line.found & HOST_CLASS_MASK;
	__u32 length;

	if (likely(!line.spilled))
		return class;
	length = line.found == HOST_NO_MATCH ? 0 : matched_length(line.found, line.anchor);
	for (int i = 0; i < HOST_LENGTHS4; i++) {
		__u32 *spilled;

		if ((__u32)i >= st->count4)
			break;
		k->length = st->lengths4[i];
		if (k->length < length)
			break;
		k->addr.w[3] = bpf_htonl(addr & (__u32)(mask_of(k->length) >> 32));
		spilled = bpf_map_lookup_elem(&host_prefixes, k);
		if (spilled)
			return *spilled;
	}
	return class;
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
