import { SluiceError } from '../../policy/errors.js';
import { fault } from '../faults.js';
import { stableMac } from '../ipam/mac.js';
import type { Logger } from '../log.js';
import type { Runtime } from '../runtime/runtime.js';
import { addressOf } from './addresses.js';
import type { DockerApi } from './api.js';
import { containerOf, handoverName } from './container.js';
import { Forgotten } from './forgotten.js';
import { Identities, type Identity } from './identities.js';
import { InPlace } from './in-place.js';
import { DockerNetworks, networkFromInfo, networkFromRequest } from './networks.js';
import { isThere } from './placement.js';
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
  readonly #inPlace: InPlace;
  readonly #forgotten: Forgotten;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#identities = new Identities(parts);
    this.#networks = new DockerNetworks(parts.runtime, parts.state);
    this.#forgotten = new Forgotten(parts, this);
    const inTurn = (work: () => Promise<void>): Promise<void> => this.#inTurn(work);
    this.#inPlace = new InPlace({ ...parts, identities: this.#identities, networks: this.#networks, inTurn });
  }

  /** Resolves when the containers that Docker is starting have their devices. Docker must not ask for more. */
  async close(): Promise<void> {
    this.#forgotten.close();
    await this.#inPlace.close();
    this.#parts.api.close();
    this.#parts.state.close();
  }

  /** Docker has started, or comes to us for the first time; `program` is which (see programOf). */
  activate(program: string | undefined): void {
    this.#identities.renew(program);
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
    this.#forgotten.mentioned(EndpointID);
    this.#identities.expect(network, EndpointID, Options);
    return given === '' ? { MacAddress: mac } : {};
  }

  async deleteEndpoint({ EndpointID }: EndpointId): Promise<void> {
    await this.#inTurn(async () => {
      await this.#leave(EndpointID);
      this.#parts.state.put('endpoint', EndpointID, undefined);
    });
    this.#identities.forget(EndpointID);
  }

  async join({ NetworkID, EndpointID, SandboxKey }: Join): Promise<JoinAnswer> {
    const network = await this.#networkOf(NetworkID);
    const { devicePrefix = 'eth' } = network;
    this.#endpoint(EndpointID);
    const identity = await this.#identities.of(network, EndpointID);
    const plan = await this.#inPlace.plan(network, this.#endpoint(EndpointID), identity);
    let areKnown = false; // its aliases
    await this.#inTurn(async () => {
      const { state } = this.#parts;
      const endpoint = this.#endpoint(EndpointID); // it may have been deleted meanwhile
      if (endpoint.joined !== undefined) {
        this.#inPlace.expectAgain(endpoint.joined);
        return;
      }
      const siblings = state.inSandbox(SandboxKey);
      const taken = new Set(siblings.map(({ joined }) => joined?.device));
      let index = 0;
      while (taken.has(`${devicePrefix}${index}`)) index++;
      const first = siblings[0]?.joined;
      const name = first?.name ?? this.#freeName(identity, EndpointID);
      const { namespace, labels } = first ?? identity;
      const joined = { sandbox: SandboxKey, namespace, name, labels, device: `${devicePrefix}${index}` };
      const runs = isThere(SandboxKey);
      if (runs && first?.placed !== undefined) {
        await this.#put({ ...endpoint, joined: { ...joined, placed: first.placed } });
        return;
      }
      const isTaken = this.#parts.runtime.isLeased(endpoint.ipv4 ?? ''); // making it would tell by whom
      if (plan === undefined || runs || first !== undefined || isTaken) {
        await this.#put({ ...endpoint, joined });
        return;
      }
      const { file, aliases } = plan;
      areKnown = aliases !== undefined;
      const names = aliases === undefined || aliases.length === 0 ? {} : { aliases };
      this.#inPlace.expect(SandboxKey, file);
      try {
        await this.#put({ ...endpoint, joined: { ...joined, placed: file, ...names } });
      } catch (error) {
        this.#inPlace.forget(SandboxKey);
        throw error;
      }
    });
    fault('docker:joined');
    if (!areKnown) setImmediate(() => void this.#learnAliases(identity.name, EndpointID)); // after the answer
    const endpoint = this.#endpoint(EndpointID);
    const { ipv4, ipv6, internal } = this.#networks.resourceOf(network) ?? {};
    const SrcName = endpoint.joined?.placed !== undefined ? '' : handoverName(EndpointID);
    return {
      InterfaceName: { SrcName, DstPrefix: devicePrefix },
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

  /** Docker has written all of what it writes at Join. */
  joined({ EndpointID }: EndpointId): void {
    const endpoint = this.#parts.state.endpoints.get(EndpointID);
    if (endpoint?.joined === undefined) return;
    this.#inPlace.expectAgain(endpoint.joined);
    this.#inPlace.hold(endpoint);
    fault('docker:held');
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
      const promised = this.#inPlace.promised(endpoint.joined.sandbox).flatMap(({ hostPorts }) => hostPorts);
      const ports = hostPortsFor(runtime, endpoint, hostAddress, bindings, promised);
      await this.#put({ ...endpoint, ports });
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

  /** After a start: what Docker does not have any more goes, and what an agent before us had yet to make is made. */
  reconcile(driver: string): void {
    for (const { joined } of this.#parts.state.endpoints.values())
      if (joined !== undefined) this.#inPlace.expectAgain(joined);
    this.#forgotten.start(driver);
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
    const { runtime, state } = this.#parts;
    const taken =
      runtime.get(`Container ${namespace}/${name}`) !== undefined ||
      [...state.endpoints.values()].some(
        ({ joined }) => joined?.namespace === namespace && joined.name === name,
      );
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
    if (this.#inPlace.has(sandbox)) {
      if (endpoint.joined === undefined) this.#inPlace.forget(sandbox);
      else {
        const set = [...this.#inPlace.promised(sandbox), containerOf(state, members, endpoint.joined)];
        const refusal = runtime.refusal({ set });
        if (refusal !== undefined) throw refusal;
      }
    } else if (joined !== undefined) {
      const key = `Container ${joined.namespace}/${joined.name}`;
      if (members.length === 0) await runtime.change({ remove: [key] });
      else await runtime.change({ set: [containerOf(state, members, joined)] });
    }
    state.put('endpoint', endpoint.id, endpoint);
  }

  async #leave(id: string): Promise<void> {
    const known = this.#parts.state.endpoints.get(id);
    if (known?.joined === undefined) return;
    const { joined: _joined, ports: _ports, ...endpoint } = known;
    await this.#put(endpoint);
  }

  /** Aliases are for the name service alone, and Docker's API tells them only when the container runs. */
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
