import { cidrContains, parseCidr, tryParseAddress } from '../../policy/address.js';

/** A network whose containers ask us. */
export interface NamedNetwork {
  readonly name: string;
  readonly ipv4?: { readonly cidr: string; readonly gateway: string };
  readonly ipv6?: { readonly cidr: string; readonly gateway: string };
}

/** Something that has names: a container (or a service) with its addresses by network. */
export interface NamedObject {
  /** Unique among all. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  /** Its network namespace. Objects of one namespace (attachments by CNI) see the networks of all of them. */
  readonly netns?: string;
  readonly places: readonly NamedPlace[];
}

export interface NamedPlace {
  readonly network: string;
  readonly ipv4?: string;
  readonly ipv6?: string;
  /** Names beside the object's own. */
  readonly aliases?: readonly string[];
}

/** What changed: an absent value is one that is gone. */
export interface NameChange {
  readonly networks: readonly (readonly [name: string, network: NamedNetwork | undefined])[];
  readonly objects: readonly (readonly [key: string, object: NamedObject | undefined])[];
}

/** Addresses of a name that is known here; none of a family means that it has none. */
export interface Found {
  readonly ipv4: readonly string[];
  readonly ipv6: readonly string[];
}

interface Entry {
  readonly object: NamedObject;
  readonly place: NamedPlace;
}

/**
 * The names that containers see: those of their own networks. Plain data, no I/O. Names are compared
 * without case (RFC 4343); `web`, `web.NETWORK` and `web.NAMESPACE` are the same container.
 */
export class NameTable {
  readonly #networks = new Map<string, NamedNetwork>();
  readonly #objects = new Map<string, NamedObject>();
  /** network -> name -> who has it there. */
  readonly #byName = new Map<string, Map<string, Set<Entry>>>();
  readonly #byAddress = new Map<string, Entry>();
  #entries = new Map<string, readonly Entry[]>();
  readonly #byNetns = new Map<string, Set<NamedObject>>();

  update({ networks, objects }: NameChange): void {
    for (const [name, network] of networks) {
      if (network === undefined) this.#networks.delete(name);
      else this.#networks.set(name, network);
    }
    for (const [key, object] of objects) {
      this.#remove(key);
      if (object !== undefined) this.#add(object);
    }
  }

  networks(): readonly NamedNetwork[] {
    return [...this.#networks.values()];
  }

  get size(): number {
    return this.#objects.size;
  }

  /**
   * The addresses of `name` (lower case, no final dot) for a client that asked at the gateway of `network`;
   * undefined if no container that the client may know has that name.
   */
  lookup(network: string, client: string, name: string): Found | undefined {
    const asking = this.#byAddress.get(client)?.object;
    for (const scope of this.#scopes(network, asking)) {
      const names = this.#byName.get(scope);
      if (names === undefined) continue;
      const entries = findIn(names, scope, name);
      if (entries === undefined) continue;
      const near = entries.filter(({ object }) => object.namespace === asking?.namespace);
      const chosen = near.length > 0 ? near : entries;
      return {
        ipv4: chosen.flatMap(({ place }) => (place.ipv4 === undefined ? [] : [place.ipv4])),
        ipv6: chosen.flatMap(({ place }) => (place.ipv6 === undefined ? [] : [place.ipv6])),
      };
    }
    return undefined;
  }

  /**
   * Name of an address (canonical text), for PTR: `undefined` if it is none of ours, `null` if it is but has no
   * name that this client may know.
   */
  nameOf(network: string, client: string, address: string): string | null | undefined {
    const entry = this.#byAddress.get(address);
    if (entry !== undefined) {
      const scopes = this.#scopes(network, this.#byAddress.get(client)?.object);
      return scopes.includes(entry.place.network) ? `${entry.object.name}.${entry.place.network}` : null;
    }
    const bytes = tryParseAddress(address);
    if (bytes === undefined) return undefined;
    for (const { ipv4, ipv6 } of this.#networks.values()) {
      const range = address.includes(':') ? ipv6 : ipv4;
      if (range !== undefined && cidrContains(parseCidr(range.cidr), bytes)) return null;
    }
    return undefined;
  }

  /** Networks whose names a client sees, that of the gateway it asked first. */
  #scopes(network: string, asking: NamedObject | undefined): string[] {
    const others = asking === undefined ? [] : this.#networksOf(asking);
    // Who asks through the gateway of a network that it is not in sees only its own networks.
    if (asking !== undefined && !others.includes(network)) return others;
    return [network, ...others.filter((other) => other !== network)];
  }

  #networksOf(object: NamedObject): string[] {
    const all = object.netns === undefined ? undefined : this.#byNetns.get(object.netns);
    return [...(all ?? [object])].flatMap(({ places }) => places.map((place) => place.network));
  }

  #add(object: NamedObject): void {
    if (object.netns !== undefined)
      this.#byNetns.set(object.netns, (this.#byNetns.get(object.netns) ?? new Set()).add(object));
    const entries = object.places.map((place): Entry => ({ object, place }));
    for (const entry of entries) {
      for (const name of namesOf(entry)) {
        const names = this.#byName.get(entry.place.network) ?? new Map<string, Set<Entry>>();
        this.#byName.set(entry.place.network, names);
        names.set(name, (names.get(name) ?? new Set()).add(entry));
      }
      for (const address of [entry.place.ipv4, entry.place.ipv6])
        if (address !== undefined) this.#byAddress.set(address, entry);
    }
    this.#objects.set(object.key, object);
    this.#entries.set(object.key, entries);
  }

  #remove(key: string): void {
    for (const entry of this.#entries.get(key) ?? []) {
      const names = this.#byName.get(entry.place.network);
      for (const name of namesOf(entry)) {
        const entries = names?.get(name);
        entries?.delete(entry);
        if (entries?.size === 0) names?.delete(name);
      }
      if (names?.size === 0) this.#byName.delete(entry.place.network);
      for (const address of [entry.place.ipv4, entry.place.ipv6])
        if (address !== undefined && this.#byAddress.get(address) === entry) this.#byAddress.delete(address);
    }
    const object = this.#objects.get(key);
    const together = this.#byNetns.get(object?.netns ?? '');
    if (object !== undefined) together?.delete(object);
    if (together?.size === 0) this.#byNetns.delete(object?.netns ?? '');
    this.#objects.delete(key);
    this.#entries.delete(key);
  }
}

function namesOf({ object, place }: Entry): Set<string> {
  return new Set([object.name, ...(place.aliases ?? [])].map((name) => name.toLowerCase()));
}

/** `name`, `name.network` or `name.namespace` (which may be both). */
function findIn(
  names: ReadonlyMap<string, ReadonlySet<Entry>>,
  network: string,
  name: string,
): Entry[] | undefined {
  const exact = names.get(name);
  if (exact !== undefined) return [...exact];
  const dot = name.lastIndexOf('.');
  if (dot <= 0) return undefined;
  const entries = names.get(name.slice(0, dot));
  if (entries === undefined) return undefined;
  const last = name.slice(dot + 1);
  if (last === network) return [...entries];
  const inNamespace = [...entries].filter(({ object }) => object.namespace === last);
  return inNamespace.length > 0 ? inNamespace : undefined;
}
