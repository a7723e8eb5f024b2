/**
 * The maps of one node, written by the agent's own writers, for endpoints without devices. All nodes of a policy
 * test share them: `view` makes them those of another node, which costs as much as the two nodes have pods.
 */
import { type Endpoint, EndpointFlag, MAPS, NetworkFlag } from '../../loader/abi/gen/types.gen.js';
import { parseAddress } from '../../policy/address.js';
import { AddressTable } from '../dataplane/address-table.js';
import { arrayTable } from '../dataplane/array-table.js';
import { CidrTable } from '../dataplane/cidr-table.js';
import { EMPTY_ENDPOINT, EMPTY_NETWORK, type EndpointPolicy, NO_ADDRESS } from '../dataplane/endpoints.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';
import { PolicyMaps } from '../dataplane/policy-maps.js';
import type { PolicyTables } from '../dataplane/policy-switch.js';
import { SyncedMap } from '../dataplane/synced-map.js';
import { addressesOf, DEFAULT_NODE, POD_NETWORK, type TestEndpoint, type TestNetwork } from './cluster.js';

/** Of every endpoint: nothing here looks at more than that the source is right. */
export const ENDPOINT_MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);
/** Slots below this belong to lo and to no device. */
const FIRST_INDEX = 2;
/** Gateways of the pods' network, which a pod sees as the source when it reaches itself. */
const GATEWAYS = { gateway4: parseAddress('169.254.1.1'), gateway6: parseAddress('fe80::1') } as const;

/** Slots of `endpoints` that so many endpoints need. */
export function slotsFor(endpoints: number): number {
  return endpoints + FIRST_INDEX;
}

/** Place of another node's address: it has an identity and no device here. */
const ELSEWHERE = { ifindex: 0, network: 0 } as const;

interface Live {
  readonly endpoint: TestEndpoint;
  readonly index: number;
  readonly policy: EndpointPolicy;
}

export class TestTables implements PolicyTables {
  readonly policy: PolicyMaps;
  readonly addresses: AddressTable;
  readonly cidrs: CidrTable;
  readonly classes: SyncedMap<number, number>;
  readonly attachments: PolicyTables['attachments'];
  readonly #endpoints: SyncedMap<number, Endpoint>;
  readonly #networks: SyncedMap<number, typeof EMPTY_NETWORK>;
  readonly #live = new Map<string, Live>();
  readonly #byNode = new Map<string, Set<string>>();
  /** Endpoint that has an address. */
  readonly #owners = new Map<string, string>();
  readonly #free: number[] = [];
  #next = FIRST_INDEX;
  #node = DEFAULT_NODE;
  #hosts: ReadonlyMap<string, ReadonlySet<string>> = new Map();
  #known: ReadonlySet<string> = new Set();

  constructor(maps: KernelMaps) {
    this.policy = new PolicyMaps(maps);
    this.addresses = new AddressTable(new SyncedMap(maps.addrs, MAPS.addrs));
    this.cidrs = new CidrTable(new SyncedMap(maps.cidrs, MAPS.cidrs));
    this.classes = new SyncedMap(maps.identity_class, MAPS.identity_class);
    this.#endpoints = new SyncedMap(arrayTable(maps.endpoints, EMPTY_ENDPOINT), MAPS.endpoints);
    this.#networks = new SyncedMap(arrayTable(maps.networks, EMPTY_NETWORK), MAPS.networks);
    this.#networks.set(POD_NETWORK, { ...EMPTY_NETWORK, ...GATEWAYS });
    this.attachments = {
      get: (id) => this.#live.get(id),
      setPolicy: (id, policy) => {
        const live = this.#live.get(id);
        if (live === undefined) return;
        this.#live.set(id, { ...live, policy });
        this.#endpoints.set(live.index, slot(live.endpoint, live.index, policy));
      },
    };
  }

  /** Index of the device that an endpoint would have. */
  deviceOf(endpoint: TestEndpoint): number {
    return this.#live.get(endpoint.id)?.index ?? 0;
  }

  /** Whether nothing is left of what was written. */
  get empty(): boolean {
    const { policy, addresses, cidrs, classes } = this;
    const endpoints = this.#endpoints.size;
    return (
      policy.peerEntries + policy.portEntries + addresses.size + cidrs.size + classes.size + endpoints === 0
    );
  }

  removeNetwork({ number, resource }: TestNetwork): void {
    for (const range of [resource.ipv4, resource.ipv6])
      if (range !== undefined) this.cidrs.release(range.cidr);
    this.#networks.delete(number);
  }

