/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Why a packet was dropped. A function that judges a packet returns one of these; 0 is "go on".
 * The numbers are part of the metrics and events: never reuse one. Names and texts for people
 * are in src/flows/reasons.ts, which a test holds against this list.
 */
#pragma once

enum drop_reason {
	DROP_NONE = 0,
	DROP_INVALID = 1, /* packet too short or header fields impossible */
	DROP_ETHERTYPE = 2, /* not IPv4, IPv6 or ARP */
	DROP_NO_ENDPOINT = 3, /* the device has no endpoint: its container is not ready or gone */
	DROP_SPOOFED_ADDR = 4, /* source address is not the container's */
	DROP_SPOOFED_MAC = 5, /* source MAC is not the container's */
	DROP_POLICY_EGRESS = 6, /* denied by the sender's policy */
	DROP_POLICY_INGRESS = 7, /* denied by the receiver's policy */
	DROP_POLICY_MISSING = 8, /* the policy set is not in the map: fails closed */
	DROP_NETWORK = 9, /* the other container is on another network */
	DROP_NO_ROUTE = 10, /* no route to the destination */
	DROP_UNREACHABLE = 11, /* blackhole, prohibit or unreachable route */
	DROP_RESERVED = 12, /* address of a container network that nobody has */
	DROP_FLOW_FULL = 13, /* the flow table has no room */
	DROP_SNAT_PORTS = 14, /* no free port for masquerading towards this destination */
	DROP_SNAT_ADDR = 15, /* the uplink has no address of the family */
	DROP_FRAG_NO_FIRST = 16, /* a fragment whose first one was not seen */
	DROP_EXT_HEADERS = 17, /* too many or malformed IPv6 extension headers */
	DROP_TTL = 18, /* TTL or hop limit ran out */
	DROP_TOO_BIG = 19, /* larger than the MTU of the way out and must not be fragmented */
	DROP_ICMP_UNRELATED = 20, /* ICMP error about a flow that is not known */
	DROP_MULTICAST = 21, /* multicast or broadcast in a routed network */
	DROP_LINK_LOCAL = 22, /* link-local traffic that a routed network does not need */
	DROP_ARP = 23, /* ARP or neighbour discovery with addresses that are not the sender's */
	DROP_CSUM = 24, /* the checksum could not be updated */
	DROP_REDIRECT = 25, /* the helper that sends the packet on failed */
	DROP_INTERNAL = 26, /* a program's own map is missing an entry that is always there */
	DROP_TCP_NO_FLOW = 27, /* TCP packet of a connection that is not known: it must begin with a SYN */
	DROP_SOURCE_HOST = 28, /* from an uplink with a source address of this host */
	DROP_SAME_ADDR = 29, /* a container reaches itself and its network has no gateway address */
	DROP_NETWORK_INTERNAL = 30, /* in or out of an internal network */
	DROP_SERVICE_EMPTY = 31, /* the service has no backend: refused */
	DROP_SERVICE_NOT_LOCAL = 32, /* the service is for backends of this node, and there is none */
	DROP_SERVICE_SOURCE = 33, /* the service does not take connections from this source */
	DROP_BANDWIDTH = 34, /* more than the limit of the container */
	DROP_HOST_POLICY = 35, /* denied by a HostPolicy */
	DROP_HOST_RATE = 36, /* more than the limit of a HostPolicy's rule */
	DROP_HOST_PANIC = 37, /* everything is closed (sluice panic-close) */
	DROP_SERVICE_PORT = 38, /* the address of a service, and a port that none has: refused */
	DROP_TUNNEL_SOURCE = 39, /* from the overlay, and not from the node that has the source address */
	DROP_NO_NODE = 40, /* in a range of the cluster, and no node is known to have it */
	DROP_NODE_NO_KEY = 41, /* to a node that has told no key, with encryption between nodes */
	DROP_REASON_COUNT = 42,
};
