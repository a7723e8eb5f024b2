/**
 * `v1` Pod and Node, as far as networks and policies see them: labels, names of ports, addresses and ranges. All other
 * fields are left alone, so that what `kubectl get -o yaml` prints can be used as it is.
 */

import { z } from 'zod';
import { canonicalAddress, formatCidr, parseCidr, tryParseAddress } from '../address.js';
import { SluiceError } from '../errors.js';
import { ANNOTATIONS } from '../model/annotations.js';
import type { ContainerPort, NodeResource, PodResource } from '../model/resources.js';
import { DEFAULT_NAMESPACE } from './container.js';
import {
  address,
  clusterMetadata,
  mapping,
  namespacedMetadata,
  optional,
  orEmpty,
  portNumber,
  protocol,
  refuse,
  refuseWith,
  textOf,
} from './fields.js';
import type { Lowering } from './lowering.js';
import { badDnsSubdomain, badPortName } from './names.js';

const port = z.looseObject({
  name: optional(textOf(badPortName)),
  protocol: optional(protocol),
  containerPort: portNumber,
});

const container = z.looseObject({
  ports: optional(z.array(port)),
  restartPolicy: optional(z.string()),
});

const podStatus = z
  .looseObject({
    podIP: optional(address),
    podIPs: optional(z.array(z.looseObject({ ip: address }))),
    phase: optional(z.string()),
  })
  .superRefine(({ podIP, podIPs = [] }, ctx) => {
    const families = podIPs.map(({ ip }) => ip.includes(':'));
    if (podIPs.length > 2 || (podIPs.length === 2 && families[0] === families[1]))
      refuse(ctx, 'has at most one address of each family', ['podIPs']);
    if (podIP !== undefined && podIPs.length > 0 && podIPs[0]?.ip !== podIP)
      refuse(ctx, `must be the first of podIPs (${podIPs[0]?.ip}), not ${podIP}`, ['podIP']);
  });

export const podSchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: namespacedMetadata(),
  spec: optional(
    z.looseObject({
      nodeName: optional(textOf(badDnsSubdomain)),
      hostNetwork: optional(z.boolean()),
      containers: optional(z.array(orEmpty(container))),
      initContainers: optional(z.array(orEmpty(container))),
    }),
  ),
  status: optional(podStatus),
});

/** Names that a policy can use; of two ports with one name and protocol the first counts. */
function namedPorts(containers: readonly z.output<typeof container>[]): ContainerPort[] {
  const found = new Map<string, ContainerPort>();
  for (const { name, protocol: given = 'TCP', containerPort } of containers.flatMap(
    ({ ports }) => ports ?? [],
  )) {
    const key = `${name}/${given}`;
    if (name !== undefined && !found.has(key)) found.set(key, { name, protocol: given, port: containerPort });
  }
  return [...found.values()];
}

/** Phases in which a pod runs no more. */
const ENDED: ReadonlySet<string> = new Set(['Succeeded', 'Failed']);

export function lowerPod(document: z.output<typeof podSchema>, lowering: Lowering): PodResource {
  const { metadata, spec, status } = document;
  const sidecars = (spec?.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
  const addresses = [
    ...(status?.podIPs ?? []).map(({ ip }) => ip),
    ...(status?.podIP === undefined ? [] : [status.podIP]),
  ];
  const ipv4 = addresses.find((text) => !text.includes(':'));
  const ipv6 = addresses.find((text) => text.includes(':'));
  return {
    kind: 'Pod',
    name: metadata.name,
    namespace: metadata.namespace ?? DEFAULT_NAMESPACE,
    labels: metadata.labels ?? {},
    origin: lowering.origin(),
    source: lowering.source,
    ...(spec?.nodeName === undefined ? {} : { nodeName: spec.nodeName }),
    hostNetwork: spec?.hostNetwork ?? false,
    ...(ENDED.has(status?.phase ?? '') ? { ended: true } : {}),
    ports: namedPorts([...(spec?.containers ?? []), ...sidecars]),
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
  };
}

const ADDRESS_TYPES: ReadonlySet<string> = new Set(['InternalIP', 'ExternalIP']);

/** A range of addresses; the value is its canonical text. */
const podRange = z.string().transform((text, ctx) => {
  try {
    return formatCidr(parseCidr(text));
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    refuseWith(ctx, error);
    return z.NEVER;
  }
});

const nodeAddress = z
  .looseObject({ type: z.string(), address: z.string() })
  .superRefine(({ type, address: text }, ctx) => {
    if (ADDRESS_TYPES.has(type) && tryParseAddress(text) === undefined)
      refuse(ctx, `"${text}" is not an IPv4 or IPv6 address`, ['address']);
  });

export const nodeSchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: clusterMetadata('Node', badDnsSubdomain),
  spec: optional(
    z
      .looseObject({ podCIDR: optional(podRange), podCIDRs: optional(z.array(podRange)) })
      .superRefine(({ podCIDR: first, podCIDRs: all = [] }, ctx) => {
        if (first !== undefined && all.length > 0 && all[0] !== first)
          refuse(ctx, `must be the first of podCIDRs (${all[0]}), not ${first}`, ['podCIDR']);
      }),
  ),
  status: optional(z.looseObject({ addresses: optional(z.array(nodeAddress)) })),
});

export function lowerNode(document: z.output<typeof nodeSchema>, lowering: Lowering): NodeResource {
  const { metadata, spec, status } = document;
  const given = (status?.addresses ?? []).filter(({ type }) => ADDRESS_TYPES.has(type));
  const internalFirst = [...given].sort((a, b) => rank(a.type) - rank(b.type));
  const ranges = [...(spec?.podCIDRs ?? []), ...(spec?.podCIDR === undefined ? [] : [spec.podCIDR])];
  const publicKey = metadata.annotations?.[ANNOTATIONS.publicKey];
  return {
    kind: 'Node',
    name: metadata.name,
    labels: metadata.labels ?? {},
    origin: lowering.origin(),
    source: lowering.source,
    addresses: [...new Set(internalFirst.map(({ address: text }) => canonicalAddress(text)))],
    podCidrs: [...new Set(ranges)],
    // One that is none is like none: nothing is sent to the node then.
    ...(publicKey !== undefined && PUBLIC_KEY.test(publicKey) ? { publicKey } : {}),
  };
}

/** 32 bytes in base64. */
const PUBLIC_KEY = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/;

function rank(type: string): number {
  return type === 'InternalIP' ? 0 : 1;
}
