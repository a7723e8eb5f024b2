import type { SockDiag } from '../../loader/netlink/sock-diag.js';
import { formatAddress, parseAddress } from '../../policy/address.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';
import type { DnsQuestion, HostPorts } from '../dns/watch.js';
import { PROTOCOLS } from '../flows/protocols.js';

const DNS_PORT = 53;
/** NAMES_DIRECT_PORT (bpf/include/types.h). */
const DIRECT_PORT = 1;
const FAMILIES = [
  { family: 'v4', any: parseAddress('0.0.0.0') },
  { family: 'v6', any: parseAddress('::') },
] as const;

/** `name_servers`: questions of the host's processes, to any server, go where the name service answers them. */
export class HostServers {
  readonly #maps: Pick<KernelMaps, 'name_servers' | 'sockets'>;
  readonly #openDiag: () => SockDiag;
  #diag: SockDiag | undefined;
  #ports: HostPorts = {};
  #closed = false;

  constructor(maps: Pick<KernelMaps, 'name_servers' | 'sockets'>, openDiag: () => SockDiag) {
    this.#maps = maps;
    this.#openDiag = openDiag;
  }

  set ports(ports: HostPorts) {
    this.#ports = ports;
    if (this.#closed) return;
    const { name_servers } = this.#maps;
    for (const { family, any: addr } of FAMILIES) {
      const port = ports[family];
      if (port === undefined) {
        for (const [key] of [...name_servers.entries()])
          if (Buffer.compare(key.addr, addr) === 0) name_servers.delete(key);
        continue;
      }
      // First the way that the agent's own questions take.
      name_servers.set({ addr, port: DIRECT_PORT }, { port: DNS_PORT, local: 0 });
      name_servers.set({ addr, port: DNS_PORT }, { port, local: 1 });
    }
  }

  /** The server that a process of the host asked: its socket remembers. Undefined: that is not known (any more). */
  serverOf({ gateway, client, port, tcp }: DnsQuestion): string | undefined {
    const own = gateway.includes(':') ? this.#ports.v6 : this.#ports.v4;
    if (own === undefined) return undefined;
    this.#diag ??= this.#openDiag();
    const proto = tcp ? PROTOCOLS.TCP : PROTOCOLS.UDP;
    const addr = parseAddress(gateway);
    const cookie = this.#diag.cookieOf(
      proto,
      { address: parseAddress(client), port },
      { address: addr, port: own },
    );
    if (cookie === undefined) return undefined;
    const origin = this.#maps.sockets.get({ cookie, addr, port: own, direction: 0, proto });
    return origin === undefined ? undefined : formatAddress(origin.addr);
  }

  /** The map is left as it is from now on: the name service may end after it. */
  close(): void {
    this.#closed = true;
    this.#diag?.close();
    this.#diag = undefined;
  }
}
