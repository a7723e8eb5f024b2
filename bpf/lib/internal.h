/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Internal networks: their containers reach each other and their host, nobody else, and nobody else reaches them. */
#pragma once
#include "maps.h"
#include "work.h"

static __always_inline bool is_internal(__u32 number)
{
	struct network *net = bpf_map_lookup_elem(&networks, &number);

	return net && (net->flags & NET_INTERNAL);
}

/* Destination and receiver are those after translation: a published port is no way in. */
static __always_inline int judge_internal(const struct work *w, const struct endpoint *sep,
					  const struct endpoint *dep)
{
	if (sep && dep && sep->network == dep->network)
		return DROP_NONE;
	/* A network may have its containers on several nodes. */
	if (w->src.network && w->src.network == w->dst.network &&
	    ((w->src.flags | w->dst.flags) & ADDR_CLUSTER))
		return DROP_NONE;
	if (sep && !(w->dst.flags & ADDR_HOST) && is_internal(sep->network))
		return DROP_NETWORK_INTERNAL;
	if (dep && !(w->src.flags & ADDR_HOST) && is_internal(dep->network))
		return DROP_NETWORK_INTERNAL;
	return DROP_NONE;
}
