import { cidrContains, parseAddress, parseCidr } from '../../policy/address.js';
import type { AgentConfig } from '../config.js';

/** On which addresses of the host node ports are served. */
export function nodePortFilter(setting: AgentConfig['nodePortAddresses']): (address: string) => boolean {
  if (setting === 'all') return () => true;
  const cidrs = setting.map((text) => parseCidr(text));
  return (address) => cidrs.some((cidr) => cidrContains(cidr, parseAddress(address)));
}

const IPV4 = 1;
const IPV6 = 2;

/** Whether the host's own processes find them on its loopback addresses: cfg_node_loopback in bpf/include/config.h. */
export function loopbackNodePorts(setting: AgentConfig['nodePortAddresses']): number {
  const serves = nodePortFilter(setting);
  return (serves('127.0.0.1') ? IPV4 : 0) | (serves('::1') ? IPV6 : 0);
}
