/**
 * The CIDRs that policies use, as a tree: the parent of a prefix is the longest other one around it.
 * All CIDRs that contain an address lie on the path from the longest of them to the root, so that one
 * node says which CIDRs an address is in.
 */
import {
  type AddressBytes,
  type Cidr,
  cidrContains,
  cidrContainsCidr,
  type Family,
  formatCidr,
  maskAddress,
  parseCidr,
} from '../address.js';
import type { Journal } from './journal.js';

/** `N` carries what the compiler keeps for a prefix. The root stands for "in no CIDR", of either family. */
export interface CidrNode<N> {
  readonly text: string;
  /** Undefined: the root. */
  readonly cidr: Cidr | undefined;
  parent: CidrNode<N> | undefined;
  readonly children: Set<CidrNode<N>>;
  readonly data: N;
}

/** Eight characters of two bytes each: made for every address that is looked up. */
function addressKey(bytes: AddressBytes): string {
  const pair = (at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  return String.fromCharCode(pair(0), pair(2), pair(4), pair(6), pair(8), pair(10), pair(12), pair(14));
}

export class CidrTree<N> {
  readonly root: CidrNode<N>;
  readonly #data: (text: string) => N;
  readonly #byText = new Map<string, CidrNode<N>>();
  /** Per family, prefix length -> masked address -> node. */
  readonly #lengths = {
    4: new Map<number, Map<string, CidrNode<N>>>(),
    6: new Map<number, Map<string, CidrNode<N>>>(),
  };
  /** Prefix lengths in use, longest first; rebuilt when a length comes or goes. */
  readonly #order: Record<4 | 6, readonly number[]> = { 4: [], 6: [] };

  constructor(data: (text: string) => N) {
    this.#data = data;
    this.root = { text: '', cidr: undefined, parent: undefined, children: new Set(), data: data('') };
  }

  get(text: string): CidrNode<N> | undefined {
    return this.#byText.get(text);
  }

  nodes(): Iterable<CidrNode<N>> {
    return this.#byText.values();
  }

  /** The longest prefix that contains the address; the root if none does. */
  find(address: AddressBytes, family: 4 | 6): CidrNode<N> {
    return this.#longest(address, family, 128);
  }

  #longest(address: AddressBytes, family: 4 | 6, atMost: number): CidrNode<N> {
    for (const length of this.#order[family]) {
      if (length > atMost) continue;
      const node = this.#lengths[family].get(length)?.get(addressKey(maskAddress(address, length)));
      if (node !== undefined) return node;
    }
    return this.root;
  }

  /** Adds a prefix that is not there yet and makes it the parent of those inside it. */
  add(text: string, journal: Journal): CidrNode<N> {
    const cidr = parseCidr(text);
    const { family, prefixLength, address } = cidr;
    const parent = this.#longest(address, family, prefixLength - 1);
    const node: CidrNode<N> = {
      text: formatCidr(cidr),
      cidr,
      parent,
      children: new Set(),
      data: this.#data(text),
    };
    for (const child of [...parent.children]) {
      if (child.cidr === undefined || !cidrContainsCidr(cidr, child.cidr)) continue;
      journal.remove(parent.children, child);
      journal.add(node.children, child);
      journal.assign(child, 'parent', node);
    }
    journal.add(parent.children, node);
    journal.put(this.#byText, node.text, node);
    const lengths = this.#lengths[family];
    const nodes = lengths.get(prefixLength);
    if (nodes === undefined) {
      journal.put(lengths, prefixLength, new Map([[addressKey(address), node]]));
      this.#reorder(family, journal);
    } else {
      journal.put(nodes, addressKey(address), node);
    }
    return node;
  }

  /** Removes a prefix; its children go to its parent. */
  remove(node: CidrNode<N>, journal: Journal): void {
    const { cidr, parent } = node;
    if (cidr === undefined || parent === undefined) return;
    for (const child of [...node.children]) {
      journal.remove(node.children, child);
      journal.add(parent.children, child);
      journal.assign(child, 'parent', parent);
    }
    journal.remove(parent.children, node);
    journal.drop(this.#byText, node.text);
    const lengths = this.#lengths[cidr.family];
    const nodes = lengths.get(cidr.prefixLength);
    if (nodes === undefined) return;
    journal.drop(nodes, addressKey(cidr.address));
    if (nodes.size > 0) return;
    journal.drop(lengths, cidr.prefixLength);
    this.#reorder(cidr.family, journal);
  }

  #reorder(family: 4 | 6, journal: Journal): void {
    journal.assign(
      this.#order,
      family,
      [...this.#lengths[family].keys()].sort((a, b) => b - a),
    );
  }
}

/** Whether a prefix is the node's own or one around it. */
export function isWithin<N>(node: CidrNode<N>, ancestor: CidrNode<N>): boolean {
  for (let at: CidrNode<N> | undefined = node; at !== undefined; at = at.parent)
    if (at === ancestor) return true;
  return false;
}

export function nodeContains<N>(node: CidrNode<N>, address: AddressBytes, family: Family): boolean {
  return node.cidr === undefined || cidrContains(node.cidr, address, family);
}
