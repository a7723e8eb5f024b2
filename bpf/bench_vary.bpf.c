// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * Before each run of the program that is measured: another source port, so that with BPF_PROG_TEST_RUN's
 * repeat every run is the first packet of another flow. IPv4 without options, TCP or UDP. The checksum is left
 * as it is; nobody looks at it. The few nanoseconds that this takes are counted to the program.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} bench_target SEC(".maps");

SEC("tc")
int bench_vary(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	__be16 *sport = data + sizeof(struct ethhdr) + sizeof(struct iphdr);

	if ((void *)(sport + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	*sport = bpf_htons(bpf_ntohs(*sport) + 1);
	bpf_tail_call(skb, &bench_target, 0);
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
