import type { Netns } from '../netns.js';
import { IFLA, NETNSA, NLM_F, RTM } from './constants.js';
import { isAbsent, NetlinkError } from './errors.js';
import { unusedGroup } from './groups.js';
import {
  checkLinkName,
  decodeLink,
  decodeLinkIndexes,
  encodeLinkAttributes,
  encodeLinkHeader,
  encodeLinkKind,
  encodeLinkQuery,
  type Link,
  type LinkKind,
  type MacvlanMode,
} from './link.js';
import { forEachAttribute, type MessageBuilder } from './message.js';
import { Requests } from './requests.js';

/** What all new devices may be given. */
export interface NewLink {
  readonly name: string;
  /** Wanted index; default: the kernel's choice. EBUSY or EEXIST when it is taken. */
  readonly ifindex?: number | undefined;
  readonly mac?: string | undefined;
  readonly mtu?: number | undefined;
  readonly alias?: string | undefined;
  readonly up?: boolean | undefined;
  /** true: the kernel gives the device no link-local IPv6 address. */
  readonly noIpv6LinkLocal?: boolean | undefined;
}

export interface NewVeth extends NewLink {
  /**
   * Queues of both ends. Default: the kernel makes one for each CPU. 1 is cheaper to make (by 20 % with 2 CPUs,
   * more with more) and makes no difference to packets as long as neither end has XDP or GRO.
   */
  readonly queues?: number | undefined;
  /**
   * With an alias a new device is in a group of its own (see LinkRequests). true: the caller takes it out of that group
   * with its next change (`group: 0`), which saves a request. Default: that is done.
   */
  readonly keepGroup?: boolean | undefined;
  readonly peer: {
    readonly name: string;
    readonly netns: Netns;
    /** Wanted index in `netns`; the kernel looks at it only if the pair's own `ifindex` is given too. */
    readonly ifindex?: number | undefined;
    readonly mac?: string | undefined;
    readonly mtu?: number | undefined;
    /**
     * Bringing the peer up and its IPv6 mode need a socket in `netns` (0.1 ms): callers that have one use
     * its setLink instead. (A veth device can't be up before both ends exist: ENOTCONN.)
     */
    readonly up?: boolean | undefined;
    readonly noIpv6LinkLocal?: boolean | undefined;
  };
}

/** The two ends of a pair. */
export interface VethPair {
  readonly ifindex: number;
  readonly peerIfindex: number;
}

/** A pair that is being made. */
export interface LaterVeth {
  /** Undefined: the kernel is not done. Throws NetlinkError as `createVeth` does. */
  result(): VethPair | undefined;
  /** Resolves when `result` knows. Rejects with NetlinkError when the request could not be sent. */
  readonly settled: Promise<void>;
}

/** A new device, and the other end of a pair. */
interface Created {
  readonly ifindex: number;
  readonly linkIndex?: number | undefined;
}

/** The making of a device: what the kernel is asked for, and what follows, given the errors. */
interface Creation {
  readonly ask: () => void;
  readonly complete: (errors: readonly NetlinkError[]) => Created;
}

export interface NewMacvlan extends NewLink {
  /** ifindex of the device below. */
  readonly parent: number;
  readonly mode: MacvlanMode;
  /** The device is made there; default: where the parent is. */
  readonly netns?: Netns | undefined;
}

export interface NewVxlan extends NewLink {
  /** UDP port, for all that is received and sent. */
  readonly port: number;
  /**
   * ifindex of the device to send through. If that is a port of a VRF, the UDP sockets belong to the VRF: nothing else of
   * the host gets to them. Without it goes this device too.
   */
  readonly lower?: number | undefined;
}

export interface NewVrf extends NewLink {
  /** Number of the routing table of its ports. */
  readonly table: number;
}

export interface LinkChange {
  readonly up?: boolean | undefined;
  readonly noArp?: boolean | undefined;
  readonly mtu?: number | undefined;
  readonly mac?: string | undefined;
  /** ifindex of a bridge; 0: none. */
  readonly master?: number | undefined;
  readonly name?: string | undefined;
  /** Empty: none. */
  readonly alias?: string | undefined;
  readonly group?: number | undefined;
  /** Moves the device; the other changes are made there. The kernel waits for a grace period. */
  readonly netns?: Netns | undefined;
  readonly noIpv6LinkLocal?: boolean | undefined;
}

export interface LinkFilter {
  readonly kind?: string | undefined;
  readonly master?: number | undefined;
  readonly aliasPrefix?: string | undefined;
}

/** Devices that the kernel removes at a time: it holds its lock, and this thread, for that long. */
const DELETE_CHUNK = 256;
const EINVAL = 22;
/** What kernels answer when a name or an index is in use. */
const TAKEN: ReadonlySet<string> = new Set(['EEXIST', 'EBUSY']);

