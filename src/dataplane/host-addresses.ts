import type { Rtnetlink } from '../../loader/netlink/route.js';
import type { AddressTable } from './address-table.js';

/** Keeps the addresses of the host's devices in `addrs`, gateways on lo and on bridges included. */
export class HostAddresses {
  readonly #rtnl: Rtnetlink;
  readonly #table: AddressTable;
  #known = new Set<string>();

  constructor(rtnl: Rtnetlink, table: AddressTable) {
    this.#rtnl = rtnl;
    this.#table = table;
  }

  /** Reads the addresses again and writes the differences. Returns whether there were any. */
  refresh(): boolean {
    const present = new Set(this.#rtnl.addresses().map((address) => address.address));
    let changed = false;
    for (const address of present) {
      if (this.#known.has(address)) continue;
      this.#table.addHost(address);
      changed = true;
    }
    for (const address of this.#known) {
      if (present.has(address)) continue;
      this.#table.removeHost(address);
      changed = true;
    }
    this.#known = present;
    return changed;
  }
}
