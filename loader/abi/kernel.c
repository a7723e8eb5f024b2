/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Structs of the kernel and of libbpf that loader/ fills in by hand. The generator compiles this
 * file, reads their layout from its BTF and writes gen/kernel.gen.ts. It is no BPF program.
 */
#include <stddef.h>
#include <stdbool.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/rtnetlink.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

/* bpf_link_info of a TCX link: in the kernel's interface since 6.6, newer than Debian 12's headers. */
struct bpf_link_info_tcx {
	__u32 type;
	__u32 id;
	__u32 prog_id;
	__u32 : 32;
	__u32 ifindex;
	__u32 attach_type;
};

struct bpf_object_open_opts *btf_export_open;
struct bpf_test_run_opts *btf_export_test_run;
struct bpf_map_batch_opts *btf_export_batch;
struct bpf_tc_hook *btf_export_tc_hook;
struct bpf_tc_opts *btf_export_tc_opts;
struct bpf_link_create_opts *btf_export_link_create;
struct bpf_prog_load_opts *btf_export_prog_load;
struct bpf_prog_info *btf_export_prog_info;
struct bpf_map_info *btf_export_map_info;
struct bpf_link_info_tcx *btf_export_link_info;
struct __sk_buff *btf_export_sk_buff;
struct xdp_md *btf_export_xdp_md;
enum bpf_map_type btf_export_map_type;
enum bpf_prog_type btf_export_prog_type;
enum bpf_attach_type btf_export_attach_type;
enum bpf_tc_attach_point btf_export_tc_attach_point;
