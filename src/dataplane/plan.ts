import { SluiceError } from '../../policy/errors.js';
import type { ContainerResource, NetworkResource } from '../../policy/model/resources.js';
import type { Lease, LeaseBook, LeaseChange, LeaseRequest } from '../ipam/leases.js';
import { type AttachmentSpec, hasDevice, needsNewDevice, specOf } from '../state/desired.js';
import { attachmentId, displayName, type ResourceKey } from '../state/keys.js';
import type { ObjectSet } from '../state/objects.js';
import type { Attachments } from './attachments.js';

/** An attachment that has to exist. */
export interface Wanted {
  readonly spec: AttachmentSpec;
  readonly container: ContainerResource;
  readonly lease: Lease;
}

/** What has to happen to the devices of the containers that a change touches. */
export interface Plan {
  /** New devices. */
  readonly create: Wanted[];
  /** Devices that have to be removed and made again. */
  readonly replace: Wanted[];
  /** Only the MTU differs. */
  readonly mtu: Wanted[];
  readonly keep: Wanted[];
  /** Attachments that exist and are not wanted any more. */
  readonly remove: string[];
  /** Attachments that are no longer defined, whether they exist or not. */
  readonly gone: string[];
  /** Containers that could not be planned (no address left), with the reason. */
  readonly failed: Map<ResourceKey, SluiceError>;
}

export interface PlanInput {
  readonly objects: ObjectSet;
  readonly leases: LeaseBook;
  readonly change: LeaseChange;
  readonly attachments: Attachments;
  readonly instance: string;
  /** MTU of networks that give none. */
  readonly mtu: number;
  /** Containers to look at, with their definition before the change. */
  readonly containers: ReadonlyMap<ResourceKey, ContainerResource | undefined>;
  /** Attachments to make again even if nothing differs. */
  readonly renew: ReadonlySet<string>;
}

/** Compares what is wanted with what exists and takes and frees leases. Throws SluiceError for a lease that cannot be had. */
export function planContainers(input: PlanInput, lenient: boolean): Plan {
  const plan: Plan = { create: [], replace: [], mtu: [], keep: [], remove: [], gone: [], failed: new Map() };
  const { objects, change, attachments } = input;
  const after = [...input.containers].map(([key, before]) => {
    const container = objects.get(key);
    return { key, before, container: container?.kind === 'Container' ? container : undefined };
  });
  // First everything that goes, so that its addresses are free for what comes.
  for (const { before, container } of after) {
    const wanted = new Set(container === undefined ? [] : attachmentIds(container, objects));
    const defined = new Set(
      before === undefined ? [] : before.networks.map((entry) => attachmentId(before, entry.network)),
    );
    const owner = container ?? before;
    for (const id of owner === undefined ? [] : attachments.ofContainer(displayName(owner))) {
      if (!wanted.has(id)) plan.remove.push(id);
      defined.add(id);
    }
    for (const id of defined) {
      if (wanted.has(id)) continue;
      change.free(id);
      plan.gone.push(id);
    }
  }
  for (const { container } of after) {
    for (const network of container === undefined ? [] : deviceNetworks(container, objects)) {
      if (container !== undefined) change.releaseReplaced(leaseRequest(container, network.name));
    }
  }
  for (const { key, container } of after) {
    if (container === undefined) continue;
    try {
      for (const wanted of wantedAttachments(container, input)) sort(plan, wanted, input);
    } catch (error) {
      if (!lenient) throw error;
      plan.failed.set(key, error as SluiceError);
    }
  }
  return plan;
}

function sort(plan: Plan, wanted: Wanted, input: PlanInput): void {
  const live = input.attachments.get(wanted.spec.id);
  if (live === undefined) plan.create.push(wanted);
  else if (
    input.renew.has(live.spec.id) ||
    live.ifindex !== wanted.lease.ifindex ||
    needsNewDevice(live.spec, wanted.spec)
  ) {
    if (wanted.spec.handover !== undefined) throw cannotReplace(wanted);
    plan.replace.push(wanted);
  } else if (live.spec.mtu !== wanted.spec.mtu) plan.mtu.push(wanted);
  else plan.keep.push(wanted);
}

/** A runtime has moved the device away and configured it. */
function cannotReplace({ spec, container }: Wanted): SluiceError {
  const { file } = container.origin;
  return SluiceError.of('SLU5201', { network: spec.network, container: spec.container, runtime: file });
}

function wantedAttachments(container: ContainerResource, input: PlanInput): Wanted[] {
  return deviceNetworks(container, input.objects).flatMap((network) => {
    const lease = input.change.take(leaseRequest(container, network.name));
    const number = input.leases.numberOf(network.name) ?? 0;
    const spec = specOf(container, network, lease, { instance: input.instance, mtu: input.mtu, number });
    return spec === undefined ? [] : [{ spec, container, lease }];
  });
}

function leaseRequest(container: ContainerResource, network: string): LeaseRequest {
  const entry = container.networks.find((candidate) => candidate.network === network);
  const { ipv4, ipv6, mac, hostSide } = entry ?? {};
  return {
    id: attachmentId(container, network),
    network,
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
    ...(mac === undefined ? {} : { mac }),
    ...(hostSide === undefined ? {} : { ifindex: hostSide.ifindex }),
    origin: container.origin,
  };
}

/** Ids of the attachments that a container has to have. */
export function attachmentIds(container: ContainerResource, objects: ObjectSet): string[] {
  return deviceNetworks(container, objects).map((network) => attachmentId(container, network.name));
}

function deviceNetworks(container: ContainerResource, objects: ObjectSet): NetworkResource[] {
  if (container.netns === undefined) return [];
  return container.networks.flatMap((entry) => {
    const network = objects.get(`Network ${entry.network}`);
    return network?.kind === 'Network' && hasDevice(network.mode) ? [network] : [];
  });
}