/** The part of Rtnetlink that deals with devices. */
export class LinkRequests extends Requests {
  /** The devices of the namespace. */
  links(filter: LinkFilter = {}): Link[] {
    const { kind, master, aliasPrefix } = filter;
    return this.dump(
      'list links',
      RTM.GETLINK,
      (message) => encodeLinkQuery(message, filter),
      (buffer, start, end) => {
        const link = decodeLink(buffer, start, end);
        // A kernel that does not know a filter sends everything.
        if (kind !== undefined && link.kind !== kind) return undefined;
        if (master !== undefined && link.master !== master) return undefined;
        return aliasPrefix === undefined || link.alias?.startsWith(aliasPrefix) === true ? link : undefined;
      },
    );
  }

  /** By which number this namespace knows another one (see `Link.netnsId`); undefined: it has none for it. */
  netnsIdOf(netns: Netns): number | undefined {
    let id = -1;
    this.request(
      `get the number of ${netns.path}`,
      RTM.GETNSID,
      0,
      (message) => message.u32(0).attribute32(NETNSA.FD, netns.fd), // struct rtgenmsg, padded
      (buffer, start, end) =>
        forEachAttribute(buffer, start + 4, end, (type, at) => {
          if (type === NETNSA.NSID) id = buffer.readInt32LE(at);
        }),
    );
    return id < 0 ? undefined : id;
  }

  /** One device, or undefined if there is none. */
  link(nameOrIndex: string | number): Link | undefined {
    const operation = `get link ${nameOrIndex}`;
    const query = typeof nameOrIndex === 'number' ? { index: nameOrIndex } : { name: nameOrIndex };
    let found: Link | undefined;
    try {
      if (query.name !== undefined) checkLinkName(operation, query.name);
      else if (query.index === 0) return undefined;
      this.request(
        operation,
        RTM.GETLINK,
        0,
        (message) => encodeLinkQuery(message, query),
        (buffer, start, end) => {
          found = decodeLink(buffer, start, end);
        },
      );
    } catch (error) {
      if (!isAbsent(error) && !isBadName(error)) throw error;
    }
    return found;
  }

  /**
   * Makes a pair of devices, the peer at once in its namespace with its final name. If a later step fails
   * (alias, IPv6), the pair is removed again. EEXIST: one of the names or indexes is taken.
   */
  createVeth(veth: NewVeth): VethPair {
    const creation = this.#vethCreation(veth);
    return this.#vethMade(veth, () => this.#carryOut(creation));
  }

  /**
   * The same on another thread of the process. Nothing else may be asked for on this socket until the result is there.
   */
  createVethLater(veth: NewVeth): LaterVeth {
    const creation = this.#vethCreation(veth);
    const answers = this.later(creation.ask);
    return {
      settled: answers.settled,
      result: () => {
        const errors = answers.errors();
        return errors && this.#vethMade(veth, () => creation.complete(errors));
      },
    };
  }

