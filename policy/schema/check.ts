/**
 * Checks that span documents: duplicates, references, addresses and ports that collide. All of them
 * work on the whole set of definitions in force and cost about as much as the set is large.
 */
import { type Cidr, cidrSize, cidrsOverlap, compareAddresses, parseCidr } from '../address.js';
import {
  compareErrors,
  didYouMean,
  type ErrorCode,
  type ErrorParams,
  type ErrorPlace,
  SluiceError,
} from '../errors.js';
import type {
  ContainerNetwork,
  ContainerResource,
  HostPort,
  NamespaceRef,
  NetworkResource,
  Resource,
} from '../model/resources.js';
import { badHostAddress } from './network.js';

/** Name for people: `namespace/name`, or `name` where there is no namespace. */
export function displayName(resource: { readonly name: string; readonly namespace?: string }): string {
  return resource.namespace === undefined ? resource.name : `${resource.namespace}/${resource.name}`;
}

/** Identity of an object: kind, namespace and name. */
export function resourceKey(resource: Resource): string {
  return `${resource.kind}/${displayName(resource)}`;
}

/** Errors of a set of definitions, sorted by file and line; the later one of a pair is reported. */
export function checkResources(resources: readonly Resource[]): SluiceError[] {
  const check = new Check();
  const unique = check.duplicates(resources);
  check.networks(unique.filter((resource) => resource.kind === 'Network'));
  check.containers(unique.filter((resource) => resource.kind === 'Container'));
  return check.errors.sort(compareErrors);
}

interface Ranges {
  readonly network: NetworkResource;
  readonly ranges: { readonly 4?: Cidr; readonly 6?: Cidr };
}

/** Position of a field; if it is not written out, of what it would be part of. */
function position(resource: Resource, field: string): ErrorPlace {
  const { file, line, fields = {} } = resource.origin;
  for (let known = field; known !== ''; known = known.replace(/(^|\.)[^.]*$/, '')) {
    const at = fields[known];
    if (at !== undefined) return { file, line: at, field };
  }
  return { file, line, field };
}

function where(resource: Resource, field = ''): string {
  const place = position(resource, field);
  return `${place.file}:${place.line}`;
}

