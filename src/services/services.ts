import { formatAddress, isUnset } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { ContainerResource, Resource } from '../../policy/model/resources.js';
import type { ServiceChange, ServiceCompiler } from '../../policy/services/compiler.js';
import type {
  GoneMember,
  NodeContext,
  ServiceDelta,
  ServiceInput,
  Workload,
} from '../../policy/services/types.js';
import type { AgentConfig } from '../config.js';
import type { Kernel } from '../dataplane/kernel.js';
import { nodePortFilter } from '../dataplane/node-port-addresses.js';
import type { Rollback } from '../dataplane/rollback.js';
import type { SocketNetns } from '../dataplane/socket-netns.js';
import type { StaleSockets } from '../dataplane/stale-sockets.js';
import type { Assignments } from '../ipam/service-assignments.js';
import type { Logger } from '../log.js';
import { attachmentId, type ResourceKey } from '../state/keys.js';
import type { Edit, ObjectSet } from '../state/objects.js';
import type { ServicesAhead } from './ahead.js';
import { refuseTakenAddress, ServiceConflicts, takenAddresses } from './conflicts.js';
import { HealthPorts } from './health.js';
import { nodeContext, nodeNameOf } from './node-context.js';
import type { ServiceMaps } from './service-maps.js';

/** Milliseconds of work on Maglev tables between two looks at everything else. */
const TABLE_SLICE_MS = 2;

/** End of the texts of UDP backends. */
const UDP = ' 17';

/** A change of services that is in force; what it made unnecessary is still there. */
export interface PendingServices {
  /** Open flows may have to go elsewhere. */
  readonly mustReevaluate: boolean;
  /** Ends the sockets of UDP backends that are gone. To be called in the new epoch; nobody waits for the disk before. */
  leave(): void;
  commit(): void;
}

/** Services of this node: definitions and containers in, the kernel's maps, sockets and health ports out. */
export class Services {
  readonly #kernel: Kernel;
  readonly #objects: ObjectSet;
  readonly #config: AgentConfig;
  /** Of this node. */
  readonly #name: string;
  readonly #compiler: ServiceCompiler;
  readonly #maps: ServiceMaps;
  readonly #assignments: Assignments;
  readonly #netns: SocketNetns;
  readonly #health: HealthPorts;
  readonly #conflicts: ServiceConflicts;
  readonly #stale: StaleSockets;
  readonly #log: Logger;
  readonly #exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  /** In the compiler, but not in the maps. */
  #ahead: ServicesAhead | undefined;
  #building = false;
  #closed = false;

  constructor(parts: {
    readonly kernel: Kernel;
    readonly objects: ObjectSet;
    readonly config: AgentConfig;
    readonly compiler: ServiceCompiler;
    /** What the compiler has worked out already. */
    readonly ahead: ServicesAhead | undefined;
    readonly maps: ServiceMaps;
    readonly assignments: Assignments;
    readonly netns: SocketNetns;
    readonly stale: StaleSockets;
    readonly log: Logger;
    /** Runs work between two changes. */
    readonly exclusive: <T>(work: () => Promise<T>) => Promise<T>;
  }) {
    this.#kernel = parts.kernel;
    this.#objects = parts.objects;
    this.#config = parts.config;
    this.#name = nodeNameOf(parts.config);
    this.#compiler = parts.compiler;
    this.#ahead = parts.ahead;
    this.#maps = parts.maps;
    this.#assignments = parts.assignments;
    this.#log = parts.log;
    this.#exclusive = parts.exclusive;
    this.#netns = parts.netns;
    this.#health = new HealthPorts(parts.log, nodePortFilter(parts.config.nodePortAddresses));
    // Not by way of `parts`: who keeps those keeps what was worked out ahead.
    this.#conflicts = new ServiceConflicts(parts.objects, parts.compiler, () => this.#kernel.addresses);
    this.#stale = parts.stale;
  }

