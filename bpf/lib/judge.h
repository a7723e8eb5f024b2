/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Policy of a flow in the direction in which it was opened: who may send what to whom. Input: w->fwd, w->src and w->dst,
 * and where it goes in w->f. Output: DROP_NONE or the reason, with the rules in w->f and the direction in w.
 */
#pragma once
#include "policy.h"
#include "work.h"

/* From another machine, by an uplink or through the overlay. */
static __always_inline bool from_outside(const struct work *w)
{
	return w->fwd.ifindex == FLOW_IF_UPLINK || w->fwd.ifindex == FLOW_IF_TUNNEL;
}

/*
 * With an overlay, pods of other nodes come through it and nowhere else, and nothing that leaves it is carried on
 * to anybody but this host and its containers.
 */
static __always_inline int judge_tunnel(const struct work *w, const struct endpoint *dep)
{
	/* A dry run asks about pods of other nodes here: it has no packet that left a tunnel. */
	if (!cfg_dry_run && w->fwd.ifindex == FLOW_IF_UPLINK && w->tunnel &&
	    (w->src.flags & (ADDR_CLUSTER | ADDR_NODE)) == ADDR_CLUSTER)
		return DROP_SPOOFED_ADDR;
	if (w->fwd.ifindex == FLOW_IF_TUNNEL && !dep && !(w->dst.flags & ADDR_HOST) &&
	    !(w->f.flags & FLOW_SERVICE))
		return DROP_RESERVED;
	return DROP_NONE;
}

/* What one policy set says: DROP_NONE, `denied`, or that the set is missing. Sets *rule if it decides. */
static __always_inline int judge_side(struct work *w, __u32 set, __u32 identity, __u32 *rule, int denied)
{
	__u32 dport = has_ports(w->f.proto) ? w->f.dport : 0;
	int v = policy_verdict(set, identity, w->f.proto, dport, &w->info.rule);

	*rule = w->info.rule;
	if (v == VERDICT_ALLOW)
		return DROP_NONE;
	return v == VERDICT_DENY ? denied : DROP_POLICY_MISSING;
}

/*
 * Both policies. The host's own traffic and a container talking to itself are always allowed. A dry run asks
 * the receiver also when the sender may not: it has to say what both think.
 */
static __always_inline int judge(struct work *w, struct endpoint *sep, struct endpoint *dep)
{
	int egress = DROP_NONE, ingress = DROP_NONE;

	if (sep && dep && sep->ifindex == dep->ifindex)
		return DROP_NONE;
	if (sep && sep->set_egress && !(w->dst.flags & ADDR_HOST)) {
		egress = judge_side(w, sep->set_egress, w->dst.identity, &w->f.rule_egress,
				    DROP_POLICY_EGRESS);
		if (egress == DROP_POLICY_EGRESS && (sep->flags & EP_AUDIT)) {
			w->f.reason = DROP_POLICY_EGRESS;
			egress = DROP_NONE;
		}
		if (egress) {
			w->direction = DIR_EGRESS;
			if (!cfg_dry_run)
				return egress;
		}
	}
	if (dep && dep->set_ingress && !(w->src.flags & ADDR_HOST)) {
		ingress = judge_side(w, dep->set_ingress, w->src.identity, &w->f.rule_ingress,
				     DROP_POLICY_INGRESS);
		if (ingress == DROP_POLICY_INGRESS && (dep->flags & EP_AUDIT)) {
			if (!w->f.reason)
				w->f.reason = DROP_POLICY_INGRESS;
			ingress = DROP_NONE;
		}
		if (cfg_dry_run)
			w->ingress = (__u32)ingress;
		if (cfg_dry_run && egress) {
			w->info.rule = w->f.rule_egress;
			return egress;
		}
		if (ingress)
			w->direction = DIR_INGRESS;
	}
	return egress ? egress : ingress;
}
