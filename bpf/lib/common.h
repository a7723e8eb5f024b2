/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What every other header uses: kernel types, byte order, addresses. */
#pragma once
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/icmpv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "config.h"
#include "drop_reasons.h"
#include "types.h"
#include "wire.h"

/* Packets that are not ours go on to the next program and then to the stack. */
#define CONTINUE TC_ACT_UNSPEC

#ifndef memcpy
#define memcpy(d, s, n) __builtin_memcpy((d), (s), (n))
#endif
#ifndef memset
#define memset(d, c, n) __builtin_memset((d), (c), (n))
#endif

#ifndef barrier
#define barrier() asm volatile("" ::: "memory")
#endif

#define AF_INET 2
#define AF_INET6 10
#define ENOSPC 28

/* The common case stays in one piece, so that it takes few cache lines. */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define V4_MAPPED bpf_htonl(0xffff)

static __always_inline bool addr_equal(const struct ip_addr *a, const struct ip_addr *b)
{
	return a->w[3] == b->w[3] && a->w[2] == b->w[2] && a->w[1] == b->w[1] && a->w[0] == b->w[0];
}

static __always_inline bool addr_is_zero(const struct ip_addr *a)
{
	return !(a->w[0] | a->w[1] | a->w[2] | a->w[3]);
}

static __always_inline bool addr_is_v4(const struct ip_addr *a)
{
	return a->w[2] == V4_MAPPED && !(a->w[0] | a->w[1]);
}

static __always_inline bool is_loopback(const struct ip_addr *a)
{
	if (addr_is_v4(a))
		return (bpf_ntohl(a->w[3]) >> 24) == 127;
	return !(a->w[0] | a->w[1] | a->w[2]) && a->w[3] == bpf_htonl(1);
}

static __always_inline void addr_set_v4(struct ip_addr *a, __be32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = V4_MAPPED;
	a->w[3] = v4;
}

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	return *(const __u32 *)a == *(const __u32 *)b && *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

/* A MAC address in the low 48 bits, for functions that take no pointer into the packet. */
static __always_inline __u64 mac_bits(const __u8 *mac)
{
	return *(const __u32 *)mac | (__u64)(*(const __u16 *)(mac + 4)) << 32;
}

/* A destination address and the source address behind it. */
static __always_inline void write_macs(void *to, const __u8 *macs)
{
	*(__u64 *)to = *(const __u64 *)macs;
	*(__u32 *)(to + 8) = *(const __u32 *)(macs + 8);
}

static __always_inline bool mac_is_zero(const __u8 *a)
{
	return !(*(const __u32 *)a | *(const __u16 *)(a + 4));
}

static __always_inline __u32 now(void)
{
	return (__u32)bpf_jiffies64();
}
