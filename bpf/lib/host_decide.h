/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The host's policy for a packet that goes to or comes from the host itself. A known flow costs one look-up; the first
 * packet, or the first one after a change (host_state.epoch), is decided in the direction in which the flow was opened:
 *
 *   failsafe port                                allow
 *   class of the peer, its entry in the set      that one, or by port
 *   no entry of the class                        the entry of class 0
 *   set 0                                        allow: no policy for this direction
 */
#pragma once
#include "host_limit.h"
#include "host_log.h"
#include "host_query.h"

/* Verdict of a set for a class. Returns VERDICT_NONE when the set is missing. */
static __always_inline int host_verdict(__u32 set, __u32 class, __u8 proto, __be16 port, __u32 *rule)
{
	struct policy_peer_key pk = {.set = set, .identity = class};
	struct policy_port_key tk = {.prefixlen = 64};
	struct policy_peer *peer = bpf_map_lookup_elem(&host_peers, &pk);
	struct policy_port *found;

	if (!peer) {
		pk.identity = 0;
		peer = bpf_map_lookup_elem(&host_peers, &pk);
		if (!peer)
			return VERDICT_NONE;
	}
	*rule = peer->rule;
	if (peer->verdict != VERDICT_PORTS)
		return peer->verdict;
	tk.profile = peer->profile;
	tk.proto = proto;
	tk.port = port;
	found = bpf_map_lookup_elem(&host_ports, &tk);
	if (!found)
		return VERDICT_DENY;
	*rule = found->rule;
	return found->verdict;
}

/*
 * Decides q, with the class of its peer, as a flow that is opened in `direction` to `port`. Returns the reason to drop; sets q->rule and, in
 * *flags, enum host_flow_flag and from bit 8 on the reason of HOST_FLOW_AUDIT.
 */
__noinline int host_decide(struct host_query *q, __u32 direction, __u32 port, __u32 is_new, __u32 *flags)
{
	struct host_subject *s;
	struct host_rule *r;
	__u32 set, rule = 0, subject;
	int verdict;

	if (!q || !flags)
		return DROP_INTERNAL;
	*flags = 0;
	q->rule = 0;
	if (always_open(q)) {
		*flags = HOST_FLOW_FAILSAFE;
		return DROP_NONE;
	}
	subject = q->subject << 1 | (q->generation & 1);
	s = bpf_map_lookup_elem(&host_subjects, &subject);
	if (!s)
		return DROP_POLICY_MISSING;
	set = direction == DIR_INGRESS ? s->ingress : s->egress;
	if (!set)
		return DROP_NONE;
	verdict = host_verdict(set, q->class, q->key.proto, (__be16)port, &rule);
	q->rule = rule;
	if (verdict == VERDICT_NONE)
		return DROP_POLICY_MISSING;
	if (verdict != VERDICT_ALLOW) {
		if (!host_audits())
			return DROP_HOST_POLICY;
		*flags = audited(DROP_HOST_POLICY);
		return DROP_NONE;
	}
	if (!rule)
		return DROP_NONE;
	r = bpf_map_lookup_elem(&host_rules, &rule);
	if (!r)
		return DROP_NONE;
	if (r->flags & HOST_RULE_PACKETS)
		*flags = HOST_FLOW_LIMITED;
	if (is_new && (r->flags & HOST_RULE_CONNECTIONS) && host_over_limit(rule, &q->key.remote, 1)) {
		if (!host_audits())
			return DROP_HOST_RATE;
		*flags |= audited(DROP_HOST_RATE);
	}
	return DROP_NONE;
}

/* Counts a packet in its flow, and against the limit of its rule. Returns the reason to drop. */
static __always_inline int host_pass(struct host_query *q, struct host_flow *e)
{
	const __u32 direction = q->direction & 1;

	if (unlikely(e->flags & HOST_FLOW_LIMITED) && direction == e->direction &&
	    host_over_limit(e->rule, &q->key.remote, 0)) {
		q->rule = e->rule;
		if (host_excess(q, e->direction, e->port, e->rule))
			return DROP_HOST_RATE;
	}
	e->last = now();
	e->packets[direction]++;
	e->bytes[direction] += q->len;
	if (unlikely(q->tcp_flags & (TCP_FIN | TCP_RST)) && q->key.proto == IPPROTO_TCP &&
	    !(e->flags & HOST_FLOW_FORWARDED))
		host_log_packets(q, e);
	return DROP_NONE;
}

