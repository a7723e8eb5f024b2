import type { Bandwidth, Endpoint } from '../../loader/abi/gen/types.gen.js';
import { NetlinkError } from '../../loader/netlink/errors.js';
import type { LinkRemover } from '../../loader/netlink/remover.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import { type Netns, openNetns } from '../../loader/netns.js';
import { fault } from '../faults.js';
import { type AttachmentSpec, isJudged } from '../state/desired.js';
import type { AddressTable } from './address-table.js';
import { bandwidthEntry } from './bandwidth.js';
import {
  awaitOperational,
  configureHost,
  configureInside,
  families,
  makeDevice,
  removeDevice,
  setMtu,
  takenIndex,
  vethOf,
} from './devices.js';
import { alsoIn, type EndpointPolicy, endpointValue } from './endpoints.js';
import type { Expedite } from './expedite.js';
import { GoneLinks } from './gone-links.js';
import type { Hooks } from './hooks.js';
import type { HostDevices } from './host-devices.js';
import { LaterDevice } from './later-device.js';
import type { PoolThreads } from './pool-threads.js';
import type { SyncedMap } from './synced-map.js';

/** An attachment that exists in the kernel. */
export interface Live {
  readonly spec: AttachmentSpec;
  readonly ifindex: number;
  /** `device:inode` of its namespace. */
  readonly netns: string;
  readonly policy: EndpointPolicy;
  /** Number of the namespace for BPF programs, if it was entered. */
  readonly cookie?: bigint;
}

/** Everything that making a device needs to know beside its spec. */
export interface Placement {
  readonly ifindex: number;
  /** Index of the bridge, in mode bridge. */
  readonly bridge?: number;
  /** Index of the parent, in mode macvlan. */
  readonly parent?: number;
  readonly policy: EndpointPolicy;
  /** Into the container's namespace, if somebody has it open. */
  readonly inside?: Rtnetlink;
  /** The device, of this index, if it has been asked for before (see `begin`). */
  readonly device?: LaterDevice;
}

/** Identity of a namespace as text. */
export function netnsText(netns: Pick<Netns, 'device' | 'inode'>): string {
  return `${netns.device}:${netns.inode}`;
}

/** The containers' devices in the kernel, with their `endpoints` slots and places in `addrs`. */
export class Attachments {
  readonly #rtnl: Rtnetlink;
  readonly #hooks: Hooks;
  readonly #host: Pick<HostDevices, 'noteFilter'>;
  readonly #endpoints: SyncedMap<number, Endpoint>;
  readonly #addresses: AddressTable;
  readonly #bandwidths: SyncedMap<number, Bandwidth>;
  readonly #expedite: Expedite;
  readonly #remover: LinkRemover;
  readonly #threads: Pick<PoolThreads, 'stepAside'>;
  readonly #live = new Map<string, Live>();
  readonly #byIndex = new Map<number, string>();
  readonly #byContainer = new Map<string, Set<string>>();
  /** By namespace; those that a runtime moves there are with their container only. */
  readonly #byNetns = new Map<string, Set<string>>();
  readonly #gone = new GoneLinks((ifindex) => this.#forgetHooks(ifindex));
  /** For devices that are made on another thread, one at a time. */
  #maker: Rtnetlink | undefined;
  #beginning: LaterDevice | undefined;

  constructor(parts: {
    readonly rtnl: Rtnetlink;
    readonly hooks: Hooks;
    readonly host: Pick<HostDevices, 'noteFilter'>;
    readonly endpoints: SyncedMap<number, Endpoint>;
    readonly addresses: AddressTable;
    readonly bandwidths: SyncedMap<number, Bandwidth>;
    readonly expedite: Expedite;
    readonly remover: LinkRemover;
    readonly threads: Pick<PoolThreads, 'stepAside'>;
  }) {
    this.#rtnl = parts.rtnl;
    this.#hooks = parts.hooks;
    this.#host = parts.host;
    this.#endpoints = parts.endpoints;
    this.#addresses = parts.addresses;
    this.#bandwidths = parts.bandwidths;
    this.#expedite = parts.expedite;
    this.#remover = parts.remover;
    this.#threads = parts.threads;
  }

  /** Says which flags an endpoint has beside those of its spec and its policy; slots are written with them. */
  marksOf: (spec: AttachmentSpec) => number = () => 0;

