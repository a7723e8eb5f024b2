import { parseAddress } from '../../policy/address.js';
import type { NodeResource } from '../../policy/model/resources.js';
import type { AgentConfig } from '../config.js';
import { NO_ADDRESS } from '../dataplane/endpoints.js';
import { innerAddress, NO_KEY } from './inner-address.js';
import { type Reach, UNKNOWN } from './remote-nodes.js';

type Addresses = Pick<NodeResource, 'addresses'>;
type Named = Pick<NodeResource, 'name' | 'addresses' | 'publicKey'>;
type Settings = Pick<AgentConfig, 'nodeRouting' | 'nodeAddresses' | 'nodeEncryption'>;

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

/**
 * The address of a node that tunnels to it lead to; undefined: it has none of a family that this node has. `uplinks`:
 * main addresses of this host's uplinks.
 */
export function tunnelEnd(
  config: Pick<AgentConfig, 'nodeAddresses'>,
  uplinks: () => readonly string[],
): (node: Addresses, own: Addresses | undefined) => string | undefined {
  return (node, own) => {
    const here = ownAddresses(config.nodeAddresses, own, uplinks());
    // Packets of both families go through one tunnel: over IPv4 where both nodes have it.
    const family = ([4, 6] as const).find(
      (candidate) =>
        ofFamily(node.addresses, candidate) !== undefined &&
        (here.length === 0 || ofFamily(here, candidate) !== undefined),
    );
    return family === undefined ? undefined : ofFamily(node.addresses, family);
  };
}

/** Where packets to other nodes go under the settings; `uplinks`: main addresses of this host's uplinks. */
export function reachOver(
  config: Settings,
  uplinks: () => readonly string[],
): (node: Named, own: Addresses | undefined) => Reach {
  if (config.nodeRouting === 'none') return () => UNKNOWN;
  if (config.nodeRouting === 'direct') {
    // The next hop has the family of the packet; the nodes themselves are reached as always.
    return ({ addresses }) => ({ pods: (family) => bytes(ofFamily(addresses, family)), node: NO_ADDRESS });
  }
  const endOf = tunnelEnd(config, uplinks);
  const inside = config.nodeEncryption === 'wireguard';
  return (node, own) => {
    const encrypted = node.publicKey === undefined ? NO_KEY : innerAddress(node.name);
    const end = inside ? encrypted : bytes(endOf(node, own));
    return { pods: () => end, node: end };
  };
}

function bytes(address: string | undefined): Uint8Array {
  return address === undefined ? NO_ADDRESS : parseAddress(address);
}
