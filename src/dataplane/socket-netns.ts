import { statSync } from 'node:fs';
import {
  insideNetns,
  isNamespace,
  type Netns,
  type NetnsRef,
  netnsPath,
  openNetns,
} from '../../loader/netns.js';
import { parseAddress } from '../../policy/address.js';
import type { Attachments, Live } from './attachments.js';
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
  /** Containers whose namespace their runtime has not made yet. */
  readonly #waiting = new Set<string>();
  #loaded = false;

  constructor(map: KernelMaps['socket_netns_map'], attachments: Attachments) {
    this.#map = map;
    this.#attachments = attachments;
  }

  /** Brings the entries of these containers (`namespace/name`) to what is in force. */
  update(containers: Iterable<string>): void {
    for (const container of containers) this.#update(container);
  }

  /** A runtime may have moved the container's device into its namespace by now. */
  moved(container: string): void {
    if (this.#waiting.has(container)) this.#update(container);
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
      .filter(({ spec }) => spec.mode !== 'chained');
    this.#waiting.delete(container);
    const before = this.#known.get(container);
    const place = placeOf(lives);
    if (place === undefined || place.netns === undefined) {
      if (place !== undefined) this.#waiting.add(container);
      if (before !== undefined) this.#map.delete(before.cookie);
      this.#known.delete(container);
      return;
    }
    const { live, netns } = place;
    const { spec, ifindex } = live;
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

/**
 * The attachment whose address the connections of a container have: that of its default routes. Undefined: there is none,
 * or a runtime that sets the default routes itself chooses among several; packets are translated at TC then. `netns`: absent
 * while a runtime that moves the device has not made the namespace.
 */
function placeOf(lives: readonly Live[]): { readonly live: Live; readonly netns?: string } | undefined {
  const live = lives.find(({ spec }) => spec.defaultRoute) ?? lives[0];
  if (live === undefined) return undefined;
  const { handover, runtimeRoutes } = live.spec;
  if (lives.length > 1 && (handover !== undefined || runtimeRoutes !== undefined)) return undefined;
  if (handover === undefined) return { live, netns: live.netns };
  const found = statSync(netnsPath(live.spec.netns), { bigint: true, throwIfNoEntry: false });
  if (found === undefined || !isNamespace(found.dev)) return { live };
  return { live, netns: `${found.dev}:${found.ino}` };
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
