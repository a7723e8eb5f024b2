import { join } from 'node:path';
import {
  addressAt,
  type Cidr,
  cidrContains,
  cidrSize,
  formatAddress,
  parseAddress,
  parseCidr,
} from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { IpFamily, ServiceResource } from '../../policy/model/service.js';
import type { AssignedService } from '../../policy/services/types.js';
import { Journal } from './journal.js';

/** What was chosen for a service. */
interface Chosen {
  readonly key: string;
  readonly clusterIps: readonly string[];
  /** `protocol port name` -> node port. */
  readonly nodePorts: Readonly<Record<string, number>>;
  readonly healthPort: number;
}

/** Node ports of a service with one port and none of those: most are. */
const ONE_WITHOUT: readonly number[] = Object.freeze([0]);

/** A record of the journal: a choice, or (nothing chosen) its end. */
type Entry = Chosen | { readonly key: string; readonly gone: true };

export interface Assigned extends AssignedService {
  readonly healthPort: number;
}

export interface AssignmentSettings {
  readonly serviceCidrs: readonly string[];
  readonly nodePorts: { readonly min: number; readonly max: number };
}

/**
 * Cluster addresses, node ports and health check ports of services that leave them open, as the API server
 * of a cluster would choose them. A choice stays while the service is defined, also over restarts
 * (`<stateDir>/services.journal`).
 */
export class Assignments {
  readonly #ranges: readonly Cidr[];
  readonly #ports: { readonly min: number; readonly max: number };
  readonly #journal: Journal<Entry>;
  readonly #chosen = new Map<string, Chosen>();
  /** Services with a choice in the journal. */
  readonly #kept = new Set<string>();
  /** Address, or protocol and node port -> service. */
  readonly #taken = new Map<string, string>();
  readonly #inForce = new Map<string, Assigned>();

