/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Counters and drop events. */
#pragma once
#include "maps.h"
#include "packet.h"
#include "flow_log.h"

static __always_inline void count(__u32 direction, __u32 reason, __u32 bytes)
{
	__u32 slot = direction * METRIC_REASONS + reason;
	struct counter *c = bpf_map_lookup_elem(&metrics, &slot);

	if (c) {
		c->packets++;
		c->bytes += bytes;
	}
}

/* Events per CPU and jiffy: the rest is counted, not reported. */
#define EVENT_BURST 64
/* And per CPU and turn of the flow log, which is a second while an agent runs. */
#define EVENT_TURN 1024

struct event_budget {
	__u32 jiffy;
	__u32 used;
	__u32 slot; /* node.log_slot, which changes with the turn */
	__u32 turn; /* used in it */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct event_budget)); /* private: its type is not exported */
	__uint(max_entries, 1);
} event_budgets SEC(".maps");

struct verdict_info {
	__u32 rule;
	__u32 src_identity;
	__u32 dst_identity;
	__s32 error;
};

__noinline int emit_event(struct packet *p, const struct verdict_info *info, __u32 kind, __u32 reason,
			  __u32 direction)
{
	__u32 zero = 0;
	struct event_budget *budget = bpf_map_lookup_elem(&event_budgets, &zero);
	struct node *node = node_state();
	struct event *e;

	if (!budget || !p || !node)
		return 0;
	if (budget->jiffy != now()) {
		budget->jiffy = now();
		budget->used = 0;
	}
	if (budget->slot != node->log_slot) {
		budget->slot = node->log_slot;
		budget->turn = 0;
	}
	if (budget->used++ >= EVENT_BURST || budget->turn >= EVENT_TURN)
		return 0;
	budget->turn++;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return 0;
	e->time = bpf_ktime_get_ns();
	e->key = p->key;
	e->rule = info ? info->rule : 0;
	e->src_identity = info ? info->src_identity : 0;
	e->dst_identity = info ? info->dst_identity : 0;
	e->error = info ? info->error : 0;
	e->length = (__u16)p->len;
	e->kind = (__u8)kind;
	e->reason = (__u8)reason;
	e->direction = (__u8)direction;
	e->tcp_flags = p->tcp_flags;
	e->pad[0] = 0;
	e->pad[1] = 0;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* Every packet that is dropped ends here. */
__noinline int drop(struct packet *p, const struct verdict_info *info, __u32 reason, __u32 direction)
{
	struct log_scratch *s;
	__u32 zero = 0;

	if (!p)
		return TC_ACT_SHOT;
	if (reason >= METRIC_REASONS)
		reason = DROP_INTERNAL;
	if (cfg_dry_run) {
		struct trace *t = bpf_map_lookup_elem(&trace_map, &zero);

		if (t) {
			t->key = p->key;
			t->reason = reason;
			t->rule = info ? info->rule : 0;
			t->src_identity = info ? info->src_identity : 0;
			t->dst_identity = info ? info->dst_identity : 0;
		}
		return TC_ACT_SHOT;
	}
	count(direction & 1, reason, p->len);
	/* What every IPv6 stack sends by itself is counted, not reported. */
	if (reason == DROP_LINK_LOCAL || reason == DROP_MULTICAST)
		return TC_ACT_SHOT;
	s = log_area(LOG_OF_PACKETS);
	if (!s)
		return TC_ACT_SHOT;
	if (!s->prepared)
		log_packet(s, p, info ? info->src_identity : 0, info ? info->dst_identity : 0,
			   info ? info->rule : 0, reason, direction);
	s->prepared = 0;
	s->value.packets = 1;
	s->value.bytes = p->len;
	if (log_add(s) <= EVENT_REPEAT)
		emit_event(p, info, EVENT_DROP, reason, direction);
	return TC_ACT_SHOT;
}
