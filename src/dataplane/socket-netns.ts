import { insideNetns, type Netns, type NetnsRef, openNetns } from '../../loader/netns.js';
import { parseAddress } from '../../policy/address.js';
import type { Attachments } from './attachments.js';
import { netnsCookie } from './constants.js';
import type { KernelMaps } from './kernel-maps.js';

const NO_ADDRESS = new Uint8Array(16);

/** `socket_netns_map`: the network namespaces whose sockets the programs at sockets look after. */
export class SocketNetns {
  readonly #map: KernelMaps['socket_netns_map'];
  readonly #attachments: Attachments;
  /** Container -> what is written for it. */
  readonly #known = new Map<
    string,
    { readonly netns: string; readonly cookie: bigint; readonly text: string; readonly ref: NetnsRef }
  >();
  #loaded = false;

  constructor(map: KernelMaps['socket_netns_map'], attachments: Attachments) {
    this.#map = map;
    this.#attachments = attachments;
  }

  /** Brings the entries of these containers (`namespace/name`) to what is in force. */
  update(containers: Iterable<string>): void {
    for (const container of containers) this.#update(container);
  }

  /** The namespace with this cookie. */
  refOf(cookie: bigint): NetnsRef | undefined {
    for (const known of this.#known.values()) if (known.cookie === cookie) return known.ref;
    return undefined;
  }

  /** After the first sync: removes entries of namespaces that no container has. */
  sweep(): void {
    if (this.#loaded) return;
    this.#loaded = true;
    const cookies = new Set([...this.#known.values()].map(({ cookie }) => cookie));
    const gone = [...this.#map.entries()].map(([cookie]) => cookie).filter((cookie) => !cookies.has(cookie));
    if (gone.length > 0) this.#map.deleteBatch(gone);
  }

  #update(container: string): void {
    const lives = this.#attachments
      .ofContainer(container)
      .map((id) => this.#attachments.get(id))
      .filter((live) => live !== undefined)
      // A device that a runtime moves itself: its namespace need not exist yet. Packets are translated at TC.
      .filter(({ spec }) => spec.handover === undefined && spec.mode !== 'chained');
    // The network that its default routes lead to: the one whose address its connections have.
    const live = lives.find(({ spec }) => spec.defaultRoute) ?? lives[0];
    const before = this.#known.get(container);
    if (live === undefined) {
      if (before !== undefined) this.#map.delete(before.cookie);
      this.#known.delete(container);
      return;
    }
    const { spec, ifindex, netns } = live;
    const value = {
      // Of a macvlan device no program of ours sees the packets that would have to be translated.
      ifindex: spec.mode === 'macvlan' ? 0 : ifindex,
      network: spec.number,
      addr4: spec.ipv4 === undefined ? NO_ADDRESS : parseAddress(spec.ipv4.address),
      addr6: spec.ipv6 === undefined ? NO_ADDRESS : parseAddress(spec.ipv6.address),
    };
    const text = `${value.ifindex} ${value.network} ${spec.ipv4?.address} ${spec.ipv6?.address}`;
    if (before?.netns === netns && before.text === text) return;
    let cookie = before?.cookie;
    if (cookie === undefined || before?.netns !== netns) {
      if (before !== undefined) this.#map.delete(before.cookie);
      cookie = live.cookie ?? cookieOf(spec.netns);
      if (cookie === undefined) {
        this.#known.delete(container);
        return;
      }
    }
    this.#map.set(cookie, value);
    this.#known.set(container, { netns, cookie, text, ref: spec.netns });
  }
}

/** Undefined: the namespace lives on without the name that it is known by. Its packets are translated at TC. */
function cookieOf(ref: NetnsRef): bigint | undefined {
  let open: Netns;
  try {
    open = openNetns(ref);
  } catch {
    return undefined;
  }
  try {
    return insideNetns(open, netnsCookie);
  } finally {
    open.close();
  }
}