/* Decides a known flow again, in the direction in which it was opened. */
__noinline int host_decide_again(struct host_query *q, struct host_flow *e, __u32 epoch)
{
	__u32 flags = 0;
	int reason;

	if (!q || !e)
		return DROP_INTERNAL;
	if (e->flags & HOST_FLOW_FORWARDED) {
		e->epoch = epoch;
		return DROP_NONE;
	}
	e->subject = q->subject; /* of the device that it passes now */
	q->class = (__u32)host_class(&q->key.remote);
	reason = host_decide(q, e->direction, e->port, 0, &flags);
	e->rule = q->rule;
	e->reason = (__u8)(reason ? (__u32)reason : flags >> 8);
	e->verdict = reason ? VERDICT_DENY : VERDICT_ALLOW;
	e->flags = (__u8)((e->flags & HOST_FLOW_ANSWERED) | flags);
	/* The fast path looks at the epoch first: the rest must be there. */
	barrier();
	e->epoch = epoch;
	return reason;
}

/* `hook`: a constant, whether routed packets come by here. */
enum host_hook {
	HOST_HOOK_INGRESS = 0, /* TC, from outside */
	HOST_HOOK_EGRESS = 1, /* TC, to the outside */
	HOST_HOOK_SOCKET = 2, /* cgroup */
};

static __always_inline int host_first(struct __sk_buff *skb, struct packet *p, struct host_query *q,
				      __u32 epoch, const __u32 hook)
{
	const bool tcp = q->key.proto == IPPROTO_TCP;
	struct host_flow e = {};
	__u32 flags = 0, opened = q->direction;
	bool established = false;
	int reason;

	/* First: while its tables come from memory, the rest goes on. */
	q->class = (__u32)host_class(&q->key.remote);
	if (hook == HOST_HOOK_INGRESS && is_forwarded(skb, q)) {
		flags = HOST_FLOW_FORWARDED;
	} else {
		if (tcp && !is_syn(p) && !always_open(q)) {
			int opener = tcp_opener(skb, q);

			if (opener == OPENED_NEVER)
				return DROP_TCP_NO_FLOW;
			established = true;
			opened = (__u32)opener;
			if (opened != q->direction)
				q->port = opened == DIR_INGRESS ? q->key.local_port : q->key.remote_port;
		}
		reason = host_decide(q, opened, q->port, !established, &flags);
		if (reason)
			return reason;
		report_rule(p, q, flags);
		host_log_flow(q, opened, flags);
	}
	if (q->stateless)
		return flags & HOST_FLOW_LIMITED && host_over_limit(q->rule, &q->key.remote, 0)
			       ? host_excess(q, opened, q->port, q->rule)
			       : DROP_NONE;
	e.epoch = epoch;
	e.rule = q->rule;
	e.subject = q->subject;
	e.port = q->port;
	e.direction = (__u8)opened;
	e.verdict = VERDICT_ALLOW;
	e.flags = (__u8)flags;
	e.reason = (__u8)(flags >> 8);
	e.created = bpf_jiffies64();
	reason = host_pass(q, &e);
	if (established) {
		bpf_map_update_elem(&host_flows, &q->key, &e, BPF_ANY);
	} else {
		if (tcp)
			bpf_map_delete_elem(&host_flows, &q->key); /* the tuple is used again */
		bpf_map_update_elem(&host_fresh, &q->key, &e, BPF_ANY);
	}
	return reason;
}

/* Returns the reason to drop the packet; q->rule is the rule. */
static __always_inline int host_judge(struct __sk_buff *skb, struct packet *p, struct host_query *q,
				      const __u32 hook)
{
	struct host_state *st = host_state();
	struct host_flow *e = NULL;
	bool fresh = false;
	int reason;

	if (!st)
		return DROP_INTERNAL;
	if (unlikely(st->panic)) {
		if (st->panic == HOST_PANIC_OPEN || always_open(q))
			return DROP_NONE;
		if (hook == HOST_HOOK_INGRESS && is_forwarded(skb, q))
			return DROP_NONE;
		return DROP_HOST_PANIC;
	}
	if (q->key.proto == IPPROTO_TCP) {
		if (is_syn(p))
			return host_first(skb, p, q, st->epoch, hook);
		e = bpf_map_lookup_elem(&host_flows, &q->key);
	}
	if (!e && !q->stateless) {
		e = bpf_map_lookup_elem(&host_fresh, &q->key);
		fresh = true;
	}
	if (!e)
		return host_first(skb, p, q, st->epoch, hook);
	if (unlikely(e->epoch != st->epoch))
		host_decide_again(q, e, st->epoch);
	if (unlikely(e->verdict != VERDICT_ALLOW)) {
		e->last = now();
		q->rule = e->rule;
		return e->reason;
	}
	if (unlikely(fresh)) {
		/* An opener that only sends, and forges its address, stays among the fresh ones. */
		if (q->direction != e->direction) {
			e->flags |= HOST_FLOW_ANSWERED;
		} else if (q->key.proto == IPPROTO_TCP && (e->flags & HOST_FLOW_ANSWERED)) {
			reason = host_pass(q, e);
			if (!bpf_map_update_elem(&host_flows, &q->key, e, BPF_ANY))
				bpf_map_delete_elem(&host_fresh, &q->key);
			return reason;
		}
	}
	return host_pass(q, e);
}
