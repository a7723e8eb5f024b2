import { cidrContains, parseAddress, parseCidr } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { ServiceCompiler } from '../../policy/services/compiler.js';
import type { AssignedService } from '../../policy/services/types.js';
import type { AddressTable } from '../dataplane/address-table.js';
import { hostListeners, type ListeningSocket } from '../dataplane/host-listeners.js';
import { keepersSockets } from '../dataplane/port-keepers.js';
import type { ObjectSet } from '../state/objects.js';
import { type PortClaims, type PublishedPort, portClaims } from './port-claims.js';

/** How long the list of sockets is taken as it is. */
const LISTENERS_AGE_MS = 1000;

const LOOPBACK = ['127.0.0.0/8', '::1/128'].map((text) => parseCidr(text));

type HostAddresses = Pick<AddressTable, 'isHost' | 'hostVersion'>;

/**
 * Ports and addresses that a service shares with something else. Nothing is refused for these: who goes first is said.
 * Each scrape of the metrics asks. What the definitions say is worked out again when these have changed; then only the
 * sockets are looked at, which come and go without anybody telling.
 */
export class ServiceConflicts {
  readonly #objects: ObjectSet;
  readonly #compiler: ServiceCompiler;
  readonly #addresses: () => HostAddresses;
  readonly #listeners: () => readonly ListeningSocket[];
  #claims: { readonly of: string; readonly claims: PortClaims } | undefined;

  constructor(
    objects: ObjectSet,
    compiler: ServiceCompiler,
    addresses: () => HostAddresses,
    listeners: () => readonly ListeningSocket[] = recent(hostListeners),
  ) {
    this.#objects = objects;
    this.#compiler = compiler;
    this.#addresses = addresses;
    this.#listeners = listeners;
  }

  /** SLU1803, SLU1808, SLU1809, SLU1811. */
  problems(): SluiceError[] {
    const { problems, published, nodePorts, onHostAddresses, gateways } = this.#current();
    if (published.size + nodePorts.size + onHostAddresses.size === 0) return [...problems];
    const services = new Map<string, AssignedService>();
    const ports = new Map<PublishedPort, number[]>();
    for (const { protocol, address: listens, port, inode } of this.#listeners()) {
      const key = `${protocol} ${port}`;
      const assigned = nodePorts.get(key);
      if (assigned !== undefined) services.set(`node port ${port}/${protocol}`, assigned);
      for (const { address, assigned: one } of isLoopback(listens) ? [] : (onHostAddresses.get(key) ?? []))
        services.set(`${address} port ${port}/${protocol}`, one);
      if (gateways.has(listens)) continue; // the agent itself, for names
      for (const one of published.get(key) ?? [])
        if (isAskedAt(one, listens)) ports.set(one, [...(ports.get(one) ?? []), inode]);
    }
    return [
      ...problems,
      ...[...services].map(([what, { service }]) => SluiceError.of('SLU1808', { what }).at(service.origin)),
      ...doublePorts(ports),
    ];
  }

  #current(): PortClaims {
    const addresses = this.#addresses();
    const of = `${this.#objects.revision} ${this.#compiler.revision} ${addresses.hostVersion}`;
    if (this.#claims?.of !== of) {
      const claims = portClaims(this.#objects, this.#compiler, (address) => addresses.isHost(address));
      this.#claims = { of, claims };
    }
    return this.#claims.claims;
  }
}

/** Host ports that a process of the host has too: the container goes first, whoever published them. */
function doublePorts(found: ReadonlyMap<PublishedPort, readonly number[]>): SluiceError[] {
  if (found.size === 0) return [];
  const kept = keepersSockets();
  return [...found]
    .filter(([, inodes]) => inodes.some((inode) => !kept.has(inode)))
    .map(
      ([
        {
          container: { namespace, name, origin },
          hostPort: { hostPort, protocol },
        },
      ]) =>
        SluiceError.of('SLU1811', {
          port: `${hostPort}/${protocol}`,
          container: `${namespace}/${name}`,
        }).at(origin),
    );
}

function recent(read: () => readonly ListeningSocket[]): () => readonly ListeningSocket[] {
  let last: { readonly at: number; readonly found: readonly ListeningSocket[] } | undefined;
  return () => {
    const now = performance.now();
    if (last === undefined || now - last.at >= LISTENERS_AGE_MS) last = { at: now, found: read() };
    return last.found;
  };
}

function isAskedAt({ families, hostPort: { hostAddress } }: PublishedPort, listens: string): boolean {
  return families[listens.includes(':') ? 1 : 0] === true && overlap(listens, hostAddress);
}

/** Whether a socket at `listens` is asked at an address where a port is published; absent: at all of the host. */
function overlap(listens: string, published: string | undefined): boolean {
  const wildcard = listens === '0.0.0.0' || listens === '::';
  if (published === undefined || published === '0.0.0.0' || published === '::')
    return published === undefined || published.includes(':') === listens.includes(':');
  return listens === published || (wildcard && published.includes(':') === listens.includes(':'));
}

function isLoopback(address: string): boolean {
  const bytes = parseAddress(address);
  return LOOPBACK.some((range) => cidrContains(range, bytes));
}

/** Says who has an address that no service can have: this host, or a network. */
export function takenAddresses(
  objects: ObjectSet,
  hostAddresses: ReadonlySet<string>,
): (address: string) => string | undefined {
  const ranges = [...objects.ofKind('Network')].flatMap(({ name, ipv4, ipv6 }) =>
    [ipv4, ipv6].flatMap((range) =>
      range === undefined ? [] : [{ cidr: parseCidr(range.cidr), what: `network ${name} (${range.cidr})` }],
    ),
  );
  return (address) => {
    if (hostAddresses.has(address)) return 'this host';
    if (ranges.length === 0) return undefined;
    const bytes = parseAddress(address);
    return ranges.find(({ cidr }) => cidrContains(cidr, bytes))?.what;
  };
}

/** Throws SLU1805 if a cluster address is taken. */
export function refuseTakenAddress(
  { service, clusterIps }: AssignedService,
  taken: ReturnType<typeof takenAddresses>,
): void {
  for (const address of clusterIps) {
    const what = taken(address);
    if (what !== undefined) throw SluiceError.of('SLU1805', { address, what }).at(service.origin);
  }
}
