/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * SCTP's CRC32c (RFC 9260, appendix A) after a change of the ports. CRC is linear: the checksum
 * changes by the change of the first four bytes, shifted by the length of the packet, which is a
 * multiplication by x^(8 * length) in GF(2)[x] modulo the polynomial.
 */
#pragma once
#include "packet.h"

#define CRC32C_POLY 0x82f63b78u

/* x^(8 * 2^k) modulo the polynomial, bit-reflected. */
static const __u32 crc32c_shift[16] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
	0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
};

/* 32 rounds. */
__noinline __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 p = 0;

	for (int i = 0; i < 32; i++) {
		p ^= b & -(a >> 31);
		a <<= 1;
		b = (b >> 1) ^ (CRC32C_POLY & -(b & 1));
	}
	return p;
}

/* At most 16 multiplications. The ports in the packet are new already; p->key has the old ones. */
__noinline int sctp_fix(struct __sk_buff *skb, struct packet *p, __be16 sport, __be16 dport)
{
	__u32 delta, length, check;

	if (!p || p->fragment)
		return DROP_CSUM; /* the length of the whole packet is not known */
	if (p->v6) {
		__be16 payload;

		if (bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, payload_len), &payload, 2))
			return DROP_INVALID;
		length = L3_OFF + sizeof(struct ipv6hdr) + bpf_ntohs(payload) - p->l4_off;
	} else {
		__be16 total;

		if (bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct iphdr, tot_len), &total, 2))
			return DROP_INVALID;
		length = L3_OFF + bpf_ntohs(total) - p->l4_off;
	}
	delta = ((__u32)(p->key.sport ^ sport)) | ((__u32)(p->key.dport ^ dport) << 16);
	for (__u32 k = 0; k < 16; k++) {
		if ((length >> k) & 1)
			delta = crc32c_multiply(delta, crc32c_shift[k]);
	}
	if (bpf_skb_load_bytes(skb, p->l4_off + 8, &check, 4))
		return DROP_INVALID;
	check ^= delta;
	if (bpf_skb_store_bytes(skb, p->l4_off + 8, &check, 4, 0))
		return DROP_INVALID;
	return DROP_NONE;
}
