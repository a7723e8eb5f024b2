import { netnsPath } from '../../loader/netns.js';
import type { PolicyCompiler } from '../../policy/compile/compiler.js';
import type { CompileDelta, CompilerChange } from '../../policy/compile/types.js';
import { SluiceError } from '../../policy/errors.js';
import type { ContainerResource, NetworkResource } from '../../policy/model/resources.js';
import { fault } from '../faults.js';
import type { HostFirewall, PendingHost } from '../host/firewall.js';
import type { LeaseBook, LeaseChange } from '../ipam/leases.js';
import type { Logger } from '../log.js';
import type { PendingNodes, RemoteNodes } from '../nodes/remote-nodes.js';
import type { PendingServices, Services } from '../services/services.js';
import { hasDevice } from '../state/desired.js';
import { displayName, type ResourceKey } from '../state/keys.js';
import type { Edit, ObjectSet } from '../state/objects.js';
import { DeviceChanges, type Prepared } from './device-changes.js';
import { loopbackUp } from './devices.js';
import { HostPorts } from './hostports.js';
import type { Kernel } from './kernel.js';
import { NetworkSetup } from './network-setup.js';
import { type Plan, planContainers, type Wanted } from './plan.js';
import { PolicyInputs } from './policy-inputs.js';
import { fits } from './policy-maps.js';
import { PolicySwitch } from './policy-switch.js';
import {
  checkParent,
  checkRanges,
  closePlaces,
  devicesOf,
  openContainerNetns,
  preflight,
} from './preflight.js';
import { asError, NoRollback, Rollback } from './rollback.js';

/** A change of definitions, or containers to look at again. */
export interface ChangeRequest {
  /** Already staged in the ObjectSet. */
  readonly edits: readonly Edit[];
  /** Containers to bring to what they have to be, beside those of the edits. */
  readonly touch?: readonly ResourceKey[];
  /** Attachments to make again although nothing differs. */
  readonly renew?: readonly string[];
  /** A container that cannot be made does not fail the rest: it becomes a problem and is tried again. */
  readonly lenient: boolean;
  /** Devices that go are removed by the kernel while the caller goes on: see `Pending.removed`. */
  readonly removeLater?: boolean;
  /** Called with the planned attachments that do not exist, before they are checked (adoption at start). */
  readonly adopt?: (plan: Plan, change: LeaseChange) => void;
}

/** A change that is in force in the kernel; what it made unnecessary is still there. */
export interface Pending {
  /** Removes what is not needed any more. Returns what could not be removed. */
  commit(): unknown[];
  /** After `commit`: for the end of the devices that are removed later. */
  removed(): Promise<void>;
  /** Takes everything back. Returns the errors of doing so. */
  rollback(): unknown[];
}

/** Namespaces that stay open between the checks and the making of their devices. */
const KEEP_OPEN = 16;

/** Brings wanted state into the kernel, one change at a time (the caller sees to that). */
export class Reconciler {
  readonly #kernel: Kernel;
  readonly #objects: ObjectSet;
  readonly #leases: LeaseBook;
  readonly #policies: PolicyInputs;
  readonly #instance: string;
  readonly #log: Logger;
  readonly #services: Pick<Services, 'prepare'>;
  readonly #nodes: Pick<RemoteNodes, 'prepare' | 'isElsewhere'>;
  readonly #host: Pick<HostFirewall, 'prepare'>;
  readonly #switch: PolicySwitch;
  readonly #hostPorts: HostPorts;
  readonly #networks: NetworkSetup;
  readonly #devices: DeviceChanges;
  /** Containers that are defined but not (completely) in force, and why. */
  readonly problems = new Map<ResourceKey, SluiceError>();

