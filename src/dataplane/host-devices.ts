import { join } from 'node:path';
import { findClsact } from '../../loader/clsact.js';
import { isAbsent, NetlinkError } from '../../loader/netlink/errors.js';
import type { Link } from '../../loader/netlink/link.js';
import type { Rtnetlink } from '../../loader/netlink/route.js';
import { readSysctl, writeSysctl } from '../../loader/sysctl.js';
import { type Cidr, cidrContains, parseAddress } from '../../policy/address.js';
import type { NetworkResource } from '../../policy/model/resources.js';
import { stableMac, stableName } from '../ipam/mac.js';
import { aliasOf } from '../state/desired.js';
import { readJson, removeFile, writeKernelJson } from '../state/files.js';
import { LOOPBACK, quiet } from './devices.js';

/** What was changed on the host and has to be undone by `down`. Written before the change is made. */
interface HostState {
  /** Gateway addresses that we put on lo. */
  readonly gateways: readonly string[];
  /** Former values of settings, by their path below /proc/sys. */
  readonly sysctls: Readonly<Record<string, string>>;
  /** Uplinks with a clsact filter of ours (links are pinned instead), by index. */
  readonly filters: readonly number[];
}

/** An address of the host, canonical. */
export interface HostAddress {
  readonly address: string;
  readonly ifindex: number;
  readonly device: string;
}

const EMPTY: HostState = { gateways: [], sysctls: {}, filters: [] };

/** Name and alias of the bridge of a network. */
export function bridgeName(instance: string, network: string): string {
  return stableName('slbr', instance, network);
}

/**
 * What networks need on the host beside the containers' devices: gateway addresses on lo, bridges,
 * and settings of the kernel. What it changed is in `<stateDir>/host.json`.
 */
export class HostDevices {
  readonly #rtnl: Rtnetlink;
  readonly #instance: string;
  readonly #path: string;
  #state: HostState;

  constructor(rtnl: Rtnetlink, instance: string, stateDir: string) {
    this.#rtnl = rtnl;
    this.#instance = instance;
    this.#path = join(stateDir, 'host.json');
    this.#state = { ...EMPTY, ...readJson<HostState>(this.#path) };
  }

