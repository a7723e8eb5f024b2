import {
  formatAddress,
  formatCidr,
  IPV6_MIN_MTU,
  parseAddress,
  parseCidr,
  tryParseAddress,
} from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { ContainerNetwork, HostPort, Labels, PortProtocol } from '../../policy/model/resources.js';
import { badHostAddress, badRange } from '../../policy/schema/network.js';
import { hostListeners } from '../dataplane/host-listeners.js';
import type { Logger } from '../log.js';
import { runtimeContainer, runtimeNetwork } from '../runtime/resources.js';
import type { Runtime } from '../runtime/runtime.js';
import type { DockerApi, DockerContainerInfo, DockerNetworkInfo } from './api.js';
import { containerInFiles, DEFAULT_ROOT } from './files.js';
import { isHosts } from './host-sockets.js';
import { isNamespace, type NetworkOptions, parseNetworkOptions } from './options.js';
import {
  type CreateEndpoint,
  type CreateNetwork,
  type EndpointId,
  type External,
  type Join,
  type PortBinding,
  portBindings,
} from './requests.js';
import { DAEMON, type DockerEndpoint, type DockerNetwork, type DockerState } from './state.js';

const GENERIC = 'com.docker.network.generic';
const INTERNAL = 'com.docker.network.internal';
/** Endpoint option (`--network name=...,driver-opt=sluice.labels=a=b;c=d`) for agents that can't ask Docker. */
const LABELS_OPTION = 'sluice.labels';
const NAMESPACE_LABEL = 'sluice.dev/namespace';
const PROTOCOLS: Readonly<Record<number, PortProtocol>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP' };
/** Host ports that are given out where Docker leaves the choice (`-P`, `-p 80`). */
const DYNAMIC_PORTS = { min: 49153, max: 60999 } as const;
/** Milliseconds between the looks for what Docker has forgotten, after a start. */
const RECONCILE_MS = 5000;
/** Milliseconds that Docker has before its files are looked at: it answers nobody while it starts. */
const FILES_AFTER_MS = 500;

interface Parts {
  readonly runtime: Runtime;
  readonly state: DockerState;
  readonly api: DockerApi;
  readonly log: Logger;
}

