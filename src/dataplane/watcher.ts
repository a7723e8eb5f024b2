import { statSync } from 'node:fs';
import type { Link } from '../../loader/netlink/link.js';
import { NetlinkMonitor } from '../../loader/netlink/monitor.js';
import { isNamespace, netnsPath } from '../../loader/netns.js';
import type { Logger } from '../log.js';
import { keyOf } from '../state/keys.js';
import type { ObjectSet } from '../state/objects.js';
import type { Live } from './attachments.js';
import type { Kernel } from './kernel.js';
import type { Reconciler } from './reconciler.js';

const POLL_MS = 200;
/** Events that are read in one turn of the event loop: those of many containers would hold up others. */
const POLL_SLICE = 16;
const RETRY_MS = 1000;
/** A container that fails for another reason than a missing namespace waits longer each time, up to this. */
const MAX_WAIT_MS = 30_000;
/** Namespaces that are looked at in one turn. */
const SWEEP_SLICE = 100;

interface Waiting {
  readonly until: number;
  readonly wait: number;
}

/**
 * Follows what happens outside of the agent: addresses, routes and devices of the host, namespaces that
 * go and come back, and containers that could not be made yet.
 */
export class Watcher {
  readonly #kernel: Kernel;
  readonly #objects: ObjectSet;
  readonly #reconciler: Reconciler;
  readonly #log: Logger;
  readonly #exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  readonly #lost: (container: string) => void;
  readonly #moved: (container: string) => void;
  readonly #hostChanged: () => void;
  readonly #addressesChanged: () => void;
  readonly #monitor: NetlinkMonitor;
  readonly #waiting = new Map<string, Waiting>();
  #sweep: string[] = [];
  #closed = false;
  #hostTouched = false;

  constructor(parts: {
    readonly kernel: Kernel;
    readonly objects: ObjectSet;
    readonly reconciler: Reconciler;
    readonly log: Logger;
    readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
    /** A container of a runtime (`namespace/name`) lost its device: it is not made again. */
    readonly lost: (container: string) => void;
    /** A runtime may have moved a device of a container (`namespace/name`) into its namespace. */
    readonly moved: (container: string) => void;
    /** Devices of the host came or went. */
    readonly hostChanged: () => void;
    /** The host has other addresses, which are in the map already. */
    readonly addressesChanged: () => void;
  }) {
    this.#kernel = parts.kernel;
    this.#objects = parts.objects;
    this.#reconciler = parts.reconciler;
    this.#log = parts.log;
    this.#exclusive = parts.exclusive;
    this.#lost = parts.lost;
    this.#moved = parts.moved;
    this.#hostChanged = parts.hostChanged;
    this.#addressesChanged = parts.addressesChanged;
    this.#monitor = NetlinkMonitor.open(['link', 'address', 'route']);
  }

  start(): NodeJS.Timeout[] {
    const timers = [
      setInterval(() => {
        this.#guard(() => this.#poll());
        this.#guard(() => this.#sweepNamespaces());
      }, POLL_MS),
      setInterval(() => this.#guard(() => this.#retry()), RETRY_MS),
    ];
    for (const timer of timers) timer.unref();
    return timers;
  }

  close(): void {
    this.#closed = true;
    this.#monitor.close();
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (err) {
      this.#log.error({ err }, 'watching the host failed');
    }
  }

  #poll(): void {
    if (this.#closed) return;
    const lost: string[] = [];
    let host = this.#hostTouched;
    let everything = false;
    this.#monitor.poll((event) => {
      if (event.type === 'overflow') everything = true;
      else if (event.type === 'link') {
        const id = this.#kernel.attachments.idOfIndex(event.link.index);
        if (this.#kernel.overlay.owns(event.link.index)) host ||= event.action === 'delete';
        else if (id === undefined) host ||= !isContainerDevice(event.link);
        else if (event.action === 'delete')
          lost.push(id); // made again meanwhile, perhaps: see below
        else this.#noteMove(id);
      } else if (event.type === 'address') host = true;
      else if (event.type === 'route' && event.route.destination === 'default') host = true;
    }, POLL_SLICE);
    // The host is looked at once, when all has been read.
    const more = this.#monitor.hasMore;
    this.#hostTouched = more && (host || everything);
    if (more) setImmediate(() => this.#guard(() => this.#poll()));
    if (everything) lost.push(...this.#missingDevices());
    const gone = lost.filter((id) => this.#isGone(id));
    if (gone.length > 0) this.#renew(gone, 'device is gone');
    if ((host || everything) && !more)
      void this.#exclusive(() => this.#refreshHost()).catch((err: unknown) =>
        this.#log.error({ err }, 'following the host failed'),
      );
  }

  /** Something happened to a device whose other side its runtime moves itself. */
  #noteMove(id: string): void {
    const live = this.#kernel.attachments.get(id);
    if (live?.spec.handover !== undefined) this.#moved(live.spec.container);
  }

  #isGone(id: string): boolean {
    const live = this.#kernel.attachments.get(id);
    return live !== undefined && renewable(live) && this.#kernel.rtnl.link(live.ifindex) === undefined;
  }

