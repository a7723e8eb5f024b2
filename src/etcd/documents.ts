/** From the store's documents to the model, and what follows from several of them. */
import { SluiceError } from '../../policy/errors.js';
import type { PodResource, Resource } from '../../policy/model/resources.js';
import type { ServiceResource } from '../../policy/model/service.js';
import { parseSources } from '../../policy/schema/parse.js';

/** `origin.file` of what comes from the store begins with this. */
export const FROM = 'etcd:';

/** The object of a document. Throws SLU6103. */
export function readDocument(key: string, text: string): Resource {
  const { resources, errors } = parseSources([{ file: `${FROM}${key}`, text }]);
  const [error] = errors;
  if (error !== undefined)
    throw SluiceError.of('SLU6103', { key, reason: `${error.field ?? ''} ${error.message}`.trim() });
  const [resource, another] = resources;
  if (resource === undefined || another !== undefined)
    throw SluiceError.of('SLU6103', { key, reason: 'it is not one object' });
  return resource;
}

/** The document of a shared network as one host has it: with its own part of each range. */
export function networkWithBlocks(
  text: string,
  blocks: Readonly<Partial<Record<'ipv4' | 'ipv6', string>>>,
): string {
  const document = JSON.parse(text) as { spec: Record<string, unknown> };
  const spec = { ...document.spec };
  for (const family of ['ipv4', 'ipv6'] as const) {
    const cidr = blocks[family];
    if (cidr !== undefined) spec[family] = { cidr };
  }
  return JSON.stringify({ ...document, spec });
}

/** Documents of EndpointSlices: containers of other hosts that a service selects, as its own are found by the agent. */
export function slicesOf(service: ServiceResource, pods: Iterable<PodResource>): Map<string, object> {
  const slices = new Map<string, Slice>();
  const selector = Object.entries(service.selector ?? {});
  if (selector.length === 0) return new Map();
  for (const pod of pods) {
    if (pod.namespace !== service.namespace) continue;
    if (!selector.every(([key, value]) => pod.labels[key] === value)) continue;
    const ports = service.ports.flatMap(({ name, protocol, targetPort }) => {
      const port =
        typeof targetPort === 'number'
          ? targetPort
          : pod.ports.find((one) => one.name === targetPort && one.protocol === protocol)?.port;
      return port === undefined ? [] : [{ ...(name === '' ? {} : { name }), protocol, port }];
    });
    for (const address of [pod.ipv4, pod.ipv6]) {
      if (address === undefined || ports.length === 0) continue;
      const family = address.includes(':') ? 6 : 4;
      const signature = `${family} ${JSON.stringify(ports)}`;
      let slice = slices.get(signature);
      if (slice === undefined) {
        slice = { family, ports, endpoints: [] };
        slices.set(signature, slice);
      }
      slice.endpoints.push({ addresses: [address], nodeName: pod.nodeName, conditions: { ready: true } });
    }
  }
  const documents = new Map<string, object>();
  for (const { family, ports, endpoints } of slices.values()) {
    const name = `${service.name}-etcd-${family}-${documents.size}`;
    documents.set(name, {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name,
        namespace: service.namespace,
        labels: { 'kubernetes.io/service-name': service.name },
      },
      addressType: `IPv${family}`,
      ports,
      endpoints,
    });
  }
  return documents;
}

interface Slice {
  readonly family: 4 | 6;
  readonly ports: readonly object[];
  readonly endpoints: object[];
}