  private constructor(settings: AssignmentSettings, journal: Journal<Entry>, records: readonly Entry[]) {
    this.#ranges = settings.serviceCidrs.map((text) => parseCidr(text));
    this.#ports = settings.nodePorts;
    this.#journal = journal;
    for (const record of records) {
      if ('gone' in record) this.#chosen.delete(record.key);
      else this.#chosen.set(record.key, record);
    }
    for (const key of this.#chosen.keys()) this.#kept.add(key);
  }

  static open(stateDir: string, settings: AssignmentSettings): Assignments {
    const { journal, records } = Journal.open<Entry>(join(stateDir, 'services.journal'));
    return new Assignments(settings, journal, records);
  }

  get(key: string): Assigned | undefined {
    return this.#inForce.get(key);
  }

  /**
   * Completes a service. Returns also what takes the choice back. Throws SLU1801, SLU1802, SLU1804, SLU1806, SLU1807
   * with the position of the service.
   */
  assign(service: ServiceResource): { readonly assigned: Assigned; readonly undo: () => void } {
    const key = [service.namespace, service.name].join('/'); // flat: a template would be kept in pieces
    const before = this.#inForce.get(key);
    const known = this.#chosen.get(key);
    const undo = (): void => {
      this.#forget(key);
      if (before !== undefined) this.#remember(key, before);
      if (known === undefined) this.#chosen.delete(key);
      else this.#chosen.set(key, known);
    };
    this.#forget(key);
    try {
      const assigned = this.#complete(key, service, known);
      this.#remember(key, assigned);
      const chosen = chosenOf(key, assigned);
      if (chosen === undefined) this.#chosen.delete(key);
      else this.#chosen.set(key, chosen);
      return { assigned, undo };
    } catch (error) {
      undo();
      throw error instanceof SluiceError ? error.at(service.origin) : error;
    }
  }

  /**
   * Before these services are assigned in one change: addresses and ports that they have and do not name any more are
   * free for the others of them. Returns what takes that back.
   */
  vacate(services: Iterable<ServiceResource>): () => void {
    const vacated: [claim: string, key: string][] = [];
    for (const service of services) {
      const key = `${service.namespace}/${service.name}`;
      const before = this.#inForce.get(key);
      if (before === undefined) continue;
      for (const claim of unwanted(before, service)) {
        this.#taken.delete(claim);
        vacated.push([claim, key]);
      }
    }
    return () => {
      for (const [claim, key] of vacated) this.#taken.set(claim, key);
    };
  }

  /** The service is gone. Returns what takes that back. */
  release(key: string): () => void {
    const before = this.#inForce.get(key);
    const known = this.#chosen.get(key);
    this.#forget(key);
    this.#chosen.delete(key);
    return () => {
      if (before !== undefined) this.#remember(key, before);
      if (known !== undefined) this.#chosen.set(key, known);
    };
  }

  /** Makes the choices for these services last. */
  commit(keys: Iterable<string>): void {
    const entries: Entry[] = [];
    for (const key of keys) {
      const chosen = this.#chosen.get(key);
      if (chosen !== undefined) {
        entries.push(chosen);
        this.#kept.add(key);
      } else if (this.#kept.delete(key)) entries.push({ key, gone: true });
    }
    this.#journal.append(entries);
    if (this.#journal.lines > 4 * this.#chosen.size + 1024) this.#journal.compact([...this.#chosen.values()]);
  }

  /** Forgets choices of services that nobody defines (after the start). */
  sweep(): void {
    const gone = [...this.#chosen.keys()].filter((key) => !this.#inForce.has(key));
    for (const key of gone) this.#chosen.delete(key);
    this.commit(gone);
  }

  close(): void {
    this.#journal.close();
  }

  #complete(key: string, service: ServiceResource, known: Chosen | undefined): Assigned {
    const nodePorts = this.#nodePorts(key, service, known);
    return {
      kind: 'Service',
      service,
      clusterIps: this.#clusterIps(key, service, known),
      nodePorts,
      healthPort: this.#healthPort(key, service, known, nodePorts),
    };
  }

  #clusterIps(key: string, service: ServiceResource, known: Chosen | undefined): readonly string[] {
    if (service.type === 'ExternalName' || service.clusterIps === 'None') return [];
    const given = service.clusterIps;
    for (const address of given) {
      const other = this.#taken.get(address);
      if (other !== undefined) throw this.#conflict('SLU1801', address, other);
    }
    if (given.length === service.families.length && sameFamilies(given, service.families)) return given;
    return service.families.flatMap((family) => {
      const named = given.find((address) => familyOf(address) === family);
      if (named !== undefined) return [named];
      const before = known?.clusterIps.find((address) => familyOf(address) === family);
      if (before !== undefined && this.#usable(before, family)) return [before];
      const range = this.#ranges.find((cidr) => cidr.family === family);
      if (range === undefined && service.familyPolicy === 'PreferDualStack' && family !== service.families[0])
        return [];
      const found = range === undefined ? undefined : this.#freeAddress(key, range);
      if (found === undefined) throw SluiceError.of('SLU1806', { family });
      return [found];
    });
  }

  #usable(address: string, family: IpFamily): boolean {
    const range = this.#ranges.find((cidr) => cidr.family === family);
    return range !== undefined && cidrContains(range, parseAddress(address)) && !this.#taken.has(address);
  }

  /** From a place that the name decides, the next free address. The first and the last are left alone. */
  #freeAddress(key: string, range: Cidr): string | undefined {
    const size = Number(cidrSize(range) > 1n << 20n ? 1n << 20n : cidrSize(range)) - 2;
    const start = hash(key);
    for (let i = 0; i < size; i++) {
      const address = formatAddress(addressAt(range, BigInt(1 + ((start + i) % size))));
      if (!this.#taken.has(address)) return address;
    }
    return undefined;
  }

  #nodePorts(key: string, service: ServiceResource, known: Chosen | undefined): readonly number[] {
    if (service.type !== 'NodePort' && service.type !== 'LoadBalancer')
      return service.ports.length === 1 ? ONE_WITHOUT : service.ports.map(() => 0);
    const mine = new Set<string>();
    for (const { protocol, nodePort } of service.ports) {
      if (nodePort === 0) continue;
      const { min, max } = this.#ports;
      if (nodePort < min || nodePort > max) throw SluiceError.of('SLU1804', { port: nodePort, min, max });
      const other = this.#taken.get(`${protocol} ${nodePort}`);
      if (other !== undefined) throw this.#conflict('SLU1802', nodePort, other);
      mine.add(`${protocol} ${nodePort}`);
    }
    return service.ports.map(({ protocol, name, nodePort, port }) => {
      if (nodePort !== 0 || service.givenNodePortsOnly === true) return nodePort;
      const free = (number: number): boolean =>
        !this.#taken.has(`${protocol} ${number}`) && !mine.has(`${protocol} ${number}`);
      const before = known?.nodePorts[`${protocol} ${name}`];
      const number =
        before !== undefined && free(before) ? before : this.#freePort(`${key} ${protocol} ${port}`, free);
      mine.add(`${protocol} ${number}`);
      return number;
    });
  }

  #freePort(seed: string, free: (number: number) => boolean): number {
    const { min, max } = this.#ports;
    const size = max - min + 1;
    const start = hash(seed);
    for (let i = 0; i < size; i++) {
      const number = min + ((start + i) % size);
      if (free(number)) return number;
    }
    throw SluiceError.of('SLU1807', { min, max });
  }

