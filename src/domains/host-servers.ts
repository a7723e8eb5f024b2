import { parseAddress } from '../../policy/address.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';
import type { HostResolvers } from '../dns/resolv-conf.js';
import type { HostPorts } from '../dns/watch.js';

const DNS_PORT = 53;
/** NAMES_DIRECT_PORT (bpf/include/types.h). */
const DIRECT_PORT = 1;

/** `name_servers`: questions of the host to the servers in its resolv.conf go where the name service answers it. */
export class HostServers {
  readonly #map: KernelMaps['name_servers'];
  readonly #resolvers: Pick<HostResolvers, 'servers'>;
  #ports: HostPorts = {};
  #closed = false;

  constructor(map: KernelMaps['name_servers'], resolvers: Pick<HostResolvers, 'servers'>) {
    this.#map = map;
    this.#resolvers = resolvers;
  }

  set ports(ports: HostPorts) {
    this.#ports = ports;
    this.refresh();
  }

  /** The map is left as it is from now on: the name service may end after it. */
  close(): void {
    this.#closed = true;
  }

  /** Follows the file. */
  refresh(): void {
    if (this.#closed) return;
    const { v4, v6 } = this.#ports;
    const wanted = new Set<string>();
    for (const server of v4 === undefined && v6 === undefined ? [] : this.#resolvers.servers()) {
      const [text = ''] = server.split('%');
      const port = text.includes(':') ? v6 : v4;
      if (port === undefined) continue;
      const addr = parseAddress(text);
      // First the way that the agent's own questions take.
      this.#map.set({ addr, port: DIRECT_PORT }, { port: DNS_PORT, local: 0 });
      this.#map.set({ addr, port: DNS_PORT }, { port, local: 1 });
      wanted.add(Buffer.from(addr).toString('hex'));
    }
    for (const [key] of [...this.#map.entries()])
      if (!wanted.has(Buffer.from(key.addr).toString('hex'))) this.#map.delete(key);
  }
}
