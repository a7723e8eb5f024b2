/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Maps of each type that the loader handles, and small programs that use constants and the ring. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define MAP(name, map_type, key_type, value_type, entries, flags)                                        \
	struct {                                                                                         \
		__uint(type, map_type);                                                                  \
		__type(key, key_type);                                                                   \
		__type(value, value_type);                                                               \
		__uint(max_entries, entries);                                                            \
		__uint(map_flags, flags);                                                                \
	} name SEC(".maps")

struct lpm_key {
	__u32 prefixlen;
	__u32 address;
};

struct counters {
	__u64 first;
	__u64 second;
};

MAP(hash_map, BPF_MAP_TYPE_HASH, __u32, __u64, 65536, 0);
MAP(lru_map, BPF_MAP_TYPE_LRU_HASH, __u32, __u64, 1024, 0);
MAP(lpm_map, BPF_MAP_TYPE_LPM_TRIE, struct lpm_key, __u64, 1024, BPF_F_NO_PREALLOC);
MAP(array_map, BPF_MAP_TYPE_ARRAY, __u32, __u64, 16, BPF_F_MMAPABLE);
MAP(percpu_map, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u32, 4, 0);
MAP(percpu_counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct counters, 3000, 0);
MAP(cpu_map, BPF_MAP_TYPE_CPUMAP, __u32, __u32, 64, 0); /* has no batch operations */
MAP(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH, __u32, __u64, 4096, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

const volatile __u32 cfg_answer = 7;
const volatile __u8 cfg_small = 1;
const volatile __u64 cfg_large = 2;

SEC("tc")
int answer(struct __sk_buff *skb)
{
	return cfg_answer + cfg_small + (cfg_large == 0xfedcba9876543210ULL ? 1000 : 0);
}

SEC("tc")
int other_answer(struct __sk_buff *skb)
{
	return 99;
}

/* Counts packets in slot 0 of the per-CPU array and slot 1 of the array. */
SEC("tc")
int count(struct __sk_buff *skb)
{
	__u32 zero = 0, one = 1;
	__u32 *mine = bpf_map_lookup_elem(&percpu_map, &zero);
	__u64 *all = bpf_map_lookup_elem(&array_map, &one);

	if (mine)
		*mine += 1;
	if (all)
		__sync_fetch_and_add(all, 1);
	return -1; /* TC_ACT_UNSPEC, TCX_NEXT */
}

struct ring_args {
	__u32 records;
	__u32 size; /* of each, at most 64 */
	__u32 discard_every; /* 0: none */
	__u32 lost;
};

SEC("syscall")
int fill_ring(struct ring_args *args)
{
	for (__u32 i = 0; i < 1000; i++) {
		if (i >= args->records)
			break;
		__u32 *record = bpf_ringbuf_reserve(&ring, 60, 0);

		if (!record) {
			args->lost++;
			continue;
		}
		record[0] = i;
		record[14] = ~i;
		if (args->discard_every && i % args->discard_every == 0)
			bpf_ringbuf_discard(record, 0);
		else
			bpf_ringbuf_submit(record, 0);
	}
	return 5;
}

SEC("cgroup/connect4")
int refuse(struct bpf_sock_addr *ctx)
{
	return ctx->user_port == __builtin_bswap16(4711) ? 0 : 1;
}

char _license[] SEC("license") = "Dual MIT/GPL";