  #healthPort(
    key: string,
    service: ServiceResource,
    known: Chosen | undefined,
    nodePorts: readonly number[],
  ): number {
    if (service.type !== 'LoadBalancer' || service.externalTrafficPolicy !== 'Local') return 0;
    const free = (number: number): boolean =>
      !this.#taken.has(`TCP ${number}`) && !nodePorts.includes(number);
    const given = service.healthCheckNodePort;
    if (given !== 0) {
      const { min, max } = this.#ports;
      if (given < min || given > max) throw SluiceError.of('SLU1804', { port: given, min, max });
      const own = service.ports.some(({ protocol }, i) => protocol === 'TCP' && nodePorts[i] === given);
      const { file, line } = service.origin;
      if (own) throw SluiceError.of('SLU1802', { port: given, other: key, where: `${file}:${line}` });
      const other = this.#taken.get(`TCP ${given}`);
      if (other !== undefined) throw this.#conflict('SLU1802', given, other);
      return given;
    }
    const before = known?.healthPort ?? 0;
    return before !== 0 && free(before) ? before : this.#freePort(`${key} health`, free);
  }

  #conflict(code: 'SLU1801' | 'SLU1802', what: string | number, other: string): SluiceError {
    const origin = this.#inForce.get(other)?.service.origin;
    const where = origin === undefined ? 'defined before' : `${origin.file}:${origin.line}`;
    return code === 'SLU1801'
      ? SluiceError.of('SLU1801', { address: what, what: 'cluster address', other, where })
      : SluiceError.of('SLU1802', { port: what, other, where });
  }

  #remember(key: string, assigned: Assigned): void {
    this.#inForce.set(key, assigned);
    for (const claim of claimsOf(assigned)) this.#taken.set(claim, key);
  }

  #forget(key: string): void {
    const before = this.#inForce.get(key);
    if (before === undefined) return;
    this.#inForce.delete(key);
    for (const claim of claimsOf(before)) if (this.#taken.get(claim) === key) this.#taken.delete(claim);
  }
}

/** Of what a service has, what its new definition does not ask for any more. */
function unwanted(
  before: Assigned,
  { type, clusterIps, families, ports, ...after }: ServiceResource,
): string[] {
  const addresses = type === 'ExternalName' || clusterIps === 'None' ? [] : clusterIps;
  const addressesOpen =
    type !== 'ExternalName' && clusterIps !== 'None' && clusterIps.length < families.length;
  const checked = type === 'LoadBalancer' && after.externalTrafficPolicy === 'Local';
  const portsOpen =
    (checked && after.healthCheckNodePort === 0) ||
    ((type === 'NodePort' || type === 'LoadBalancer') && ports.some(({ nodePort }) => nodePort === 0));
  const named = new Set([
    ...addresses,
    ...ports.map(({ protocol, nodePort }) => `${protocol} ${nodePort}`),
    `TCP ${after.healthCheckNodePort}`,
  ]);
  return claimsOf(before).filter(
    (claim) => !named.has(claim) && !(claim.includes(' ') ? portsOpen : addressesOpen),
  );
}

/** The service as its definition has it; undefined: something is left open. It may still collide with another one. */
export function asGiven(service: ServiceResource): Assigned | undefined {
  const { type, clusterIps, families, ports } = service;
  if (type !== 'ClusterIP' || clusterIps === 'None' || clusterIps.length !== families.length)
    return undefined;
  if (!sameFamilies(clusterIps, families)) return undefined;
  const nodePorts = ports.length === 1 ? ONE_WITHOUT : ports.map(() => 0);
  return { kind: 'Service', service, clusterIps, nodePorts, healthPort: 0 };
}

/** Undefined: the definition leaves nothing open. */
function chosenOf(key: string, { service, clusterIps, nodePorts, healthPort }: Assigned): Chosen | undefined {
  const given = service.clusterIps === 'None' || service.clusterIps.length === clusterIps.length;
  if (given && healthPort === 0 && nodePorts.every((port) => port === 0)) return undefined;
  return {
    key,
    clusterIps,
    nodePorts: Object.fromEntries(
      service.ports.map(({ protocol, name }, i) => [`${protocol} ${name}`, nodePorts[i] ?? 0]),
    ),
    healthPort,
  };
}

function claimsOf({ service, clusterIps, nodePorts, healthPort }: Assigned): readonly string[] {
  if (nodePorts === ONE_WITHOUT && healthPort === 0) return clusterIps;
  return [
    ...clusterIps,
    ...service.ports.flatMap(({ protocol }, i) => (nodePorts[i] ? [`${protocol} ${nodePorts[i]}`] : [])),
    ...(healthPort === 0 ? [] : [`TCP ${healthPort}`]),
  ];
}

function sameFamilies(addresses: readonly string[], families: readonly IpFamily[]): boolean {
  return addresses.every((address, i) => familyOf(address) === families[i]);
}

function familyOf(address: string): IpFamily {
  return address.includes(':') ? 6 : 4;
}

/** FNV-1a, 31 bits. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return (h ^ (h >>> 15)) & 0x7fffffff;
}