/** Who a container is, for policies and names. */
interface Identity {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Labels;
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
  /** Labels that endpoints brought with them, until they are joined. */
  readonly #given = new Map<string, Labels>();
  readonly #touched = new Set<string>();
  #rootAsked = false;
  #queue: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#parts.api.close();
    this.#parts.state.close();
  }

  async createNetwork(request: CreateNetwork): Promise<void> {
    const { IPv4Data, IPv6Data, Options } = request;
    await this.#inTurn(() =>
      this.#createNetwork(request.NetworkID, {
        options: parseNetworkOptions(Options[GENERIC]),
        internal: Options[INTERNAL] === true,
        ranges: [...IPv4Data, ...IPv6Data],
      }),
    );
  }

  async deleteNetwork(id: string): Promise<void> {
    await this.#inTurn(async () => {
      const network = this.#parts.state.networks.get(id);
      if (network?.owned === true)
        await this.#parts.runtime.change({ remove: [`Network ${network.network}`] });
      this.#parts.state.put('network', id, undefined);
    });
  }

  /** The MAC address, if Docker gave none. */
  async createEndpoint(request: CreateEndpoint): Promise<{ readonly MacAddress?: string }> {
    const { EndpointID, NetworkID, Interface, Options } = request;
    await this.#networkOf(NetworkID);
    const mac = Interface.MacAddress === '' ? macOf(EndpointID) : Interface.MacAddress.toLowerCase();
    const labels = Options[LABELS_OPTION];
    if (typeof labels === 'string') this.#given.set(EndpointID, parseLabels(labels));
    if (!this.#parts.state.endpoints.has(EndpointID)) {
      this.#parts.state.put('endpoint', EndpointID, {
        id: EndpointID,
        networkId: NetworkID,
        ...addressOf('ipv4', Interface.Address),
        ...addressOf('ipv6', Interface.AddressIPv6),
        mac,
      });
    }
    this.#touched.add(EndpointID);
    return Interface.MacAddress === '' ? { MacAddress: mac } : {};
  }

  async deleteEndpoint({ EndpointID }: EndpointId): Promise<void> {
    await this.#inTurn(async () => {
      await this.#leave(EndpointID);
      this.#parts.state.put('endpoint', EndpointID, undefined);
    });
    this.#given.delete(EndpointID);
    this.#touched.delete(EndpointID);
  }

  async join({ NetworkID, EndpointID, SandboxKey }: Join): Promise<JoinAnswer> {
    const network = await this.#networkOf(NetworkID);
    const identity = await this.#identify(network, this.#endpoint(EndpointID));
    await this.#inTurn(async () => {
      const { state } = this.#parts;
      const endpoint = this.#endpoint(EndpointID); // it may have been deleted meanwhile
      if (endpoint.joined !== undefined) return;
      const siblings = state.inSandbox(SandboxKey);
      const taken = new Set(siblings.map(({ joined }) => joined?.device));
      let index = 0;
      while (taken.has(`eth${index}`)) index++;
      const name = siblings[0]?.joined?.name ?? this.#freeName(identity, EndpointID);
      const { namespace, labels } = siblings[0]?.joined ?? identity;
      const joined = { sandbox: SandboxKey, namespace, name, labels, device: `eth${index}` };
      await this.#put({ ...endpoint, joined });
    });
    this.#learnAliases(identity.name, EndpointID);
    const endpoint = this.#endpoint(EndpointID);
    const resource = this.#parts.runtime.get(`Network ${network.network}`);
    const { ipv4, ipv6, internal } = resource?.kind === 'Network' ? resource : {};
    return {
      InterfaceName: { SrcName: handoverName(EndpointID), DstPrefix: 'eth' },
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
      await this.#put({ ...endpoint, ports: this.#hostPorts(endpoint, bindings) });
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

  async #createNetwork(
    id: string,
    given: {
      readonly options: NetworkOptions;
      readonly internal: boolean;
      readonly ranges: readonly { readonly Pool: string; readonly Gateway: string }[];
    },
  ): Promise<DockerNetwork> {
    const { runtime, state } = this.#parts;
    const known = state.networks.get(id);
    if (known !== undefined) return known;
    const { options, internal } = given;
    const ranges = rangesOf(given.ranges);
    const { namespace, hostAddress } = options;
    const common = { id, namespace, ...(hostAddress === undefined ? {} : { hostAddress }) };
    let network: DockerNetwork;
    if (options.network === undefined) {
      const name = `docker-${id.slice(0, 12)}`;
      const { mode, mtu, masquerade } = options;
      if (ranges.ipv6 !== undefined && mtu !== undefined && mtu < IPV6_MIN_MTU)
        throw SluiceError.of('SLU5203', {
          option: 'mtu',
          reason: `must be at least ${IPV6_MIN_MTU} for IPv6 (RFC 8200), not ${mtu}`,
        });
      const spec = {
        mode,
        masquerade,
        ...(mtu === undefined ? {} : { mtu }),
        ...(internal ? { internal } : {}),
      };
      await runtime.change({ set: [runtimeNetwork({ from: 'docker', name, ...spec, ...ranges })] });
      network = { ...common, network: name, owned: true };
    } else {
      this.#checkBorrowed(options.network, ranges);
      network = { ...common, network: options.network, owned: false };
    }
    state.put('network', id, network);
    return network;
  }

  #checkBorrowed(name: string, ranges: ReturnType<typeof rangesOf>): void {
    const resource = this.#parts.runtime.get(`Network ${name}`);
    if (resource?.kind !== 'Network') throw SluiceError.of('SLU5205', { network: name });
    if (resource.mode !== 'routed' && resource.mode !== 'bridge')
      throw SluiceError.of('SLU5211', { network: name, mode: resource.mode });
    for (const family of ['ipv4', 'ipv6'] as const) {
      const range = ranges[family];
      const wanted = resource[family]?.cidr;
      if (range === undefined || range.cidr === wanted) continue;
      throw SluiceError.of('SLU5212', { network: name, wanted: wanted ?? 'no such range' });
    }
  }

  /** A network; one that we have forgotten (after `sluice down`) is made again from what Docker says of it. */
  async #networkOf(id: string): Promise<DockerNetwork> {
    const known = this.#parts.state.networks.get(id);
    if (known !== undefined) return known;
    const info = await this.#parts.api.network(id);
    if (info === undefined) throw SluiceError.of('SLU5213', { what: 'network', id: id.slice(0, 12) });
    return this.#inTurn(() => this.#createNetwork(id, networkFromInfo(info)));
  }

  #endpoint(id: string): DockerEndpoint {
    const endpoint = this.#parts.state.endpoints.get(id);
    if (endpoint === undefined) throw SluiceError.of('SLU5213', { what: 'endpoint', id: id.slice(0, 12) });
    return endpoint;
  }

  async #identify(network: DockerNetwork, endpoint: DockerEndpoint): Promise<Identity> {
    const given = this.#given.get(endpoint.id);
    const container = await this.#containerOfEndpoint(network, endpoint).catch((error: unknown) => {
      if (given === undefined) throw error;
      return undefined;
    });
    const name = container?.name ?? `docker-${endpoint.id.slice(0, 12)}`;
    const labels = { ...container?.labels, ...given };
    return { name, namespace: namespaceOf(labels, network), labels };
  }

  /** From Docker's API, or from its files if it is slow: it may be starting, and this container with it. */
  async #containerOfEndpoint(network: DockerNetwork, endpoint: DockerEndpoint): Promise<DockerContainerInfo> {
    const { state } = this.#parts;
    const asking = this.#askForContainer(network, endpoint);
    const answer = await Promise.race([
      asking.catch(() => undefined),
      new Promise<undefined>((resolve) => setTimeout(resolve, FILES_AFTER_MS, undefined)),
    ]);
    if (answer !== undefined) return answer;
    const root = state.daemon.get(DAEMON)?.root ?? DEFAULT_ROOT;
    const found = await containerInFiles(root, network.id, endpoint.id).catch(() => undefined);
    return found ?? asking;
  }

  async #askForContainer(network: DockerNetwork, endpoint: DockerEndpoint): Promise<DockerContainerInfo> {
    const { api } = this.#parts;
    const name = await api.containerNameOf(network.id, endpoint.id);
    const container = name === undefined ? undefined : await api.container(name);
    if (container === undefined)
      throw SluiceError.of('SLU5213', { what: 'container of endpoint', id: endpoint.id.slice(0, 12) });
    this.#learnRoot();
    return container;
  }

  /** Once in a process: where Docker keeps its files, for the time when it can't be asked. */
  #learnRoot(): void {
    if (this.#rootAsked) return;
    this.#rootAsked = true;
    const { api, state, log } = this.#parts;
    const learn = async (): Promise<void> => {
      const root = await api.root();
      if (root !== undefined && root !== state.daemon.get(DAEMON)?.root)
        state.put('daemon', DAEMON, { root });
    };
    learn().catch((err: unknown) => {
      this.#rootAsked = false;
      log.debug({ err }, "Docker's folder is not known");
    });
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
  #learnAliases(name: string, id: string): void {
    const learn = async (): Promise<void> => {
      const aliases = await this.#parts.api.aliases(name, id);
      if (aliases.length === 0) return;
      await this.#inTurn(async () => {
        const endpoint = this.#parts.state.endpoints.get(id);
        if (endpoint?.joined !== undefined)
          await this.#put({ ...endpoint, joined: { ...endpoint.joined, aliases } });
      });
    };
    learn().catch((err: unknown) => this.#parts.log.debug({ err, container: name }, 'aliases are not known'));
  }

  #hostPorts(endpoint: DockerEndpoint, bindings: readonly PortBinding[]): HostPort[] {
    const taken = new Set(
      this.#parts.runtime
        .objects()
        .flatMap((object) =>
          object.kind === 'Container'
            ? object.hostPorts.map(({ protocol, hostPort }) => `${protocol} ${hostPort}`)
            : [],
        ),
    );
    const listeners = hostListeners();
    const gateways = new Set(
      this.#parts.runtime.networks().flatMap(({ ipv4, ipv6 }) => [ipv4?.gateway ?? '', ipv6?.gateway ?? '']),
    );
    const { hostAddress = '' } = this.#parts.state.networks.get(endpoint.networkId) ?? {};
    return bindings.flatMap(({ Proto, Port, HostIP: asked, HostPort, HostPortEnd }) => {
      const HostIP = asked === '' ? hostAddress : asked;
      // Docker publishes on "::" too, whether the container has an IPv6 address or not.
      if (HostIP !== '' && (HostIP.includes(':') ? endpoint.ipv6 : endpoint.ipv4) === undefined) return [];
      const protocol = PROTOCOLS[Proto];
      if (protocol === undefined)
        throw SluiceError.of('SLU5202', { reason: `protocol ${Proto} has no ports` });
      const bound = HostIP === '' ? {} : { address: addressText(HostIP) };
      const isTaken = (port: number): boolean =>
        taken.has(`${protocol} ${port}`) || isHosts(listeners, { protocol, port, ...bound }, gateways);
      const first = HostPort === 0 ? DYNAMIC_PORTS.min : HostPort;
      const last = HostPort === 0 ? DYNAMIC_PORTS.max : Math.max(HostPort, HostPortEnd);
      let hostPort = first;
      while (hostPort < last && isTaken(hostPort)) hostPort++;
      if (isHosts(listeners, { protocol, port: hostPort, ...bound }, gateways))
        throw SluiceError.of('SLU5216', { port: `${hostPort}/${protocol}` });
      taken.add(`${protocol} ${hostPort}`);
      const port = { protocol, hostPort, containerPort: Port };
      return [bound.address === undefined ? port : { ...port, hostAddress: bound.address }];
    });
  }
}

