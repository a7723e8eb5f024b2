import { SluiceError } from '../../policy/errors.js';
import type { HostPort, PortProtocol } from '../../policy/model/resources.js';
import { hostListeners } from '../dataplane/host-listeners.js';
import type { Runtime } from '../runtime/runtime.js';
import { addressText } from './addresses.js';
import { isHosts } from './host-sockets.js';
import type { PortBinding } from './requests.js';
import type { DockerEndpoint } from './state.js';

const PROTOCOLS: Readonly<Record<number, PortProtocol>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP' };
/** Host ports that are given out where Docker leaves the choice (`-P`, `-p 80`). */
const DYNAMIC_PORTS = { min: 49153, max: 60999 } as const;

/**
 * The ports of the host for what an endpoint publishes; of a range the first that is free. `hostAddress`: where those are
 * that name no address, '' for all of the host's; `promised`: ports of containers that are not in force yet. Throws
 * SLU5202, SLU5216 (a process of the host has it).
 */
export function hostPortsFor(
  runtime: Runtime,
  endpoint: DockerEndpoint,
  hostAddress: string,
  bindings: readonly PortBinding[],
  promised: readonly HostPort[],
): HostPort[] {
  const others = runtime.objects().flatMap((object) => (object.kind === 'Container' ? object.hostPorts : []));
  const taken = new Set([...others, ...promised].map(({ protocol, hostPort }) => `${protocol} ${hostPort}`));
  const listeners = hostListeners();
  const gateways = new Set(
    runtime.networks().flatMap(({ ipv4, ipv6 }) => [ipv4?.gateway ?? '', ipv6?.gateway ?? '']),
  );
  return bindings.flatMap(({ Proto, Port, HostIP: asked, HostPort, HostPortEnd }) => {
    const HostIP = asked === '' ? hostAddress : asked;
    // Docker publishes on "::" too, whether the container has an IPv6 address or not.
    if (HostIP !== '' && (HostIP.includes(':') ? endpoint.ipv6 : endpoint.ipv4) === undefined) return [];
    const protocol = PROTOCOLS[Proto];
    if (protocol === undefined) throw SluiceError.of('SLU5202', { reason: `protocol ${Proto} has no ports` });
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
