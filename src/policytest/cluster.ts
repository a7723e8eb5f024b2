/** The objects of a policy test as they change from step to step, and what they mean: endpoints, nodes, addresses. */
import { type AddressBytes, parseAddress } from '../../policy/address.js';
import type {
  CompilerChange,
  CompilerInput,
  CompilerKey,
  EndpointInput,
  NodeInput,
} from '../../policy/compile/types.js';
import type { TestDeletion } from '../../policy/model/policy-test.js';
import type {
  ContainerResource,
  NetworkResource,
  PodResource,
  TestResource,
} from '../../policy/model/resources.js';
import { displayName } from '../../policy/schema/check.js';
import { AddressPool } from '../ipam/pool.js';

/** Node of pods that are on none, and of containers. */
export const DEFAULT_NODE = '';
/** Number of the network that all pods are in. */
export const POD_NETWORK = 1;

/** A pod, or a container in one of its networks: something that policies apply to. */
export interface TestEndpoint {
  readonly id: string;
  readonly node: string;
  /** Number of its network. */
  readonly network: number;
  readonly mode: 'routed' | 'bridge' | 'macvlan';
  readonly input: EndpointInput;
}

export interface TestNetwork {
  readonly number: number;
  readonly resource: NetworkResource;
}

/** Where a probe begins or ends. */
export interface Party {
  readonly address: AddressBytes;
  /** Absent: a node's own address, or nobody's. */
  readonly endpoint?: TestEndpoint;
  /** The node that has the address or the endpoint; absent: outside. */
  readonly node?: string;
}

/** What a step changes. */
export interface ClusterChange {
  readonly compiler: CompilerChange;
  readonly endpoints: { readonly remove: readonly TestEndpoint[]; readonly set: readonly TestEndpoint[] };
  readonly networks: { readonly remove: readonly TestNetwork[]; readonly set: readonly TestNetwork[] };
  /** Addresses of every node after the step. */
  readonly hosts: ReadonlyMap<string, ReadonlySet<string>>;
  /** Those of them that the compiler knows: addresses of Nodes. */
  readonly known: ReadonlySet<string>;
}

/** Who a name or an address is. */
interface Owner {
  /** The endpoints, of which a container has one for each network. */
  readonly endpoints: readonly TestEndpoint[];
  /** Of a pod in its node's network. */
  readonly host?: { readonly node: string; readonly addresses: readonly string[] };
}

/** Objects that the compiler takes as they are. */
type Compiled = Exclude<CompilerInput, EndpointInput | NodeInput>;
const COMPILED: ReadonlySet<string> = new Set(['Namespace', 'NetworkPolicy', 'ClusterNetworkPolicy']);

function isCompiled(resource: TestResource): resource is Compiled & TestResource {
  return COMPILED.has(resource.kind);
}

export function compilerKey(input: CompilerInput): CompilerKey {
  const { kind } = input;
  if (kind === 'Endpoint') return { kind, id: input.id };
  if (kind === 'NetworkPolicy') return { kind, namespace: input.namespace, name: input.name };
  return { kind, name: input.name };
}

export function objectKey(object: TestDeletion | TestResource): string {
  return `${object.kind} ${displayName(object)}`;
}

export class Cluster {
  readonly #objects = new Map<string, TestResource>();
  readonly #endpoints = new Map<string, TestEndpoint>();
  readonly #owners = new Map<string, Owner>();
  readonly #networks = new Map<string, TestNetwork>();
  #lastNetwork = POD_NETWORK;
  #hosts = new Map<string, Set<string>>();
  #nodes = new Map<string, NodeInput>();
  /** Made when it is asked for. */
  #byAddress: ReadonlyMap<string, Party> | undefined;

  get(key: string): TestResource | undefined {
    return this.#objects.get(key);
  }

  objects(): IterableIterator<TestResource> {
    return this.#objects.values();
  }

  /** Keys of what goes with an object: a namespace takes its pods and policies with it. */
  *dependents(key: string): IterableIterator<string> {
    const object = this.#objects.get(key);
    if (object?.kind !== 'Namespace') return;
    for (const [other, { kind, ...rest }] of this.#objects) {
      if (kind === 'Container' || !('namespace' in rest) || rest.namespace !== object.name) continue;
      yield other;
    }
  }

