import { SluiceError } from '../../policy/errors.js';
import type { ContainerNetwork } from '../../policy/model/resources.js';
import { stableMac } from '../ipam/mac.js';
import type { Logger } from '../log.js';
import { runtimeContainer } from '../runtime/resources.js';
import type { Runtime } from '../runtime/runtime.js';
import { addressOf } from './addresses.js';
import type { DockerApi } from './api.js';
import { Identities, type Identity } from './identities.js';
import { DockerNetworks, networkFromInfo, networkFromRequest } from './networks.js';
import { hostPortsFor } from './ports.js';
import {
  type CreateEndpoint,
  type CreateNetwork,
  type EndpointId,
  type External,
  type Join,
  portBindings,
} from './requests.js';
import type { DockerEndpoint, DockerNetwork, DockerState } from './state.js';

/** Milliseconds between the looks for what Docker has forgotten, after a start. */
const RECONCILE_MS = 5000;

interface Parts {
  readonly runtime: Runtime;
  readonly state: DockerState;
  readonly api: DockerApi;
  readonly log: Logger;
}

/** The answer to Join (libnetwork, drivers/remote/api). */
export interface JoinAnswer {
  readonly InterfaceName: { readonly SrcName: string; readonly DstPrefix: string };
  readonly Gateway?: string;
  readonly GatewayIPv6?: string;
  readonly StaticRoutes: readonly never[];
  readonly DisableGatewayService: boolean;
}

/**
 * Docker's remote network driver. A Docker network is a Sluice network, a container one `Container` in all its
 * networks. Join answers when the container's policy is in force: its labels are asked of Docker before, and
 * where they can't be had the container does not start.
 */
