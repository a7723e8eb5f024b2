import type { PortProtocol } from '../../policy/model/resources.js';
import type { HostListener } from '../dataplane/host-listeners.js';

const WILDCARDS: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** A port to be published; without an address on all of the host. */
export interface WantedPort {
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly address?: string;
}

/** Whether a process of the host would lose its port. `gateways`: where the agent itself answers names. */
export function isHosts(
  listeners: readonly HostListener[],
  { protocol, port, address }: WantedPort,
  gateways: ReadonlySet<string>,
): boolean {
  const there = listeners
    .filter((one) => one.protocol === protocol && one.port === port && !gateways.has(one.address))
    .map((one) => one.address);
  if (address === undefined) return there.length > 0;
  const isIpv6 = address.includes(':');
  if (WILDCARDS.has(address)) return there.some((one) => one.includes(':') === isIpv6);
  return there.includes(address) || there.includes(isIpv6 ? '::' : '0.0.0.0');
}
