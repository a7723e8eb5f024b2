/**
 * Names and explanations of the drop reasons of bpf/include/drop_reasons.h. The name is the label in
 * the metrics; the text is for people, one sentence without the addresses. A test holds the list
 * against the generated enum.
 */
export interface Reason {
  /** snake_case, stable. */
  readonly name: string;
  readonly text: string;
}

export const REASONS: Readonly<Record<number, Reason>> = {
  0: { name: 'forwarded', text: 'the packet was forwarded' },
  1: { name: 'invalid', text: 'the packet is too short or its headers are impossible' },
  2: { name: 'ethertype', text: 'the packet is not IPv4, IPv6 or ARP' },
  3: { name: 'no_endpoint', text: 'the device belongs to no container, or its container is not ready yet' },
  4: { name: 'spoofed_address', text: "the source address is not the container's" },
  5: { name: 'spoofed_mac', text: "the source MAC address is not the container's" },
  6: { name: 'policy_egress', text: "the sender's policy does not allow it" },
  7: { name: 'policy_ingress', text: "the receiver's policy does not allow it" },
  8: { name: 'policy_missing', text: 'the policy of the container is not loaded, so everything is denied' },
  9: { name: 'network', text: 'the two containers are on different networks' },
  10: { name: 'no_route', text: 'the host has no route to the destination' },
  11: {
    name: 'unreachable_route',
    text: "the host's route to the destination is blackhole, prohibit or unreachable",
  },
  12: { name: 'reserved', text: 'the address belongs to a container network, but no container has it' },
  13: { name: 'flow_table_full', text: 'the flow table has no room; raise flowEntries' },
  14: { name: 'snat_ports', text: 'no source port is free for masquerading towards this destination' },
  15: { name: 'snat_address', text: 'the uplink has no address of this family to masquerade with' },
  16: { name: 'fragment_without_first', text: 'a fragment arrived whose first fragment was not seen' },
  17: { name: 'extension_headers', text: 'the IPv6 extension headers are too many or malformed' },
  18: { name: 'ttl', text: 'the TTL or hop limit ran out' },
  19: {
    name: 'too_big',
    text: 'the packet is larger than the MTU of the way out and must not be fragmented',
  },
  20: { name: 'icmp_unrelated', text: 'an ICMP error about a flow that is not known' },
  21: { name: 'multicast', text: 'multicast and broadcast are not carried in a routed network' },
  22: { name: 'link_local', text: 'link-local traffic that a routed network does not need' },
  23: { name: 'arp', text: "ARP or neighbour discovery with addresses that are not the sender's" },
  24: { name: 'checksum', text: 'the checksum could not be updated' },
  25: { name: 'redirect', text: 'sending the packet on failed in the kernel' },
  26: { name: 'internal', text: 'an entry that is always there is missing from a map of Sluice' },
  27: {
    name: 'tcp_no_flow',
    text: 'a TCP packet of a connection that is not known, such as the last one of a connection that has ended',
  },
  28: { name: 'source_host', text: 'it came in from outside with an address of this host as its source' },
  29: { name: 'same_address', text: 'a container reaches itself and its network has no gateway address' },
  30: { name: 'internal_network', text: 'it would leave or enter an internal network' },
  31: { name: 'service_empty', text: 'the service has no backend; the connection was refused' },
  32: { name: 'service_not_local', text: 'the service takes backends of this node only, and has none here' },
  33: { name: 'service_source', text: 'the service does not take connections from this source' },
  34: { name: 'bandwidth', text: "more than the container's bandwidth limit allows" },
  35: { name: 'host_policy', text: 'a HostPolicy does not allow it' },
  36: { name: 'host_rate', text: "more than the limit of a HostPolicy's rule" },
  37: { name: 'host_panic', text: 'everything but the failsafe ports is closed (sluice panic-close)' },
  38: {
    name: 'service_port',
    text: 'it is the address of a service that has no such port; the connection was refused',
  },
  39: {
    name: 'tunnel_source',
    text: 'it came through the overlay, but not from the node that has its source address',
  },
  40: { name: 'no_node', text: "the address is in the cluster's ranges, but no known node has it" },
  41: {
    name: 'node_no_key',
    text: 'it is on a node that has told no WireGuard key, and nothing is sent there in the clear',
  },
};

/** Name of a reason number; numbers of a newer program are shown as such. */
export function reasonName(reason: number): string {
  return REASONS[reason]?.name ?? `reason_${reason}`;
}

export function reasonText(reason: number): string {
  return REASONS[reason]?.text ?? `reason ${reason}`;
}