  /** Closes the socket of `begin`. */
  close(): void {
    this.#maker?.close();
    this.#maker = undefined;
  }

  get size(): number {
    return this.#live.size;
  }

  get(id: string): Live | undefined {
    return this.#live.get(id);
  }

  values(): IterableIterator<Live> {
    return this.#live.values();
  }

  /** Id of the attachment whose device has this index. */
  idOfIndex(ifindex: number): string | undefined {
    return this.#byIndex.get(ifindex);
  }

  /** Attachments of a container (`namespace/name`). */
  ofContainer(container: string): readonly string[] {
    return [...(this.#byContainer.get(container) ?? [])];
  }

  /**
   * Lets the kernel make the device of an attachment, down, while the caller goes on: for `create`, or to be abandoned.
   * Undefined: not now, as the threads for it have other work.
   */
  begin(spec: AttachmentSpec, netns: Netns, ifindex: number): LaterDevice | undefined {
    if (isJudged(spec.mode) || this.#remover.busy) return undefined;
    if (this.#beginning !== undefined && !this.#beginning.ready) return undefined;
    this.#maker ??= Rtnetlink.open();
    this.#threads.stepAside();
    const later = this.#maker.createVethLater(vethOf(spec, ifindex, netns));
    const remove = (): void =>
      this.#expedite.during(() => removeDevice(this.#rtnl, spec, ifindex, undefined));
    this.#beginning = new LaterDevice(ifindex, later, remove);
    return this.#beginning;
  }

  /**
   * Makes the device of an attachment. The slot is complete before the programs are attached, and both
   * are there before a side comes up, so the container has no network without its policy. Nothing is
   * left when it throws. EEXIST or EBUSY with `indexTaken`: try another index.
   */
  create(spec: AttachmentSpec, netns: Netns, placement: Placement): Live {
    const { ifindex, bridge, parent = 0, policy } = placement;
    if (spec.mode === 'chained') return this.#createForeign(spec, netns, placement);
    this.#gone.postpone();
    let made = false;
    let cookie: bigint | undefined;
    this.#limit(spec, ifindex);
    this.#endpoints.set(ifindex, endpointValue(spec, ifindex, policy, this.#marksOf(spec)));
    try {
      const device = placement.device?.take() ?? makeDevice(this.#rtnl, spec, ifindex, netns, parent);
      made = true;
      fault('device:made');
      this.#expedite.during(() => this.#hooks.attachEndpoint(spec.mode, ifindex, netns, true));
      for (const family of families(spec)) {
        this.#addresses.setPlace(family.address, { ifindex, network: spec.number });
      }
      fault('device:attached');
      // The container's side comes up last: its queue is on from that moment only if the carrier is there already.
      configureHost(this.#rtnl, spec, ifindex, bridge);
      fault('device:host');
      if (spec.handover === undefined) {
        cookie = this.#configureInside(spec, netns, device.inside, placement.inside);
        if (spec.mode !== 'macvlan') awaitOperational(this.#rtnl, ifindex);
      }
      fault('device:inside');
    } catch (error) {
      this.#clear(spec, ifindex);
      // A device that was not made may be somebody else's, even an uplink: its links are not ours to drop.
      if (made) {
        attempt(() => this.#expedite.during(() => removeDevice(this.#rtnl, spec, ifindex, netns)));
        this.#hooks.forget(ifindex);
      }
      throw error;
    }
    const base = { spec, ifindex, netns: netnsText(netns), policy };
    return this.#made(cookie === undefined ? base : { ...base, cookie });
  }

  /** The device is there, and others see to it: slot, places and programs are all that is ours. */
  #createForeign(spec: AttachmentSpec, netns: Netns, { ifindex, policy }: Placement): Live {
    this.#limit(spec, ifindex);
    this.#endpoints.set(ifindex, endpointValue(spec, ifindex, policy, this.#marksOf(spec)));
    try {
      if (this.#hooks.method === 'clsact') this.#host.noteFilter(ifindex, true);
      this.#expedite.during(() => this.#hooks.attachEndpoint(spec.mode, ifindex, undefined));
      for (const family of families(spec)) {
        this.#addresses.setPlace(family.address, { ifindex, network: spec.number });
      }
      fault('device:attached');
    } catch (error) {
      this.#detachForeign(ifindex);
      this.#clear(spec, ifindex);
      throw error;
    }
    return this.#made({ spec, ifindex, netns: netnsText(netns), policy });
  }

  #detachForeign(ifindex: number): void {
    this.#expedite.during(() => this.#hooks.detachEndpoint(ifindex));
    this.#host.noteFilter(ifindex, false);
  }

  /** Returns the namespace's number. */
  #configureInside(spec: AttachmentSpec, netns: Netns, inside: number, open: Rtnetlink | undefined): bigint {
    const rtnl = open ?? Rtnetlink.open(netns);
    try {
      configureInside(rtnl, spec, netns, inside);
      return rtnl.netnsCookie();
    } finally {
      if (open === undefined) rtnl.close();
    }
  }

  /** Takes a device into the books that is there already. Slot and place are written, the device is left alone. */
  register(live: Live): Live {
    const { spec, ifindex } = live;
    this.#live.set(spec.id, live);
    this.#byIndex.set(ifindex, spec.id);
    add(this.#byContainer, spec.container, spec.id);
    if (spec.handover === undefined) add(this.#byNetns, live.netns, spec.id);
    return live;
  }

  /** As `register`, for a new device: the container's other interfaces are told. */
  #made(live: Live): Live {
    this.register(live);
    const others = this.#others(live);
    if (others.length > 0) for (const { spec, policy } of [live, ...others]) this.setPolicy(spec.id, policy);
    return live;
  }

  /** Attachments of the same container: it is known by its name, or by its namespace when it has several. */
  #others({ spec, netns }: Pick<Live, 'spec' | 'netns'>): Live[] {
    const ids = new Set(this.#byContainer.get(spec.container));
    if (spec.handover === undefined) for (const id of this.#byNetns.get(netns) ?? []) ids.add(id);
    ids.delete(spec.id);
    return [...ids].flatMap((id) => this.#live.get(id) ?? []);
  }

  #marksOf(spec: AttachmentSpec): number {
    const live = this.#live.get(spec.id);
    const others = live === undefined ? [] : this.#others(live);
    return this.marksOf(spec) | alsoIn(others.map((other) => other.spec.number));
  }

  /** Completes a device that an earlier agent made: programs, routes, neighbour entries. */
  complete(
    spec: AttachmentSpec,
    ifindex: number,
    netns: Netns | undefined,
    bridge: number | undefined,
  ): void {
    this.#expedite.during(() => this.#hooks.attachEndpoint(spec.mode, ifindex, netns));
    if (spec.mode !== 'chained') configureHost(this.#rtnl, spec, ifindex, bridge);
  }

  /** Writes the slot with these sets and identities. */
  setPolicy(id: string, policy: EndpointPolicy): void {
    const live = this.#live.get(id);
    if (live === undefined) return;
    this.#endpoints.set(
      live.ifindex,
      endpointValue(live.spec, live.ifindex, policy, this.#marksOf(live.spec)),
    );
    this.#live.set(id, { ...live, policy });
  }

  /** Writes slot and places as they have to be (after a restart they may be of an older definition). */
  write(id: string): void {
    const live = this.#live.get(id);
    if (live === undefined) return;
    this.#limit(live.spec, live.ifindex);
    this.setPolicy(id, live.policy);
    for (const family of families(live.spec)) {
      this.#addresses.setPlace(family.address, { ifindex: live.ifindex, network: live.spec.number });
    }
  }

  /** Changes the MTU in place. */
  setMtu(spec: AttachmentSpec, netns: Netns): void {
    const live = this.#live.get(spec.id);
    if (live === undefined) return;
    setMtu(this.#rtnl, spec, live.ifindex, netns);
    this.#live.set(spec.id, { ...live, spec });
    this.setPolicy(spec.id, live.policy);
  }

  /** Replaces the spec of a device that does not need to change for it. */
  setSpec(spec: AttachmentSpec): void {
    const live = this.#live.get(spec.id);
    if (live !== undefined) this.#live.set(spec.id, { ...live, spec });
  }

  /** Removes devices with all that belongs to them. Returns what could not be removed. */
  remove(ids: readonly string[]): unknown[] {
    return ids.length === 0 ? [] : this.#expedite.during(() => this.#remove(ids));
  }

  #remove(ids: readonly string[]): unknown[] {
    const errors: unknown[] = [];
    const lives = ids.map((id) => this.#unregister(id)).filter((live) => live !== undefined);
    const veths = lives.filter(({ spec }) => !isJudged(spec.mode)).map((live) => live.ifindex);
    if (veths.length === 1)
      errors.push(...attempt(() => removeDevice(this.#rtnl, { mode: 'routed' }, veths[0] ?? 0, undefined)));
    else if (veths.length > 1) errors.push(...attempt(() => this.#rtnl.deleteLinks(veths)));
    for (const live of lives) {
      if (live.spec.mode === 'macvlan') errors.push(...this.#removeMacvlan(live));
    }
    // Only now: the programs stay on a device for as long as it is there.
    for (const live of lives) this.#hooks.forget(live.ifindex);
    return errors;
  }

  /**
   * Takes attachments out of the books and the maps, so that nothing passes any more, and lets the kernel remove
   * the devices while the caller goes on. The promise is for their end; it rejects with the first failure.
   */
  removeLater(ids: readonly string[]): Promise<void> {
    const lives = ids.map((id) => this.#unregister(id)).filter((live) => live !== undefined);
    if (lives.length > 0) fault('remove:cleared');
    const errors: unknown[] = [];
    const gone = lives.map(async (live) => {
      if (live.spec.mode === 'macvlan') {
        errors.push(...this.#removeMacvlan(live));
        this.#forgetHooks(live.ifindex);
        return;
      }
      if (live.spec.mode === 'chained') return;
      const removal = this.#remover.remove(live.ifindex);
      void this.#expedite
        .hold(() => removal.finished)
        .then(() => {
          fault('remove:deleted');
          this.#gone.add(live.ifindex);
        });
      await removal.gone.catch((error: unknown) => errors.push(error));
    });
    return Promise.all(gone).then(() => {
      if (errors.length > 0) throw errors[0];
    });
  }

  /** After a removal that others did not wait for: the index may have been given to another device meanwhile. */
  #forgetHooks(ifindex: number): void {
    if (!this.#byIndex.has(ifindex)) this.#hooks.forget(ifindex);
  }

  /** Forgets now what would be forgotten later. */
  forgetGone(): void {
    this.#gone.flush();
  }

  /** Takes an attachment whose device is gone out of the books and the maps. */
  forget(id: string): Live | undefined {
    const live = this.#unregister(id);
    if (live !== undefined) this.#hooks.forget(live.ifindex);
    return live;
  }

  #unregister(id: string): Live | undefined {
    const live = this.#live.get(id);
    if (live === undefined) return undefined;
    // Without its slot the programs would drop all that its plugins still have to send.
    if (live.spec.mode === 'chained') this.#detachForeign(live.ifindex);
    this.#clear(live.spec, live.ifindex);
    this.#live.delete(id);
    this.#byIndex.delete(live.ifindex);
    const others = this.#others(live);
    drop(this.#byContainer, live.spec.container, id);
    drop(this.#byNetns, live.netns, id);
    for (const other of others) this.setPolicy(other.spec.id, other.policy);
    return live;
  }

  #limit(spec: AttachmentSpec, ifindex: number): void {
    if (spec.bandwidth !== undefined) this.#bandwidths.set(ifindex, bandwidthEntry(spec.bandwidth));
  }

  #clear(spec: AttachmentSpec, ifindex: number): void {
    this.#endpoints.delete(ifindex);
    this.#bandwidths.delete(ifindex);
    for (const family of families(spec)) {
      if (this.#addresses.placeOf(family.address)?.ifindex === ifindex)
        this.#addresses.deletePlace(family.address);
    }
  }

  #removeMacvlan(live: Live): unknown[] {
    return attempt(() => {
      let netns: Netns;
      try {
        netns = openNetns(live.spec.netns);
      } catch (error) {
        if (error instanceof NetlinkError) return; // the namespace is gone, and the device with it
        throw error;
      }
      try {
        if (netnsText(netns) === live.netns) removeDevice(this.#rtnl, live.spec, live.ifindex, netns);
      } finally {
        netns.close();
      }
    });
  }
}

/** Whether `create` failed because the kernel has a device of that index. */
export { takenIndex };

function add(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  if (ids === undefined) index.set(key, new Set([id]));
  else ids.add(id);
}

function drop(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  ids?.delete(id);
  if (ids?.size === 0) index.delete(key);
}

function attempt(action: () => void): unknown[] {
  try {
    action();
    return [];
  } catch (error) {
    return [error];
  }
}
