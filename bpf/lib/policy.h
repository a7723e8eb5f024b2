/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Policy: one set per endpoint and direction.
 *
 *   set  peer entry                          port entry            verdict
 *   0    -                                   -                     allow (not isolated)
 *   n    {n, identity} ALLOW or DENY         -                     that one
 *   n    {n, identity} PORTS                 longest prefix        that one
 *   n    {n, identity} PORTS                 none                  deny (rule of the peer entry)
 *   n    none: the same with {n, class of the identity}, then with {n, kind of the identity}, then with {n, ANY}
 *   n    none at all                                               deny (DROP_POLICY_MISSING)
 *
 * The compiler puts what is further down into each entry above it, so the first that is there decides. The kind
 * is in the number: even ones are endpoints, odd ones addresses inside a CIDR of some policy. Only endpoints
 * have classes.
 */
#pragma once
#include "maps.h"

/* Returns VERDICT_ALLOW, VERDICT_DENY, or VERDICT_NONE when the set is missing. Sets *rule. */
__noinline int policy_verdict(__u32 set, __u32 identity, __u32 proto, __u32 dport_be, __u32 *rule)
{
	struct policy_peer_key pk = {.set = set, .identity = identity};
	struct policy_port_key tk = {.prefixlen = 64};
	struct policy_peer *peer;
	struct policy_port *port;
	__u32 *class;

	if (!rule)
		return VERDICT_NONE;
	peer = bpf_map_lookup_elem(&policy_peers, &pk);
	if (!peer && identity >= IDENTITY_FIRST && !(identity & 1)) {
		class = bpf_map_lookup_elem(&identity_class, &identity);
		if (class) {
			pk.identity = *class;
			peer = bpf_map_lookup_elem(&policy_peers, &pk);
		}
	}
	if (!peer && identity >= IDENTITY_FIRST) {
		pk.identity = identity & 1 ? IDENTITY_ANY_NETWORK : IDENTITY_ANY_ENDPOINT;
		peer = bpf_map_lookup_elem(&policy_peers, &pk);
	}
	if (!peer) {
		pk.identity = IDENTITY_ANY;
		peer = bpf_map_lookup_elem(&policy_peers, &pk);
		if (!peer)
			return VERDICT_NONE;
	}
	*rule = peer->rule;
	if (peer->verdict != VERDICT_PORTS)
		return peer->verdict;
	tk.profile = peer->profile;
	tk.proto = (__u8)proto;
	tk.port = (__be16)dport_be;
	port = bpf_map_lookup_elem(&policy_ports, &tk);
	if (!port)
		return VERDICT_DENY;
	*rule = port->rule;
	return port->verdict;
}
