// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * The host's ingress program for a stream in which each packet is from another peer: before it runs, the source address
 * is replaced by that of the next peer. So the cost of a look-up is measured with whatever of the tables the caches
 * hold, as in a flood of many senders.
 */
#include "hooks/host.c"

/* The list has the first address of so many /24 networks, from 16.0.0.0 on. */
const volatile __u32 cfg_bench_peers = 10;
/* From one peer to the next: no order that a cache could follow. */
#define BENCH_STEP 7919
#define BENCH_FIRST 0x10000000U

__u32 bench_peer;

static __always_inline void next_peer(struct __sk_buff *skb)
{
	const __u32 peer = (bench_peer + BENCH_STEP) % cfg_bench_peers;
	const __be32 addr = bpf_htonl(BENCH_FIRST + (peer << 8));

	bench_peer = peer;
	bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &addr, sizeof(addr), 0);
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
