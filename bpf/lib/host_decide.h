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
#include "host_class.h"
#include "host_limit.h"
#include "packet.h"
#include "metrics.h"

#define DHCP4_SERVER 67
#define DHCP4_CLIENT 68
#define DHCP6_CLIENT 546
#define DHCP6_SERVER 547

static __always_inline bool has_transport_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == PROTO_SCTP;
}

/* One packet as the policy sees it. */
struct host_query {
	struct host_flow_key key;
	__u32 subject;
	__u32 generation;
	__u32 direction; /* enum direction, of the packet */
	__u32 len; /* IP bytes */
	__u32 rule; /* out: that decided */
	__u32 class; /* of the peer, when the flow is decided */
	__be16 port; /* if this packet opens the flow: its destination port; ICMP: type and code */
	__u8 tcp_flags;
	__u8 stateless; /* ICMP that is no echo: has no flow */
};

/* Where a TCP packet without a flow belongs. */
enum host_opener {
	OPENED_INGRESS = DIR_INGRESS,
	OPENED_EGRESS = DIR_EGRESS,
	OPENED_NEVER = 2,
};

/* Fills the flow's key and what is asked from a packet whose addresses and ports are in p->key. */
static __always_inline void host_ask(struct __sk_buff *skb, struct host_query *q, const struct packet *p,
				     __u32 direction)
{
	__u8 code = 0;
	const bool in = direction == DIR_INGRESS;
	const bool icmp = p->key.proto == IPPROTO_ICMP || p->key.proto == IPPROTO_ICMPV6;

	q->key.local = in ? p->key.daddr : p->key.saddr;
	q->key.remote = in ? p->key.saddr : p->key.daddr;
	q->key.local_port = in ? p->key.dport : p->key.sport;
	q->key.remote_port = in ? p->key.sport : p->key.dport;
	q->key.proto = p->key.proto;
	q->direction = direction;
	q->len = p->len;
	q->tcp_flags = p->tcp_flags;
	q->port = p->key.dport;
	if (icmp) {
		bpf_skb_load_bytes(skb, p->l4_off + 1, &code, 1);
		q->port = bpf_htons((__u16)(p->icmp_type << 8 | code));
		q->stateless = !(p->icmp_type == (p->v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO) ||
				 p->icmp_type == (p->v6 ? ICMPV6_ECHO_REPLY : ICMP_ECHOREPLY));
	}
}

/* What keeps an address, and the failsafe ports, whatever the policy says; without regard to flows. */
static __always_inline bool always_open(const struct host_query *q)
{
	const __u16 here = bpf_ntohs(q->key.local_port), there = bpf_ntohs(q->key.remote_port);

	if (q->key.proto == IPPROTO_UDP && ((here == DHCP4_CLIENT && there == DHCP4_SERVER) ||
					    (here == DHCP6_CLIENT && there == DHCP6_SERVER)))
		return true;
	if (q->key.proto != IPPROTO_TCP && q->key.proto != IPPROTO_UDP)
		return false;
	/* The answers too: also of connections that were open before there was a policy. */
	return is_failsafe(DIR_INGRESS, q->key.proto, q->key.local_port) ||
	       is_failsafe(DIR_EGRESS, q->key.proto, q->key.remote_port);
}

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

/* Who opened a TCP connection that no flow is known of: the side with the listening socket was called. */
static __always_inline int tcp_opener(void *ctx, const struct host_query *q)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool listens;
	__u32 size;

	if (addr_is_v4(&q->key.local)) {
		t.ipv4.saddr = q->key.remote.w[3];
		t.ipv4.daddr = q->key.local.w[3];
		t.ipv4.sport = q->key.remote_port;
		t.ipv4.dport = q->key.local_port;
		size = sizeof(t.ipv4);
	} else {
		memcpy(t.ipv6.saddr, &q->key.remote, 16);
		memcpy(t.ipv6.daddr, &q->key.local, 16);
		t.ipv6.sport = q->key.remote_port;
		t.ipv6.dport = q->key.local_port;
		size = sizeof(t.ipv6);
	}
	sk = bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return OPENED_NEVER;
	listens = sk->state == BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	if (listens)
		return OPENED_INGRESS;
	/* Nobody has port 0: this finds a listening socket or none. */
	if (size == sizeof(t.ipv4))
		t.ipv4.sport = 0;
	else
		t.ipv6.sport = 0;
	sk = bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return OPENED_EGRESS;
	bpf_sk_release(sk);
	return OPENED_INGRESS;
}

/* Is it only routed through this host? Asked once for each flow. */
static __always_inline bool is_forwarded(struct __sk_buff *skb, const struct host_query *q)
{
	struct bpf_fib_lookup fib = {};
	long found;

	fib.ifindex = skb->ifindex;
	if (addr_is_v4(&q->key.local)) {
		fib.family = AF_INET;
		fib.ipv4_src = q->key.remote.w[3];
		fib.ipv4_dst = q->key.local.w[3];
	} else {
		fib.family = AF_INET6;
		memcpy(fib.ipv6_src, &q->key.remote, 16);
		memcpy(fib.ipv6_dst, &q->key.local, 16);
	}
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	return found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH ||
	       found == BPF_FIB_LKUP_RET_FRAG_NEEDED || found == BPF_FIB_LKUP_RET_UNSUPP_LWT;
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