function netnsKey(ref: NamespaceRef): string {
  if (ref.type === 'pid') return `pid ${ref.pid}`;
  const path = ref.type === 'name' ? `/run/netns/${ref.name}` : ref.path.replace(/^\/var\/run\//, '/run/');
  return path.replace(/\/+/g, '/');
}

class Check {
  readonly errors: SluiceError[] = [];
  readonly #networks = new Map<string, Ranges>();

  #report<C extends ErrorCode>(resource: Resource, field: string, code: C, params: ErrorParams<C>): void {
    this.errors.push(SluiceError.of(code, params, position(resource, field)));
  }

  /** Reports second definitions of one object and returns the first ones. */
  duplicates(resources: readonly Resource[]): Resource[] {
    const first = new Map<string, Resource>();
    for (const resource of resources) {
      const key = resourceKey(resource);
      const other = first.get(key);
      if (other === undefined) {
        first.set(key, resource);
      } else {
        this.#report(resource, 'metadata.name', 'SLU1301', {
          kind: resource.kind,
          name: displayName(resource),
          other: where(other),
        });
      }
    }
    return [...first.values()];
  }

  networks(networks: readonly NetworkResource[]): void {
    const ranges: { cidr: Cidr; network: NetworkResource; field: string }[] = [];
    const parents = new Map<string, NetworkResource>();
    for (const network of networks) {
      const entry: { 4?: Cidr; 6?: Cidr } = {};
      for (const family of [4, 6] as const) {
        const range = network[`ipv${family}`];
        if (range === undefined) continue;
        const cidr = parseCidr(range.cidr);
        entry[family] = cidr;
        ranges.push({ cidr, network, field: `spec.ipv${family}.cidr` });
      }
      this.#networks.set(network.name, { network, ranges: entry });
      if (network.parent === undefined) continue;
      const other = parents.get(network.parent);
      if (other === undefined) parents.set(network.parent, network);
      else {
        const params = { parent: network.parent, other: other.name, where: where(other, 'spec.parent') };
        this.#report(network, 'spec.parent', 'SLU1312', params);
      }
    }
    // Sorted by start, with the wider one first, a range overlaps with an earlier one only if it is inside it.
    const order = new Map(networks.map((network, i) => [network, i]));
    ranges.sort(
      (a, b) => compareAddresses(a.cidr.address, b.cidr.address) || a.cidr.prefixLength - b.cidr.prefixLength,
    );
    const open: typeof ranges = [];
    for (const range of ranges) {
      while (open.length > 0 && !cidrsOverlap(open[open.length - 1]!.cidr, range.cidr)) open.pop();
      const outer = open[open.length - 1];
      if (outer !== undefined) {
        const later = (order.get(outer.network) ?? 0) > (order.get(range.network) ?? 0) ? outer : range;
        const earlier = later === outer ? range : outer;
        this.#report(later.network, later.field, 'SLU1302', {
          cidr: later.network[later.cidr.family === 4 ? 'ipv4' : 'ipv6']?.cidr ?? '',
          otherCidr: earlier.network[earlier.cidr.family === 4 ? 'ipv4' : 'ipv6']?.cidr ?? '',
          other: earlier.network.name,
          where: where(earlier.network, earlier.field),
        });
      }
      open.push(range);
    }
  }

  containers(containers: readonly ContainerResource[]): void {
    const addresses = new Map<string, { container: ContainerResource; field: string }>();
    const macs = new Map<string, { container: ContainerResource; field: string }>();
    const devices = new Map<string, { container: ContainerResource; field: string }>();
    const members = new Map<string, ContainerResource[]>();
    const hostPorts = new Map<string, { container: ContainerResource; field: string; port: HostPort }[]>();

    for (const container of containers) {
      const modes = this.#modes(container);
      const own = { networks: new Set<string>(), devices: new Set<string>() };
      container.networks.forEach((attachment, i) => {
        const field = `spec.networks[${i}]`;
        const entry = this.#networks.get(attachment.network);
        if (entry === undefined) {
          const hint =
            didYouMean(attachment.network, this.#networks.keys()) || ': define it or correct the name';
          this.#report(container, `${field}.name`, 'SLU1303', { network: attachment.network, hint });
        } else if (own.networks.has(attachment.network)) {
          this.#report(container, `${field}.name`, 'SLU1304', { network: attachment.network });
        } else {
          this.#attachment(container, attachment, field, entry, addresses, macs);
          const list = members.get(attachment.network) ?? [];
          list.push(container);
          members.set(attachment.network, list);
        }
        own.networks.add(attachment.network);
        if (modes.none || modes.host) return;
        if (own.devices.has(attachment.device)) {
          this.#report(container, `${field}.device`, 'SLU1305', { device: attachment.device });
        } else if (container.netns !== undefined) {
          const key = `${netnsKey(container.netns)} ${attachment.device}`;
          const other = devices.get(key);
          if (other === undefined) devices.set(key, { container, field });
          else {
            const params = {
              other: displayName(other.container),
              where: where(other.container, other.field),
              device: attachment.device,
            };
            this.#report(container, `${field}.device`, 'SLU1310', params);
          }
        }
        own.devices.add(attachment.device);
      });
      this.#hostPorts(container, hostPorts);
    }
    this.#room(members);
  }

  /** Rules of the modes of the networks that a container joins. */
  #modes(container: ContainerResource): { readonly host: boolean; readonly none: boolean } {
    const found = container.networks.map(
      (attachment) => this.#networks.get(attachment.network)?.network.mode,
    );
    const host = found.includes('host');
    const none = found.includes('none');
    const rule = (field: string, mode: string, text: string): void =>
      this.#report(container, field, 'SLU1311', { mode, rule: text });
    found.forEach((mode, i) => {
      if (mode !== 'host' && mode !== 'none') return;
      const field = `spec.networks[${i}]`;
      const attachment = container.networks[i];
      if (found.length > 1) rule(field, mode, 'cannot be combined with other networks');
      for (const part of ['ipv4', 'ipv6', 'mac'] as const) {
        if (attachment?.[part] !== undefined)
          rule(`${field}.${part}`, mode, 'gives its containers no addresses: remove it');
      }
    });
    if (container.netns === undefined && !host && found.every((mode) => mode !== undefined)) {
      this.errors.push(
        SluiceError.of(
          'SLU1104',
          { hint: ': the network namespace of the container (name, path or pid)' },
          position(container, 'spec.netns'),
        ),
      );
    }
    if (container.netns !== undefined && host)
      rule('spec.netns', 'host', 'has the namespace of the host: remove netns');
    if (
      container.hostPorts.length > 0 &&
      found.every((mode) => mode === 'host' || mode === 'none' || mode === 'macvlan')
    ) {
      rule(
        'spec.hostPorts',
        found[0] ?? 'none',
        'has no host ports: remove them or join a routed or bridge network',
      );
    }
    return { host, none };
  }

  #attachment(
    container: ContainerResource,
    attachment: ContainerNetwork,
    field: string,
    entry: Ranges,
    addresses: Map<string, { container: ContainerResource; field: string }>,
    macs: Map<string, { container: ContainerResource; field: string }>,
  ): void {
    const { network, ranges } = entry;
    if (network.mode === 'host' || network.mode === 'none' || network.mode === 'chained') return;
    for (const family of [4, 6] as const) {
      const address = attachment[`ipv${family}`];
      if (address === undefined) continue;
      const at = `${field}.ipv${family}`;
      const cidr = ranges[family];
      if (cidr === undefined) {
        this.#report(container, at, 'SLU1307', { network: network.name, family });
        continue;
      }
      const error = badHostAddress(cidr, address);
      if (error !== undefined) {
        this.errors.push(error.at(position(container, at)));
        continue;
      }
      if (address === network[`ipv${family}`]?.gateway) {
        this.#report(container, at, 'SLU1313', { address, network: network.name });
        continue;
      }
      const other = addresses.get(address);
      if (other === undefined) addresses.set(address, { container, field: at });
      else {
        const params = {
          address,
          other: displayName(other.container),
          where: where(other.container, other.field),
        };
        this.#report(container, at, 'SLU1306', params);
      }
    }
    if (attachment.mac === undefined) return;
    const key = `${network.name} ${attachment.mac}`;
    const other = macs.get(key);
    if (other === undefined) macs.set(key, { container, field: `${field}.mac` });
    else {
      const params = {
        mac: attachment.mac,
        other: displayName(other.container),
        where: where(other.container, other.field),
      };
      this.#report(container, `${field}.mac`, 'SLU1309', params);
    }
  }

  #hostPorts(
    container: ContainerResource,
    taken: Map<string, { container: ContainerResource; field: string; port: HostPort }[]>,
  ): void {
    const known = container.networks.map((attachment) => this.#networks.get(attachment.network));
    container.hostPorts.forEach((port, i) => {
      const field = `spec.hostPorts[${i}].hostPort`;
      const key = `${port.protocol} ${port.hostPort}`;
      const list = taken.get(key) ?? [];
      const other = list.find((entry) => hostAddressesOverlap(entry.port.hostAddress, port.hostAddress));
      if (other !== undefined) {
        this.#report(container, field, 'SLU1308', {
          port: `${port.hostAddress === undefined ? '' : `${port.hostAddress} `}${port.hostPort}/${port.protocol}`,
          other: displayName(other.container),
          where: where(other.container, other.field),
        });
      }
      list.push({ container, field, port });
      taken.set(key, list);
      if (port.hostAddress === undefined || known.some((entry) => entry === undefined)) return;
      const family = port.hostAddress.includes(':') ? 6 : 4;
      if (known.some((entry) => entry?.ranges[family] !== undefined)) return;
      this.#report(container, `spec.hostPorts[${i}].hostAddress`, 'SLU1315', {
        address: port.hostAddress,
        family,
      });
    });
  }

  /** More containers than addresses: network, gateway and (IPv4) broadcast are not for containers. */
  #room(members: ReadonlyMap<string, readonly ContainerResource[]>): void {
    for (const [name, containers] of members) {
      const { network, ranges } = this.#networks.get(name) ?? {};
      if (network === undefined || ranges === undefined) continue;
      for (const family of [4, 6] as const) {
        const cidr = ranges[family];
        if (cidr === undefined) continue;
        const room = cidrSize(cidr) - (family === 4 ? 3n : 2n);
        if (BigInt(containers.length) <= room) continue;
        this.#report(network, `spec.ipv${family}.cidr`, 'SLU1314', {
          network: name,
          room: String(room),
          wanted: containers.length,
        });
      }
    }
  }
}

const WILDCARDS: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** Whether a packet could be for both. Absent: every address of both families. */
function hostAddressesOverlap(a: string | undefined, b: string | undefined): boolean {
  if (a === undefined || b === undefined || a === b) return true;
  const family = (text: string): 4 | 6 => (text.includes(':') ? 6 : 4);
  return family(a) === family(b) && (WILDCARDS.has(a) || WILDCARDS.has(b));
}