  constructor(parts: {
    readonly kernel: Kernel;
    readonly objects: ObjectSet;
    readonly leases: LeaseBook;
    readonly compiler: PolicyCompiler;
    readonly instance: string;
    readonly log: Logger;
    readonly services: Pick<Services, 'prepare'>;
    readonly nodes: Pick<RemoteNodes, 'prepare' | 'isElsewhere'>;
    readonly host: Pick<HostFirewall, 'prepare'>;
  }) {
    this.#kernel = parts.kernel;
    this.#objects = parts.objects;
    this.#leases = parts.leases;
    this.#nodes = parts.nodes;
    this.#policies = new PolicyInputs(parts.compiler, (pod) => parts.nodes.isElsewhere(pod));
    this.#instance = parts.instance;
    this.#log = parts.log;
    this.#services = parts.services;
    this.#host = parts.host;
    this.#switch = new PolicySwitch(parts.kernel);
    const { hostports, node, attachments, reservedPorts } = parts.kernel;
    this.#hostPorts = new HostPorts(hostports, node, attachments, reservedPorts);
    this.#networks = new NetworkSetup(parts.kernel);
    this.#devices = new DeviceChanges({
      kernel: parts.kernel,
      objects: parts.objects,
      policies: this.#switch,
      networks: this.#networks,
    });
  }

  get hostPortEntries(): number {
    return this.#hostPorts.size;
  }

  /** Puts a change into force. Throws after taking back everything that it had done. */
  async prepare(request: ChangeRequest): Promise<Pending> {
    // The first start of a node: if it fails, nothing was in force before and nothing is attached to the maps.
    const { loaded, pins } = this.#kernel;
    const first = request.adopt !== undefined && !loaded.adopted && pins.list('links').length === 0;
    const undo = first ? new NoRollback() : new Rollback();
    const problems = new Map(this.problems);
    undo.push(() => {
      this.problems.clear();
      for (const [key, problem] of problems) this.problems.set(key, problem);
    });
    try {
      const commit = await this.#prepare(request, undo);
      let removed = Promise.resolve();
      const later = (gone: Promise<void>): void => {
        gone.catch(() => undefined); // for who asks
        removed = gone;
      };
      return { commit: () => commit(later), removed: () => removed, rollback: () => undo.run() };
    } catch (error) {
      const failures = undo.run();
      if (failures.length === 0) throw error;
      this.#log.error({ err: failures[0] }, 'taking a change back failed');
      throw SluiceError.of('SLU2507', { reason: asError(error).message, undo: asError(failures[0]).message });
    }
  }

  /**
   * Brings inputs of the compiler into force that are no objects, and what `write` does with them. All or nothing; the
   * epoch is the caller's. Throws SLU3301 when it does not fit, and the kernel's error.
   */
  changeInputs(change: CompilerChange, write: (undo: Rollback) => void): void {
    const undo = new Rollback();
    let delta: CompileDelta;
    try {
      delta = this.#policies.change(change, undo);
      this.#switch.check(delta);
      const { addresses } = this.#kernel;
      // After a restart most of them are in the map.
      const fresh = delta.addresses.set.filter(([text]) => addresses.identityInKernel(text) === undefined);
      fits('addrs', addresses.size + fresh.length, addresses.capacity);
      this.#switch.apply(delta, undo);
      write(undo);
    } catch (error) {
      const failures = undo.run();
      if (failures.length === 0) throw error;
      throw SluiceError.of('SLU2507', { reason: asError(error).message, undo: asError(failures[0]).message });
    }
    this.#switch.finish(delta);
    for (const rest of this.#policies.settle([])) {
      this.#switch.apply(rest, new Rollback());
      this.#switch.finish(rest);
    }
  }

  async #prepare(
    request: ChangeRequest,
    undo: Rollback,
  ): Promise<(later: (gone: Promise<void>) => void) => unknown[]> {
    const { attachments } = this.#kernel;
    const change = this.#leases.begin();
    undo.push(() => change.undo());
    const networkEdits = this.#networkEdits(request.edits);
    if (!request.lenient) this.checkNetworks(request.edits);
    for (const { after } of networkEdits) if (after !== undefined) change.defineNetwork(after);
    const containers = this.#touched(request, networkEdits);
    const plan = planContainers(
      {
        objects: this.#objects,
        leases: this.#leases,
        change,
        attachments,
        instance: this.#instance,
        mtu: this.#kernel.uplinks.mtu,
        containers,
        renew: new Set(request.renew),
      },
      request.lenient,
    );
    request.adopt?.(plan, change);
    this.#setProblems(containers, plan.failed);
    // Nothing is in the way of the device of a container that comes alone.
    const { create, replace, remove } = plan;
    const alone =
      !request.lenient && create.length === 1 && replace.length + remove.length + networkEdits.length === 0;
    const prepared = this.#preflight(plan, containers.keys(), request.lenient, change, alone);
    undo.push(() => closePlaces(prepared));
    this.#checkCapacity(prepared);
    const [only] = prepared;
    // The kernel takes as long for a device as what follows, up to where the device is needed.
    const begun = alone && only !== undefined ? this.#devices.begin(only, undo) : undefined;
    if (begun !== undefined) fault('device:begun');
    change.commit();
    fault('lease:committed');
    if (begun !== undefined) only?.place.open?.enter();

    const delta = this.#policies.update(
      request.edits,
      plan,
      prepared.map(({ wanted }) => wanted),
      undo,
      request.adopt !== undefined,
    );
    this.#switch.check(delta);
    for (const { before, after } of networkEdits) {
      if (after === undefined) continue;
      const number = this.#leases.numberOf(after.name) ?? 0;
      this.#networks.up(after, before, number, this.#kernel.uplinks.mtu, undo);
    }
    if (networkEdits.length > 0) {
      this.#kernel.hostAddresses.refresh();
      undo.push(() => this.#kernel.hostAddresses.refresh());
    }
    const nodes = this.#nodes.prepare(request.edits, undo);
    const creating = prepared.length > 0;
    const early = [...plan.replace.map(({ spec }) => spec.id), ...(creating ? plan.remove : [])];
    this.#devices.removeEarly(early, undo);
    this.#switch.apply(delta, undo);
    fault('policy:applied');
    this.#devices.changeMtu(plan.mtu, undo);
    for (const { spec } of plan.keep) attachments.setSpec(spec);
    const failed: string[] = [];
    const onFailure = ({ spec }: Wanted, problem: SluiceError): void => {
      this.problems.set(`Container ${spec.container}`, problem);
      failed.push(spec.id);
    };
    await this.#devices.create(prepared, change, undo, request.lenient ? onFailure : undefined, begun);
    const named = new Map([...containers.keys()].map((key) => [nameOf(key), this.#container(key)]));
    const portsChanged = this.#hostPorts.update(named, undo);
    fault('ports:written');
    const services = this.#services.prepare(request.edits, named.keys(), undo);
    const host = await this.#host.prepare(request.edits, request.lenient, undo);
    const networksChanged = networkEdits.some(({ before }) => before !== undefined);
    if (
      delta.mustReevaluate ||
      services.mustReevaluate ||
      nodes.mustReevaluate ||
      portsChanged ||
      networksChanged ||
      early.length > 0 ||
      plan.mtu.length > 0
    ) {
      this.#kernel.node.nextEpoch();
      undo.push(() => this.#kernel.node.nextEpoch());
    }
    services.leave();
    fault('epoch:next');
    return (later) => {
      setImmediate(() => closePlaces(prepared)); // after the answer
      return this.#commit({
        plan,
        early,
        delta,
        failed,
        networkEdits,
        containers,
        services,
        nodes,
        host,
        ...(request.removeLater === true ? { later } : {}),
      });
    };
  }

  /** After a restart, when the maps are complete: programs of this version on the devices that were there. */
  completeAdopted(): void {
    for (const { spec, ifindex } of [...this.#kernel.attachments.values()]) {
      const container = this.#container(`Container ${spec.container}`);
      if (container === undefined) continue;
      const bridge = spec.mode === 'bridge' ? this.#networks.bridgeOf(spec.network) : undefined;
      if (spec.mode !== 'macvlan') this.#kernel.attachments.complete(spec, ifindex, undefined, bridge);
      else {
        const netns = openContainerNetns(spec, container);
        try {
          this.#kernel.attachments.complete(spec, ifindex, netns, bridge);
        } finally {
          netns.close();
        }
      }
    }
  }

  /** Network edits that the kernel sees. */
  #networkEdits(edits: readonly Edit[]): NetworkEdit[] {
    return edits.flatMap(({ before, after }) => {
      const network = after ?? before;
      if (network?.kind !== 'Network') return [];
      const old = before?.kind === 'Network' && hasDevice(before.mode) ? before : undefined;
      const next = after?.kind === 'Network' && hasDevice(after.mode) ? after : undefined;
      return old === undefined && next === undefined ? [] : [{ before: old, after: next }];
    });
  }

  /** Containers of the change, with their definition before it. */
  #touched(
    request: ChangeRequest,
    networks: readonly NetworkEdit[],
  ): Map<ResourceKey, ContainerResource | undefined> {
    const touched = new Map<ResourceKey, ContainerResource | undefined>();
    const changed = new Set(
      networks
        .filter(({ before }) => before !== undefined)
        .map(({ before, after }) => (after ?? before)?.name),
    );
    if (changed.size > 0) {
      for (const container of this.#objects.ofKind('Container')) {
        if (container.networks.some((entry) => changed.has(entry.network))) {
          touched.set(`Container ${displayName(container)}`, container);
        }
      }
    }
    for (const key of request.touch ?? []) touched.set(key, this.#container(key));
    for (const { key, before, after } of request.edits) {
      if ((after ?? before)?.kind === 'Container')
        touched.set(key, before?.kind === 'Container' ? before : undefined);
    }
    return touched;
  }

  #container(key: ResourceKey): ContainerResource | undefined {
    const object = this.#objects.get(key);
    return object?.kind === 'Container' ? object : undefined;
  }

  #setProblems(
    containers: ReadonlyMap<ResourceKey, unknown>,
    failed: ReadonlyMap<ResourceKey, SluiceError>,
  ): void {
    for (const key of containers.keys()) this.problems.delete(key);
    for (const [key, error] of failed) this.problems.set(key, error);
  }

  #preflight(
    plan: Plan,
    keys: Iterable<ResourceKey>,
    lenient: boolean,
    change: LeaseChange,
    unnamed: boolean,
  ): Prepared[] {
    const prepared: Prepared[] = [];
    const going = [...plan.remove, ...plan.replace.map(({ spec }) => spec.id)];
    const leaving = devicesOf(this.#kernel.attachments, going);
    for (const key of keys) {
      const container = this.#container(key);
      if (container?.netns === undefined || !this.#isIsolated(container)) continue;
      try {
        openContainerNetns({ netns: container.netns, device: 'lo' }, container).close();
      } catch (error) {
        if (!lenient || !(error instanceof SluiceError)) throw error;
        this.problems.set(key, error);
      }
    }
    const all = [...plan.replace, ...plan.create];
    for (const wanted of all) {
      try {
        const place = preflight(this.#kernel.rtnl, wanted, leaving, {
          keep: all.length <= KEEP_OPEN,
          unnamed,
        });
        const lease = { ...wanted.lease, netns: place.netns, netnsPath: netnsPath(wanted.spec.netns) };
        if (JSON.stringify(lease) !== JSON.stringify(wanted.lease)) change.amend(lease);
        prepared.push({ wanted: { ...wanted, lease }, place });
      } catch (error) {
        if (!lenient || !(error instanceof SluiceError)) {
          closePlaces(prepared);
          throw error;
        }
        this.problems.set(`Container ${wanted.spec.container}`, error);
      }
    }
    return prepared;
  }

  /** Throws for a network that this host can't have. */
  checkNetworks(edits: readonly Edit[]): void {
    const { rtnl, host, uplinks } = this.#kernel;
    const indexes = new Set(uplinks.devices.map(({ ifindex }) => ifindex));
    for (const { before, after } of this.#networkEdits(edits)) {
      if (after === undefined) continue;
      checkParent(rtnl, after);
      checkRanges(host, indexes, before, after);
    }
  }

  #checkCapacity(prepared: readonly Prepared[]): void {
    const { addresses } = this.#kernel;
    const wanted = prepared.reduce(
      (sum, { wanted: { spec } }) => sum + (spec.ipv4 ? 1 : 0) + (spec.ipv6 ? 1 : 0),
      0,
    );
    fits('addrs', addresses.size + wanted, addresses.capacity);
  }

  #commit(done: {
    readonly plan: Plan;
    readonly early: readonly string[];
    readonly delta: CompileDelta;
    readonly failed: readonly string[];
    readonly networkEdits: readonly NetworkEdit[];
    readonly containers: ReadonlyMap<ResourceKey, ContainerResource | undefined>;
    readonly later?: (gone: Promise<void>) => void;
    readonly services: PendingServices;
    readonly nodes: PendingNodes;
    readonly host: PendingHost;
  }): unknown[] {
    const { plan, delta, failed, networkEdits } = done;
    const errors: unknown[] = [];
    const attempt = (action: () => void): void => {
      try {
        action();
      } catch (error) {
        errors.push(error);
      }
    };
    const { attachments } = this.#kernel;
    const going = plan.remove.filter((id) => !done.early.includes(id));
    if (done.later === undefined) errors.push(...attachments.remove(going));
    else done.later(attachments.removeLater(going));
    if (plan.remove.length > 0) this.#kernel.node.nextEpoch();
    attempt(() => this.#hostPorts.settle());
    attempt(() => done.services.commit());
    attempt(() => done.nodes.commit());
    attempt(() => done.host.commit());
    attempt(() => this.#switch.finish(delta));
    for (const rest of this.#policies.settle(failed)) {
      attempt(() => {
        this.#switch.apply(rest, new Rollback());
        this.#switch.finish(rest);
      });
    }
    for (const id of plan.gone) this.#switch.forget(id);
    for (const { before, after } of networkEdits) {
      if (before === undefined) continue;
      attempt(() => this.#networks.down(before, after, this.#leases.numberOf(before.name) ?? 0));
      if (after === undefined) attempt(() => this.#dropNetwork(before.name));
    }
    if (networkEdits.length > 0) attempt(() => void this.#kernel.hostAddresses.refresh());
    for (const key of done.containers.keys()) {
      if (!this.problems.has(key)) attempt(() => this.#loopback(this.#container(key)));
    }
    return errors;
  }

  #dropNetwork(name: string): void {
    const change = this.#leases.begin();
    change.removeNetwork(name);
    change.commit();
  }

  /** Whether the container is in a network of mode `none`: it has lo and nothing else. */
  #isIsolated(container: ContainerResource): boolean {
    return container.networks.some((entry) => {
      const network = this.#objects.get(`Network ${entry.network}`);
      return network?.kind === 'Network' && network.mode === 'none';
    });
  }

  #loopback(container: ContainerResource | undefined): void {
    if (container?.netns === undefined || !this.#isIsolated(container)) return;
    const netns = openContainerNetns({ netns: container.netns, device: 'lo' }, container);
    try {
      loopbackUp(netns);
    } finally {
      netns.close();
    }
  }
}

interface NetworkEdit {
  readonly before: NetworkResource | undefined;
  readonly after: NetworkResource | undefined;
}

function nameOf(key: ResourceKey): string {
  return key.slice('Container '.length);
}