  /** Puts a gateway address on lo. An address that the host has already stays the host's own. */
  addGateway(address: string): void {
    if (!this.#state.gateways.includes(address)) {
      if (this.#isHosts(address)) return;
      this.#save({ ...this.#state, gateways: [...this.#state.gateways, address] });
    }
    const prefix = address.includes(':') ? 128 : 32;
    this.#rtnl.addAddress(LOOPBACK, { address, prefix, noDad: true, replace: true });
  }

  /** The addresses of the host in a range that were not put there for networks. */
  foreignAddresses(range: Cidr): readonly HostAddress[] {
    const inside = this.#rtnl.addresses().filter(({ address }) => cidrContains(range, parseAddress(address)));
    return inside.flatMap(({ address, ifindex }) => {
      if (ifindex === LOOPBACK && this.#state.gateways.includes(address)) return [];
      const link = this.#rtnl.link(ifindex);
      return this.#isOurs(link) ? [] : [{ address, ifindex, device: link?.name ?? `index ${ifindex}` }];
    });
  }

  /** Whether the host has the address on a device that is not ours (a bridge of a network may be about to go). */
  #isHosts(address: string): boolean {
    return this.#rtnl
      .addresses()
      .some((present) => present.address === address && !this.#isOurs(this.#rtnl.link(present.ifindex)));
  }

  #isOurs(link: Pick<Link, 'alias'> | undefined): boolean {
    return link?.alias?.startsWith(`sluice:${this.#instance}:`) === true;
  }

  /** Takes a gateway address away again, if it was put there by `addGateway`. */
  removeGateway(address: string): void {
    if (!this.#state.gateways.includes(address)) return;
    try {
      this.#rtnl.deleteAddress(LOOPBACK, { address, prefix: address.includes(':') ? 128 : 32 });
    } catch (error) {
      if (!(error instanceof NetlinkError) || (error.code !== 'EADDRNOTAVAIL' && !isAbsent(error)))
        throw error;
    }
    this.#save({ ...this.#state, gateways: this.#state.gateways.filter((other) => other !== address) });
  }

  /** Removes gateway addresses of networks that are no longer defined. */
  keepGateways(wanted: ReadonlySet<string>): void {
    for (const address of this.#state.gateways) if (!wanted.has(address)) this.removeGateway(address);
  }

  /** Makes the bridge of a network, or brings the present one to what it has to be. Returns its index. */
  ensureBridge(network: NetworkResource, mtu: number): number {
    const name = bridgeName(this.#instance, network.name);
    const alias = aliasOf(this.#instance, network.name);
    const present = this.#rtnl.link(name);
    const mac = stableMac(this.#instance, network.name, 'bridge');
    const ifindex =
      present?.index ?? this.#rtnl.createBridge({ name, mac, mtu, alias, ...quiet(mtu) }).ifindex;
    if (present?.mtu !== undefined && present.mtu !== mtu) this.#rtnl.setLink(ifindex, { mtu });
    this.#rtnl.setLink(ifindex, { up: true });
    const wanted = [network.ipv4, network.ipv6].flatMap((range) =>
      range === undefined ? [] : [{ address: range.gateway, prefix: Number(range.cidr.split('/')[1]) }],
    );
    for (const present of this.#rtnl.addresses(ifindex)) {
      const keep = wanted.some(
        (entry) => entry.address === present.address && entry.prefix === present.prefix,
      );
      if (!keep && present.scope !== 'link') this.#rtnl.deleteAddress(ifindex, present);
    }
    for (const entry of wanted) this.#rtnl.addAddress(ifindex, { ...entry, noDad: true, replace: true });
    return ifindex;
  }

  removeBridge(network: string): void {
    const link = this.#rtnl.link(bridgeName(this.#instance, network));
    if (link !== undefined) this.#rtnl.deleteLink(link.index);
  }

  /** Sets kernel settings and remembers what they were before we first touched them. */
  setSysctl(key: string, value: string): void {
    const present = readSysctl(key);
    if (present === value) return;
    if (!(key in this.#state.sysctls)) {
      this.#save({ ...this.#state, sysctls: { ...this.#state.sysctls, [key]: present } });
    }
    writeSysctl(key, value);
  }

  /** A host that forwards ignores router advertisements unless accept_ra is 2: keep what an uplink had from them. */
  keepRouterAdvertisements(key: string): void {
    if (readSysctl(key) === '1') this.setSysctl(key, '2');
  }

  /** A clsact filter is about to be put on a device that is not ours, or was taken away. */
  noteFilter(ifindex: number, present: boolean): void {
    const others = this.#state.filters.filter((other) => other !== ifindex);
    if (present === this.#state.filters.includes(ifindex)) return;
    this.#save({ ...this.#state, filters: present ? [...others, ifindex] : others });
  }

  /** Takes everything back: filters, gateway addresses, settings in reverse order. Never throws; returns what failed. */
  restore(): unknown[] {
    const errors: unknown[] = [];
    for (const ifindex of this.#state.filters) {
      attempt(() => findClsact(ifindex, 'ingress')?.detach(), errors);
      attempt(() => findClsact(ifindex, 'egress')?.detach(), errors);
      attempt(() => findClsact(ifindex, 'egress', 'end')?.detach(), errors);
    }
    for (const address of this.#state.gateways) attempt(() => this.removeGateway(address), errors);
    for (const [key, value] of Object.entries(this.#state.sysctls).reverse()) {
      attempt(() => writeSysctl(key, value), errors);
    }
    if (errors.length === 0) removeFile(this.#path);
    this.#state = EMPTY;
    return errors;
  }

  #save(state: HostState): void {
    this.#state = state;
    writeKernelJson(this.#path, state);
  }
}

function attempt(action: () => void, errors: unknown[]): void {
  try {
    action();
  } catch (error) {
    if (!isAbsent(error)) errors.push(error);
  }
}
