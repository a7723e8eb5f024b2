/** What the compiler keeps of each port of a service. */
import type { PortProtocol } from '../model/resources.js';
import type { IpFamily } from '../model/service.js';
import type { AssignedService, EndpointText, FrontendRow, RangeKey } from './types.js';

/** A range of service_slots. */
export interface Range {
  readonly first: number;
  readonly count: number;
}

export interface Table extends Range {
  /** Its backends with their weights. */
  readonly content: string;
}

/**
 * One port of a service in one family. There may be very many: what follows from the definitions is not kept but found
 * again, and keys of the maps are made from their texts.
 */
export interface PortState {
  /** `namespace/name`. */
  readonly service: string;
  readonly name: string;
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly family: IpFamily;
  readonly number: number;
  /** Lists of backends under the policies Cluster and Local: the members with their flag, in their order. */
  cluster: Range | undefined;
  local: Range | undefined;
  table: Table | undefined;
  /** By `memberOf`, in the order of the backends' texts. */
  members: readonly number[];
  /** CIDR -> key; absent: everybody may use it. */
  ranges: Map<string, RangeKey> | undefined;
  /** Frontends that it holds, and their rows in the same order. */
  texts: EndpointText[];
  rows: FrontendRow[];
  /** Some node has an endpoint. */
  anywhere: boolean;
}

/** A port without backends and frontends. */
export function newPort(
  port: Pick<PortState, 'service' | 'name' | 'protocol' | 'port' | 'family' | 'number'>,
): PortState {
  const { service, name, protocol, family, number } = port;
  return {
    service,
    name,
    protocol,
    port: port.port,
    family,
    number,
    cluster: undefined,
    local: undefined,
    table: undefined,
    members: [],
    ranges: undefined,
    texts: [],
    rows: [],
    anywhere: false,
  };
}

/** Returns what makes the port again what it is now. */
export function markPort(state: PortState): () => void {
  const { texts, rows, ranges } = state;
  const copy = {
    ...state,
    texts: [...texts],
    rows: [...rows],
    ranges: ranges === undefined ? undefined : new Map(ranges),
  };
  return () => Object.assign(state, copy);
}

const FLAGS = 8;

/** A backend's number and its member flags (1 to 7) as one number. */
export function memberOf(backend: number, flags: number): number {
  return backend * FLAGS + flags;
}

export function backendOf(member: number): number {
  return Math.floor(member / FLAGS);
}

export function flagsOf(member: number): number {
  return member % FLAGS;
}

/** Index of the port in its service's definition, -1: it is not there any more. */
export function indexOf(
  { service }: AssignedService,
  state: Pick<PortState, 'name' | 'protocol' | 'port'>,
): number {
  const { name, protocol, port } = state;
  return service.ports.findIndex(
    (one) => one.name === name && one.protocol === protocol && one.port === port,
  );
}
