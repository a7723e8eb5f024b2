import type { Hostport, HostportKey } from '../../loader/abi/gen/types.gen.js';
import { familyOf, parseAddress } from '../../policy/address.js';
import type { ContainerResource } from '../../policy/model/resources.js';
import { PROTOCOLS } from '../flows/protocols.js';

/** Every address of the host, by family (struct hostport_key). */
const ANY = { 4: parseAddress('0.0.0.0'), 6: parseAddress('::') } as const;

/** Where the ports of a container lead: its first network's addresses and device. */
export interface HostPortTarget {
  readonly ifindex: number;
  readonly ipv4?: string;
  readonly ipv6?: string;
}

/** The entries of `hostports` for one container: one for each port and family that it has. */
export function hostPortEntries(
  container: Pick<ContainerResource, 'hostPorts'>,
  target: HostPortTarget,
): (readonly [HostportKey, Hostport])[] {
  const entries: (readonly [HostportKey, Hostport])[] = [];
  for (const port of container.hostPorts) {
    const bound = port.hostAddress === undefined ? undefined : parseAddress(port.hostAddress);
    for (const family of [4, 6] as const) {
      const address = family === 4 ? target.ipv4 : target.ipv6;
      if (address === undefined || (bound !== undefined && familyOf(bound) !== family)) continue;
      entries.push([
        { addr: bound ?? ANY[family], port: port.hostPort, proto: PROTOCOLS[port.protocol] },
        { addr: parseAddress(address), ifindex: target.ifindex, port: port.containerPort },
      ]);
    }
  }
  return entries;
}
