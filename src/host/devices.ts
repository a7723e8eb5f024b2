import type { Rtnetlink } from '../../loader/netlink/route.js';

/** Names of the host's devices by the addresses that they have. */
export function devicesByAddress(rtnl: Pick<Rtnetlink, 'addresses' | 'links'>): ReadonlyMap<string, string> {
  const names = new Map(rtnl.links().map(({ index, name }) => [index, name]));
  return new Map(rtnl.addresses().map(({ address, ifindex }) => [address, names.get(ifindex) ?? '']));
}
