/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Keeps the host enforcer's types in the BTF that the codecs are generated from; its maps are in host.bpf.o. */
#pragma once
#include "host_types.h"

struct host_flow_key *btf_export_host_flow_key __attribute__((unused));
struct host_flow *btf_export_host_flow __attribute__((unused));
struct host_state *btf_export_host_state __attribute__((unused));
struct host_line *btf_export_host_line __attribute__((unused));
struct host_prefix_key *btf_export_host_prefix_key __attribute__((unused));
struct host_owner_key *btf_export_host_owner_key __attribute__((unused));
struct host_subject *btf_export_host_subject __attribute__((unused));
struct host_rule *btf_export_host_rule __attribute__((unused));
struct host_bucket_key *btf_export_host_bucket_key __attribute__((unused));
struct host_bucket *btf_export_host_bucket __attribute__((unused));
struct host_failsafe_key *btf_export_host_failsafe_key __attribute__((unused));
enum host_flow_flag btf_export_host_flow_flag __attribute__((unused));
enum host_panic btf_export_host_panic __attribute__((unused));
enum host_owner_kind btf_export_host_owner_kind __attribute__((unused));
enum host_rule_flag btf_export_host_rule_flag __attribute__((unused));
