/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Services: from a frontend (address, port, protocol) to one of its backends.
 *
 *   frontend                          who comes                 list       refused when it is empty
 *   cluster address, external ones    container, host           internal   at once
 *   node port (address 0)             container, host           internal   at once
 *   any of them                       by an uplink              external   at once; Local: dropped
 *
 * A cluster address has an entry of its own as well, with port and protocol 0: what goes there to a port that is no
 * service's is refused, and not sent to wherever routes lead.
 *
 * A list is a range of service_slots. The agent writes a changed list to a new range, then the frontend, then frees
 * the old range; `generation` changes before a freed range or backend number is used again, so who reads it unchanged
 * before and after has read one list.
 */
#pragma once
#include "maps.h"

#define SERVICE_TRIES 3
#define LEAST_LOOKS 8

/* One of n numbers for a hash, without a division. */
static __always_inline __u32 scaled(__u32 hash, __u32 n)
{
	return (__u32)(((__u64)hash * n) >> 32);
}

/* Room for the keys of look-ups: programs at sockets have it on their stack, the others in struct work. */
struct service_keys {
	struct member_key member;
	struct affinity_key affinity;
	struct affinity entry;
	struct range_key range;
};

static __always_inline struct service_state *service_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&service_state_map, &zero);
}

static __always_inline bool services_active(void)
{
	struct service_state *s = service_state();

	return s && s->active;
}

/* From an address of the node to the one that node ports have. */
static __always_inline void node_port_key(struct service_key *k)
{
	k->addr.w[3] = 0;
	if (k->addr.w[2] != V4_MAPPED) {
		k->addr.w[0] = 0;
		k->addr.w[1] = 0;
		k->addr.w[2] = 0;
	}
}

/* The node port with the port and protocol of k, of which service_find knew no frontend. Changes k. */
static __always_inline struct service *service_of_node(struct service_key *k)
{
	node_port_key(k);
	return bpf_map_lookup_elem(&services, k);
}

/* Fills the key of the frontend of an address and port; `node`: node ports are served there. NULL: no service. */
static __always_inline struct service *service_find(struct service_key *k, const struct ip_addr *addr,
						    __be16 port, __u8 proto, bool node)
{
	struct service *svc;

	k->addr = *addr;
	k->port = port;
	k->proto = proto;
	k->pad = 0;
	svc = bpf_map_lookup_elem(&services, k);
	return svc || !node ? svc : service_of_node(k);
}

/* Whether k, of which service_find knew no frontend, has the address of a service. Changes k. */
static __always_inline bool is_cluster_address(struct service_key *k)
{
	k->port = 0;
	k->proto = 0;
	return bpf_map_lookup_elem(&services, k);
}

static __always_inline struct member *service_member(struct service_keys *keys, __u32 service,
						     const struct ip_addr *addr, __be16 port, __u8 proto)
{
	struct member_key *k = &keys->member;

	k->service = service;
	k->addr = *addr;
	k->port = port;
	k->proto = proto;
	k->pad = 0;
	return bpf_map_lookup_elem(&service_members, k);
}

/* The flag that a member must have for who comes from outside or from inside. */
static __always_inline __u32 member_wanted(const struct service *svc, bool external)
{
	return svc->flags & (external ? SVC_LOCAL_EXTERNAL : SVC_LOCAL_INTERNAL) ? MEMBER_LOCAL
										 : MEMBER_CLUSTER;
}

/* Whether an open flow to this backend stays with it. */
static __always_inline bool member_keeps(const struct member *m, __u32 wanted)
{
	return m && (m->flags & (wanted | MEMBER_DRAINING));
}

/* May this source use the service? */
static __always_inline bool service_admits(struct service_keys *keys, const struct service *svc,
					   const struct ip_addr *source)
{
	struct range_key *k = &keys->range;

	if (!(svc->flags & SVC_RANGES))
		return true;
	k->prefixlen = 160;
	k->service = svc->number;
	k->addr = *source;
	return bpf_map_lookup_elem(&service_ranges, k);
}

static __always_inline void count_service(__u32 number, bool refused)
{
	struct service_counter *c = bpf_map_lookup_elem(&service_counters, &number);

	if (!c)
		return;
	if (refused)
		c->refused++;
	else
		c->connections++;
}

static __always_inline void count_traffic(__u32 number, __u64 packets, __u64 bytes)
{
	struct service_counter *c = bpf_map_lookup_elem(&service_counters, &number);

	if (!c)
		return;
	/* Expiry runs in a process, which packets interrupt. */
	__sync_fetch_and_add(&c->packets, packets);
	__sync_fetch_and_add(&c->bytes, bytes);
}

/*
 * The flow of opener, which went to a service, ends: e and other are its entries. Node ports have a frontend without
 * an address.
 */
