import { parseAddress } from '../../policy/address.js';
import type { NodeResource } from '../../policy/model/resources.js';
import type { AgentConfig } from '../config.js';
import { NO_ADDRESS } from '../dataplane/endpoints.js';
import { type Reach, UNKNOWN } from './remote-nodes.js';

type Addresses = Pick<NodeResource, 'addresses'>;

/** Addresses by which other nodes know this one. */
export function ownAddresses(
  setting: AgentConfig['nodeAddresses'],
  own: Addresses | undefined,
  uplinks: readonly string[],
): readonly string[] {
  if (setting !== 'auto') return setting;
  return own !== undefined && own.addresses.length > 0 ? own.addresses : uplinks;
}

const ofFamily = (addresses: readonly string[], family: 4 | 6): string | undefined =>
  addresses.find((address) => address.includes(':') === (family === 6));

/** Where packets to other nodes go under the settings; `uplinks`: main addresses of this host's uplinks. */
export function reachOver(
  config: Pick<AgentConfig, 'nodeRouting' | 'nodeAddresses'>,
  uplinks: () => readonly string[],
): (node: Addresses, own: Addresses | undefined) => Reach {
  if (config.nodeRouting === 'none') return () => UNKNOWN;
  if (config.nodeRouting === 'direct') {
    // The next hop has the family of the packet; the nodes themselves are reached as always.
    return ({ addresses }) => ({ pods: (family) => bytes(ofFamily(addresses, family)), node: NO_ADDRESS });
  }
  return (node, own) => {
    const here = ownAddresses(config.nodeAddresses, own, uplinks());
    // Packets of both families go through one tunnel: over IPv4 where both nodes have it.
    const family = ([4, 6] as const).find(
      (candidate) =>
        ofFamily(node.addresses, candidate) !== undefined &&
        (here.length === 0 || ofFamily(here, candidate) !== undefined),
    );
    const end = bytes(family === undefined ? undefined : ofFamily(node.addresses, family));
    return { pods: () => end, node: end };
  };
}

function bytes(address: string | undefined): Uint8Array {
  return address === undefined ? NO_ADDRESS : parseAddress(address);
}
