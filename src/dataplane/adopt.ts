import type { Endpoint } from '../../loader/abi/gen/types.gen.js';
import { NetlinkError } from '../../loader/netlink/errors.js';
import type { Link } from '../../loader/netlink/link.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import { type Netns, netnsPath, openNetns } from '../../loader/netns.js';
import { compareAddresses, formatAddress, isUnset } from '../../policy/address.js';
import type { Lease, LeaseBook, LeaseChange } from '../ipam/leases.js';
import { type AttachmentSpec, aliasOf } from '../state/desired.js';
import type { ObjectSet } from '../state/objects.js';
import { netnsText } from './attachments.js';
import { DEVICE_FLAGS, EMPTY_ENDPOINT, endpointValue } from './endpoints.js';
import type { Kernel } from './kernel.js';
import type { Plan, Wanted } from './plan.js';
import { attachmentIds } from './plan.js';

/**
 * After a restart: finds the devices that an earlier agent made and takes those over, untouched, that
 * are what the definitions ask for. The others are removed; what nobody defines any more only after
 * everything else is in force.
 */
export class Adoption {
  readonly #kernel: Kernel;
  readonly #instance: string;
  readonly #devices: Map<string, Link>; // alias -> device

  constructor(kernel: Kernel, instance: string) {
    this.#kernel = kernel;
    this.#instance = instance;
    const links = kernel.rtnl.links({ kind: 'veth', aliasPrefix: `sluice:${instance}:` });
    this.#devices = new Map(links.map((link) => [link.alias ?? '', link]));
  }

  /**
   * Brings the lease book to what is defined and what lives: leases of nobody are freed, and a device
   * whose lease got lost keeps the addresses that it has in the kernel.
   */
  reconcileLeases(leases: LeaseBook, objects: ObjectSet): void {
    const change = leases.begin();
    const networks = new Set<string>();
    for (const network of objects.ofKind('Network')) {
      change.defineNetwork(network);
      networks.add(network.name);
    }
    for (const name of [...leases.numbers.keys()]) if (!networks.has(name)) change.removeNetwork(name);
    const wanted = new Set<string>();
    for (const container of objects.ofKind('Container')) {
      for (const id of attachmentIds(container, objects)) {
        wanted.add(id);
        if (leases.get(id) === undefined) this.#restoreLease(id, change);
      }
    }
    for (const id of [...leases.leases.keys()]) if (!wanted.has(id)) change.free(id);
    change.commit();
  }

