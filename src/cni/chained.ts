/** Behind another plugin of the chain: the interface is that plugin's, policy, ports and bandwidth are ours. */
import type { ContainerNetwork, HostSide, NetworkResource } from '../../policy/model/resources.js';
import { runtimeNetwork } from '../runtime/resources.js';
import type { RuntimeAttachment } from '../runtime/runtime.js';
import { FROM } from './attachment.js';
import type { NetConf } from './config.js';
import { CniError } from './errors.js';
import { address } from './fields.js';
import { expectedOf } from './result.js';

/** A veth pair with one end in a container's namespace and the other one in that of the agent. */
export interface Pair {
  /** MAC address of the container's end. */
  readonly mac: string;
  readonly hostSide: HostSide;
}

/** An interface that prevResult has and that programs can be put on. */
export interface Foreign extends Pair {
  /** The first address of each family; there is at least one. */
  readonly ipv4?: string;
  readonly ipv6?: string;
}

/** Like `cni.`: no name of a network that is defined. */
const PREFIX = 'chain.';

/** The network that stands for all interfaces that other plugins make by a configuration. */
export function chainedNetwork({ name }: NetConf): NetworkResource {
  return runtimeNetwork({ from: FROM, name: `${PREFIX}${name}`, mode: 'chained', masquerade: false });
}

/** Undefined: it has no host side here, or no address. Throws CniError for what is no address. */
export function foreignOf(
  { prevResult = {} }: NetConf,
  ifname: string,
  netns: string,
  pair: Pair | undefined,
): Foreign | undefined {
  const all = (expectedOf(prevResult, ifname, netns)?.addresses ?? []).map((text) =>
    address(text.replace(/\/.*$/, ''), 'prevResult.ips'),
  );
  const ipv4 = all.find((ip) => !ip.includes(':'));
  const ipv6 = all.find((ip) => ip.includes(':'));
  if (pair === undefined || all.length === 0) return undefined;
  return {
    ...pair,
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
  };
}

/** What the container has in the network of the chain. */
export function chainedWish(
  { bandwidth }: NetConf,
  network: NetworkResource,
  { mac, hostSide, ipv4, ipv6 }: Foreign,
): Omit<ContainerNetwork, 'device'> {
  return {
    network: network.name,
    defaultRoute: false,
    mac,
    hostSide,
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
    ...(bandwidth === undefined ? {} : { bandwidth }),
  };
}

/** What cannot be done to an interface without a host side. Throws CniError 2. */
export function refuseWithout({ hostPorts, bandwidth }: NetConf): void {
  const reason =
    'the interface, which another plugin of the chain made, has no veth device with an address here';
  const refuse = (key: string, value: unknown): CniError =>
    CniError.of('SLU5116', { key: `runtimeConfig.${key}`, value: JSON.stringify(value), reason });
  if (hostPorts.length > 0) throw refuse('portMappings', hostPorts);
  if (bandwidth !== undefined) throw refuse('bandwidth', bandwidth);
}

/**
 * Throws CniError for the first thing of an ADD that is not in force (any more). The ports of the configuration are those
 * that the container does not have.
 */
export function checkChained(conf: NetConf, live: RuntimeAttachment, found: Foreign | undefined): void {
  const { spec, ifindex } = live;
  const fail = (reason: string): CniError => CniError.of('SLU5118', { reason });
  if (found?.hostSide.ifindex !== ifindex) throw fail(`${spec.hostName} is not its host side any more`);
  for (const family of ['ipv4', 'ipv6'] as const)
    if (spec[family]?.address !== found[family])
      throw fail(
        `it was taken in with ${spec[family]?.address ?? 'no address'}, not ${found[family] ?? 'none'}`,
      );
  const [port] = conf.hostPorts;
  if (port !== undefined) throw fail(`port ${port.hostPort}/${port.protocol} is not published`);
  if (JSON.stringify(conf.bandwidth) !== JSON.stringify(spec.bandwidth))
    throw fail('its bandwidth is not limited as asked for');
}
