/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the slow path decided, for the flow log. */
#pragma once
#include "flow_log.h"
#include "work.h"

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
	log_begin(s);
	if (!reason || w->src.ifindex)
		s->key.saddr = w->fwd.saddr;
	/* A question to a name server was meant for that one, wherever it goes. */
	s->key.daddr = w->redirected ? w->fwd.daddr : w->f.daddr;
	s->key.ifindex = w->fwd.ifindex;
	s->key.src_identity = w->info.src_identity;
	s->key.rule_egress = w->f.rule_egress;
	s->key.rule_ingress = w->f.rule_ingress;
	s->key.proto = w->fwd.proto;
	if (has_ports(w->fwd.proto))
		s->key.dport = w->f.dport;
	s->value.dst_identity = w->info.dst_identity;
	s->value.sample = w->fwd.saddr;
	if (reason) {
		s->key.reason = (__u8)reason;
		s->key.direction = (__u8)(w->direction & 1);
		s->prepared = 1;
		return 0;
	}
	s->key.reason = w->f.reason;
	s->key.audit = w->f.reason != 0;
	s->key.direction = w->f.reason != DROP_POLICY_EGRESS;
	s->value.flows = !w->had_old;
	log_add(s);
	if (w->f.reason && !w->had_old) {
		w->info.rule = w->f.reason == DROP_POLICY_EGRESS ? w->f.rule_egress : w->f.rule_ingress;
		emit_event(p, &w->info, EVENT_AUDIT, w->f.reason, s->key.direction);
	}
	return 0;
}
