// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * The host's ingress program for a stream in which each packet is from another peer: before it runs, the source address
 * is replaced by the next one of a list. So the cost of a look-up is measured with whatever of the tables the caches
 * hold, as in a flood of many senders.
 */
#include "hooks/host.c"

#define BENCH_PEERS 131072

MAP(bench_peers, BPF_MAP_TYPE_ARRAY, __u32, __u32, BENCH_PEERS, BPF_F_MMAPABLE); /* network byte order */
__u32 bench_next;

static __always_inline void next_peer(struct __sk_buff *skb)
{
	__u32 slot = bench_next++ & (BENCH_PEERS - 1);
	__u32 *peer = bpf_map_lookup_elem(&bench_peers, &slot);

	if (peer)
		bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), peer, sizeof(*peer), 0);
}

SEC("tc")
int bench_host_peers(struct __sk_buff *skb)
{
	next_peer(skb);
	return host_device(skb, HOST_HOOK_INGRESS);
}

/* What the replacement alone costs. */
SEC("tc")
int bench_host_none(struct __sk_buff *skb)
{
	next_peer(skb);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
