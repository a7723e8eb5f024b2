/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Packets without a flow in networks that have a shared segment: multicast, broadcast and protocols
 * other than IP. Judged one by one, never cached.
 */
#pragma once
#include "address.h"
#include "policy.h"
#include "metrics.h"

/* May ep send (egress) or get (ingress) this packet? The other side is `identity`. */
static __always_inline int judge_group(struct packet *p, struct endpoint *ep, __u32 identity, const __u32 dir,
				       struct verdict_info *info)
{
	__u32 set = dir == DIR_EGRESS ? ep->set_egress : ep->set_ingress;
	int v;

	if (!set)
		return DROP_NONE;
	v = policy_verdict(set, identity, p->key.proto, p->key.dport, &info->rule);
	if (v == VERDICT_ALLOW)
		return DROP_NONE;
	if (v == VERDICT_NONE)
		return DROP_POLICY_MISSING;
	if (ep->flags & EP_AUDIT)
		return DROP_NONE;
	return dir == DIR_EGRESS ? DROP_POLICY_EGRESS : DROP_POLICY_INGRESS;
}
