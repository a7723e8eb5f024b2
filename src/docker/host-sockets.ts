import { NetlinkError } from '../../loader/netlink/errors.js';
import type { SockDiag } from '../../loader/netlink/sock-diag.js';
import { formatAddress } from '../../policy/address.js';
import type { PortProtocol } from '../../policy/model/resources.js';
import { PROTOCOLS } from '../flows/protocols.js';

const WILDCARDS: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** A port to be published; without an address on all of the host. */
export interface WantedPort {
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly address?: string;
}

/** Addresses at which processes of the host have each port: by the protocol's number and the port, `6 80`. */
export type HostSockets = ReadonlyMap<string, ReadonlySet<string>>;

/** The sockets of the agent's network namespace that take what comes; none where the kernel doesn't tell. */
export function hostSockets(diag: Pick<SockDiag, 'listeners'>): HostSockets {
  const found = new Map<string, Set<string>>();
  try {
    for (const { protocol, local } of diag.listeners()) {
      const key = `${protocol} ${local.port}`;
      found.set(key, (found.get(key) ?? new Set()).add(formatAddress(local.address)));
    }
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error; // without CONFIG_INET_DIAG or its part for UDP
  }
  return found;
}

/** Whether a process of the host would lose its port. `gateways`: where the agent itself answers names. */
export function isHosts(
  sockets: HostSockets,
  { protocol, port, address }: WantedPort,
  gateways: ReadonlySet<string>,
): boolean {
  const all = [...(sockets.get(`${PROTOCOLS[protocol]} ${port}`) ?? [])];
  const there = all.filter((other) => !gateways.has(other));
  if (address === undefined || WILDCARDS.has(address)) return there.length > 0;
  return there.includes(address) || there.includes(address.includes(':') ? '::' : '0.0.0.0');
}