__noinline int service_ends(const struct flow_key *opener, const struct flow *e, const struct flow *other)
{
	struct service_key k = {};
	struct service *svc;

	if (!opener || !e)
		return 0;
	svc = service_find(&k, &opener->daddr, opener->dport, opener->proto, true);
	if (svc)
		count_traffic(svc->number, e->packets + (other ? other->packets : 0),
			      e->bytes + (other ? other->bytes : 0));
	return 0;
}

/* The backend that this client had last, if it is still one and not too long ago: its number + 1. */
static __noinline __u32 affine_backend(struct service_keys *keys, const struct service *svc, __u32 wanted,
				       struct backend *out)
{
	struct affinity *known = bpf_map_lookup_elem(&service_affinity, &keys->affinity);
	struct backend *b;
	struct member *m;
	__u32 number;

	if (!known || now() - known->last > svc->affinity * cfg_hz)
		return 0;
	number = known->backend;
	b = bpf_map_lookup_elem(&backends, &number);
	if (!b)
		return 0;
	m = service_member(keys, svc->number, &b->addr, b->port, b->proto);
	if (!m || m->backend != number || !(m->flags & wanted))
		return 0;
	*out = *b;
	if (!cfg_dry_run)
		known->last = now();
	return number + 1;
}

/*
 * Of a list the backend with the fewest sockets; the first one from a place that the hash decides. Of a long list
 * LEAST_LOOKS are looked at, which does nearly as well (Mitzenmacher, "The power of two choices", 2001). Returns its
 * number + 1.
 */
__noinline int least_loaded(__u32 first, __u32 count, __u32 hash)
{
	__s32 fewest = 0x7fffffff;
	__u32 at, best = 0;

	if (!count)
		return 0;
	at = scaled(hash, count);
	for (__u32 i = 0; i < LEAST_LOOKS && i < count; i++) {
		__u32 slot = first + at;
		__u32 *number = bpf_map_lookup_elem(&service_slots, &slot);
		struct backend_load *load;
		__u32 n;

		if (!number)
			return 0;
		n = *number;
		load = bpf_map_lookup_elem(&backend_loads, &n);
		if (load && load->sockets < fewest) {
			fewest = load->sockets;
			best = n + 1;
		}
		at = at + 1 < count ? at + 1 : 0;
	}
	return (int)best;
}

/*
 * Chooses a backend of the service that k names, by `hash`. client: zero for this host. At most SERVICE_TRIES
 * readings. Returns its number + 1, or 0 if there is none now. known: the service, if it has been looked up, with the
 * generation of before; or NULL.
 */
static __always_inline __u32 service_pick(struct service_keys *keys, const struct service_key *k,
					  bool external, __u32 hash, const struct ip_addr *client,
					  struct backend *out, const struct service *known,
					  __u32 known_generation)
{
	struct service_state *s = service_state();

	if (!s)
		return 0;
	for (int i = 0; i < SERVICE_TRIES; i++) {
		__u32 generation = *(volatile __u32 *)&s->generation;
		const struct service *svc;
		__u32 first, count, slot, n;
		struct backend *b;
		__u32 *number;

		if (known) {
			svc = known;
			generation = known_generation;
			known = NULL;
		} else {
			svc = bpf_map_lookup_elem(&services, k);
		}

		/* Keeps the addresses of fields out of the stack, which is all in use on kernels before 6.2. */
		barrier_var(keys);
		barrier_var(client);
		barrier_var(out);
		barrier_var(s);
		barrier_var(hash);
		if (!svc)
			return 0;
		first = external ? svc->first_external : svc->first_internal;
		count = external ? svc->count_external : svc->count_internal;
		if (!count)
			return 0;
		if (svc->flags & SVC_AFFINITY) {
			keys->affinity.client = *client;
			keys->affinity.service = svc->number;
			n = affine_backend(keys, svc, member_wanted(svc, external), out);
			if (n)
				return n;
		}
		slot = first + scaled(hash, count);
		number = bpf_map_lookup_elem(&service_slots, &slot);
		if (!number)
			return 0;
		n = *number;
		if ((svc->flags & SVC_LEAST) && !external) {
			n = (__u32)least_loaded(first, count, hash);
			if (!n)
				return 0;
			n--;
		}
		b = bpf_map_lookup_elem(&backends, &n);
		if (!b)
			return 0;
		*out = *b;
		barrier();
		if (*(volatile __u32 *)&s->generation != generation)
			continue;
		if ((svc->flags & SVC_AFFINITY) && !cfg_dry_run) {
			keys->entry.backend = n;
			keys->entry.last = now();
			bpf_map_update_elem(&service_affinity, &keys->affinity, &keys->entry, BPF_ANY);
		}
		return n + 1;
	}
	return 0;
}
