/** From the API's objects to the model: trimmed to what the node needs, and checked. */

import { canonicalAddress, tryParseAddress } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import { ANNOTATIONS } from '../../policy/model/annotations.js';
import type {
  ContainerPort,
  Labels,
  Origin,
  PodResource,
  PortProtocol,
  TestResource,
} from '../../policy/model/resources.js';
import { issuesToErrors } from '../../policy/schema/issues.js';
import { TEST_KINDS } from '../../policy/schema/kinds.js';
import { keyText } from '../state/keys.js';
import type { LabelInterner } from './labels.js';

/** `origin.file` of objects of the cluster. */
export const FROM = 'kubernetes';

const ORIGIN: Origin = Object.freeze({ file: FROM, line: 1 });

/** An object as the API has it. */
export interface ApiObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata?: {
    readonly name?: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly generation?: number;
    readonly resourceVersion?: string;
    readonly labels?: Record<string, string>;
    readonly annotations?: Record<string, string>;
    readonly deletionTimestamp?: string;
  };
  readonly spec?: Record<string, unknown>;
  readonly status?: Record<string, unknown>;
  readonly [field: string]: unknown;
}

/** A cluster has a hundred thousand of these: what is the same for all is on the prototype. */
export class WatchedPod implements PodResource {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly nodeName: string;
  readonly ports: readonly ContainerPort[];
  readonly ipv4?: string;
  readonly ipv6?: string;

  constructor(
    given: Omit<PodResource, 'kind' | 'origin' | 'source' | 'hostNetwork' | 'nodeName'>,
    nodeName: string,
    key = keyText('Pod', `${given.namespace}/${given.name}`),
  ) {
    this.key = key;
    this.namespace = given.namespace;
    this.name = given.name;
    this.labels = given.labels;
    this.nodeName = nodeName;
    this.ports = given.ports;
    if (given.ipv4 !== undefined) this.ipv4 = given.ipv4;
    if (given.ipv6 !== undefined) this.ipv6 = given.ipv6;
  }

  get kind(): 'Pod' {
    return 'Pod';
  }

  get hostNetwork(): boolean {
    return false;
  }

  get origin(): Origin {
    return ORIGIN;
  }

  /** What was kept of the object. */
  get source(): unknown {
    const { namespace, name, labels, nodeName, ipv4, ipv6 } = this;
    const podIPs = [ipv4, ipv6].flatMap((ip) => (ip === undefined ? [] : [{ ip }]));
    return {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace, labels },
      spec: { nodeName },
      status: { podIPs },
    };
  }

  /** Whether two versions say the same. Labels and ports are shared, so equal ones are one. */
  equals(other: WatchedPod): boolean {
    return (
      this.labels === other.labels &&
      this.ports === other.ports &&
      this.ipv4 === other.ipv4 &&
      this.ipv6 === other.ipv6 &&
      this.nodeName === other.nodeName
    );
  }
}

/** A pod of any node, as far as it concerns this one. */
export interface PodFacts {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly nodeName: string;
  readonly hostNetwork: boolean;
  /** Failed or succeeded: its addresses may be another pod's by now. */
  readonly ended: boolean;
  readonly labels: Labels;
  readonly ports: readonly ContainerPort[];
  readonly ipv4?: string;
  readonly ipv6?: string;
}

interface PodContainer {
  readonly restartPolicy?: string;
  readonly ports?: readonly {
    readonly name?: string;
    readonly protocol?: PortProtocol;
    readonly containerPort: number;
  }[];
}

/** Throws SLU6210. */
export function readPod(object: ApiObject, interner: LabelInterner): PodFacts {
  const { metadata = {}, spec = {}, status = {} } = object;
  const { name = '', namespace = '' } = metadata;
  const containers = (spec.containers ?? []) as readonly PodContainer[];
  const sidecars = ((spec.initContainers ?? []) as readonly PodContainer[]).filter(
    ({ restartPolicy }) => restartPolicy === 'Always',
  );
  let ipv4: string | undefined;
  let ipv6: string | undefined;
  const listed = (status.podIPs ?? []) as readonly { readonly ip?: string }[];
  for (const { ip } of [...listed, { ip: status.podIP as string | undefined }]) {
    // The first of a family counts; podIP is the first of all.
    if (ip === undefined || ip === '' || ip === ipv4) continue;
    if (tryParseAddress(ip) === undefined)
      throw SluiceError.of('SLU6210', {
        kind: 'Pod',
        name: `${namespace}/${name}`,
        reason: `"${ip}" is not an address`,
      });
    if (ip.includes(':')) ipv6 ??= canonicalAddress(ip);
    else ipv4 ??= canonicalAddress(ip);
  }
  return {
    namespace,
    name,
    uid: metadata.uid ?? '',
    nodeName: typeof spec.nodeName === 'string' ? spec.nodeName : '',
    hostNetwork: spec.hostNetwork === true,
    ended: status.phase === 'Succeeded' || status.phase === 'Failed',
    labels: interner.labels(metadata.labels ?? {}),
    ports: interner.ports(namedPorts([...containers, ...sidecars])),
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
  };
}