  get problems(): SluiceError[] {
    return [...this.#health.problems.values(), ...this.#conflicts.problems(), ...this.#notDirect.values()];
  }

  get compiler(): ServiceCompiler {
    return this.#compiler;
  }

  get assignments(): Assignments {
    return this.#assignments;
  }

  /**
   * Puts the services of a change into force. `containers`: `namespace/name` of those whose devices may have changed.
   * Throws SluiceError; `undo` gets what takes it back.
   */
  prepare(edits: readonly Edit[], containers: Iterable<string>, undo: Rollback): PendingServices {
    const names = [...containers];
    const upsert: ServiceInput[] = [];
    const remove: { kind: ServiceInput['kind']; key: string }[] = [];
    const services: string[] = [];
    // First what goes, so that its addresses and ports are free for what comes.
    for (const { before, after } of edits) {
      if (before?.kind === 'Service' && after === undefined) {
        const key = `${before.namespace}/${before.name}`;
        undo.push(this.#assignments.release(key));
        remove.push({ kind: 'Service', key });
        services.push(key);
      } else if (before?.kind === 'EndpointSlice' && after === undefined) {
        remove.push({ kind: 'EndpointSlice', key: `${before.namespace}/${before.name}` });
      }
    }
    const comes = edits.flatMap(({ after }) => (after?.kind === 'Service' ? [after] : []));
    const taken =
      comes.length === 0
        ? () => undefined
        : takenAddresses(this.#objects, new Set(this.#kernel.addresses.hostAddresses()));
    const ahead = this.#ahead?.isIn(edits) === true ? this.#ahead : undefined;
    undo.push(this.#assignments.vacate(comes));
    for (const service of comes.sort((a, b) => explicitness(b) - explicitness(a))) {
      const { assigned, undo: back } = this.#assignments.assign(service);
      undo.push(back);
      refuseTakenAddress(assigned, taken);
      if (ahead?.has(service) !== true) upsert.push(assigned);
      services.push(`${service.namespace}/${service.name}`);
    }
    for (const { after } of edits)
      if (after?.kind === 'EndpointSlice' && ahead?.has(after) !== true) upsert.push(after);
    this.#workloads(names, upsert, remove);
    this.#netns.update(names);
    const ofNode = edits.some(
      ({ before, after }) => (after ?? before)?.kind === 'Node' && (after ?? before)?.name === this.#name,
    );
    if (ahead === undefined && upsert.length + remove.length === 0 && !ofNode)
      return { mustReevaluate: false, leave: () => undefined, commit: () => undefined };

    this.#takeAhead(ahead, undo);
    const { delta, inverse, error } = this.#compiler.update({ upsert, remove }, this.#node());
    if (error !== undefined) throw error;
    this.#noteHostBackends(delta.backends);
    this.#maps.write(delta);
    undo.push(() => this.#takeBack(inverse));
    return {
      mustReevaluate: ahead !== undefined || delta.mustReevaluate,
      leave: () => this.#leave(delta.gone.members),
      commit: () => this.#commit(delta, services, edits),
    };
  }

  /** Puts what was worked out ahead into the maps, or forgets it when this change is about something else. */
  #takeAhead(wanted: ServicesAhead | undefined, undo: Rollback): void {
    if (wanted === undefined) {
      this.forgetAhead();
      return;
    }
    this.#ahead = undefined;
    const { delta, inverse } = wanted;
    undo.push(() => this.#takeBack(inverse));
    this.#noteHostBackends(delta.backends);
    this.#maps.write(delta);
  }

  /** Forgets what was worked out ahead and is not in force. */
  forgetAhead(): void {
    if (this.#ahead !== undefined) this.#compiler.update(this.#ahead.inverse);
    this.#ahead = undefined;
  }

  /** The host has other addresses now, and open flows are about to be judged again. A process on one may be a backend. */
  hostAddressesChanged(): void {
    if (this.#ahead === undefined) {
      const { delta } = this.#compiler.update({ upsert: [], remove: [] }, this.#node());
      this.#maps.write(delta);
      this.#maps.remove(delta);
    }
    if (this.#answersTranslated) return;
    for (const { address } of this.#compiler.view.listBackends()) {
      if (!this.#kernel.addresses.isHost(address)) continue;
      this.#translateAnswers();
      return;
    }
  }

  /** After the first full sync: what an earlier agent left and nobody wants goes, also for flows that are open. */
  sweep(): void {
    this.#compiler.release();
    const gone = this.#maps.sweep(this.#compiler.size);
    if (gone.length > 0) {
      this.#kernel.node.nextEpoch();
      this.#leave(gone);
    }
    this.#assignments.sweep();
    this.#netns.sweep();
  }

  close(): void {
    this.#closed = true;
    this.#health.close();
    this.#assignments.close();
  }

  /** Ends the sockets of UDP backends that are gone. */
  #leave(members: readonly GoneMember[]): void {
    const gone = members.filter(({ text }) => text.endsWith(UDP));
    if (gone.length > 0) this.#stale.leave(gone);
  }

  #takeBack(inverse: ServiceChange): void {
    const { delta } = this.#compiler.update(inverse);
    this.#maps.write(delta);
    this.#maps.remove(delta);
  }

  #commit(delta: ServiceDelta, services: readonly string[], edits: readonly Edit[]): void {
    this.#maps.remove(delta);
    this.#assignments.commit(services);
    const touched = new Set(services);
    for (const { before, after } of edits) {
      this.#noteMode(before, after);
      for (const slice of [before, after]) {
        if (slice?.kind === 'EndpointSlice' && slice.service !== undefined)
          touched.add(`${slice.namespace}/${slice.service}`);
      }
    }
    // Containers may be behind any service that has a health check.
    if (delta.members.length + delta.gone.members.length > 0)
      for (const key of this.#checked) touched.add(key);
    for (const key of touched) this.#updateHealth(key);
    this.#buildTables();
  }

  /** Services that ask for direct server return where there is none. */
  readonly #notDirect = new Map<string, SluiceError>();

  #noteMode(before: Edit['before'], after: Edit['after']): void {
    const { nodeRouting } = this.#config;
    if (nodeRouting === 'overlay') return;
    if (before?.kind === 'Service') this.#notDirect.delete(`${before.namespace}/${before.name}`);
    if (after?.kind !== 'Service' || after.directReturn !== true) return;
    const problem = SluiceError.of('SLU1810', { routing: nodeRouting }).at(after.origin);
    this.#notDirect.set(`${after.namespace}/${after.name}`, problem);
  }

  #answersTranslated = false;

  /** Before a process of the host is a backend, its answers have to be seen. */
  #noteHostBackends(backends: ServiceDelta['backends']): void {
    if (this.#answersTranslated) return;
    const { addresses } = this.#kernel;
    if (backends.some(([, text]) => addresses.isHost(text.slice(0, text.indexOf(' ')))))
      this.#translateAnswers();
  }

  #translateAnswers(): void {
    this.#kernel.translateAnswers();
    this.#answersTranslated = true;
  }

  readonly #checked = new Set<string>();

  #updateHealth(key: string): void {
    const assigned = this.#assignments.get(key);
    if (assigned === undefined || assigned.healthPort === 0) {
      this.#checked.delete(key);
      this.#health.set(key, undefined);
      return;
    }
    this.#checked.add(key);
    const { namespace, name } = assigned.service;
    const endpoints = this.#compiler.view.localReady(key);
    this.#health.set(key, { namespace, name, port: assigned.healthPort, endpoints });
  }

  #node(): NodeContext {
    const { addresses } = this.#kernel;
    const own = this.#objects.get(`Node ${this.#name}`);
    const present = this.#nodeContext;
    if (present !== undefined && this.#nodeObject === own && this.#nodeVersion === addresses.hostVersion)
      return present;
    this.#nodeObject = own;
    this.#nodeVersion = addresses.hostVersion;
    const labels = own?.kind === 'Node' ? own.labels : {};
    const node = nodeContext(this.#config, [...addresses.hostAddresses()], labels);
    const text = JSON.stringify(node);
    if (this.#nodeText !== text) {
      this.#nodeText = text;
      this.#nodeContext = node;
    }
    return this.#nodeContext ?? node;
  }

  #nodeText = '';
  /** What the context was made from. */
  #nodeObject: Resource | undefined;
  #nodeVersion = 0;
  #nodeContext: NodeContext | undefined;

  #workloads(
    names: readonly string[],
    upsert: ServiceInput[],
    remove: { kind: ServiceInput['kind']; key: string }[],
  ): void {
    for (const name of names) {
      const object = this.#objects.get(`Container ${name}` satisfies ResourceKey);
      const workload = object?.kind === 'Container' ? this.#workload(name, object) : undefined;
      if (workload === undefined) remove.push({ kind: 'Workload', key: name });
      else upsert.push(workload);
    }
  }

  /** The container as a backend: by its first network that gives it an address, when that is in force. */
  #workload(id: string, container: ContainerResource): Workload | undefined {
    const { namespace, labels, ports } = container;
    const base = { kind: 'Workload', id, namespace, labels, ports } as const;
    for (const { network } of container.networks) {
      const resource = this.#objects.get(`Network ${network}`);
      if (resource?.kind === 'Network' && resource.mode === 'host')
        return { ...base, ...this.#hostAddresses() };
      const live = this.#kernel.attachments.get(attachmentId(container, network));
      if (live === undefined) continue;
      const { ipv4, ipv6 } = live.spec;
      return {
        ...base,
        ...(ipv4 === undefined ? {} : { ipv4: ipv4.address }),
        ...(ipv6 === undefined ? {} : { ipv6: ipv6.address }),
      };
    }
    return undefined;
  }

  #hostAddresses(): { readonly ipv4?: string; readonly ipv6?: string } {
    const values = this.#kernel.uplinks.devices.map((device) => device.value);
    const v4 = values.find((value) => !isUnset(value.snat4))?.snat4;
    const v6 = values.find((value) => !isUnset(value.snat6))?.snat6;
    return {
      ...(v4 === undefined ? {} : { ipv4: formatAddress(v4) }),
      ...(v6 === undefined ? {} : { ipv6: formatAddress(v6) }),
    };
  }

  /** Builds tables in slices, each put into force between two changes. */
  #buildTables(): void {
    if (this.#building || !this.#compiler.hasWaitingTables) return;
    this.#building = true;
    let builder = this.#compiler.nextTable();
    const slice = (): void => {
      if (this.#closed) return;
      const end = performance.now() + TABLE_SLICE_MS;
      while (performance.now() < end) {
        const step = builder.next();
        if (step.done !== true) continue;
        if (step.value !== undefined) {
          this.#maps.write(step.value);
          this.#maps.remove(step.value);
        }
        if (!this.#compiler.hasWaitingTables) {
          this.#building = false;
          return;
        }
        builder = this.#compiler.nextTable();
      }
      setImmediate(between);
    };
    const between = (): void => {
      void this.#exclusive(async () => slice()).catch((err: unknown) => {
        this.#building = false;
        this.#log.error({ err }, 'building a table of a service failed');
        this.#buildTables(); // of the others
      });
    };
    setImmediate(between);
  }
}

/** Services that name their address and ports get them before others choose. */
function explicitness(service: {
  readonly clusterIps: readonly string[] | 'None';
  readonly ports: readonly { readonly nodePort: number }[];
}): number {
  return service.clusterIps.length + service.ports.filter(({ nodePort }) => nodePort > 0).length;
}
