import { type Endpoint, EndpointFlag, type Network, NetworkFlag } from '../../loader/abi/gen/types.gen.js';
import { parseAddress } from '../../policy/address.js';
import type { NetworkResource } from '../../policy/model/resources.js';
import type { AttachmentSpec } from '../state/desired.js';

/** "No address" in the maps. */
export const NO_ADDRESS = new Uint8Array(16);
const NO_MAC = new Uint8Array(6);

/** What the policy compiler says about one endpoint. */
export interface EndpointPolicy {
  readonly setEgress: number;
  readonly setIngress: number;
  readonly identity4: number;
  readonly identity6: number;
}

/** A slot without an endpoint: everything is dropped. */
export const EMPTY_ENDPOINT: Endpoint = {
  ifindex: 0,
  network: 0,
  setEgress: 0,
  setIngress: 0,
  identity4: 0,
  identity6: 0,
  flags: 0,
  mtu: 0,
  mac: NO_MAC,
  hostMac: NO_MAC,
  addr4: NO_ADDRESS,
  addr6: NO_ADDRESS,
};

const MODE_FLAGS: Readonly<Record<AttachmentSpec['mode'], number>> = {
  routed: 0,
  bridge: EndpointFlag.Bridge,
  macvlan: EndpointFlag.L2,
  chained: EndpointFlag.L2 | EndpointFlag.Foreign,
};

/** Flags that say what a device is; the others come and go with policies, limits and questions while it stays. */
export const DEVICE_FLAGS = EndpointFlag.Bridge | EndpointFlag.L2 | EndpointFlag.Foreign;

/** Flag for a container that is also in the networks with these numbers (source_for_answers in bpf/lib/decide.h). */
export function alsoIn(networks: readonly number[]): number {
  return networks.reduce((flags, number) => flags | (EndpointFlag.Also << (number & 15)), 0) >>> 0;
}

/** The slot of `endpoints` for a container's device. `marks`: more of its flags. */
export function endpointValue(
  spec: AttachmentSpec,
  ifindex: number,
  policy: EndpointPolicy,
  marks = 0,
): Endpoint {
  return {
    ifindex,
    network: spec.number,
    ...policy,
    flags: (marks | MODE_FLAGS[spec.mode] | (spec.bandwidth === undefined ? 0 : EndpointFlag.Limit)) >>> 0,
    mtu: spec.mtu,
    mac: macBytes(spec.mac),
    hostMac: macBytes(spec.hostMac),
    addr4: spec.ipv4 === undefined ? NO_ADDRESS : parseAddress(spec.ipv4.address),
    addr6: spec.ipv6 === undefined ? NO_ADDRESS : parseAddress(spec.ipv6.address),
  };
}

export const EMPTY_NETWORK: Network = { flags: 0, gateway4: NO_ADDRESS, gateway6: NO_ADDRESS };

/** The slot of `networks`. */
export function networkValue(network: NetworkResource): Network {
  const { ipv4, ipv6, masquerade, mode } = network;
  return {
    flags:
      (masquerade && ipv4 !== undefined ? NetworkFlag.Masquerade4 : 0) |
      (masquerade && ipv6 !== undefined ? NetworkFlag.Masquerade6 : 0) |
      (mode === 'bridge' ? NetworkFlag.Bridge : 0) |
      (network.internal === true ? NetworkFlag.Internal : 0),
    gateway4: ipv4 === undefined ? NO_ADDRESS : parseAddress(ipv4.gateway),
    gateway6: ipv6 === undefined ? NO_ADDRESS : parseAddress(ipv6.gateway),
  };
}

/** Six bytes of `aa:bb:cc:dd:ee:ff`. */
export function macBytes(text: string): Uint8Array {
  return Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16));
}
