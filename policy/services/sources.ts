/** Who belongs to a service: slices by their label, workloads by its selector. Indexed, so a change finds its own. */
import type { EndpointSliceResource } from '../model/service.js';
import type { Target } from './endpoints.js';
import type { AssignedService, NodeContext, Workload } from './types.js';

/** With this label nobody makes endpoints for a service from workloads. */
export const ENDPOINT_CONTROLLER_LABEL = 'service.kubernetes.io/endpoint-controller-name';

export class EndpointSources {
  readonly #services = new Map<string, AssignedService>();
  readonly #slices = new Map<string, EndpointSliceResource>();
  readonly #slicesOf: Index = new Map();
  readonly #workloads = new Map<string, Workload>();
  /** `namespace key=value` -> services with that pair first in their selector. */
  readonly #selecting: Index = new Map();
  /** `namespace key=value` -> workloads with that label. */
  readonly #labelled: Index = new Map();

  service(key: string): AssignedService | undefined {
    return this.#services.get(key);
  }

  slice(key: string): EndpointSliceResource | undefined {
    return this.#slices.get(key);
  }

  workload(id: string): Workload | undefined {
    return this.#workloads.get(id);
  }

  services(): IterableIterator<string> {
    return this.#services.keys();
  }

  setService(key: string, service: AssignedService | undefined): void {
    const before = this.#services.get(key);
    if (before !== undefined) drop(this.#selecting, selectorPair(before), key);
    if (service === undefined) this.#services.delete(key);
    else {
      this.#services.set(key, service);
      add(this.#selecting, selectorPair(service), key);
    }
  }

  /** Returns the keys of the services that it concerns. */
  setSlice(key: string, slice: EndpointSliceResource | undefined): string[] {
    const touched: string[] = [];
    const before = this.#slices.get(key);
    if (before?.service !== undefined) {
      const service = `${before.namespace}/${before.service}`;
      touched.push(service);
      drop(this.#slicesOf, service, key);
    }
    if (slice === undefined) this.#slices.delete(key);
    else {
      this.#slices.set(key, slice);
      if (slice.service !== undefined) {
        const service = [slice.namespace, slice.service].join('/'); // flat: it is kept
        touched.push(service);
        add(this.#slicesOf, service, key);
      }
    }
    return touched;
  }

  /** Returns the keys of the services that it concerns. */
  setWorkload(id: string, workload: Workload | undefined): string[] {
    const before = this.#workloads.get(id);
    const touched = new Set<string>();
    for (const one of [before, workload]) {
      if (one === undefined) continue;
      for (const pair of labelPairs(one)) {
        for (const key of membersOf(this.#selecting.get(pair))) {
          if (selects(this.#services.get(key), one)) touched.add(key);
        }
      }
    }
    if (before !== undefined) for (const pair of labelPairs(before)) drop(this.#labelled, pair, id);
    if (workload === undefined) this.#workloads.delete(id);
    else {
      this.#workloads.set(id, workload);
      for (const pair of labelPairs(workload)) add(this.#labelled, pair, id);
    }
    return [...touched];
  }

  /** Endpoints of one port of a service in one family, each address and port once. */
  targets(key: string, portIndex: number, family: 4 | 6, node: Pick<NodeContext, 'name' | 'zone'>): Target[] {
    const assigned = this.#services.get(key);
    const port = assigned?.service.ports[portIndex];
    if (assigned === undefined || port === undefined) return [];
    const found: Target[] = [];
    for (const sliceKey of membersOf(this.#slicesOf.get(key))) {
      const slice = this.#slices.get(sliceKey);
      if (slice?.family !== family) continue;
      const match = slice.ports.find((one) => one.name === port.name && one.protocol === port.protocol);
      if (match === undefined) continue;
      for (const endpoint of slice.endpoints)
        found.push({ endpoint, port: match.port, local: endpoint.nodeName === node.name });
    }
    const { targetPort, protocol } = port;
    for (const workload of this.#selected(assigned)) {
      const address = family === 4 ? workload.ipv4 : workload.ipv6;
      const number =
        typeof targetPort === 'number'
          ? targetPort
          : workload.ports.find((one) => one.name === targetPort && one.protocol === protocol)?.port;
      if (address === undefined || number === undefined) continue;
      found.push({
        endpoint: {
          address,
          ready: true,
          serving: true,
          terminating: false,
          nodeName: node.name,
          ...(node.zone === '' ? {} : { zone: node.zone }),
        },
        port: number,
        local: true,
      });
    }
    return distinct(found);
  }

  #selected(assigned: AssignedService): Workload[] {
    const { service } = assigned;
    if (service.selector === undefined || ENDPOINT_CONTROLLER_LABEL in service.labels) return [];
    const pair = selectorPair(assigned);
    return [...(pair === undefined ? [] : membersOf(this.#labelled.get(pair)))]
      .map((id) => this.#workloads.get(id))
      .filter((workload) => workload !== undefined && selects(assigned, workload)) as Workload[];
  }
}

/** The same endpoint may be in two slices for a moment: the better state counts, and that it is on this node. */
function distinct(targets: Target[]): Target[] {
  if (targets.length < 2 || areFewAndDifferent(targets)) return targets;
  const best = new Map<string, Target>();
  for (const target of targets) {
    const id = `${target.endpoint.address} ${target.port}`;
    const other = best.get(id);
    if (other === undefined || isBetter(target, other)) best.set(id, target);
  }
  return best.size === targets.length ? targets : [...best.values()];
}

/** Of up to so many each is compared with each. */
const FEW = 8;

function areFewAndDifferent(targets: readonly Target[]): boolean {
  return (
    targets.length <= FEW &&
    targets.every(({ endpoint, port }, i) => {
      for (let k = 0; k < i; k++)
        if (targets[k]?.endpoint.address === endpoint.address && targets[k]?.port === port) return false;
      return true;
    })
  );
}

/** Never depends on which slice came first: of two that are as good, the text of what else they say decides. */
function isBetter(one: Target, other: Target): boolean {
  const difference = rank(one) - rank(other);
  return difference === 0 ? textOf(one) > textOf(other) : difference > 0;
}

/** One that terminates and serves can be used; one that is not ready and does not terminate can't. */
function rank({ endpoint: { ready, serving, terminating }, local }: Target): number {
  return (ready ? 6 : serving && terminating ? 4 : serving ? 2 : 0) + (local ? 1 : 0);
}

function textOf({ endpoint: { terminating, nodeName, zone, hintZones, hintNodes, weight } }: Target): string {
  return JSON.stringify([terminating, nodeName, zone, hintZones, hintNodes, weight]);
}

function selectorPair({ service }: AssignedService): string | undefined {
  const [first] = Object.entries(service.selector ?? {});
  return first === undefined ? undefined : `${service.namespace} ${first[0]}=${first[1]}`;
}

function labelPairs(workload: Workload): string[] {
  return Object.entries(workload.labels).map(([key, value]) => `${workload.namespace} ${key}=${value}`);
}

function selects(assigned: AssignedService | undefined, workload: Workload): boolean {
  const selector = assigned?.service.selector;
  if (selector === undefined || assigned?.service.namespace !== workload.namespace) return false;
  return Object.entries(selector).every(([key, value]) => workload.labels[key] === value);
}

/** Key -> values; most keys have one, which then needs no set. */
type Index = Map<string, string | Set<string>>;

const NOBODY: readonly string[] = [];

function membersOf(entry: string | Set<string> | undefined): Iterable<string> {
  if (entry === undefined) return NOBODY;
  return typeof entry === 'string' ? [entry] : entry;
}

function add(index: Index, key: string | undefined, value: string): void {
  if (key === undefined) return;
  const entry = index.get(key);
  if (entry === undefined) index.set(key, value);
  else if (typeof entry !== 'string') entry.add(value);
  else if (entry !== value) index.set(key, new Set([entry, value]));
}

function drop(index: Index, key: string | undefined, value: string): void {
  if (key === undefined) return;
  const entry = index.get(key);
  if (entry === value) index.delete(key);
  else if (entry instanceof Set) {
    entry.delete(value);
    if (entry.size === 0) index.delete(key);
  }
}
