import { existsSync } from 'node:fs';
import { NetlinkError } from '../../loader/netlink/errors.js';
import { netnsPath } from '../../loader/netns.js';
import { SluiceError } from '../../policy/errors.js';
import type { ContainerResource } from '../../policy/model/resources.js';
import type { LeaseChange } from '../ipam/leases.js';
import type { AttachmentSpec } from '../state/desired.js';
import type { ObjectSet } from '../state/objects.js';
import { type Live, netnsText, type Placement, takenIndex } from './attachments.js';
import type { Kernel } from './kernel.js';
import type { LaterDevice } from './later-device.js';
import type { NetworkSetup } from './network-setup.js';
import type { Wanted } from './plan.js';
import type { PolicySwitch } from './policy-switch.js';
import { nameTaken, openContainerNetns, openDeviceNetns, type Place } from './preflight.js';
import { asError, type Rollback } from './rollback.js';

/** An attachment that passed the checks, and where its device will be. */
export interface Prepared {
  readonly wanted: Wanted;
  readonly place: Place;
}

/** Devices made between two turns of the event loop. */
const CREATE_SLICE = 16;
/** Indexes tried before giving up: somebody else's devices may have those that we would take. */
const INDEX_TRIES = 32;

interface Parts {
  readonly kernel: Kernel;
  readonly objects: ObjectSet;
  readonly policies: PolicySwitch;
  readonly networks: NetworkSetup;
}

/** The part of a change that makes, removes and alters devices; every step can be taken back. */
export class DeviceChanges {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Removes devices whose names or addresses new ones will take. */
  removeEarly(ids: readonly string[], undo: Rollback): void {
    if (ids.length === 0) return;
    const { attachments } = this.#parts.kernel;
    const lives = ids.map((id) => attachments.get(id)).filter((live) => live !== undefined);
    undo.push(() => {
      for (const live of lives) this.#recreate(live);
    });
    const [error] = attachments.remove(ids);
    if (error !== undefined) throw asError(error);
  }

  changeMtu(changes: readonly Wanted[], undo: Rollback): void {
    const { attachments } = this.#parts.kernel;
    for (const { spec, container } of changes) {
      // A container that ended and whose runtime has not said so yet.
      if (spec.handover !== undefined && !existsSync(netnsPath(spec.netns))) continue;
      const before = attachments.get(spec.id)?.spec;
      const set = (wanted: AttachmentSpec): void => {
        const netns = openContainerNetns(wanted, container);
        try {
          attachments.setMtu(wanted, netns);
        } finally {
          netns.close();
        }
      };
      if (before !== undefined) undo.push(() => set(before));
      set(spec);
    }
  }

  /**
   * Lets the kernel make the device of a change that makes this one, while the rest of it is prepared. Undefined: `create`
   * will make it.
   */
  begin({ wanted, place }: Prepared, undo: Rollback): LaterDevice | undefined {
    if (place.open === undefined) return undefined;
    const { spec, lease } = wanted;
    try {
      const device = this.#parts.kernel.attachments.begin(spec, place.open.netns, lease.ifindex);
      if (device !== undefined) undo.push(() => device.abandon());
      return device;
    } catch (error) {
      if (error instanceof NetlinkError) return undefined; // `create` says what is wrong
      throw error;
    }
  }

  /**
   * Makes the devices; `begun` is that of the first. A failure is thrown, or given to `onFailure` if that is there. Leases are amended
   * when the kernel refuses an index.
   */
  async create(
    prepared: readonly Prepared[],
    change: LeaseChange,
    undo: Rollback,
    onFailure: ((wanted: Wanted, problem: SluiceError) => void) | undefined,
    begun?: LaterDevice,
  ): Promise<void> {
    await begun?.settle();
    let made = 0;
    let amended = false;
    for (const { wanted, place } of prepared) {
      undo.push(() => this.#parts.kernel.attachments.remove([wanted.spec.id]));
      try {
        amended = this.#createOne(wanted, place, change, made === 0 ? begun : undefined) || amended;
      } catch (error) {
        const problem = deviceError(error, wanted);
        if (onFailure === undefined) throw problem;
        onFailure(wanted, problem);
      }
      if (++made % CREATE_SLICE === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    if (amended) change.commit();
  }

  /** Returns whether another index had to be taken than the lease's. */
  #createOne(
    { spec, lease, container }: Wanted,
    place: Place,
    change: LeaseChange,
    begun: LaterDevice | undefined,
  ): boolean {
    const { attachments, rtnl } = this.#parts.kernel;
    const netns = place.open?.netns ?? openDeviceNetns(spec, container);
    const inside = place.open === undefined ? {} : { inside: place.open.inside };
    try {
      if (netnsText(netns) !== place.netns) {
        throw new NetlinkError(
          `enter the network namespace of ${spec.container}`,
          2,
          'it was replaced meanwhile',
        );
      }
      let ifindex = lease.ifindex;
      for (let tries = 1; ; tries++) {
        try {
          const device = tries === 1 && begun !== undefined ? { device: begun } : {};
          const placement = this.#placement(spec, ifindex, place.parent);
          attachments.create(spec, netns, { ...placement, ...inside, ...device });
          return ifindex !== lease.ifindex;
        } catch (error) {
          const collides = takenIndex(error) && (rtnl.link(ifindex) !== undefined || spec.mode === 'macvlan');
          if (!collides && takenIndex(error) && place.open?.inside.hasLink(spec.device) === true)
            throw nameTaken({ spec, container });
          if (!collides || tries >= INDEX_TRIES) throw error;
          ifindex = change.newIndex(container.origin);
          change.amend({ ...lease, ifindex });
        }
      }
    } finally {
      if (place.open === undefined) netns.close();
    }
  }

  #recreate(live: Live): void {
    const { kernel, objects } = this.#parts;
    const container = objects.get(`Container ${live.spec.container}`);
    if (container?.kind !== 'Container' || kernel.attachments.get(live.spec.id) !== undefined) return;
    const netns = openDeviceNetns(live.spec, container);
    try {
      kernel.attachments.create(live.spec, netns, this.#placement(live.spec, live.ifindex));
    } finally {
      netns.close();
    }
  }

  #placement(spec: AttachmentSpec, ifindex: number, parent?: number): Placement {
    const { kernel, networks, policies } = this.#parts;
    const bridge = spec.mode === 'bridge' ? networks.bridgeOf(spec.network) : undefined;
    const above = parent ?? (spec.parent === undefined ? undefined : kernel.rtnl.link(spec.parent)?.index);
    return {
      ifindex,
      policy: policies.policyOf(spec.id),
      ...(bridge === undefined ? {} : { bridge }),
      ...(above === undefined ? {} : { parent: above }),
    };
  }
}

function deviceError(
  error: unknown,
  { spec, container }: { spec: AttachmentSpec; container: ContainerResource },
): SluiceError {
  if (error instanceof SluiceError) return error;
  const reason = asError(error).message;
  return SluiceError.of(
    'SLU4303',
    { device: spec.device, container: spec.container, reason },
    container.origin,
  );
}
