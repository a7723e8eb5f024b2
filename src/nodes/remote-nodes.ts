import { parseAddress } from '../../policy/address.js';
import type { NodeResource, PodResource } from '../../policy/model/resources.js';
import type { AddressTable, Remote } from '../dataplane/address-table.js';
import type { CidrTable } from '../dataplane/cidr-table.js';
import type { Encryption } from '../dataplane/encryption.js';
import { NO_ADDRESS } from '../dataplane/endpoints.js';
import type { NodeRoutes } from '../dataplane/node-routes.js';
import { fits } from '../dataplane/policy-maps.js';
import type { Rollback } from '../dataplane/rollback.js';
import { keyOf, type ResourceKey } from '../state/keys.js';
import type { Edit, ObjectSet } from '../state/objects.js';
import { innerAddressText } from './inner-address.js';

/** A change of other nodes and their pods that is in force; what it made unnecessary is still there. */
export interface PendingNodes {
  /** Open flows may have to go elsewhere. */
  readonly mustReevaluate: boolean;
  commit(): void;
}

/** Where packets for a node's pods and for the node itself go; 16 bytes each, zero: as the routes of the host say. */
export interface Reach {
  /** For pods with an address of the family. */
  readonly pods: (family: 4 | 6) => Uint8Array;
  /** For the node's own addresses. */
  readonly node: Uint8Array;
}

export const UNKNOWN: Reach = { pods: () => NO_ADDRESS, node: NO_ADDRESS };

interface Parts {
  /** Name of this node. */
  readonly name: string;
  readonly objects: ObjectSet;
  readonly addresses: AddressTable;
  readonly cidrs: CidrTable;
  readonly routes: Pick<NodeRoutes, 'set' | 'delete' | 'again'>;
  /** Ranges of the cluster: what no node has inside them is nobody's. */
  readonly ranges: readonly string[];
  /** How a node is reached; `own` is this node's object, if there is one. */
  readonly reach: (node: NodeResource, own: NodeResource | undefined) => Reach;
  /** Present: what is sent to other nodes is encrypted; `endpoint`: where that goes. */
  readonly encryption?: {
    readonly peers: Pick<Encryption, 'set' | 'delete'>;
    readonly endpoint: (node: NodeResource, own: NodeResource | undefined) => string | undefined;
  };
}

/**
 * Nodes and pods elsewhere: their addresses and ranges in the address maps, with the node that each is on. Identities
 * come from the policy compiler; an address is written when both are known.
 */
export class RemoteNodes {
  readonly #parts: Parts;
  /** Object that an address or a range is of; of two that claim it the later one. */
  readonly #owners = new Map<string, ResourceKey>();
  /** Equal values are one object: there are many addresses and few nodes. */
  readonly #shared = new Map<string, Remote>();

  constructor(parts: Parts) {
    this.#parts = parts;
    for (const cidr of parts.ranges) parts.cidrs.setRemote(cidr, { node: NO_ADDRESS });
  }

  /** Whether a pod runs on another node, with addresses of its own. */
  isElsewhere(pod: PodResource): boolean {
    return !pod.hostNetwork && pod.ended !== true && pod.nodeName !== this.#parts.name;
  }

  /** Writes what a change brings; its edits are staged. Throws SLU3301 when it does not fit, and the kernel's error. */
  prepare(edits: readonly Edit[], undo: Rollback): PendingNodes {
    const change = new Change();
    for (const { before, after } of edits) {
      for (const node of [before, after]) {
        if (node?.kind !== 'Node') continue;
        change.mustReevaluate = true;
        if (node.name === this.#parts.name) change.everyNode = true;
        else change.nodes.add(node.name);
      }
      if (before?.kind === 'Pod') this.#leaves(keyOf(before), addressesOf(before), change);
      if (before?.kind === 'Node') {
        const texts = [...before.addresses, ...before.podCidrs, ...this.#innerAddresses(before)];
        this.#leaves(keyOf(before), texts, change);
        if (after === undefined) change.goneNodes.add(before.name);
      }
      if ((after ?? before)?.kind === 'Network') change.everyNode = true;
    }
    const replaced = change.everyNode || change.nodes.size > 0;
    // Pods of nodes that changed are looked at with their nodes.
    for (const { after } of edits)
      if (after?.kind === 'Pod' && !(replaced && change.concerns(after.nodeName))) this.#pod(after, change);
    if (replaced) this.#replaceNodes(change);
    const { addresses, cidrs, routes, ranges, encryption } = this.#parts;
    let fresh = 0;
    for (const address of change.addresses.keys()) if (addresses.remoteOf(address) === undefined) fresh++;
    fits('addrs', addresses.size + fresh, addresses.capacity);
    fits('cidrs', cidrs.size + change.ranges.size, cidrs.capacity);
    // A node is a peer before anything is sent to it.
    if (encryption !== undefined) for (const node of change.peers) undo.push(this.#setPeer(encryption, node));
    for (const [cidr, { node, name, key }] of change.ranges) {
      undo.push(cidrs.setRemote(cidr, { node }));
      undo.push(routes.set(cidr, name, node));
      this.#own(cidr, key, undo);
    }
    for (const [address, { remote, key }] of change.addresses) {
      const before = addresses.remoteOf(address);
      if (before !== undefined && before !== remote) change.mustReevaluate = true;
      if (before !== remote) undo.push(addresses.setRemote(address, remote));
      this.#own(address, key, undo);
    }
    const gone = [...change.gone].filter(
      ([text, key]) =>
        this.#owners.get(text) === key && !change.addresses.has(text) && !change.ranges.has(text),
    );
    return {
      mustReevaluate: change.mustReevaluate,
      commit: () => {
        if (change.everyNode) routes.again(); // from another source
        for (const name of change.goneNodes) encryption?.peers.delete(name);
        for (const [text] of gone) {
          this.#owners.delete(text);
          if (!text.includes('/')) {
            addresses.deleteRemote(text);
            continue;
          }
          routes.delete(text);
          if (ranges.includes(text)) cidrs.setRemote(text, { node: NO_ADDRESS });
          else cidrs.deleteRemote(text);
        }
      },
    };
  }

  /** The address that a node has inside the encryption. */
  #innerAddresses({ name, publicKey }: NodeResource): readonly string[] {
    return this.#parts.encryption === undefined || publicKey === undefined ? [] : [innerAddressText(name)];
  }

  #setPeer({ peers, endpoint }: NonNullable<Parts['encryption']>, node: NodeResource): () => void {
    const own = this.#parts.objects.get(`Node ${this.#parts.name}`);
    const address = endpoint(node, own?.kind === 'Node' ? own : undefined);
    return peers.set(node.name, {
      ...(node.publicKey === undefined ? {} : { publicKey: node.publicKey }),
      ...(address === undefined ? {} : { address }),
    });
  }

  #own(text: string, key: ResourceKey, undo: Rollback): void {
    const before = this.#owners.get(text);
    if (before === key) return;
    this.#owners.set(text, key);
    undo.push(() => {
      if (before === undefined) this.#owners.delete(text);
      else this.#owners.set(text, before);
    });
  }

