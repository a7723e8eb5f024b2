// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * The least that a flow table can cost: IPv4 and TCP without options, a 44 byte key, one lookup, an epoch, counters,
 * new MAC addresses, a redirect. No checks, no other protocol. What the real program takes is measured against
 * this as well, because it depends less on the machine than the time of an empty program does.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct bench_key {
	__be32 saddr[4];
	__be32 daddr[4];
	__be16 sport;
	__be16 dport;
	__u32 ifindex;
	__u32 proto;
};

struct bench_flow {
	__u64 packets;
	__u64 bytes;
	__u32 epoch;
	__u32 last;
	__u32 oif;
	__u8 macs[12];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__type(key, struct bench_key);
	__type(value, struct bench_flow);
} bench_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} bench_epoch SEC(".maps");

SEC("tc")
int bench_lookup(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct tcphdr *tcp = (void *)(ip + 1);
	struct bench_key k = {};
	struct bench_flow *f;
	__u32 zero = 0, *epoch;

	if ((void *)(tcp + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	k.saddr[2] = k.daddr[2] = bpf_htonl(0xffff);
	k.saddr[3] = ip->saddr;
	k.daddr[3] = ip->daddr;
	k.sport = tcp->source;
	k.dport = tcp->dest;
	k.ifindex = skb->ifindex;
	k.proto = ip->protocol;
	f = bpf_map_lookup_elem(&bench_flows, &k);
	epoch = bpf_map_lookup_elem(&bench_epoch, &zero);
	if (!f || !epoch || f->epoch != *epoch)
		return TC_ACT_SHOT;
	f->packets++;
	f->bytes += skb->len;
	f->last = (__u32)bpf_jiffies64();
	__builtin_memcpy(data, f->macs, sizeof(f->macs));
	return (int)bpf_redirect_peer(f->oif, 0);
}

char _license[] SEC("license") = "GPL";
