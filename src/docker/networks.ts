import { IPV6_MIN_MTU } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { NetworkResource } from '../../policy/model/resources.js';
import { runtimeNetwork } from '../runtime/resources.js';
import type { Runtime } from '../runtime/runtime.js';
import { type Ranges, rangesOf } from './addresses.js';
import type { DockerNetworkInfo } from './api.js';
import { type NetworkOptions, parseNetworkOptions } from './options.js';
import type { CreateNetwork } from './requests.js';
import type { DockerNetwork, DockerState } from './state.js';

const GENERIC = 'com.docker.network.generic';
const INTERNAL = 'com.docker.network.internal';

/** A network as Docker describes it. */
export interface NetworkDescription {
  readonly options: NetworkOptions;
  readonly internal: boolean;
  readonly ranges: readonly { readonly Pool: string; readonly Gateway: string }[];
}

/** From the request that makes it. Throws SLU5203. */
export function networkFromRequest({ IPv4Data, IPv6Data, Options }: CreateNetwork): NetworkDescription {
  return {
    options: parseNetworkOptions(Options[GENERIC]),
    internal: Options[INTERNAL] === true,
    ranges: [...IPv4Data, ...IPv6Data],
  };
}

/** From what Docker says of it later. Throws SLU5203. */
export function networkFromInfo(info: DockerNetworkInfo): NetworkDescription {
  return {
    options: parseNetworkOptions(info.Options),
    internal: info.Internal === true,
    ranges: (info.IPAM?.Config ?? []).map(({ Subnet, Gateway }) => ({
      Pool: Subnet ?? '',
      Gateway: Gateway ?? '',
    })),
  };
}

/** Docker's networks as networks of Sluice. One change at a time. */
export class DockerNetworks {
  readonly #runtime: Runtime;
  readonly #state: DockerState;

  constructor(runtime: Runtime, state: DockerState) {
    this.#runtime = runtime;
    this.#state = state;
  }

  /** Makes it, or takes the one that its options name. It may be there already. */
  async create(id: string, { options, internal, ranges: data }: NetworkDescription): Promise<DockerNetwork> {
    const known = this.#state.networks.get(id);
    if (known !== undefined) return known;
    const ranges = rangesOf(data);
    const [noPlace] = [
      ...(internal ? ['--internal'] : []),
      ...(ranges.ipv6 === undefined ? [] : ['IPv6']),
      ...(options.handover ? ['handover'] : []),
    ];
    if (options.names === 'sluice' && noPlace !== undefined)
      throw SluiceError.of('SLU5203', {
        option: 'names',
        reason: `cannot be sluice in a network with ${noPlace}: leave one of them out`,
      });
    const { namespace, hostAddress, devicePrefix, handover, names } = options;
    const common = {
      id,
      namespace,
      ...(hostAddress === undefined ? {} : { hostAddress }),
      ...(devicePrefix === undefined ? {} : { devicePrefix }),
      ...(handover ? { handover } : {}),
      ...(names === 'sluice' ? { names } : {}),
    };
    let network: DockerNetwork;
    if (options.network === undefined) {
      const name = `docker-${id.slice(0, 12)}`;
      const { mode, mtu, masquerade } = options;
      if (ranges.ipv6 !== undefined && mtu !== undefined && mtu < IPV6_MIN_MTU)
        throw SluiceError.of('SLU5203', {
          option: 'mtu',
          reason: `must be at least ${IPV6_MIN_MTU} for IPv6 (RFC 8200), not ${mtu}`,
        });
      const spec = {
        mode,
        masquerade,
        ...(mtu === undefined ? {} : { mtu }),
        ...(internal ? { internal } : {}),
      };
      await this.#runtime.change({ set: [runtimeNetwork({ from: 'docker', name, ...spec, ...ranges })] });
      network = { ...common, network: name, owned: true };
    } else {
      this.#checkBorrowed(options.network, ranges);
      network = { ...common, network: options.network, owned: false };
    }
    this.#state.put('network', id, network);
    return network;
  }

  /** What a network of Docker's is here. */
  resourceOf({ network }: DockerNetwork): NetworkResource | undefined {
    const resource = this.#runtime.get(`Network ${network}`);
    return resource?.kind === 'Network' ? resource : undefined;
  }

  async remove(id: string): Promise<void> {
    const network = this.#state.networks.get(id);
    if (network?.owned === true) await this.#runtime.change({ remove: [`Network ${network.network}`] });
    this.#state.put('network', id, undefined);
  }

  #checkBorrowed(name: string, ranges: Ranges): void {
    const resource = this.#runtime.get(`Network ${name}`);
    if (resource?.kind !== 'Network') throw SluiceError.of('SLU5205', { network: name });
    if (resource.mode !== 'routed' && resource.mode !== 'bridge')
      throw SluiceError.of('SLU5211', { network: name, mode: resource.mode });
    for (const family of ['ipv4', 'ipv6'] as const) {
      const range = ranges[family];
      const wanted = resource[family]?.cidr;
      if (range === undefined || range.cidr === wanted) continue;
      throw SluiceError.of('SLU5212', { network: name, wanted: wanted ?? 'no such range' });
    }
  }
}
