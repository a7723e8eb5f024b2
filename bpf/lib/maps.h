/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Every map. Sizes are defaults; the loader sets them before loading. */
#pragma once
#include "common.h"

#define MAP(name, map_type, key_type, value_type, entries, flag_bits)                                        \
	struct {                                                                                             \
		__uint(type, map_type);                                                                      \
		__type(key, key_type);                                                                       \
		__type(value, value_type);                                                                   \
		__uint(max_entries, entries);                                                                \
		__uint(map_flags, flag_bits);                                                                \
	} name SEC(".maps")

/* Flow table; also the table of claimed SNAT ports (by its reply keys). */
MAP(flows, BPF_MAP_TYPE_HASH, struct flow_key, struct flow, 131072, 0);
/* TCP flows that are not established. */
MAP(half, BPF_MAP_TYPE_LRU_HASH, struct flow_key, struct half_flow, 16384, 0);
MAP(flow_marks_map, BPF_MAP_TYPE_ARRAY, __u32, struct flow_marks, 1, BPF_F_MMAPABLE);
/* New connections between containers; page-aligned, so that what belongs together is on one cache line. */
MAP(young_sets, BPF_MAP_TYPE_ARRAY, __u32, struct young_set, YOUNG_SETS + YOUNG_MORE_SETS, BPF_F_MMAPABLE);
MAP(young, BPF_MAP_TYPE_ARRAY, __u32, struct young_flow, YOUNG_FLOWS, BPF_F_MMAPABLE);
/* Ports of fragmented packets. */
MAP(frags, BPF_MAP_TYPE_LRU_HASH, struct frag_key, struct frag, 8192, 0);

MAP(endpoints, BPF_MAP_TYPE_ARRAY, __u32, struct endpoint, 65536, 0);
MAP(networks, BPF_MAP_TYPE_ARRAY, __u32, struct network, 4096, 0);
MAP(uplinks, BPF_MAP_TYPE_HASH, __u32, struct uplink, 64, 0);
MAP(addrs, BPF_MAP_TYPE_HASH, struct ip_addr, struct addr_info, 131072, BPF_F_NO_PREALLOC);
MAP(cidrs, BPF_MAP_TYPE_LPM_TRIE, struct cidr_key, struct addr_info, 65536, BPF_F_NO_PREALLOC);
MAP(policy_peers, BPF_MAP_TYPE_HASH, struct policy_peer_key, struct policy_peer, 262144, BPF_F_NO_PREALLOC);
/* Class of an endpoint's identity: what no rule for several namespaces tells apart shares one entry in a set. */
MAP(identity_class, BPF_MAP_TYPE_HASH, __u32, __u32, 131072, BPF_F_NO_PREALLOC);
MAP(policy_ports, BPF_MAP_TYPE_LPM_TRIE, struct policy_port_key, struct policy_port, 131072,
    BPF_F_NO_PREALLOC);
MAP(hostports, BPF_MAP_TYPE_HASH, struct hostport_key, struct hostport, 16384, BPF_F_NO_PREALLOC);
MAP(services, BPF_MAP_TYPE_HASH, struct service_key, struct service, 65536, BPF_F_NO_PREALLOC);
/* Backend numbers: lists and Maglev tables, one behind the other. */
MAP(service_slots, BPF_MAP_TYPE_ARRAY, __u32, __u32, 524288, 0);
MAP(backends, BPF_MAP_TYPE_ARRAY, __u32, struct backend, 65536, 0);
/* For services that choose by it: how many sockets are connected, and to which backend one is. */
MAP(backend_loads, BPF_MAP_TYPE_ARRAY, __u32, struct backend_load, 65536, 0);
MAP(socket_loads, BPF_MAP_TYPE_HASH, __u64, struct socket_load, 65536, BPF_F_NO_PREALLOC);
MAP(service_members, BPF_MAP_TYPE_HASH, struct member_key, struct member, 262144, BPF_F_NO_PREALLOC);
MAP(service_ranges, BPF_MAP_TYPE_LPM_TRIE, struct range_key, __u32, 16384, BPF_F_NO_PREALLOC);
MAP(service_affinity, BPF_MAP_TYPE_LRU_HASH, struct affinity_key, struct affinity, 32768, 0);
MAP(service_counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct service_counter, 32768, 0);
MAP(service_state_map, BPF_MAP_TYPE_ARRAY, __u32, struct service_state, 1, BPF_F_MMAPABLE);
/* What sockets were translated: host ports and services. */
MAP(sockets, BPF_MAP_TYPE_LRU_HASH, struct socket_key, struct socket_origin, 32768, 0);
MAP(name_servers, BPF_MAP_TYPE_HASH, struct name_server_key, struct name_server, 64, BPF_F_NO_PREALLOC);
MAP(socket_netns_map, BPF_MAP_TYPE_HASH, __u64, struct socket_netns, 65536, BPF_F_NO_PREALLOC);
MAP(bandwidths, BPF_MAP_TYPE_HASH, __u32, struct bandwidth, 65536, BPF_F_NO_PREALLOC);
MAP(node_map, BPF_MAP_TYPE_ARRAY, __u32, struct node, 1, BPF_F_MMAPABLE);
MAP(metrics, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct counter, METRIC_SLOTS, 0);
/* The flow log, in two halves by node.log_slot; and what found no room in it. */
MAP(flow_log_map, BPF_MAP_TYPE_PERCPU_HASH, struct flow_log_key, struct flow_log, 16384, BPF_F_NO_PREALLOC);
MAP(flow_log_lost, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct flow_log, 1, 0);
MAP(decisions, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct decision, DECISIONS, 0);
/* A table for each CPU, which alone writes it. Not per-CPU memory: that is aligned to 8 bytes, and found by a pointer. */
MAP(hot_tables, BPF_MAP_TYPE_ARRAY, __u32, struct hot_table, 64, BPF_F_MMAPABLE);
/* One slot, memory-mapped by who runs the dry run: one packet at a time. */
MAP(trace_map, BPF_MAP_TYPE_ARRAY, __u32, struct trace, 1, BPF_F_MMAPABLE);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Only the ring buffer and BPF_PROG_TEST_RUN use these types: keep them in the object's BTF. */
struct event *btf_export_event __attribute__((unused));
struct gc_args *btf_export_gc_args __attribute__((unused));
enum drop_reason btf_export_drop_reason __attribute__((unused));
enum flow_action btf_export_flow_action __attribute__((unused));
enum flow_flag btf_export_flow_flag __attribute__((unused));
enum flow_state btf_export_flow_state __attribute__((unused));
enum endpoint_flag btf_export_endpoint_flag __attribute__((unused));
enum addr_flag btf_export_addr_flag __attribute__((unused));
enum reserved_identity btf_export_reserved_identity __attribute__((unused));
enum verdict btf_export_verdict __attribute__((unused));
enum young_owner btf_export_young_owner __attribute__((unused));
enum service_flag btf_export_service_flag __attribute__((unused));
enum member_flag btf_export_member_flag __attribute__((unused));
enum socket_direction btf_export_socket_direction __attribute__((unused));
enum network_flag btf_export_network_flag __attribute__((unused));
enum direction btf_export_direction __attribute__((unused));
enum event_kind btf_export_event_kind __attribute__((unused));

static __always_inline struct node *node_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&node_map, &zero);
}
