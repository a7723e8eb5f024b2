import { isAbsent } from '../../loader/netlink/errors.js';
import type { Rtnetlink } from '../../loader/netlink/route.js';
import type { RouteInput } from '../../loader/netlink/route-message.js';
import { formatAddress, isUnset } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';
import { isNoKey } from '../nodes/inner-address.js';
import type { Overlay } from './overlay.js';
import { asError } from './rollback.js';

/** Protocol number of the routes to other nodes' ranges. */
export const NODE_ROUTE_PROTOCOL = 85;

interface Wanted {
  /** Name of the node. */
  readonly node: string;
  /** Its address, 16 bytes; zero: not known; NO_KEY: nothing may be sent there. */
  readonly via: Uint8Array;
}

/**
 * The host's own routes to the ranges of other nodes: into the overlay, or to the node on a shared segment. Containers
 * don't need them. A route that can't be made is a problem and is tried again when the host's addresses change.
 */
export class NodeRoutes {
  readonly #rtnl: Rtnetlink;
  readonly #overlay: Overlay;
  readonly #config: Pick<AgentConfig, 'nodeRouting' | 'vxlanId' | 'nodeEncryption'>;
  readonly #wanted = new Map<string, Wanted>();
  readonly #problems = new Map<string, SluiceError>();
  /** Addresses of this host by which other nodes know it: the sources of what it sends them. */
  sources: () => readonly string[] = () => [];

  constructor(
    rtnl: Rtnetlink,
    overlay: Overlay,
    config: Pick<AgentConfig, 'nodeRouting' | 'vxlanId' | 'nodeEncryption'>,
  ) {
    this.#rtnl = rtnl;
    this.#overlay = overlay;
    this.#config = config;
  }

  get problems(): IterableIterator<SluiceError> {
    return this.#problems.values();
  }

  /** The range is on the node from now on. Returns what takes it back. */
  set(cidr: string, node: string, via: Uint8Array): () => void {
    const before = this.#wanted.get(cidr);
    this.#wanted.set(cidr, { node, via });
    this.#write(cidr);
    return () => {
      if (before === undefined) return this.delete(cidr);
      this.#wanted.set(cidr, before);
      this.#write(cidr);
    };
  }

  delete(cidr: string): void {
    if (!this.#wanted.delete(cidr)) return;
    this.#problems.delete(cidr);
    if (this.#config.nodeRouting !== 'none') this.#remove({ destination: cidr });
  }

  /** Writes all again: devices or addresses of the host changed. */
  again(): void {
    for (const cidr of this.#wanted.keys()) this.#write(cidr);
  }

  /** After the first full sync: what an earlier agent left and nobody wants goes. */
  sweep(): void {
    for (const { destination, family } of this.#rtnl.routes({ protocol: NODE_ROUTE_PROTOCOL })) {
      if (this.#config.nodeRouting === 'none' || !this.#wanted.has(destination))
        this.#remove({ destination, family });
    }
  }

  #write(cidr: string): void {
    const wanted = this.#wanted.get(cidr);
    if (wanted === undefined || this.#config.nodeRouting === 'none') return;
    this.#problems.delete(cidr);
    try {
      const unknown = isUnset(wanted.via);
      if (unknown || isNoKey(wanted.via)) {
        // In the clear, by another route of the host, it must not go either.
        if (this.#config.nodeEncryption === 'wireguard')
          this.#rtnl.addRoute({
            destination: cidr,
            type: 'unreachable',
            protocol: NODE_ROUTE_PROTOCOL,
            replace: true,
          });
        else this.#remove({ destination: cidr });
        if (unknown) throw new Error(`the node has no address for it`);
        return;
      }
      this.#rtnl.addRoute({ ...this.#route(cidr, formatAddress(wanted.via)), replace: true });
    } catch (error) {
      const params = { cidr, node: wanted.node, reason: asError(error).message };
      this.#problems.set(cidr, SluiceError.of('SLU6003', params));
    }
  }

  #route(cidr: string, remote: string): RouteInput {
    const six = cidr.includes(':');
    const source = this.sources().find((address) => address.includes(':') === six);
    const route = {
      destination: cidr,
      protocol: NODE_ROUTE_PROTOCOL,
      ...(source === undefined ? {} : { source }),
    };
    const { ifindex } = this.#overlay;
    return ifindex === undefined
      ? { ...route, gateway: remote }
      : { ...route, ifindex, encap: { remote, id: this.#config.vxlanId } };
  }

  #remove(route: Pick<RouteInput, 'destination'> & Partial<Pick<RouteInput, 'family'>>): void {
    removeNodeRoute(this.#rtnl, route);
  }
}

/** Removes a route of ours; it may be gone. */
export function removeNodeRoute(
  rtnl: Rtnetlink,
  route: Pick<RouteInput, 'destination'> & Partial<Pick<RouteInput, 'family'>>,
): void {
  try {
    rtnl.deleteRoute({ ...route, protocol: NODE_ROUTE_PROTOCOL });
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
}
