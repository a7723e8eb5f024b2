/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the slow path decided, for the flow log. */
#pragma once
#include "flow_log.h"
#include "work.h"

/* The key of the decision in work, which is `reason`, 0: it is allowed. */
static __always_inline void decision_key(struct flow_log_key *k, const struct work *w, __u32 reason)
{
	memset(k, 0, sizeof(*k));
	if (!reason || w->src.ifindex)
		k->saddr = w->fwd.saddr;
	/* A question to a name server was meant for that one, wherever it goes. */
	k->daddr = w->redirected ? w->fwd.daddr : w->f.daddr;
	k->ifindex = w->fwd.ifindex;
	k->src_identity = w->info.src_identity;
	k->rule_egress = w->f.rule_egress;
	k->rule_ingress = w->f.rule_ingress;
	k->proto = w->fwd.proto;
	if (has_ports(w->fwd.proto))
		k->dport = w->f.dport;
	if (reason) {
		k->reason = (__u8)reason;
		k->direction = (__u8)(w->direction & 1);
	} else {
		k->reason = w->f.reason;
		k->audit = w->f.reason != 0;
		k->direction = w->f.reason != DROP_POLICY_EGRESS;
	}
}

/*
 * The decision in work, about the flow w->fwd. `reason` 0: it is allowed, and counted here. Else the packet is about
 * to be dropped: drop() counts it under the key that is prepared here.
 */
__noinline int log_decision(struct packet *p, __u32 reason)
{
	struct log_scratch *s = log_area(LOG_OF_PACKETS);
	struct work *w = work_area();

	if (!p || !s || !w || cfg_dry_run)
		return 0;
	memset(&s->value, 0, sizeof(s->value));
	s->prepared = 0;
	decision_key(&s->key, w, reason);
	s->value.dst_identity = w->info.dst_identity;
	s->value.sample = w->fwd.saddr;
	if (reason) {
		s->prepared = 1;
		return 0;
	}
	s->value.flows = !w->had_old;
	log_add(s);
	if (w->f.reason && !w->had_old) {
		w->info.rule = w->f.reason == DROP_POLICY_EGRESS ? w->f.rule_egress : w->f.rule_ingress;
		emit_event(p, &w->info, EVENT_AUDIT, w->f.reason, s->key.direction);
	}
	return 0;
}
