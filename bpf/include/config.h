/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Constants of the node. The loader writes them to .rodata before the programs are loaded, so the
 * verifier removes the branches that do not apply. Field names are the names in loader/object.
 */
#pragma once
#include <linux/types.h>

const volatile __u32 cfg_hz = 250; /* jiffies per second */
const volatile __u16 cfg_snat_min = 1024; /* source ports for masquerading, host byte order */
const volatile __u16 cfg_snat_max = 29999;
/* Half-open TCP flows in the flow table; more go to the LRU table. */
const volatile __u32 cfg_half_limit = 8192;
const volatile __u32 cfg_dry_run = 0; /* 1: decide and report to trace_map, change nothing */
const volatile __u64 cfg_netns_cookie = 0; /* sockets of other namespaces are left alone */
const volatile __u32 cfg_foreign = 0; /* 1: interfaces that other CNI plugins made may be taken in */
const volatile __u32 cfg_node_loopback = 3; /* node ports on loopback addresses: 1 IPv4, 2 IPv6 */
const volatile __u64 cfg_layout = 0; /* hash of the generated layout, for the loader */

/* Lifetimes in seconds. */
const volatile __u32 cfg_ttl_half = 30; /* TCP handshake not complete */
const volatile __u32 cfg_ttl_tcp = 21600; /* TCP, both directions seen */
const volatile __u32 cfg_ttl_closing = 5; /* TCP after FIN or RST in both directions */
const volatile __u32 cfg_ttl_fin =
	3600; /* TCP after FIN in one direction: it may be half closed on purpose */
const volatile __u32 cfg_ttl_denied = 120; /* TCP that was open when it was denied */
const volatile __u32 cfg_ttl_udp_new = 30; /* UDP, ICMP and others without an answer */
const volatile __u32 cfg_ttl_udp = 120; /* the same with an answer */
/* BPF_F_IPV6 for bpf_l4_csum_replace where the kernel has it (6.16), else 0. */
const volatile __u64 cfg_csum6_flags = 0;
/* 1: programs may choose the errno of a refused connect (Linux 5.18). */
const volatile __u32 cfg_set_retval = 0;