  /** Attachments whose device does not exist, found by listing (events were lost). */
  #missingDevices(): string[] {
    const present = new Set(this.#kernel.rtnl.links().map((link) => link.index));
    return [...this.#kernel.attachments.values()]
      .filter((live) => renewable(live) && !present.has(live.ifindex))
      .map((live) => live.spec.id);
  }

  async #refreshHost(): Promise<void> {
    const { mtu } = this.#kernel.uplinks;
    this.#hostChanged();
    const addresses = this.#kernel.hostAddresses.refresh();
    const uplinks = this.#kernel.uplinks.refresh(true);
    const overlay = this.#kernel.overlay.refresh();
    if (!addresses && !uplinks && !overlay) return;
    if (addresses) this.#addressesChanged();
    this.#kernel.nodeRoutes.again();
    this.#kernel.node.nextEpoch();
    const names = this.#kernel.uplinks.devices.map((device) => device.name);
    this.#log.info({ uplinks: names }, 'addresses or uplinks of the host changed');
    // Networks without an MTU of their own follow the uplinks.
    if (this.#kernel.uplinks.mtu !== mtu)
      await this.#touch([...this.#objects.ofKind('Container')].map(keyOf));
  }

  /** Looks at some namespaces: another one under the same name means that the container was made again. */
  #sweepNamespaces(): void {
    if (this.#sweep.length === 0)
      this.#sweep = [...this.#kernel.attachments.values()].map((live) => live.spec.id);
    const replaced: string[] = [];
    for (const id of this.#sweep.splice(0, SWEEP_SLICE)) {
      const live = this.#kernel.attachments.get(id);
      if (live === undefined || live.spec.handover !== undefined) continue;
      const stat = statSync(netnsPath(live.spec.netns), { bigint: true, throwIfNoEntry: false });
      if (stat !== undefined && `${stat.dev}:${stat.ino}` !== live.netns && isNamespace(stat.dev))
        replaced.push(id);
    }
    if (replaced.length > 0) this.#renew(replaced, 'network namespace was replaced');
  }

  #renew(ids: readonly string[], reason: string): void {
    void this.#exclusive(async () => {
      const { attachments } = this.#kernel;
      const lost = ids
        .map((id) => attachments.get(id))
        .filter((live) => live !== undefined)
        .filter(({ spec }) => {
          if (this.#objects.sourceOf(`Container ${spec.container}`) !== 'runtime') return true;
          this.#lost(spec.container);
          return false;
        });
      const containers = new Set(lost.map((live) => live.spec.container));
      for (const container of containers)
        this.#log.warn({ container }, `${reason}; making the network again`);
      attachments.remove(lost.map((live) => live.spec.id));
      if (containers.size > 0) await this.#touch([...containers].map((name) => `Container ${name}`));
    }).catch((err: unknown) => this.#log.error({ err }, 'making a network again failed'));
  }

  #retry(): void {
    const now = Date.now();
    for (const key of this.#waiting.keys())
      if (!this.#reconciler.problems.has(key)) this.#waiting.delete(key);
    const due = [...this.#reconciler.problems.keys()].filter((key) => {
      if ((this.#waiting.get(key)?.until ?? 0) > now) return false;
      return this.#namespaceThere(key);
    });
    if (due.length === 0) return;
    for (const key of due) {
      const wait = Math.min(MAX_WAIT_MS, (this.#waiting.get(key)?.wait ?? RETRY_MS / 2) * 2);
      this.#waiting.set(key, { wait, until: now + wait });
    }
    void this.#exclusive(() => this.#touch(due)).catch((err: unknown) =>
      this.#log.error({ err }, 'trying again failed'),
    );
  }

  #namespaceThere(key: string): boolean {
    const container = this.#objects.get(key);
    if (container?.kind !== 'Container' || container.netns === undefined) return true;
    const there = statSync(netnsPath(container.netns), { throwIfNoEntry: false }) !== undefined;
    if (!there) this.#waiting.delete(key);
    return there;
  }

  async #touch(keys: readonly string[]): Promise<void> {
    const waiting = keys.filter((key) => this.#reconciler.problems.has(key));
    const pending = await this.#reconciler.prepare({ edits: [], touch: keys, lenient: true });
    for (const err of pending.commit()) this.#log.error({ err }, 'removing what is no longer used failed');
    this.#kernel.node.nextEpoch();
    for (const key of waiting) {
      if (this.#reconciler.problems.has(key)) continue;
      this.#log.info({ container: key.slice('Container '.length) }, 'network is in force');
    }
  }
}

/** Whether a device that is gone can be made again: others go with their namespace, and their runtime says so. */
function renewable({ spec }: Live): boolean {
  return spec.mode !== 'macvlan' && spec.handover === undefined;
}

/** Devices of containers come and go without meaning anything for the host. */
function isContainerDevice(link: Link): boolean {
  return link.alias?.startsWith('sluice:') === true || /^sl[0-9a-f]{8}$/.test(link.name);
}
