/** `discovery.k8s.io/v1` EndpointSlice: schema and lowering (ValidateEndpointSlice of Kubernetes). */

import { z } from 'zod';
import { canonicalAddress, tryParseAddress } from '../address.js';
import { ANNOTATIONS } from '../model/annotations.js';
import type { EndpointSliceResource, SliceEndpoint, SlicePort } from '../model/service.js';
import {
  mapping,
  namespacedMetadata,
  optional,
  orEmpty,
  protocol,
  refuse,
  textOf,
  wholeNumber,
} from './fields.js';
import { type Lowering, repeats } from './lowering.js';
import { badDnsLabel } from './names.js';
import { SERVICE_NAME_LABEL } from './plain-slice.js';

/** Weight in an annotation; undefined: it is none. */
function weightOf(text: string): number | undefined {
  return /^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= 100 ? Number(text) : undefined;
}

const anything = z.unknown().optional();

const hint = mapping({ name: z.string() });

const endpoint = mapping({
  addresses: z.array(z.string()).min(1).max(100, { error: 'must not have more than 100 addresses' }),
  conditions: optional(
    mapping({
      ready: optional(z.boolean()),
      serving: optional(z.boolean()),
      terminating: optional(z.boolean()),
    }),
  ),
  hostname: optional(z.string()),
  nodeName: optional(z.string()),
  zone: optional(z.string()),
  hints: optional(
    mapping({ forZones: optional(z.array(orEmpty(hint))), forNodes: optional(z.array(orEmpty(hint))) }),
  ),
  targetRef: anything,
  deprecatedTopology: anything,
});

const slicePort = mapping({
  name: optional(textOf((text) => (text === '' ? undefined : badDnsLabel(text)))),
  protocol: optional(protocol),
  port: optional(wholeNumber(1, 65535)),
  appProtocol: anything,
});

export const endpointSliceSchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: namespacedMetadata().superRefine(({ annotations = {} }, ctx) => {
    const text = annotations[ANNOTATIONS.weight];
    if (text !== undefined && weightOf(text) === undefined)
      refuse(ctx, `must be a whole number from 1 to 100, not "${text}"`, ['annotations', ANNOTATIONS.weight]);
  }),
  addressType: z.enum(['IPv4', 'IPv6', 'FQDN']),
  endpoints: optional(
    z.array(orEmpty(endpoint)).max(1000, { error: 'must not have more than 1000 endpoints' }),
  ),
  ports: optional(z.array(orEmpty(slicePort)).max(100, { error: 'must not have more than 100 ports' })),
}).superRefine((value, ctx) => {
  if (value.addressType === 'FQDN') return;
  (value.endpoints ?? []).forEach(({ addresses }, i) => {
    addresses.forEach((text, j) => {
      const at = ['endpoints', i, 'addresses', j];
      if (tryParseAddress(text) === undefined)
        refuse(ctx, `"${text}" is not an ${value.addressType} address`, at);
      else if (text.includes(':') !== (value.addressType === 'IPv6'))
        refuse(ctx, `"${text}" is not an ${value.addressType} address, and addressType says so`, at);
    });
  });
});

type SliceDocument = z.output<typeof endpointSliceSchema>;
type EndpointDocument = NonNullable<SliceDocument['endpoints']>[number];

function lowerEndpoint(value: EndpointDocument, weight: number | undefined): SliceEndpoint {
  const { conditions, hints } = value;
  const address = canonicalAddress(value.addresses[0] ?? '');
  const ready = conditions?.ready ?? true;
  // An unknown serving is as ready; an unknown terminating is false (EndpointConditions).
  const serving = conditions?.serving ?? ready;
  const terminating = conditions?.terminating ?? false;
  const { nodeName } = value;
  // There are very many of these, and they are to be small.
  if (nodeName !== undefined && value.zone === undefined && hints === undefined && weight === undefined)
    return { address, ready, serving, terminating, nodeName };
  return {
    address,
    ready,
    serving,
    terminating,
    ...(value.nodeName === undefined ? {} : { nodeName: value.nodeName }),
    ...(value.zone === undefined ? {} : { zone: value.zone }),
    ...(hints?.forZones === undefined || hints.forZones.length === 0
      ? {}
      : { hintZones: hints.forZones.map(({ name }) => name) }),
    ...(hints?.forNodes === undefined || hints.forNodes.length === 0
      ? {}
      : { hintNodes: hints.forNodes.map(({ name }) => name) }),
    ...(weight === undefined ? {} : { weight }),
  };
}

/** Slices that come together often have the same ports, which then are one list. */
const likeBefore = repeats<SlicePort>(
  (a, b) => a.name === b.name && a.protocol === b.protocol && a.port === b.port,
);

export function lowerEndpointSlice(document: SliceDocument, lowering: Lowering): EndpointSliceResource {
  const { metadata, addressType } = document;
  const service = metadata.labels?.[SERVICE_NAME_LABEL];
  const weight = weightOf(metadata.annotations?.[ANNOTATIONS.weight] ?? '');
  const usable = addressType === 'FQDN' ? [] : (document.endpoints ?? []);
  return {
    kind: 'EndpointSlice',
    name: metadata.name,
    namespace: metadata.namespace ?? 'default',
    origin: lowering.origin(),
    source: lowering.source,
    ...(service === undefined ? {} : { service }),
    ...(addressType === 'FQDN' ? {} : { family: addressType === 'IPv6' ? 6 : 4 }),
    // A port without a number stands for all ports, which no service can have.
    ports: likeBefore(
      (document.ports ?? [])
        .filter((port) => port.port !== undefined)
        .map(({ name = '', protocol = 'TCP', port = 0 }) => ({ name, protocol, port })),
    ),
    endpoints: usable.map((value) => lowerEndpoint(value, weight)),
  };
}