  #restoreLease(id: string, change: LeaseChange): void {
    const link = this.#devices.get(aliasOf(this.#instance, id));
    const slot = link === undefined ? undefined : this.#kernel.endpoints.get(link.index);
    if (link === undefined || slot === undefined) return;
    const lease: Lease = {
      id,
      network: id.slice(id.lastIndexOf(':') + 1),
      ...(isUnset(slot.addr4) ? {} : { ipv4: formatAddress(slot.addr4) }),
      ...(isUnset(slot.addr6) ? {} : { ipv6: formatAddress(slot.addr6) }),
      mac: [...slot.mac].map((byte) => byte.toString(16).padStart(2, '0')).join(':'),
      ifindex: link.index,
    };
    change.adopt(lease);
  }

  /**
   * Moves what exists already from `create` to `keep` or `mtu`, and removes what stands in the way of the rest. Leases
   * that came from the kernel learn their namespace.
   */
  adopt(plan: Plan, change: LeaseChange): void {
    const create = plan.create.splice(0);
    const obstacles: number[] = [];
    for (const wanted of create) {
      const { spec } = wanted;
      const link = this.#devices.get(spec.alias);
      const mtu =
        spec.mode === 'chained'
          ? this.#adoptForeign(wanted)
          : spec.mode === 'macvlan'
            ? this.#adoptMacvlan(wanted)
            : this.#adoptVeth(wanted, link, change);
      this.#devices.delete(spec.alias);
      if (mtu === undefined) {
        // What a runtime moved away went with its container; the runtime will say so.
        if (spec.handover === undefined) plan.create.push(wanted);
        if (link !== undefined) obstacles.push(link.index);
      } else if (mtu !== spec.mtu) plan.mtu.push(wanted);
      else plan.keep.push(wanted);
    }
    // Only now: a slot says in which networks its container is besides, and all of them have to be known for that.
    for (const { spec } of [...plan.keep, ...plan.mtu]) this.#kernel.attachments.write(spec.id);
    if (obstacles.length > 0) this.#remove(obstacles);
  }

  /** Removes devices of this instance that nobody wants. Returns how many there were. */
  removeStrays(): number {
    const indexes = [...this.#devices.values()].map((link) => link.index);
    if (indexes.length > 0) this.#remove(indexes);
    return indexes.length;
  }

  #remove(indexes: readonly number[]): void {
    for (const index of indexes) this.#kernel.endpoints.delete(index);
    this.#kernel.rtnl.deleteLinks(indexes);
    for (const index of indexes) this.#kernel.hooks.forget(index);
  }

  /** MTU of the device if it is the wanted one, else undefined. */
  #adoptVeth({ spec, lease }: Wanted, link: Link | undefined, change: LeaseChange): number | undefined {
    // The host side comes up last: one that is down was not completed.
    if (
      link?.up !== true ||
      link.index !== lease.ifindex ||
      link.name !== spec.hostName ||
      link.mac !== spec.hostMac
    ) {
      return undefined;
    }
    if (spec.handover !== undefined)
      return this.#take(spec, link.index, lease.netns ?? '', link.mtu) ? link.mtu : undefined;
    const netns = openIfThere(spec);
    try {
      // A namespace without a name may live on through its processes; another one under the name may not.
      if (netns !== undefined && lease.netns !== undefined && netnsText(netns) !== lease.netns)
        return undefined;
      if (netns === undefined && lease.netns === undefined) return undefined;
      const where = netns === undefined ? (lease.netns ?? '') : netnsText(netns);
      if (!this.#take(spec, link.index, where, link.mtu)) return undefined;
      if (lease.netns === undefined)
        change.amend({ ...lease, netns: where, netnsPath: netnsPath(spec.netns) });
      return link.mtu;
    } finally {
      netns?.close();
    }
  }

  /** What another CNI plugin made is the same device as long as index and name are. */
  #adoptForeign({ spec, lease }: Wanted): number | undefined {
    const link = this.#kernel.rtnl.link(lease.ifindex);
    if (link?.kind !== 'veth' || link.name !== spec.hostName || lease.netns === undefined) return undefined;
    return this.#take(spec, link.index, lease.netns, spec.mtu) ? spec.mtu : undefined;
  }

  #adoptMacvlan({ spec, lease }: Wanted): number | undefined {
    const netns = openIfThere(spec);
    if (netns === undefined) return undefined;
    try {
      const inside = Rtnetlink.open(netns);
      try {
        const link = inside.link(spec.device);
        if (link?.kind !== 'macvlan' || link.mac !== spec.mac) return undefined;
        if (link.index === lease.ifindex && this.#take(spec, link.index, netnsText(netns), link.mtu))
          return link.mtu;
        inside.deleteLink(link.index);
        return undefined;
      } finally {
        inside.close();
      }
    } finally {
      netns.close();
    }
  }

  /** Registers the device if its slot says the same as the spec. */
  #take(spec: AttachmentSpec, ifindex: number, netns: string, mtu: number): boolean {
    const { endpoints, attachments, loaded } = this.#kernel;
    const slot = endpoints.get(ifindex);
    // New maps (their layout or size changed) are empty; then the lease alone says what the device has.
    if (slot === undefined && loaded.adopted) return false;
    if (slot !== undefined && !sameEndpoint(slot, endpointValue(spec, ifindex, slot))) return false;
    const { setEgress, setIngress, identity4, identity6 } = slot ?? EMPTY_ENDPOINT;
    attachments.register({
      spec: { ...spec, mtu },
      ifindex,
      netns,
      policy: { setEgress, setIngress, identity4, identity6 },
    });
    return true;
  }
}

/** Whether two slots are of one device: everything but policy, what goes with it, limits and MTU. */
function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return (
    a.ifindex === b.ifindex &&
    a.network === b.network &&
    (a.flags & DEVICE_FLAGS) === (b.flags & DEVICE_FLAGS) &&
    compareAddresses(a.addr4, b.addr4) === 0 &&
    compareAddresses(a.addr6, b.addr6) === 0 &&
    Buffer.compare(a.mac, b.mac) === 0 &&
    Buffer.compare(a.hostMac, b.hostMac) === 0
  );
}

function openIfThere(spec: AttachmentSpec): Netns | undefined {
  try {
    return openNetns(spec.netns);
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
}