/** Names that a policy can use; of two ports with one name and protocol the first counts. */
function namedPorts(containers: readonly PodContainer[]): ContainerPort[] {
  const found: ContainerPort[] = [];
  for (const { ports = [] } of containers) {
    for (const { name, protocol = 'TCP', containerPort } of ports) {
      if (name === undefined || name === '') continue;
      if (found.some((one) => one.name === name && one.protocol === protocol)) continue;
      found.push({ name, protocol, port: containerPort });
    }
  }
  return found;
}

/** Annotations that mean something here. */
const OURS = /^(sluice\.dev\/|service\.beta\.kubernetes\.io\/load-balancer-source-ranges$)/;

/** Of these a field that this version does not know is passed over; of a policy it is not: it could forbid something. */
const LENIENT: ReadonlySet<string> = new Set(['Service', 'EndpointSlice', 'Node', 'Namespace']);

/** The object in the model. Throws SluiceError. */
export function readObject(object: ApiObject, apiVersion: string, kind: string): TestResource {
  const entry = TEST_KINDS.find((one) => one.apiVersion === apiVersion && one.kind === kind);
  if (entry === undefined) throw new TypeError(`no kind ${apiVersion} ${kind}`);
  const trimmed = trim(object, apiVersion, kind);
  const { status: _, ...definition } = trimmed;
  // Slices are many and large; what is kept of them is enough to show them.
  const source = kind === 'EndpointSlice' ? { apiVersion, kind, metadata: trimmed.metadata } : definition;
  const lowering = { source, at: () => ORIGIN, origin: () => ORIGIN };
  for (let attempt = 0; ; attempt++) {
    const result = entry.read(entry.status ? trimmed : definition, lowering);
    if ('kind' in result) return result;
    const unknown = result.filter(({ code }) => code === 'unrecognized_keys');
    if (attempt === 0 && LENIENT.has(kind) && unknown.length > 0) {
      for (const issue of unknown)
        if (issue.code === 'unrecognized_keys') remove(trimmed, issue.path, issue.keys);
      continue;
    }
    const document = { file: FROM, line: 1, value: trimmed, lineAt: () => 1 };
    const [error] = issuesToErrors(result, trimmed, document, []);
    const reason = error === undefined ? 'not understood' : `${error.field ?? ''}: ${error.message}`;
    throw SluiceError.of('SLU6210', { kind, name: nameOf(object), reason });
  }
}

/** `namespace/name` or the name. */
export function nameOf({ metadata = {} }: ApiObject): string {
  const { namespace, name = '' } = metadata;
  return namespace === undefined || namespace === '' ? name : `${namespace}/${name}`;
}

function trim(
  object: ApiObject,
  apiVersion: string,
  kind: string,
): Record<string, unknown> & { metadata: object } {
  const { apiVersion: _a, kind: _k, metadata = {}, spec, status, ...rest } = object;
  const { name, namespace, labels, annotations = {} } = metadata;
  const kept = Object.entries(annotations).filter(([key]) => OURS.test(key));
  return {
    ...rest,
    apiVersion,
    kind,
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      ...(labels === undefined ? {} : { labels }),
      ...(kept.length === 0 ? {} : { annotations: Object.fromEntries(kept) }),
    },
    ...(spec === undefined ? {} : { spec: specOf(kind, spec, annotations) }),
    ...(status === undefined ? {} : { status: statusOf(kind, status) }),
  };
}

function specOf(
  kind: string,
  spec: Record<string, unknown>,
  annotations: Readonly<Record<string, string>>,
): Record<string, unknown> {
  if (kind === 'Service') {
    // A cluster's controller makes slices for it, which say which of its pods are ready.
    const { selector: _, ...others } = spec;
    return others;
  }
  if (kind === 'Namespace') return {};
  if (kind === 'Node') {
    const { podCIDR, podCIDRs = podCIDR === undefined ? undefined : [podCIDR] } = spec;
    const own = annotations[ANNOTATIONS.podRanges];
    const ranges = podCIDRs ?? (own === undefined ? undefined : own.split(','));
    return ranges === undefined ? {} : { podCIDR: (ranges as string[])[0], podCIDRs: ranges };
  }
  return spec;
}

function statusOf(kind: string, status: Record<string, unknown>): Record<string, unknown> {
  if (kind === 'Service') return { loadBalancer: status.loadBalancer };
  if (kind === 'Node') return { addresses: status.addresses };
  return {};
}

function remove(root: unknown, path: readonly PropertyKey[], keys: readonly string[]): void {
  let value = root;
  for (const segment of path) value = (value as Record<PropertyKey, unknown> | undefined)?.[segment];
  if (typeof value !== 'object' || value === null) return;
  for (const key of keys) delete (value as Record<string, unknown>)[key];
}
