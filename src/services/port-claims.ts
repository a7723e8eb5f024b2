import { SluiceError } from '../../policy/errors.js';
import type { ContainerResource, HostPort } from '../../policy/model/resources.js';
import type { ServiceCompiler } from '../../policy/services/compiler.js';
import type { AssignedService } from '../../policy/services/types.js';
import type { ObjectSet } from '../state/objects.js';

/** A host port of a container. */
export interface PublishedPort {
  readonly container: ContainerResource;
  readonly hostPort: HostPort;
  /** Whether the container can be asked by IPv4, by IPv6. */
  readonly families: readonly [boolean, boolean];
}

/** An address of the host where a service has a port. */
interface OnHostAddress {
  readonly address: string;
  readonly assigned: AssignedService;
}

/** Ports of this host that containers and services claim, each by `protocol port`: what the definitions say of them. */
export interface PortClaims {
  readonly published: ReadonlyMap<string, readonly PublishedPort[]>;
  readonly nodePorts: ReadonlyMap<string, AssignedService>;
  readonly onHostAddresses: ReadonlyMap<string, readonly OnHostAddress[]>;
  /** Addresses of networks' gateways. */
  readonly gateways: ReadonlySet<string>;
  /** Those that meet each other: SLU1803, SLU1809. */
  readonly problems: readonly SluiceError[];
}

/** It looks at every container and service: milliseconds where there are thousands. */
export function portClaims(
  objects: ObjectSet,
  compiler: ServiceCompiler,
  isHost: (address: string) => boolean,
): PortClaims {
  const nodePorts = new Map<string, AssignedService>();
  const onHostAddresses = new Map<string, OnHostAddress[]>();
  for (const { namespace, name, type, externalIps, loadBalancer } of objects.ofKind('Service')) {
    const given = [
      ...externalIps,
      ...loadBalancer.flatMap((one) => (one.mode === 'VIP' ? [one.address] : [])),
    ].filter(isHost);
    const hasNodePorts = type === 'NodePort' || type === 'LoadBalancer';
    if (!hasNodePorts && given.length === 0) continue;
    const assigned = compiler.assigned(`${namespace}/${name}`);
    assigned?.service.ports.forEach(({ protocol, port }, i) => {
      const number = assigned.nodePorts[i] ?? 0;
      if (hasNodePorts && number > 0) nodePorts.set(`${protocol} ${number}`, assigned);
      for (const address of given) append(onHostAddresses, `${protocol} ${port}`, { address, assigned });
    });
  }
  const networks = new Map([...objects.ofKind('Network')].map((network) => [network.name, network]));
  const gateways = [...networks.values()].flatMap(({ ipv4, ipv6 }) => [ipv4?.gateway, ipv6?.gateway]);
  const published = new Map<string, PublishedPort[]>();
  const problems = [...compiler.view.conflicts()].map(({ frontend, service, owner }) => {
    const problem = SluiceError.of('SLU1809', { frontend, owner });
    const origin = compiler.assigned(service)?.service.origin;
    return origin === undefined ? problem : problem.at(origin);
  });
  for (const container of objects.ofKind('Container')) {
    if (container.hostPorts.length === 0) continue;
    const on = container.networks.flatMap(({ network }) => networks.get(network) ?? []);
    const families = [
      on.some(({ ipv4 }) => ipv4 !== undefined),
      on.some(({ ipv6 }) => ipv6 !== undefined),
    ] as const;
    for (const hostPort of container.hostPorts) {
      const key = `${hostPort.protocol} ${hostPort.hostPort}`;
      append(published, key, { container, hostPort, families });
      const assigned = nodePorts.get(key);
      if (assigned !== undefined) problems.push(sameAsHostPort(assigned, container, hostPort.hostPort));
    }
  }
  return {
    published,
    nodePorts,
    onHostAddresses,
    gateways: new Set(gateways.filter((address) => address !== undefined)),
    problems,
  };
}

function sameAsHostPort(assigned: AssignedService, container: ContainerResource, port: number): SluiceError {
  const { namespace, name, origin } = container;
  const params = { port, other: `${namespace}/${name}`, where: `${origin.file}:${origin.line}` };
  return SluiceError.of('SLU1803', params).at(assigned.service.origin);
}

function append<V>(map: Map<string, V[]>, key: string, value: V): void {
  const others = map.get(key);
  if (others === undefined) map.set(key, [value]);
  else others.push(value);
}
