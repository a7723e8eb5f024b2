/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Maps of the host enforcer; those of maps.h are shared with the other programs through their pins. */
#pragma once
#include "host_types.h"
#include "maps.h"

/*
 * Established TCP flows, and all others: a flood of what never answers displaces nothing of the first. Both are LRU:
 * an evicted flow is decided again, for TCP with the direction that its socket tells.
 */
MAP(host_flows, BPF_MAP_TYPE_LRU_HASH, struct host_flow_key, struct host_flow, 65536, 0);
MAP(host_fresh, BPF_MAP_TYPE_LRU_HASH, struct host_flow_key, struct host_flow, 32768, 0);
/* Class of a prefix: which of the rules' peers contain it. IPv4 is in lines, as far as there is room. */
const volatile __u32 cfg_host_lines = 32768; /* room for lines of one generation, a power of two */
MAP(host_lines, BPF_MAP_TYPE_ARRAY, __u32, struct host_line, 65536, BPF_F_MMAPABLE);
MAP(host_prefixes, BPF_MAP_TYPE_HASH, struct host_prefix_key, __u32, 262144, BPF_F_NO_PREALLOC);
/* As policy_peers and policy_ports; the key's identity is a class, 0: of no prefix. */
MAP(host_peers, BPF_MAP_TYPE_HASH, struct policy_peer_key, struct policy_peer, 65536, BPF_F_NO_PREALLOC);
MAP(host_ports, BPF_MAP_TYPE_LPM_TRIE, struct policy_port_key, struct policy_port, 65536, BPF_F_NO_PREALLOC);
MAP(host_owners, BPF_MAP_TYPE_HASH, struct host_owner_key, __u32, 16384, BPF_F_NO_PREALLOC);
MAP(host_subjects, BPF_MAP_TYPE_ARRAY, __u32, struct host_subject, 4096, 0);
MAP(host_rules, BPF_MAP_TYPE_HASH, __u32, struct host_rule, 16384, BPF_F_NO_PREALLOC);
MAP(host_buckets, BPF_MAP_TYPE_LRU_HASH, struct host_bucket_key, struct host_bucket, 65536, 0);
MAP(host_failsafe, BPF_MAP_TYPE_HASH, struct host_failsafe_key, __u32, 1024, BPF_F_NO_PREALLOC);
MAP(host_state_map, BPF_MAP_TYPE_ARRAY, __u32, struct host_state, 1, BPF_F_MMAPABLE);

static __always_inline struct host_state *host_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&host_state_map, &zero);
}
