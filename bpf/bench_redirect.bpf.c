// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* A path that only redirects: between the containers behind two host devices whose indexes differ in bit 0. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

SEC("tc")
int bench_redirect(struct __sk_buff *skb)
{
	return (int)bpf_redirect_peer(skb->ifindex ^ 1, 0);
}

char _license[] SEC("license") = "GPL";