  /** Removes objects by key, then creates or replaces others. */
  change(remove: Iterable<string>, apply: readonly TestResource[]): ClusterChange {
    const touched = new Map<string, TestResource | undefined>();
    const edit = (key: string, after: TestResource | undefined): void => {
      if (!touched.has(key)) touched.set(key, this.#objects.get(key));
      if (after === undefined) this.#objects.delete(key);
      else this.#objects.set(key, after);
    };
    for (const key of remove) edit(key, undefined);
    for (const resource of apply) edit(objectKey(resource), resource);

    const compiler: { upsert: CompilerInput[]; remove: CompilerKey[] } = { upsert: [], remove: [] };
    let containers = false;
    let places = false;
    const before = new Map<string, TestEndpoint | undefined>();
    for (const [key, old] of touched) {
      const now = this.#objects.get(key);
      const either = now ?? old;
      if (either === undefined) continue;
      if (now !== undefined && isCompiled(now)) compiler.upsert.push(now);
      else if (old !== undefined && isCompiled(old)) compiler.remove.push(compilerKey(old));
      if (either.kind === 'Pod')
        this.#setPod(displayName(either), now?.kind === 'Pod' ? now : undefined, before);
      containers ||= either.kind === 'Container' || either.kind === 'Network';
      places ||= either.kind === 'Node' || either.kind === 'Pod';
    }
    const networks = containers ? this.#setContainers(before) : { remove: [], set: [] };
    if (containers || places) this.#setHosts(compiler);

    const endpoints: { remove: TestEndpoint[]; set: TestEndpoint[] } = { remove: [], set: [] };
    for (const [id, old] of before) {
      const now = this.#endpoints.get(id);
      if (now !== undefined) {
        endpoints.set.push(now);
        compiler.upsert.push(now.input);
      } else if (old !== undefined) {
        endpoints.remove.push(old);
        compiler.remove.push({ kind: 'Endpoint', id });
      }
    }
    const known = new Set([...this.#nodes.values()].flatMap(({ addresses }) => addresses));
    return { compiler, endpoints, networks, hosts: this.#hosts, known };
  }

  /** The parties of a pod's or container's name; undefined: there is none of that name. */
  named(name: string): Owner | undefined {
    return this.#owners.get(name);
  }

  /** Who has an address (canonical text); undefined: nobody here. */
  at(address: string): Party | undefined {
    this.#byAddress ??= this.#parties();
    return this.#byAddress.get(address);
  }

  /** Who has which address, endpoints before nodes. */
  #parties(): Map<string, Party> {
    const parties = new Map<string, Party>();
    for (const [node, addresses] of this.#hosts)
      for (const text of addresses) parties.set(text, { address: parseAddress(text), node });
    for (const endpoint of this.#endpoints.values())
      for (const text of addressesOf(endpoint)) parties.set(text, partyOf(endpoint, text));
    return parties;
  }

  /** Endpoints that have an address which another one has too, with that other one. */
  *clashes(): IterableIterator<readonly [TestEndpoint, string, TestEndpoint]> {
    const first = new Map<string, TestEndpoint>();
    for (const endpoint of this.#endpoints.values()) {
      for (const address of addressesOf(endpoint)) {
        const other = first.get(address);
        if (other === undefined) first.set(address, endpoint);
        else yield [endpoint, address, other];
      }
    }
  }

  #setEndpoint(
    id: string,
    endpoint: TestEndpoint | undefined,
    before: Map<string, TestEndpoint | undefined>,
  ): void {
    if (!before.has(id)) before.set(id, this.#endpoints.get(id));
    if (endpoint === undefined) this.#endpoints.delete(id);
    else this.#endpoints.set(id, endpoint);
  }

  #setPod(name: string, pod: PodResource | undefined, before: Map<string, TestEndpoint | undefined>): void {
    if (pod === undefined || pod.hostNetwork) {
      if (this.#endpoints.has(name)) this.#setEndpoint(name, undefined, before);
      if (pod === undefined) this.#owners.delete(name);
      return;
    }
    const endpoint = podEndpoint(name, pod);
    this.#setEndpoint(name, endpoint, before);
    this.#owners.set(name, { endpoints: [endpoint] });
  }

  /** Networks and containers: addresses that are not fixed are given out in order, as an agent would. */
  #setContainers(before: Map<string, TestEndpoint | undefined>): ClusterChange['networks'] {
    const removed: TestNetwork[] = [];
    const set: TestNetwork[] = [];
    for (const [name, network] of this.#networks) {
      if (this.#objects.get(`Network ${name}`) === network.resource) continue;
      removed.push(network);
      this.#networks.delete(name);
    }
    const pools = new Map<string, AddressPool>();
    const containers: ContainerResource[] = [];
    for (const object of this.#objects.values()) {
      if (object.kind === 'Container') containers.push(object);
      if (object.kind !== 'Network') continue;
      if (!this.#networks.has(object.name)) {
        const network = { number: ++this.#lastNetwork, resource: object };
        this.#networks.set(object.name, network);
        set.push(network);
      }
      for (const family of ['ipv4', 'ipv6'] as const) {
        const range = object[family];
        if (range !== undefined)
          pools.set(`${family} ${object.name}`, new AddressPool(range.cidr, range.gateway));
      }
    }
    for (const container of containers) {
      for (const { network, ...given } of container.networks) {
        for (const family of ['ipv4', 'ipv6'] as const) {
          const address = given[family];
          if (address !== undefined)
            pools.get(`${family} ${network}`)?.claim(address, displayName(container));
        }
      }
    }
    for (const [id, endpoint] of this.#endpoints) {
      if (endpoint.network !== POD_NETWORK) this.#setEndpoint(id, undefined, before);
    }
    for (const [name, owner] of this.#owners) {
      if (
        this.#objects.get(`Container ${name}`) === undefined &&
        this.#objects.get(`Pod ${name}`) === undefined
      )
        this.#owners.delete(name);
      else if (owner.endpoints.some(({ network }) => network !== POD_NETWORK)) this.#owners.delete(name);
    }
    for (const container of containers) {
      const endpoints = this.#containerEndpoints(container, pools);
      for (const endpoint of endpoints) this.#setEndpoint(endpoint.id, endpoint, before);
      this.#owners.set(displayName(container), { endpoints });
    }
    return { remove: removed, set };
  }

  #containerEndpoints(container: ContainerResource, pools: ReadonlyMap<string, AddressPool>): TestEndpoint[] {
    const name = displayName(container);
    return container.networks.flatMap(({ network, ipv4, ipv6 }) => {
      const found = this.#networks.get(network);
      if (found === undefined) return [];
      const { mode } = found.resource;
      if (mode === 'host' || mode === 'none' || mode === 'chained') return [];
      const four = ipv4 ?? pools.get(`ipv4 ${network}`)?.take(name);
      const six = ipv6 ?? pools.get(`ipv6 ${network}`)?.take(name);
      const id = `${name}@${network}`;
      const input: EndpointInput = {
        kind: 'Endpoint',
        id,
        namespace: container.namespace,
        name: container.name,
        labels: container.labels,
        ports: container.ports,
        ...(four === undefined ? {} : { ipv4: four }),
        ...(six === undefined ? {} : { ipv6: six }),
      };
      return [{ id, node: DEFAULT_NODE, network: found.number, mode, input }];
    });
  }

  /** Addresses of nodes, and pods that have those. */
  #setHosts(compiler: { readonly upsert: CompilerInput[]; readonly remove: CompilerKey[] }): void {
    const hosts = new Map<string, Set<string>>();
    const add = (node: string, address: string): void => {
      const addresses = hosts.get(node);
      if (addresses === undefined) hosts.set(node, new Set([address]));
      else addresses.add(address);
    };
    const guests: PodResource[] = [];
    for (const object of this.#objects.values()) {
      if (object.kind === 'Node') for (const address of object.addresses) add(object.name, address);
      if (object.kind === 'Pod' && object.hostNetwork) guests.push(object);
    }
    for (const { resource } of this.#networks.values()) {
      for (const range of [resource.ipv4, resource.ipv6])
        if (range !== undefined) add(DEFAULT_NODE, range.gateway);
    }
    for (const pod of guests) {
      const node = pod.nodeName ?? DEFAULT_NODE;
      const own = [pod.ipv4, pod.ipv6].filter((address) => address !== undefined);
      for (const address of own) add(node, address);
      const addresses = own.length > 0 ? own : [...(hosts.get(node) ?? [])];
      this.#owners.set(displayName(pod), { endpoints: [], host: { node, addresses } });
    }
    const nodes = new Map<string, NodeInput>();
    for (const object of this.#objects.values()) {
      if (object.kind !== 'Node') continue;
      const { kind, name, labels } = object;
      nodes.set(name, { kind, name, labels, addresses: [...(hosts.get(name) ?? [])] });
    }
    for (const [name, node] of nodes) {
      if (JSON.stringify(this.#nodes.get(name)) !== JSON.stringify(node)) compiler.upsert.push(node);
    }
    for (const [name, node] of this.#nodes) if (!nodes.has(name)) compiler.remove.push(compilerKey(node));
    this.#hosts = hosts;
    this.#nodes = nodes;
    this.#byAddress = undefined;
  }
}

function podEndpoint(id: string, pod: PodResource): TestEndpoint {
  const { namespace, name, labels, ports, ipv4, ipv6 } = pod;
  return {
    id,
    node: pod.nodeName ?? DEFAULT_NODE,
    network: POD_NETWORK,
    mode: 'routed',
    input: {
      kind: 'Endpoint',
      id,
      namespace,
      name,
      labels,
      ports,
      ...(ipv4 === undefined ? {} : { ipv4 }),
      ...(ipv6 === undefined ? {} : { ipv6 }),
    },
  };
}

/** Addresses of an endpoint, IPv4 first. */
export function addressesOf({ input: { ipv4, ipv6 } }: TestEndpoint): string[] {
  return [ipv4, ipv6].filter((address) => address !== undefined);
}

export function partyOf(endpoint: TestEndpoint, address: string): Party {
  return { address: parseAddress(address), endpoint, node: endpoint.node };
}
