import { readFileSync } from 'node:fs';
import { cidrContains, parseAddress, parseCidr } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { PortProtocol } from '../../policy/model/resources.js';
import type { ServiceCompiler } from '../../policy/services/compiler.js';
import type { AssignedService } from '../../policy/services/types.js';
import type { ObjectSet } from '../state/objects.js';

/** Files of the kernel with the sockets of this namespace, and the state in them of a socket that takes what comes. */
const SOCKETS = [
  ['TCP', 'tcp', '0A'],
  ['TCP', 'tcp6', '0A'],
  ['UDP', 'udp', '07'],
  ['UDP', 'udp6', '07'],
] as const;
/** How long the list of sockets is taken as it is. */
const LISTENERS_AGE_MS = 5000;

/** `protocol port` of the sockets in the text of /proc/net/tcp, udp and so on (proc(5)) with that state. */
export function listeningPorts(protocol: PortProtocol, text: string, state: string): string[] {
  const ports: string[] = [];
  for (const line of text.split('\n').slice(1)) {
    const [, local = '', , found] = line.trim().split(/\s+/);
    if (found === state)
      ports.push(`${protocol} ${Number.parseInt(local.slice(local.indexOf(':') + 1), 16)}`);
  }
  return ports;
}

/** Ports and addresses that a service shares with something else. Nothing is refused for these: who goes first is said. */
export class ServiceConflicts {
  readonly #objects: ObjectSet;
  readonly #compiler: ServiceCompiler;
  #listeners: { readonly at: number; readonly ports: ReadonlySet<string> } | undefined;

  constructor(objects: ObjectSet, compiler: ServiceCompiler) {
    this.#objects = objects;
    this.#compiler = compiler;
  }

  /** SLU1803, SLU1808, SLU1809. */
  problems(): SluiceError[] {
    const problems = [...this.#compiler.view.conflicts()].map(({ frontend, service, owner }) => {
      const problem = SluiceError.of('SLU1809', { frontend, owner });
      const origin = this.#compiler.assigned(service)?.service.origin;
      return origin === undefined ? problem : problem.at(origin);
    });
    const nodePorts = this.#nodePorts();
    if (nodePorts.size === 0) return problems;
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
    for (const port of this.#listening()) {
      const assigned = nodePorts.get(port);
      if (assigned !== undefined)
        problems.push(
          SluiceError.of('SLU1808', { port: port.split(' ')[1] ?? '' }).at(assigned.service.origin),
        );
    }
    return problems;
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

  #listening(): ReadonlySet<string> {
    const now = performance.now();
    if (this.#listeners !== undefined && now - this.#listeners.at < LISTENERS_AGE_MS)
      return this.#listeners.ports;
    const ports = new Set<string>();
    for (const [protocol, file, state] of SOCKETS) {
      let text = '';
      try {
        text = readFileSync(`/proc/net/${file}`, 'utf8');
      } catch {
        continue; // a host without this family
      }
      for (const port of listeningPorts(protocol, text, state)) ports.add(port);
    }
    this.#listeners = { at: now, ports };
    return ports;
  }
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
