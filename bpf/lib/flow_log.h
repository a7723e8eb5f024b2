/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The flow log: decisions and drops, added up by who, whom, port and rule, so that a flood costs one look-up a packet
 * and the agent reads entries, not packets. The map has two halves (node.log_slot): the agent reads and empties the
 * one that nobody writes. What finds no room is counted in flow_log_lost, so the sums are exact.
 *
 *   what                      when                                    counts
 *   a decision that allows    a flow is decided; a young one ends,    flows
 *                             or is moved to the flow table
 *   its packets               the flow ends                           packets and bytes, both directions
 *   a drop                    each packet                             packets, bytes
 */
#pragma once
#include "maps.h"
#include "packet.h"

/* Of drops that differ in nothing, so many are reported by CPU and turn of the log; all are counted. */
#define EVENT_REPEAT 64

struct log_scratch {
	struct flow_log_key key;
	struct flow_log value;
	__u32 prepared; /* the key is that of a decision; drop() takes it as it is */
	__u32 pad;
};

/* Expiry runs in a process, which packets interrupt: it has its own. */
#define LOG_OF_PACKETS 0
#define LOG_OF_EXPIRY 1

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct log_scratch)); /* private: its type is not exported */
	__uint(max_entries, 2);
} log_scratch_map SEC(".maps");

static __always_inline bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == PROTO_SCTP;
}

static __always_inline struct log_scratch *log_area(__u32 which)
{
	return bpf_map_lookup_elem(&log_scratch_map, &which);
}

static __always_inline void log_begin(struct log_scratch *s)
{
	memset(&s->key, 0, sizeof(s->key));
	memset(&s->value, 0, sizeof(s->value));
	s->prepared = 0;
}

/* Adds s->value to the entry of s->key. Returns the packets of this CPU in the entry, 0: there was no room. */
static __always_inline __u64 log_add(struct log_scratch *s)
{
	struct node *node = node_state();
	struct flow_log *v;
	__u32 zero = 0;

	if (!node)
		return 0;
	s->key.slot = (__u8)(node->log_slot & 1);
	v = bpf_map_lookup_elem(&flow_log_map, &s->key);
	if (!v) {
		if (!bpf_map_update_elem(&flow_log_map, &s->key, &s->value, BPF_NOEXIST))
			return s->value.packets;
		v = bpf_map_lookup_elem(&flow_log_map, &s->key); /* another CPU was faster */
	}
	if (!v) {
		v = bpf_map_lookup_elem(&flow_log_lost, &zero);
		if (!v)
			return 0;
	}
	v->packets += s->value.packets;
	v->bytes += s->value.bytes;
	v->reply_packets += s->value.reply_packets;
	v->reply_bytes += s->value.reply_bytes;
	v->flows += s->value.flows;
	v->dst_identity = s->value.dst_identity;
	v->sample = s->value.sample;
	return v->packets;
}

/* A drop of which no more is known than the packet. */
static __always_inline void log_packet(struct log_scratch *s, const struct packet *p, __u32 src_identity,
				       __u32 dst_identity, __u32 rule, __u32 reason, __u32 direction)
{
	log_begin(s);
	s->key.daddr = p->key.daddr;
	s->key.ifindex = p->key.ifindex;
	s->key.src_identity = src_identity;
	if (direction == DIR_EGRESS)
		s->key.rule_egress = rule;
	else
		s->key.rule_ingress = rule;
	s->key.proto = p->key.proto;
	if (has_ports(p->key.proto))
		s->key.dport = p->key.dport;
	s->key.reason = (__u8)reason;
	s->key.direction = (__u8)(direction & 1);
	/* Sources that are not containers, or forged, are one: there is no end of them. */
	if ((reason == DROP_POLICY_EGRESS || reason == DROP_POLICY_INGRESS) && p->key.ifindex > FLOW_IF_HOST)
		s->key.saddr = p->key.saddr;
	s->value.sample = p->key.saddr;
	s->value.dst_identity = dst_identity;
}

/* The key of the flow whose opener has entry f. */
static __always_inline void log_flow(struct log_scratch *s, const struct ip_addr *opener, __u32 ifindex,
				     const struct flow *f)
{
	log_begin(s);
	s->key.saddr = *opener;
	s->key.daddr = f->daddr;
	s->key.ifindex = ifindex;
	s->key.src_identity = f->src_identity;
	s->key.rule_egress = f->rule_egress;
	s->key.rule_ingress = f->rule_ingress;
	s->key.proto = f->proto;
	if (has_ports(f->proto))
		s->key.dport = f->dport;
	s->key.reason = f->reason;
	s->key.audit = f->reason != 0;
	s->key.direction = f->reason != DROP_POLICY_EGRESS;
	s->value.dst_identity = f->dst_identity;
	s->value.sample = *opener;
}

/* What went through a flow; r: the entry of the answers, if there is one. */
static __always_inline void log_counts(struct log_scratch *s, const struct flow *f, const struct flow *r)
{
	s->value.packets = f->packets;
	s->value.bytes = f->bytes;
	if (r) {
		s->value.reply_packets = r->packets;
		s->value.reply_bytes = r->bytes;
	}
}

/* The flow whose opener has entry f ends; r: the entry of the answers, if there is one. */
static __always_inline void log_end(struct log_scratch *s, const struct ip_addr *opener, __u32 ifindex,
				    const struct flow *f, const struct flow *r)
{
	if (f->action == ACTION_DROP)
		return;
	log_flow(s, opener, ifindex, f);
	log_counts(s, f, r);
	log_add(s);
}
