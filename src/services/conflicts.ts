import { cidrContains, parseAddress, parseCidr } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { ContainerResource } from '../../policy/model/resources.js';
import type { ServiceCompiler } from '../../policy/services/compiler.js';
import type { AssignedService } from '../../policy/services/types.js';
import { hostListeners, type ListeningSocket } from '../dataplane/host-listeners.js';
import { keepersSockets } from '../dataplane/port-keepers.js';
import type { ObjectSet } from '../state/objects.js';

/** How long the list of sockets is taken as it is. */
const LISTENERS_AGE_MS = 1000;

const LOOPBACK = ['127.0.0.0/8', '::1/128'].map((text) => parseCidr(text));

/** Ports and addresses that a service shares with something else. Nothing is refused for these: who goes first is said. */
export class ServiceConflicts {
  readonly #objects: ObjectSet;
  readonly #compiler: ServiceCompiler;
  readonly #isHost: (address: string) => boolean;
  #listeners: { readonly at: number; readonly found: readonly ListeningSocket[] } | undefined;

  constructor(objects: ObjectSet, compiler: ServiceCompiler, isHost: (address: string) => boolean) {
    this.#objects = objects;
    this.#compiler = compiler;
    this.#isHost = isHost;
  }

  /** SLU1803, SLU1808, SLU1809, SLU1811. */
  problems(): SluiceError[] {
    const problems = [...this.#compiler.view.conflicts()].map(({ frontend, service, owner }) => {
      const problem = SluiceError.of('SLU1809', { frontend, owner });
      const origin = this.#compiler.assigned(service)?.service.origin;
      return origin === undefined ? problem : problem.at(origin);
    });
    problems.push(...this.#hostPorts());
    const nodePorts = this.#nodePorts();
    const ownAddresses = this.#onHostAddresses();
    if (nodePorts.size + ownAddresses.size === 0) return problems;
    for (const container of this.#objects.ofKind('Container')) {
      for (const { protocol, hostPort } of container.hostPorts) {
        const assigned = nodePorts.get(`${protocol} ${hostPort}`);
        if (assigned === undefined) continue;
        const { file, line } = container.origin;
        const params = {
          port: hostPort,
          other: `${container.namespace}/${container.name}`,
          where: `${file}:${line}`,
        };
        problems.push(SluiceError.of('SLU1803', params).at(assigned.service.origin));
      }
    }
    const said = new Set<string>();
    const say = (what: string, assigned: AssignedService): void => {
      if (!said.has(what)) problems.push(SluiceError.of('SLU1808', { what }).at(assigned.service.origin));
      said.add(what);
    };
    for (const { protocol, address: listens, port } of this.#listening()) {
      const key = `${protocol} ${port}`;
      const assigned = nodePorts.get(key);
      if (assigned !== undefined) say(`node port ${port}/${protocol}`, assigned);
      for (const [address, one] of isLoopback(listens) ? [] : (ownAddresses.get(key) ?? []))
        say(`${address} port ${port}/${protocol}`, one);
    }
    return problems;
  }