export class DockerDriver {
  readonly #parts: Parts;
  readonly #identities: Identities;
  readonly #networks: DockerNetworks;
  readonly #touched = new Set<string>();
  #queue: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#identities = new Identities(parts);
    this.#networks = new DockerNetworks(parts.runtime, parts.state);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#parts.api.close();
    this.#parts.state.close();
  }

  async createNetwork(request: CreateNetwork): Promise<void> {
    await this.#inTurn(() => this.#networks.create(request.NetworkID, networkFromRequest(request)));
  }

  async deleteNetwork(id: string): Promise<void> {
    await this.#inTurn(() => this.#networks.remove(id));
  }

  /** The MAC address, if Docker gave none. */
  async createEndpoint(request: CreateEndpoint): Promise<{ readonly MacAddress?: string }> {
    const { EndpointID, NetworkID, Interface, Options } = request;
    const { state } = this.#parts;
    const network = await this.#networkOf(NetworkID);
    const given = Interface.MacAddress.toLowerCase();
    const known = state.endpoints.get(EndpointID);
    const mac = known?.mac ?? (given === '' ? stableMac('docker', EndpointID, 'container') : given);
    if (known === undefined) {
      state.put('endpoint', EndpointID, {
        id: EndpointID,
        networkId: NetworkID,
        ...addressOf('ipv4', Interface.Address),
        ...addressOf('ipv6', Interface.AddressIPv6),
        mac,
      });
    }
    this.#touched.add(EndpointID);
    this.#identities.expect(network, EndpointID, Options);
    return given === '' ? { MacAddress: mac } : {};
  }

  async deleteEndpoint({ EndpointID }: EndpointId): Promise<void> {
    await this.#inTurn(async () => {
      await this.#leave(EndpointID);
      this.#parts.state.put('endpoint', EndpointID, undefined);
    });
    this.#identities.forget(EndpointID);
    this.#touched.delete(EndpointID);
  }

  async join({ NetworkID, EndpointID, SandboxKey }: Join): Promise<JoinAnswer> {
    const network = await this.#networkOf(NetworkID);
    const { devicePrefix = 'eth' } = network;
    this.#endpoint(EndpointID);
    const identity = await this.#identities.of(network, EndpointID);
    await this.#inTurn(async () => {
      const { state } = this.#parts;
      const endpoint = this.#endpoint(EndpointID); // it may have been deleted meanwhile
      if (endpoint.joined !== undefined) return;
      const siblings = state.inSandbox(SandboxKey);
      const taken = new Set(siblings.map(({ joined }) => joined?.device));
      let index = 0;
      while (taken.has(`${devicePrefix}${index}`)) index++;
      const name = siblings[0]?.joined?.name ?? this.#freeName(identity, EndpointID);
      const { namespace, labels } = siblings[0]?.joined ?? identity;
      const joined = { sandbox: SandboxKey, namespace, name, labels, device: `${devicePrefix}${index}` };
      await this.#put({ ...endpoint, joined });
    });
    setImmediate(() => void this.#learnAliases(identity.name, EndpointID)); // after the answer
    const endpoint = this.#endpoint(EndpointID);
    const resource = this.#parts.runtime.get(`Network ${network.network}`);
    const { ipv4, ipv6, internal } = resource?.kind === 'Network' ? resource : {};
    return {
      InterfaceName: { SrcName: handoverName(EndpointID), DstPrefix: devicePrefix },
      ...(ipv4 === undefined || endpoint.ipv4 === undefined || internal === true
        ? {}
        : { Gateway: ipv4.gateway }),
      ...(ipv6 === undefined || endpoint.ipv6 === undefined || internal === true
        ? {}
        : { GatewayIPv6: ipv6.gateway }),
      StaticRoutes: [],
      DisableGatewayService: true,
    };
  }

  async leave({ EndpointID }: EndpointId): Promise<void> {
    await this.#inTurn(() => this.#leave(EndpointID));
  }

  /** Publishes the ports of a container through this endpoint. */
  async publish({ EndpointID, Options }: External): Promise<void> {
    const bindings = portBindings(Options);
    await this.#inTurn(async () => {
      const endpoint = this.#endpoint(EndpointID);
      if (bindings.length === 0 || endpoint.joined === undefined) return;
      const { runtime, state } = this.#parts;
      const { hostAddress = '' } = state.networks.get(endpoint.networkId) ?? {};
      await this.#put({ ...endpoint, ports: hostPortsFor(runtime, endpoint, hostAddress, bindings) });
    });
  }

  async unpublish({ EndpointID }: EndpointId): Promise<void> {
    await this.#inTurn(async () => {
      const known = this.#parts.state.endpoints.get(EndpointID);
      if (known?.ports === undefined) return;
      const { ports: _, ...endpoint } = known;
      await this.#put(endpoint);
    });
  }

  /**
   * After a start: removes the networks and endpoints that Docker does not have any more, once it can be
   * asked. What Docker mentions meanwhile stays, and so does what is missing only once.
   */
  reconcile(driver: string): void {
    const { state } = this.#parts;
    const known = { networks: new Set(state.networks.keys()), endpoints: new Set(state.endpoints.keys()) };
    const addresses = new Set([...state.addresses].filter(([, row]) => row.chosen).map(([key]) => key));
    if (known.networks.size + known.endpoints.size + addresses.size === 0) return;
    let missing: ReadonlySet<string> | undefined;
    const look = async (): Promise<void> => {
      try {
        const present = await this.#listed(driver);
        const gone = [...known.networks, ...known.endpoints].filter(
          (id) => !present.has(id) && !this.#touched.has(id),
        );
        if (missing !== undefined) {
          await this.#drop(new Set(gone.filter((id) => missing?.has(id) === true)), addresses);
          return;
        }
        missing = new Set(gone);
      } catch {
        // Docker does not run, or not yet.
      }
      this.#timer = setTimeout(() => void look(), RECONCILE_MS).unref();
    };
    void look();
  }

  async #listed(driver: string): Promise<Set<string>> {
    const present = new Set<string>();
    for (const { Id } of await this.#parts.api.networksOf(driver)) {
      present.add(Id);
      const endpoints = Object.values((await this.#parts.api.network(Id))?.Containers ?? {});
      for (const { EndpointID } of endpoints) present.add(EndpointID);
    }
    return present;
  }

  async #drop(gone: ReadonlySet<string>, addresses: ReadonlySet<string>): Promise<void> {
    const { state, log } = this.#parts;
    for (const endpoint of [...state.endpoints.values()]) {
      if (!gone.has(endpoint.id) && !gone.has(endpoint.networkId)) continue;
      await this.deleteEndpoint({ NetworkID: endpoint.networkId, EndpointID: endpoint.id });
      log.warn(
        { endpoint: endpoint.id, container: endpoint.joined?.name },
        'Docker has no such endpoint; removed',
      );
    }
    for (const { id, network } of [...state.networks.values()]) {
      if (!gone.has(id)) continue;
      await this.deleteNetwork(id);
      log.warn({ network }, 'Docker has no such network; removed');
    }
    const used = new Set([...state.endpoints.values()].flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6]));
    for (const [key, { address }] of [...state.addresses])
      if (addresses.has(key) && !used.has(address)) state.put('address', key, undefined);
  }

  /** Runs changes of endpoints and networks one after the other. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  /** A network; one that we have forgotten (after `sluice down`) is made again from what Docker says of it. */
  async #networkOf(id: string): Promise<DockerNetwork> {
    const known = this.#parts.state.networks.get(id);
    if (known !== undefined) return known;
    const info = await this.#parts.api.network(id);
    if (info === undefined) throw SluiceError.of('SLU5213', { what: 'network', id: id.slice(0, 12) });
    return this.#inTurn(() => this.#networks.create(id, networkFromInfo(info)));
  }

  #endpoint(id: string): DockerEndpoint {
    const endpoint = this.#parts.state.endpoints.get(id);
    if (endpoint === undefined) throw SluiceError.of('SLU5213', { what: 'endpoint', id: id.slice(0, 12) });
    return endpoint;
  }

  /** The container's name, unless another one has it (one that was renamed, or a definition). */
  #freeName({ namespace, name }: Identity, endpoint: string): string {
    const taken = this.#parts.runtime.get(`Container ${namespace}/${name}`) !== undefined;
    return taken ? `${name}-${endpoint.slice(0, 8)}` : name;
  }

  /** Puts an endpoint into force and then into the books. */
  async #put(endpoint: DockerEndpoint): Promise<void> {
    const { runtime, state } = this.#parts;
    const before = state.endpoints.get(endpoint.id);
    const sandbox = (endpoint.joined ?? before?.joined)?.sandbox ?? '';
    const others = state.inSandbox(sandbox).filter(({ id }) => id !== endpoint.id);
    const members = [...others, ...(endpoint.joined === undefined ? [] : [endpoint])];
    members.sort((a, b) => Number(b.ports !== undefined) - Number(a.ports !== undefined));
    const joined = endpoint.joined ?? before?.joined;
    if (joined !== undefined) {
      const key = `Container ${joined.namespace}/${joined.name}`;
      if (members.length === 0) await runtime.change({ remove: [key] });
      else await runtime.change({ set: [this.#containerOf(members, joined)] });
    }
    state.put('endpoint', endpoint.id, endpoint);
  }

  #containerOf(members: readonly DockerEndpoint[], joined: NonNullable<DockerEndpoint['joined']>) {
    const { networks } = this.#parts.state;
    return runtimeContainer({
      from: 'docker',
      namespace: joined.namespace,
      name: joined.name,
      labels: joined.labels,
      netns: { type: 'path', path: joined.sandbox },
      hostPorts: members.flatMap(({ ports = [] }) => ports),
      networks: members.map(
        (member): ContainerNetwork => ({
          network: networks.get(member.networkId)?.network ?? '',
          device: member.joined?.device ?? 'eth0',
          ...(member.ipv4 === undefined ? {} : { ipv4: member.ipv4 }),
          ...(member.ipv6 === undefined ? {} : { ipv6: member.ipv6 }),
          mac: member.mac,
          ...(member.joined?.aliases === undefined ? {} : { aliases: member.joined.aliases }),
          handover: handoverName(member.id),
        }),
      ),
    });
  }

  async #leave(id: string): Promise<void> {
    const known = this.#parts.state.endpoints.get(id);
    if (known?.joined === undefined) return;
    const { joined: _joined, ports: _ports, ...endpoint } = known;
    await this.#put(endpoint);
  }

  /** Aliases are for the name service alone, and Docker tells them only when the container runs. */
  async #learnAliases(name: string, id: string): Promise<void> {
    const aliases = await this.#identities.aliases(name, id);
    if (aliases.length === 0) return;
    await this.#inTurn(async () => {
      const endpoint = this.#parts.state.endpoints.get(id);
      if (endpoint?.joined !== undefined)
        await this.#put({ ...endpoint, joined: { ...endpoint.joined, aliases } });
    }).catch((err: unknown) => this.#parts.log.warn({ err, container: name }, 'aliases were not taken'));
  }
}

/** Name of the container's side until Docker takes it. */
function handoverName(endpoint: string): string {
  return `slp${endpoint.slice(0, 10)}`;
}
