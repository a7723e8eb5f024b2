/** What people and metrics see of the services that a compiler has in force. */
import type { IpFamily } from '../model/service.js';
import { categorize } from './endpoints.js';
import { ANY_ADDRESS, familyOfText } from './frontends.js';
import type { EndpointSources } from './sources.js';
import { indexOf, type PortState } from './state.js';
import type { EndpointText, ListedBackend, ListedPort, NodeContext } from './types.js';

interface Parts {
  readonly sources: EndpointSources;
  readonly ports: ReadonlyMap<string, readonly PortState[]>;
  readonly owners: ReadonlyMap<EndpointText, PortState>;
  readonly losers: ReadonlyMap<EndpointText, ReadonlySet<string>>;
  readonly node: () => NodeContext;
}

/** A port of a service in one family, see `ServiceView.ports`. */
export type PortInForce = Pick<PortState, 'service' | 'name' | 'protocol' | 'port' | 'family' | 'number'>;

export class ServiceView {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Services in force. */
  get serviceCount(): number {
    return this.#parts.ports.size;
  }

  /** Every port of every service that is in force; `number` is what its frontends have. */
  *ports(): IterableIterator<PortInForce> {
    for (const ports of this.byService()) yield* ports;
  }

  /** The same, those of a service together. */
  byService(): IterableIterator<readonly PortInForce[]> {
    return this.#parts.ports.values();
  }

  /** What is behind a port. */
  listPort(port: PortInForce): ListedPort | undefined {
    const { sources, node } = this.#parts;
    const assigned = sources.service(port.service);
    const index = assigned === undefined ? -1 : indexOf(assigned, port);
    if (assigned === undefined || index < 0) return undefined;
    const targets = sources.targets(port.service, index, port.family, node());
    return {
      namespace: assigned.service.namespace,
      service: assigned.service.name,
      port: portName(port),
      protocol: port.protocol,
      family: port.family,
      number: port.number,
      ready: count(targets, ({ endpoint }) => endpoint.ready),
      terminating: count(targets, ({ endpoint }) => endpoint.terminating),
      local: categorize(assigned.service, targets, node()).local.length,
    };
  }

  /** Every port of every service that is in force, with what is behind it. */
  *listPorts(): IterableIterator<ListedPort> {
    for (const port of this.ports()) {
      const listed = this.listPort(port);
      if (listed !== undefined) yield listed;
    }
  }

  /** `namespace/name` of the service that has the address and port; of the node port if the address has none. */
  serviceAt(address: string, port: number, proto: number): string | undefined {
    const { owners } = this.#parts;
    const state =
      owners.get(`${address} ${port} ${proto}`) ??
      owners.get(`${ANY_ADDRESS[familyOfText(address)]} ${port} ${proto}`);
    return state?.service;
  }

  /** Every backend of every service. */
  *listBackends(): IterableIterator<ListedBackend> {
    const { sources, node } = this.#parts;
    for (const port of this.ports()) {
      const assigned = sources.service(port.service);
      const index = assigned === undefined ? -1 : indexOf(assigned, port);
      if (assigned === undefined || index < 0) continue;
      for (const target of sources.targets(port.service, index, port.family, node())) {
        const { endpoint } = target;
        yield {
          namespace: assigned.service.namespace,
          service: assigned.service.name,
          port: portName(port),
          protocol: port.protocol,
          address: endpoint.address,
          targetPort: target.port,
          state: endpoint.terminating ? 'terminating' : endpoint.ready ? 'ready' : 'not ready',
          local: target.local,
          weight: endpoint.weight ?? 1,
          ...(endpoint.zone === undefined ? {} : { zone: endpoint.zone }),
        };
      }
    }
  }

  /** Addresses and ports that a service claims and another one has. */
  *conflicts(): IterableIterator<{
    readonly frontend: string;
    readonly service: string;
    readonly owner: string;
  }> {
    for (const [text, keys] of this.#parts.losers) {
      const owner = this.#parts.owners.get(text)?.service;
      if (owner === undefined) continue;
      const [address, port] = text.split(' ');
      for (const service of keys) yield { frontend: `${address} port ${port}`, service, owner };
    }
  }

  /** Ready endpoints of a service on this node by its families, each address once: what its health check says. */
  localReady(key: string): ReadonlyMap<IpFamily, number> {
    const { sources, ports, node } = this.#parts;
    const addresses = new Map<IpFamily, Set<string>>();
    const assigned = sources.service(key);
    if (assigned === undefined) return new Map();
    for (const state of ports.get(key) ?? []) {
      const found = addresses.get(state.family) ?? new Set();
      addresses.set(state.family, found);
      const index = indexOf(assigned, state);
      for (const { endpoint, local } of sources.targets(key, index, state.family, node()))
        if (local && endpoint.ready) found.add(endpoint.address);
    }
    return new Map([...addresses].map(([family, found]) => [family, found.size]));
  }
}

function portName({ name, port }: PortInForce): string {
  return name === '' ? String(port) : name;
}

function count<T>(items: readonly T[], test: (item: T) => boolean): number {
  let total = 0;
  for (const item of items) if (test(item)) total++;
  return total;
}