/** The namespace that policies know a container by. Throws SLU5217. */
function namespaceOf(labels: Labels, network: DockerNetwork): string {
  const value = labels[NAMESPACE_LABEL] ?? network.namespace;
  if (!isNamespace(value)) throw SluiceError.of('SLU5217', { label: NAMESPACE_LABEL, value });
  return value;
}

/** Name of the container's side until Docker takes it. */
function handoverName(endpoint: string): string {
  return `slp${endpoint.slice(0, 10)}`;
}

/** Locally administered, and different for each endpoint. */
function macOf(endpoint: string): string {
  const digits = endpoint.replace(/[^0-9a-f]/g, '').padEnd(10, '0');
  return `02:${[0, 2, 4, 6, 8].map((at) => digits.slice(at, at + 2)).join(':')}`;
}

function addressText(text: string): string {
  return formatAddress(parseAddress(text));
}

function addressOf<K extends 'ipv4' | 'ipv6'>(key: K, text: string): { [key in K]?: string } {
  const address = text.split('/')[0] ?? '';
  return address === '' ? {} : ({ [key]: addressText(address) } as { [key in K]: string });
}

/** One range of each family. Docker's gateway is `address/length`. */
function rangesOf(data: readonly { readonly Pool: string; readonly Gateway: string }[]) {
  const ranges: { ipv4?: { cidr: string; gateway: string }; ipv6?: { cidr: string; gateway: string } } = {};
  for (const { Pool, Gateway } of data) {
    if (Pool === '') continue;
    const cidr = parseCidr(Pool, 'clear');
    const key = cidr.family === 4 ? 'ipv4' : 'ipv6';
    if (ranges[key] !== undefined) throw SluiceError.of('SLU5214', { family: cidr.family });
    const [gateway = ''] = Gateway.split('/');
    if (tryParseAddress(gateway) === undefined) throw SluiceError.of('SLU5215', { cidr: Pool });
    const bad = badRange(cidr) ?? badHostAddress(cidr, addressText(gateway));
    if (bad !== undefined) throw bad;
    ranges[key] = { cidr: formatCidr(cidr), gateway: addressText(gateway) };
  }
  return ranges;
}

function networkFromInfo(info: DockerNetworkInfo) {
  return {
    options: parseNetworkOptions(info.Options),
    internal: info.Internal === true,
    ranges: (info.IPAM?.Config ?? []).map(({ Subnet, Gateway }) => ({
      Pool: Subnet ?? '',
      Gateway: Gateway ?? '',
    })),
  };
}

/** `a=b;c=d`. */
function parseLabels(text: string): Labels {
  return Object.fromEntries(
    text.split(';').flatMap((pair) => {
      const at = pair.indexOf('=');
      return at > 0 ? [[pair.slice(0, at).trim(), pair.slice(at + 1).trim()]] : [];
    }),
  );
}
