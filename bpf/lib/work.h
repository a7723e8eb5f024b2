/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Working memory of the slow path: the stack is too small for two flow entries. One per CPU; TC
 * programs do not interrupt each other on a CPU.
 */
#pragma once
#include "maps.h"
#include "metrics.h"
#include "service.h"

struct work {
	struct flow_key fwd; /* packets of the opener, as they arrive */
	struct flow_key rev; /* packets of the answer, as they arrive */
	struct flow_key old_rev; /* reply key before this decision, if had_old */
	__u32 generation; /* of the services, before the flow's was looked up */
	struct flow r; /* entry for rev; with f behind it, a struct half_flow */
	struct flow f; /* entry for fwd */
	struct flow known; /* the entry that was found, when it is decided again */
	struct addr_info src;
	struct addr_info dst;
	struct service_keys keys;
	struct service_key service; /* frontend of the flow */
	struct backend backend; /* chosen for it */
	struct ip_addr sender; /* from the overlay: the node that sent the packet */
	struct ip_addr snat; /* address to translate the source to, zero: none */
	struct verdict_info info;
	__u32 epoch;
	__u32 jiffies;
	__u32 had_old; /* known is valid */
	__u32 keep_port; /* known's SNAT port, network order in the low 16 bits, 0: none */
	__u32 tcp_flags;
	__u32 direction; /* enum direction, of the drop if there is one */
	__u32 claimed; /* rev is in a table already */
	__u32 pass; /* not ours: let the stack have it, no entry */
	__u32 len; /* of the packet, IP bytes */
	__u32 reply; /* the packet belongs to rev */
	__u32 pickup; /* node.pickup */
	__u32 published; /* node.published */
	__u32 ingress; /* dry run only: what the receiver's policy says, enum drop_reason */
	__u32 direct; /* a new TCP flow goes to the flow table, not to the half-open one */
	__u32 redirected; /* a question that goes to the name server at the gateway */
	__u32 service_snat; /* from outside to a service: the source is to be translated */
	__u32 service_direct; /* from outside to a service whose backends answer the client themselves */
	__u32 one_way; /* it goes on to another node as it is: w->f is all there is of the flow */
	__u32 tunnel; /* node.tunnel */
	__u32 half_ifindex; /* ifindex in keys of the half-open table: 0, macvlan: the device */
};

enum hook {
	HOOK_CONTAINER = 0, /* from a container */
	HOOK_HOST = 1, /* from the host's stack to a container */
	HOOK_UPLINK = 2,
	HOOK_L2_EGRESS = 3, /* macvlan, inside the namespace */
	HOOK_L2_INGRESS = 4,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct work)); /* private: its type is not exported */
	__uint(max_entries, 1);
} work_map SEC(".maps");

static __always_inline bool from_container(const struct work *w)
{
	return w->fwd.ifindex > FLOW_IF_HOST && w->fwd.ifindex != FLOW_IF_TUNNEL;
}

/* The half-open flow that w->rev answers. */
static __always_inline struct half_flow *half_of(struct work *w)
{
	__u32 ifindex = w->rev.ifindex;
	struct half_flow *h;

	w->rev.ifindex = w->half_ifindex;
	h = bpf_map_lookup_elem(&half, &w->rev);
	w->rev.ifindex = ifindex;
	return h;
}

/* Writes w->r and w->f as a half-open flow. */
static __always_inline long half_put(struct work *w, __u64 flags)
{
	__u32 ifindex = w->rev.ifindex;
	long err;

	w->rev.ifindex = w->half_ifindex;
	err = bpf_map_update_elem(&half, &w->rev, (struct half_flow *)&w->r, flags);
	w->rev.ifindex = ifindex;
	return err;
}

static __always_inline void half_drop(struct work *w, struct flow_key *rev)
{
	__u32 ifindex = rev->ifindex;

	rev->ifindex = w->half_ifindex;
	bpf_map_delete_elem(&half, rev);
	rev->ifindex = ifindex;
}

static __always_inline struct work *work_area(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&work_map, &zero);
}
