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

/** Cluster addresses of a Service that has any: all containers know it, as in a cluster. There may be very many. */
export type NamedService = readonly string[];

/** What changed: an absent value is one that is gone. */
export interface NameChange {
  readonly networks: readonly (readonly [name: string, network: NamedNetwork | undefined])[];
  readonly objects: readonly (readonly [key: string, object: NamedObject | undefined])[];
  /** By `namespace/name`. */
  readonly services?: readonly (readonly [key: string, service: NamedService | undefined])[];
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

const DEFAULT_NAMESPACE = 'default';
/** Nobody else may have this name, and no other server is asked for it (RFC 6761, 6.3). */
const LOCALHOST = 'localhost';
const LOOPBACK: Found = { ipv4: ['127.0.0.1'], ipv6: ['::1'] };
/** What may follow `service.namespace`: the names of Kubernetes (github.com/kubernetes/dns, specification.md). */
const SERVICE_SUFFIX = '.svc';
const CLUSTER_SUFFIX = '.svc.cluster.local';

/**
 * The names that containers see: those of their own networks, and those of services. Plain data, no I/O. Names are
 * compared without case (RFC 4343); `web`, `web.NETWORK` and `web.NAMESPACE` are the same container. A service is `api`
 * in its own namespace, and `api.NAMESPACE` (`.svc`, `.svc.cluster.local`) everywhere; a container goes first.
 */
export class NameTable {
  readonly #networks = new Map<string, NamedNetwork>();
  readonly #objects = new Map<string, NamedObject>();
  /** network -> name -> who has it there. */
  readonly #byName = new Map<string, Map<string, Set<Entry>>>();
  readonly #byAddress = new Map<string, Entry>();
  #entries = new Map<string, readonly Entry[]>();
  readonly #byNetns = new Map<string, Set<NamedObject>>();
  readonly #services = new Map<string, NamedService>();
  /** Keys of services by their addresses. */
  readonly #serviceOf = new Map<string, string>();

  update({ networks, objects, services = [] }: NameChange): void {
    for (const [key, service] of services) this.#setService(key, service);
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
   * undefined if no container that the client may know, and no service, has that name.
   */
  lookup(network: string, client: string, name: string): Found | undefined {
    if (name === LOCALHOST || name.endsWith(`.${LOCALHOST}`)) return LOOPBACK;
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
    return this.#service(asking?.namespace ?? DEFAULT_NAMESPACE, name);
  }

  /**
   * Name of an address (canonical text), for PTR: `undefined` if it is none of ours, `null` if it is but has no
   * name that this client may know.
   */
  nameOf(network: string, client: string, address: string): string | null | undefined {
    const entry = this.#byAddress.get(address);
    if (entry !== undefined) {
      const scopes = this.#scopes(network, this.#byAddress.get(client)?.object);
      const { name } = entry.object;
      const { network: own } = entry.place;
      return scopes.includes(own) ? ([`${name}.${own}`, name].find(isDomainName) ?? null) : null;
    }
    const service = this.#serviceOf.get(address);
    if (service !== undefined) return `${service.split('/').reverse().join('.')}${CLUSTER_SUFFIX}`;
    const bytes = tryParseAddress(address);
    if (bytes === undefined) return undefined;
    for (const { ipv4, ipv6 } of this.#networks.values()) {
      const range = address.includes(':') ? ipv6 : ipv4;
      if (range !== undefined && cidrContains(parseCidr(range.cidr), bytes)) return null;
    }
    return undefined;
  }

  /** `name` in the namespace of who asks, or `name.namespace` with what may follow. */
  #service(namespace: string, name: string): Found | undefined {
    const end = [CLUSTER_SUFFIX, SERVICE_SUFFIX].find((suffix) => name.endsWith(suffix)) ?? '';
    const [first = '', second, ...more] = name.slice(0, name.length - end.length).split('.');
    if (more.length > 0 || (second === undefined && end !== '')) return undefined;
    const found = this.#services.get(`${second ?? namespace}/${first}`);
    if (found === undefined) return undefined;
    const ofFamily = (v6: boolean): string[] => found.filter((address) => address.includes(':') === v6);
    return { ipv4: ofFamily(false), ipv6: ofFamily(true) };
  }

  #setService(key: string, service: NamedService | undefined): void {
    const before = this.#services.get(key);
    for (const address of before ?? [])
      if (this.#serviceOf.get(address) === key) this.#serviceOf.delete(address);
    if (service === undefined) {
      this.#services.delete(key);
      return;
    }
    this.#services.set(key, service);
    for (const address of service) this.#serviceOf.set(address, key);
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

/** Runtimes' names may be longer than those of DNS (RFC 1035, 2.3.4), and an answer can't have such a name. */
function isDomainName(name: string): boolean {
  return name.length <= 253 && name.split('.').every((label) => label.length > 0 && label.length <= 63);
}

/** `name`, `name.network` or `name.namespace` (which may be both). */
function findIn(
  names: ReadonlyMap<string, ReadonlySet<Entry>>,
  network: string,
  name: string,
): Entry[] | undefined {
  const exact = names.get(name);
  if (exact !== undefined) return [...exact];
  // Names of networks may have dots and capitals: those of CNI are `cni.` and the configuration's own.
  const scope = `.${network.toLowerCase()}`;
  const scoped = name.endsWith(scope) ? names.get(name.slice(0, -scope.length)) : undefined;
  if (scoped !== undefined) return [...scoped];
  const dot = name.lastIndexOf('.');
  const last = name.slice(dot + 1);
  const entries = dot > 0 ? [...(names.get(name.slice(0, dot)) ?? [])] : [];
  const inNamespace = entries.filter(({ object }) => object.namespace.toLowerCase() === last);
  return inNamespace.length > 0 ? inNamespace : undefined;
}