  /** Host ports that a process of the host has too: the container goes first, whoever published them. */
  #hostPorts(): SluiceError[] {
    const published = [...this.#objects.ofKind('Container')].filter(({ hostPorts }) => hostPorts.length > 0);
    if (published.length === 0) return [];
    const networks = new Map([...this.#objects.ofKind('Network')].map((network) => [network.name, network]));
    const gateways = new Set(
      [...networks.values()].flatMap(({ ipv4, ipv6 }) => [ipv4?.gateway, ipv6?.gateway]),
    );
    const listening = new Map<string, ListeningSocket[]>();
    for (const one of this.#listening()) {
      if (gateways.has(one.address)) continue; // the agent itself, for names
      const key = `${one.protocol} ${one.port}`;
      listening.set(key, [...(listening.get(key) ?? []), one]);
    }
    const found: {
      readonly container: ContainerResource;
      readonly port: string;
      readonly inodes: number[];
    }[] = [];
    for (const container of published) {
      const on = container.networks.flatMap(({ network }) => networks.get(network) ?? []);
      const families = [on.some(({ ipv4 }) => ipv4 !== undefined), on.some(({ ipv6 }) => ipv6 !== undefined)];
      for (const { protocol, hostPort, hostAddress } of container.hostPorts) {
        const inodes = (listening.get(`${protocol} ${hostPort}`) ?? [])
          .filter(({ address }) => families[address.includes(':') ? 1 : 0] && overlap(address, hostAddress))
          .map(({ inode }) => inode);
        if (inodes.length > 0) found.push({ container, port: `${hostPort}/${protocol}`, inodes });
      }
    }
    if (found.length === 0) return [];
    const kept = keepersSockets();
    return found
      .filter(({ inodes }) => inodes.some((inode) => !kept.has(inode)))
      .map(({ container: { namespace, name, origin }, port }) =>
        SluiceError.of('SLU1811', { port, container: `${namespace}/${name}` }).at(origin),
      );
  }

  /** `protocol port` -> addresses of the host where a service has it, and the service. */
  #onHostAddresses(): Map<string, (readonly [address: string, assigned: AssignedService])[]> {
    const found = new Map<string, (readonly [string, AssignedService])[]>();
    for (const { namespace, name, externalIps, loadBalancer } of this.#objects.ofKind('Service')) {
      if (externalIps.length + loadBalancer.length === 0) continue;
      const given = [
        ...externalIps,
        ...loadBalancer.flatMap((one) => (one.mode === 'VIP' ? [one.address] : [])),
      ];
      const assigned = this.#compiler.assigned(`${namespace}/${name}`);
      for (const address of assigned === undefined ? [] : given.filter(this.#isHost)) {
        for (const { protocol, port } of assigned?.service.ports ?? []) {
          const key = `${protocol} ${port}`;
          const others = found.get(key) ?? [];
          found.set(key, [...others, [address, assigned as AssignedService]]);
        }
      }
    }
    return found;
  }

  /** `protocol port` -> the service. */
  #nodePorts(): Map<string, AssignedService> {
    const found = new Map<string, AssignedService>();
    for (const { namespace, name, type } of this.#objects.ofKind('Service')) {
      if (type !== 'NodePort' && type !== 'LoadBalancer') continue;
      const assigned = this.#compiler.assigned(`${namespace}/${name}`);
      assigned?.service.ports.forEach(({ protocol }, i) => {
        const number = assigned.nodePorts[i] ?? 0;
        if (number > 0) found.set(`${protocol} ${number}`, assigned);
      });
    }
    return found;
  }

  #listening(): readonly ListeningSocket[] {
    const now = performance.now();
    if (this.#listeners !== undefined && now - this.#listeners.at < LISTENERS_AGE_MS)
      return this.#listeners.found;
    const found = hostListeners();
    this.#listeners = { at: now, found };
    return found;
  }
}

/** Whether a socket at `listens` is asked at an address where a port is published; absent: at all of the host. */
function overlap(listens: string, published: string | undefined): boolean {
  const wildcard = listens === '0.0.0.0' || listens === '::';
  if (published === undefined || published === '0.0.0.0' || published === '::')
    return published === undefined || published.includes(':') === listens.includes(':');
  return listens === published || (wildcard && published.includes(':') === listens.includes(':'));
}

function isLoopback(address: string): boolean {
  const bytes = parseAddress(address);
  return LOOPBACK.some((range) => cidrContains(range, bytes));
}

/** Says who has an address that no service can have: this host, or a network. */
export function takenAddresses(
  objects: ObjectSet,
  hostAddresses: ReadonlySet<string>,
): (address: string) => string | undefined {
  const ranges = [...objects.ofKind('Network')].flatMap(({ name, ipv4, ipv6 }) =>
    [ipv4, ipv6].flatMap((range) =>
      range === undefined ? [] : [{ cidr: parseCidr(range.cidr), what: `network ${name} (${range.cidr})` }],
    ),
  );
  return (address) => {
    if (hostAddresses.has(address)) return 'this host';
    if (ranges.length === 0) return undefined;
    const bytes = parseAddress(address);
    return ranges.find(({ cidr }) => cidrContains(cidr, bytes))?.what;
  };
}

/** Throws SLU1805 if a cluster address is taken. */
export function refuseTakenAddress(
  { service, clusterIps }: AssignedService,
  taken: ReturnType<typeof takenAddresses>,
): void {
  for (const address of clusterIps) {
    const what = taken(address);
    if (what !== undefined) throw SluiceError.of('SLU1805', { address, what }).at(service.origin);
  }
}