  #vethCreation(veth: NewVeth): Creation {
    const { peer, queues } = veth;
    const { name, mac, mtu, netns } = peer;
    return this.#creation(vethOperation(veth), veth, {
      kind: 'veth',
      peer: { name, mac, mtu, queues, netnsFd: netns.fd, index: peer.ifindex },
    });
  }

  #vethMade(veth: NewVeth, create: () => Created): VethPair {
    const operation = vethOperation(veth);
    const { peer } = veth;
    const { netns } = peer;
    let made: Created;
    try {
      made = create();
    } catch (error) {
      throw this.#withTaken(error, operation, veth);
    }
    const { ifindex, linkIndex: peerIfindex } = made;
    return this.#orDelete(operation, ifindex, () => {
      if (peerIfindex === undefined) throw new NetlinkError(operation, EINVAL, 'the peer is gone');
      if (peer.up === true || peer.noIpv6LinkLocal === true) {
        const inside = new LinkRequests(netns);
        try {
          inside.setLink(peerIfindex, { up: peer.up, noIpv6LinkLocal: peer.noIpv6LinkLocal });
        } finally {
          inside.close();
        }
      }
      return { ifindex, peerIfindex };
    });
  }

  /** Says which of the two ends is in the way: the kernel's EEXIST does not. */
  #withTaken(error: unknown, operation: string, { name, ifindex, peer }: NewVeth): unknown {
    if (!(error instanceof NetlinkError) || !TAKEN.has(error.code)) return error;
    let detail = `there is a device ${peer.name} in ${peer.netns.path} already`;
    if (this.link(name) !== undefined) detail = `there is a device ${name} already`;
    else if (ifindex !== undefined) {
      const other = this.link(ifindex)?.name;
      if (other !== undefined) detail = `index ${ifindex} is that of device ${other} already`;
    }
    return new NetlinkError(operation, error.errno, detail);
  }

  /** Makes a bridge. EEXIST: the name is taken. */
  createBridge(bridge: NewLink): { readonly ifindex: number } {
    const { ifindex } = this.#create(`create bridge ${bridge.name}`, bridge, { kind: 'bridge' });
    return { ifindex };
  }

  /** Makes a macvlan device, at once in its namespace. ENODEV: no such parent. EEXIST: the name is taken. */
  createMacvlan(macvlan: NewMacvlan): { readonly ifindex: number } {
    const { netns, parent, mode } = macvlan;
    const where = netns === undefined ? '' : ` in ${netns.path}`;
    const operation = `create macvlan ${macvlan.name} on link ${parent}${where}`;
    const kind: LinkKind = { kind: 'macvlan', parent, mode };
    if (netns === undefined) return { ifindex: this.#create(operation, macvlan, kind).ifindex };
    // The question for the index and the later steps go to the namespace where the device is.
    const inside = new LinkRequests(netns);
    try {
      const { ifindex } = this.#create(operation, macvlan, kind, { fd: netns.fd, requests: inside });
      return { ifindex };
    } finally {
      inside.close();
    }
  }

  /** Makes a VXLAN device whose tunnels are chosen packet by packet. EEXIST: name or port is taken. EADDRINUSE: the port is. */
  createVxlan(vxlan: NewVxlan): { readonly ifindex: number } {
    const { port, lower } = vxlan;
    const { ifindex } = this.#create(`create vxlan ${vxlan.name}`, vxlan, { kind: 'vxlan', port, lower });
    return { ifindex };
  }

  /** Makes a VRF (RFC 4364's name for it; Linux: net/vrf). EEXIST: the name is taken. EOPNOTSUPP: the kernel has none. */
  createVrf(vrf: NewVrf): { readonly ifindex: number } {
    const { ifindex } = this.#create(`create vrf ${vrf.name}`, vrf, { kind: 'vrf', table: vrf.table });
    return { ifindex };
  }

  /** Makes a WireGuard device without a key. EEXIST: the name is taken. EOPNOTSUPP: the kernel has none. */
  createWireguard(link: NewLink): { readonly ifindex: number } {
    const { ifindex } = this.#create(`create wireguard ${link.name}`, link, { kind: 'wireguard' });
    return { ifindex };
  }

  /** Makes a device here or in another namespace. */
  #create(
    operation: string,
    link: NewLink,
    kind: LinkKind,
    elsewhere?: { readonly fd: number; readonly requests: LinkRequests },
  ): Created {
    return this.#carryOut(this.#creation(operation, link, kind, elsewhere));
  }

  #carryOut({ ask, complete }: Creation): Created {
    const errors: NetlinkError[] = [];
    this.together(ask, (error) => errors.push(error));
    return complete(errors);
  }

  /** The requests that make a device, and what is to be done when they have been carried out. */
  #creation(
    operation: string,
    link: NewLink & { readonly queues?: number | undefined; readonly keepGroup?: boolean | undefined },
    kind: LinkKind,
    elsewhere?: { readonly fd: number; readonly requests: LinkRequests },
  ): Creation {
    // The kernel takes alias and address mode only in a second message, and the mode only while the
    // device is down. Who is killed between two system calls would leave a device that nobody can
    // recognise by its alias, so both messages go out together. If the name or the index turned out
    // to be taken, a message for either would change somebody else's device: the second one is for
    // the devices of a group that has no other member.
    const { alias } = link;
    const quiet = link.noIpv6LinkLocal === true;
    const group = alias === undefined || elsewhere !== undefined ? undefined : unusedGroup();
    const create = (message: MessageBuilder): void => {
      encodeLinkHeader(message, { index: link.ifindex, up: quiet ? undefined : link.up });
      const { name, mac, mtu, queues } = link;
      encodeLinkAttributes(operation, message, { name, mac, mtu, queues, group, netnsFd: elsewhere?.fd });
      encodeLinkKind(operation, message, kind);
    };
    const requests = elsewhere?.requests ?? this;
    let made: { readonly index: number; readonly linkIndex?: number | undefined } | undefined;
    const ask = (): void => {
      this.change(operation, RTM.NEWLINK, NLM_F.CREATE | NLM_F.EXCL, create);
      if (group !== undefined)
        this.change(`${operation}: set its alias`, RTM.NEWLINK, 0, (message) => {
          encodeLinkHeader(message, {});
          encodeLinkAttributes(operation, message, { group, alias, noIpv6LinkLocal: quiet || undefined });
        });
      if (elsewhere !== undefined) return;
      this.change(
        `${operation}: get its index`,
        RTM.GETLINK,
        0,
        (message) => encodeLinkQuery(message, { name: link.name }),
        (buffer, start, end) => {
          made = decodeLinkIndexes(buffer, start, end);
        },
      );
    };
    const complete = ([failure]: readonly NetlinkError[]): Created => {
      if (failure?.operation === operation) throw failure;
      if (elsewhere !== undefined) made = requests.link(link.name);
      if (made === undefined) throw failure ?? new NetlinkError(operation, EINVAL, 'the device is gone');
      const { index: ifindex, linkIndex } = made;
      if (alias === undefined && !quiet) return { ifindex, linkIndex };
      return requests.#orDelete(operation, ifindex, () => {
        if (failure !== undefined) throw failure;
        const up = quiet ? link.up : undefined;
        if (group === undefined || link.keepGroup !== true || up !== undefined)
          requests.together(() => {
            if (group !== undefined) requests.setLink(ifindex, { group: 0, up });
            else {
              requests.setLink(ifindex, { alias, noIpv6LinkLocal: quiet || undefined });
              if (up !== undefined) requests.setLink(ifindex, { up });
            }
          });
        return { ifindex, linkIndex };
      });
    };
    return { ask, complete };
  }

  /** Runs what completes a new device; if that fails, removes the device. */
  #orDelete<T>(operation: string, ifindex: number, complete: () => T): T {
    try {
      return complete();
    } catch (error) {
      try {
        this.together(() => this.deleteLink(ifindex));
      } catch {
        // The first error says more.
      }
      throw NetlinkError.from(operation, error);
    }
  }

  /** Changes a device. ENODEV: there is none. */
  setLink(ifindex: number, change: LinkChange): void {
    const names = Object.entries(change).flatMap(([name, value]) => (value === undefined ? [] : [name]));
    const operation = `set ${names.join(', ')} of link ${ifindex}`;
    const { up, noArp, netns, ...attributes } = change;
    // The kernel brings a device up before it looks at the address mode: two messages.
    const apart = up === true && change.noIpv6LinkLocal === true;
    if (apart && netns !== undefined) {
      throw new NetlinkError(operation, EINVAL, 'noIpv6LinkLocal and up can be set only after the move');
    }
    this.batch(() => {
      this.change(operation, RTM.SETLINK, 0, (message) => {
        encodeLinkHeader(message, { index: ifindex, up: apart ? undefined : up, noArp });
        encodeLinkAttributes(operation, message, { ...attributes, netnsFd: netns?.fd });
      });
      if (apart) {
        this.change(operation, RTM.SETLINK, 0, (message) =>
          encodeLinkHeader(message, { index: ifindex, up }),
        );
      }
    });
  }

  /** Removes a device. ENODEV: there is none. */
  deleteLink(ifindex: number): void {
    this.change(`delete link ${ifindex}`, RTM.DELLINK, 0, (message) => {
      encodeLinkHeader(message, { index: ifindex });
    });
  }

  /**
   * Removes many devices, which is much faster together: the kernel waits for its grace periods
   * once for each part of 256. Those that don't exist are passed over. Returns the number of those that did.
   */
  deleteLinks(ifindexes: readonly number[]): number {
    const wanted = new Set(ifindexes);
    const links = this.links();
    const present = links.filter((link) => wanted.has(link.index)).map((link) => link.index);
    const groups = new Set(links.map((link) => link.group));
    for (let at = 0; at < present.length; at += DELETE_CHUNK) {
      let group: number;
      do group = unusedGroup();
      while (groups.has(group));
      this.#deleteTogether(present.slice(at, at + DELETE_CHUNK), group);
    }
    return present.length;
  }

  /** Gives the devices a group of their own and removes the group, the one way to remove several at once. */
  #deleteTogether(ifindexes: readonly number[], group: number): void {
    const passAbsent = (error: NetlinkError): void => {
      if (!isAbsent(error)) throw error;
    };
    this.together(() => {
      for (const ifindex of ifindexes) this.setLink(ifindex, { group });
    }, passAbsent);
    const operation = `delete ${ifindexes.length} links`;
    this.together(() => {
      this.change(operation, RTM.DELLINK, 0, (message) => {
        encodeLinkHeader(message, {});
        message.attribute32(IFLA.GROUP, group);
      });
    }, passAbsent);
  }
}

function vethOperation({ name, peer }: NewVeth): string {
  return `create veth ${name} with peer ${peer.name} in ${peer.netns.path}`;
}

function isBadName(error: unknown): boolean {
  return error instanceof NetlinkError && (error.code === 'ENAMETOOLONG' || error.code === 'EINVAL');
}