  #leaves(key: ResourceKey, texts: readonly string[], change: Change): void {
    for (const text of texts) change.gone.set(text, key);
  }

  /** Writes nodes that changed and the pods on them; every one if this node or a network did. */
  #replaceNodes(change: Change): void {
    const { objects, name } = this.#parts;
    for (const node of objects.ofKind('Node')) {
      if (node.name === name || !change.concerns(node.name)) continue;
      const key = keyOf(node);
      const reach = this.#reachOf(node.name, change);
      change.peers.push(node);
      for (const address of [...node.addresses, ...this.#innerAddresses(node)])
        change.addresses.set(address, { remote: this.#remote(address, reach.node, true), key });
      for (const cidr of node.podCidrs)
        change.ranges.set(cidr, { node: reach.pods(cidr.includes(':') ? 6 : 4), name: node.name, key });
    }
    for (const pod of objects.ofKind('Pod')) if (change.concerns(pod.nodeName)) this.#pod(pod, change);
  }

  #pod(pod: PodResource, change: Change): void {
    if (!this.isElsewhere(pod)) return;
    const reach = pod.nodeName === undefined ? UNKNOWN : this.#reachOf(pod.nodeName, change);
    const key = keyOf(pod);
    for (const address of addressesOf(pod)) {
      const node = reach.pods(address.includes(':') ? 6 : 4);
      change.addresses.set(address, { remote: this.#remote(address, node, false), key });
    }
  }

  #reachOf(name: string, change: Change): Reach {
    const known = change.reach.get(name);
    if (known !== undefined) return known;
    const found = this.#findReach(name);
    change.reach.set(name, found);
    return found;
  }

  #findReach(name: string): Reach {
    const { objects, reach } = this.#parts;
    const node = objects.get(`Node ${name}`);
    const own = objects.get(`Node ${this.#parts.name}`);
    if (node?.kind !== 'Node') return UNKNOWN;
    return reach(node, own?.kind === 'Node' ? own : undefined);
  }

  #remote(address: string, node: Uint8Array, isNode: boolean): Remote {
    const network = isNode ? 0 : this.#parts.cidrs.networkAround(parseAddress(address));
    const key = `${Buffer.from(node).toString('latin1')} ${network} ${isNode}`;
    const shared = this.#shared.get(key) ?? { node, network, isNode };
    this.#shared.set(key, shared);
    return shared;
  }
}

class Change {
  mustReevaluate = false;
  everyNode = false;
  readonly nodes = new Set<string>();
  /** Asked for once for all pods of a node. */
  readonly reach = new Map<string, Reach>();
  readonly goneNodes = new Set<string>();
  readonly peers: NodeResource[] = [];
  readonly addresses = new Map<string, { readonly remote: Remote; readonly key: ResourceKey }>();
  readonly ranges = new Map<
    string,
    { readonly node: Uint8Array; readonly name: string; readonly key: ResourceKey }
  >();
  readonly gone = new Map<string, ResourceKey>();

  /** Whether the node, and with it the way to its pods, is to be looked at again. */
  concerns(node: string | undefined): boolean {
    return node !== undefined && (this.everyNode || this.nodes.has(node));
  }
}

function addressesOf({ ipv4, ipv6 }: PodResource): string[] {
  return [ipv4, ipv6].filter((address) => address !== undefined);
}
