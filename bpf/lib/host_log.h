/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The flow log of the host: new flows, what they carried, and what is dropped or would be (audit). */
#pragma once
#include "host_query.h"
#include "metrics.h"

static __always_inline bool host_audits(void)
{
	struct host_state *st = host_state();

	return st && st->audit;
}

/* What host_decide says of a flow that passes because of audit. */
static __always_inline __u32 audited(__u32 reason)
{
	return HOST_FLOW_AUDIT | reason << 8;
}

static __always_inline void report_rule(struct packet *p, const struct host_query *q, __u32 flags)
{
	__u32 rule = q->rule;
	struct host_rule *r = bpf_map_lookup_elem(&host_rules, &rule);
	struct verdict_info info = {.rule = rule};
	struct node *node = node_state();

	if (flags & HOST_FLOW_AUDIT)
		emit_event(p, &info, EVENT_AUDIT, flags >> 8, q->direction);
	else if ((r && (r->flags & HOST_RULE_LOG)) || (node && node->trace && !(q->key.scope && !rule)))
		emit_event(p, &info, EVENT_NEW_FLOW, 0, q->direction);
}

static __always_inline void host_log_key(struct log_scratch *s, const struct host_query *q, __u32 opened,
					 __be16 port, __u32 rule)
{
	const bool in = opened == DIR_INGRESS;

	log_begin(s);
	s->key.saddr = in ? q->key.remote : q->key.local;
	s->key.daddr = in ? q->key.local : q->key.remote;
	s->key.src_identity = q->key.scope;
	if (in)
		s->key.rule_ingress = rule;
	else
		s->key.rule_egress = rule;
	s->key.proto = q->key.proto;
	s->key.dport = port;
	s->key.direction = (__u8)(opened & 1);
	s->value.sample = s->key.saddr;
}

/* A new flow that is allowed; of processes, if a rule of theirs allows it. */
__noinline int host_log_flow(const struct host_query *q, __u32 opened, __u32 flags)
{
	struct log_scratch *s = log_area(LOG_OF_PACKETS);

	if (!q || !s || (q->key.scope && !q->rule))
		return 0;
	host_log_key(s, q, opened, q->port, q->rule);
	if (flags & HOST_FLOW_AUDIT) {
		s->key.reason = (__u8)(flags >> 8);
		s->key.audit = 1;
	}
	s->value.flows = 1;
	log_add(s);
	return 0;
}

/* An ICMP message is about to be dropped: drop() logs it under a key that has its type. */
__noinline int host_log_message(const struct host_query *q, __u32 reason)
{
	struct log_scratch *s = log_area(LOG_OF_PACKETS);

	if (!q || !s)
		return 0;
	host_log_key(s, q, q->direction, q->port, q->rule);
	__builtin_memset(&s->key.saddr, 0, sizeof(s->key.saddr)); /* senders are not told apart */
	s->key.reason = (__u8)reason;
	s->prepared = 1;
	return 0;
}

static __always_inline bool is_message(const struct host_query *q)
{
	return q->key.proto == IPPROTO_ICMP || q->key.proto == IPPROTO_ICMPV6;
}

/* What a flow has carried; it is about to end. */
__noinline int host_log_packets(const struct host_query *q, struct host_flow *e)
{
	struct log_scratch *s = log_area(LOG_OF_PACKETS);

	if (!q || !e || !s || (q->key.scope && !e->rule))
		return 0;
	host_log_key(s, q, e->direction, e->port, e->rule);
	if (e->flags & HOST_FLOW_AUDIT) {
		s->key.reason = e->reason;
		s->key.audit = 1;
	}
	if (e->direction == DIR_INGRESS) {
		s->value.packets = e->packets[DIR_INGRESS];
		s->value.bytes = e->bytes[DIR_INGRESS];
		s->value.reply_packets = e->packets[DIR_EGRESS];
		s->value.reply_bytes = e->bytes[DIR_EGRESS];
	} else {
		s->value.packets = e->packets[DIR_EGRESS];
		s->value.bytes = e->bytes[DIR_EGRESS];
		s->value.reply_packets = e->packets[DIR_INGRESS];
		s->value.reply_bytes = e->bytes[DIR_INGRESS];
	}
	e->packets[0] = 0;
	e->packets[1] = 0;
	e->bytes[0] = 0;
	e->bytes[1] = 0;
	log_add(s);
	return 0;
}

/* A packet above the limit of a rule: to be dropped, unless there is audit. */
__noinline int host_excess(const struct host_query *q, __u32 direction, __be16 port, __u32 rule)
{
	struct log_scratch *s = log_area(LOG_OF_PACKETS);

	if (!host_audits() || !q || !s)
		return DROP_HOST_RATE;
	host_log_key(s, q, direction, port, rule);
	s->key.reason = DROP_HOST_RATE;
	s->key.audit = 1;
	s->value.packets = 1;
	s->value.bytes = q->len;
	log_add(s);
	return DROP_NONE;
}
