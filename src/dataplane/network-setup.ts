import type { NetworkResource } from '../../policy/model/resources.js';
import { networkValue } from './endpoints.js';
import type { Kernel } from './kernel.js';
import type { Rollback } from './rollback.js';

/** What a network has on the host: slot in `networks`, reserved ranges, gateway addresses or a bridge. */
export class NetworkSetup {
  readonly #kernel: Kernel;
  readonly #bridges = new Map<string, number>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Index of the bridge of a network of mode bridge. */
  bridgeOf(network: string): number | undefined {
    return this.#bridges.get(network);
  }

  /** Makes or changes it. What `before` had and `network` has not is removed by `down` later. */
  up(
    network: NetworkResource,
    before: NetworkResource | undefined,
    number: number,
    mtu: number,
    undo: Rollback,
  ): void {
    const { networks, cidrs } = this.#kernel;
    undo.push(() => {
      if (before === undefined) this.down(network, undefined, number);
      else {
        this.down(network, before, number);
        this.#make(before, mtu);
      }
    });
    undo.push(networks.set(number, networkValue(network)));
    if (isolated(network)) for (const cidr of ranges(network)) undo.push(cidrs.reserve(cidr, number));
    this.#make(network, mtu);
    if (network.mode !== 'bridge') this.#bridges.delete(network.name);
  }

  /** Removes what `network` had and `after` (its next definition, if there is one) has not. */
  down(network: NetworkResource, after: NetworkResource | undefined, number: number): void {
    const { networks, cidrs, host } = this.#kernel;
    const kept = after !== undefined && isolated(after) ? ranges(after) : [];
    for (const cidr of ranges(network)) if (!kept.includes(cidr)) cidrs.release(cidr);
    const gateways = after?.mode === 'routed' ? gatewaysOf(after) : [];
    if (network.mode === 'routed') {
      for (const gateway of gatewaysOf(network)) if (!gateways.includes(gateway)) host.removeGateway(gateway);
    }
    if (network.mode === 'bridge' && after?.mode !== 'bridge') {
      host.removeBridge(network.name);
      this.#bridges.delete(network.name);
    }
    if (after === undefined) networks.delete(number);
  }

  #make(network: NetworkResource, mtu: number): void {
    const { host } = this.#kernel;
    if (network.mode === 'routed') for (const gateway of gatewaysOf(network)) host.addGateway(gateway);
    if (network.mode === 'bridge')
      this.#bridges.set(network.name, host.ensureBridge(network, network.mtu ?? mtu));
  }
}

/** Modes whose ranges belong to Sluice alone; in a macvlan's range there may be anybody. */
function isolated(network: NetworkResource): boolean {
  return network.mode === 'routed' || network.mode === 'bridge';
}

function ranges(network: NetworkResource): string[] {
  return [network.ipv4?.cidr, network.ipv6?.cidr].filter((cidr) => cidr !== undefined);
}

function gatewaysOf(network: NetworkResource): string[] {
  return [network.ipv4?.gateway, network.ipv6?.gateway].filter((gateway) => gateway !== undefined);
}