  setNetwork({ number, resource }: TestNetwork): void {
    const gateway = (range: { readonly gateway: string } | undefined): Uint8Array =>
      range === undefined ? NO_ADDRESS : parseAddress(range.gateway);
    this.#networks.set(number, {
      flags: resource.mode === 'bridge' ? NetworkFlag.Bridge : 0,
      gateway4: gateway(resource.ipv4),
      gateway6: gateway(resource.ipv6),
    });
    for (const range of [resource.ipv4, resource.ipv6])
      if (range !== undefined) this.cidrs.reserve(range.cidr, number);
  }

  removeEndpoint(id: string): void {
    const live = this.#live.get(id);
    if (live === undefined) return;
    this.#live.delete(id);
    this.#byNode.get(live.endpoint.node)?.delete(id);
    this.#endpoints.delete(live.index);
    this.#free.push(live.index);
    this.#unplace(live);
  }

  /** Adds or replaces an endpoint, with the policy that the compiler has for it. */
  setEndpoint(endpoint: TestEndpoint, policy: EndpointPolicy): void {
    const before = this.#live.get(endpoint.id);
    if (before !== undefined) {
      this.#byNode.get(before.endpoint.node)?.delete(endpoint.id);
      this.#unplace(before);
    }
    const index = before?.index ?? this.#free.pop() ?? this.#next++;
    const live = { endpoint, index, policy };
    this.#live.set(endpoint.id, live);
    const neighbours = this.#byNode.get(endpoint.node) ?? new Set();
    this.#byNode.set(endpoint.node, neighbours.add(endpoint.id));
    this.#endpoints.set(index, slot(endpoint, index, policy));
    this.#place(live);
  }

  /** Addresses of the nodes from now on; `known`: those to which the compiler gives an identity. */
  setHosts(hosts: ReadonlyMap<string, ReadonlySet<string>>, known: ReadonlySet<string>): void {
    if (hosts === this.#hosts) return;
    const node = this.#node;
    this.#leave(node);
    for (const address of this.#known) this.addresses.deletePlace(address);
    this.#hosts = hosts;
    this.#known = known;
    for (const address of known) this.addresses.setPlace(address, ELSEWHERE);
    this.#enter(node);
  }

  /** Makes the maps those of a node: its pods are local, its addresses the host's. */
  view(node: string): void {
    const from = this.#node;
    if (from === node) return;
    this.#leave(from);
    this.#node = node;
    this.#enter(node);
    for (const changed of [from, node]) {
      for (const id of this.#byNode.get(changed) ?? []) {
        const live = this.#live.get(id);
        if (live !== undefined) this.#place(live);
      }
    }
  }

  #enter(node: string): void {
    for (const address of this.#hosts.get(node) ?? []) {
      if (this.#known.has(address)) this.addresses.deletePlace(address);
      this.addresses.addHost(address);
    }
  }

  #leave(node: string): void {
    for (const address of this.#hosts.get(node) ?? []) {
      this.addresses.removeHost(address);
      if (this.#known.has(address)) this.addresses.setPlace(address, ELSEWHERE);
    }
  }

  /** Closes the books: only to be used when everything has been removed. */
  close(): void {
    this.#networks.delete(POD_NETWORK);
  }

  #place({ endpoint, index }: Live): void {
    const ifindex = endpoint.node === this.#node ? index : 0;
    for (const address of addressesOf(endpoint)) {
      this.#owners.set(address, endpoint.id);
      this.addresses.setPlace(address, { ifindex, network: endpoint.network });
    }
  }

  /** Leaves alone what another endpoint has taken over. */
  #unplace({ endpoint }: Live): void {
    for (const address of addressesOf(endpoint)) {
      if (this.#owners.get(address) !== endpoint.id) continue;
      this.#owners.delete(address);
      this.addresses.deletePlace(address);
    }
  }
}

function slot({ network, mode, input }: TestEndpoint, ifindex: number, policy: EndpointPolicy): Endpoint {
  return {
    ...EMPTY_ENDPOINT,
    ...policy,
    ifindex,
    network,
    flags: mode === 'bridge' ? EndpointFlag.Bridge : mode === 'macvlan' ? EndpointFlag.L2 : 0,
    mac: ENDPOINT_MAC,
    addr4: input.ipv4 === undefined ? NO_ADDRESS : parseAddress(input.ipv4),
    addr6: input.ipv6 === undefined ? NO_ADDRESS : parseAddress(input.ipv6),
  };
}
