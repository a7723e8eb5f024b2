/**
 * `networking.k8s.io/v1` NetworkPolicy: schema and lowering. Follows ValidateNetworkPolicy and
 * SetDefaults_NetworkPolicy of Kubernetes (pkg/apis/networking); null is the zero value everywhere.
 * Stricter than that in one way: addresses with leading zeros and v4-mapped IPv6 are refused, as the
 * API server does with StrictIPCIDRValidation.
 */
import { z } from 'zod';
import { cidrContainsCidr, formatCidr } from '../address.js';
import type { NetworkPolicyResource, PolicyPeer, PolicyPort, PolicyRule } from '../model/resources.js';
import {
  mapping,
  maskedCidr,
  namespacedMetadata,
  optional,
  orEmpty,
  portNumber,
  protocol,
  refuse,
  textOf,
} from './fields.js';
import type { Lowering } from './lowering.js';
import { badPortName } from './names.js';
import { lowerSelector, selectorSchema } from './selector.js';

const policyPort = mapping({
  protocol: optional(protocol),
  port: optional(
    z.unknown().transform((value, ctx): number | string => {
      const type = typeof value === 'string' ? textOf(badPortName) : portNumber;
      const result = type.safeParse(value);
      if (result.success) return result.data;
      for (const issue of result.error.issues) {
        const message =
          issue.code === 'invalid_type' ? 'must be a port number or the name of a port' : issue.message;
        ctx.issues.push({ code: 'custom', message, input: value, path: [] });
      }
      return z.NEVER;
    }),
  ),
  endPort: optional(portNumber),
}).superRefine(({ port, endPort }, ctx) => {
  if (endPort === undefined) return;
  if (port === undefined) refuse(ctx, 'needs port: a range begins there', ['endPort']);
  else if (typeof port === 'string') refuse(ctx, `cannot be used with the named port "${port}"`, ['endPort']);
  else if (endPort < port) refuse(ctx, `must not be less than port (${port}), not ${endPort}`, ['endPort']);
});

const ipBlock = mapping({ cidr: maskedCidr, except: optional(z.array(maskedCidr)) }).superRefine(
  ({ cidr, except = [] }, ctx) => {
    except.forEach((part, i) => {
      if (cidrContainsCidr(cidr, part) && part.prefixLength > cidr.prefixLength) return;
      refuse(ctx, `${formatCidr(part)} must be a strict part of ${formatCidr(cidr)}`, ['except', i]);
    });
  },
);

const peer = mapping({
  podSelector: optional(selectorSchema),
  namespaceSelector: optional(selectorSchema),
  ipBlock: optional(ipBlock),
}).superRefine((value, ctx) => {
  const selectors = value.podSelector !== undefined || value.namespaceSelector !== undefined;
  if (!selectors && value.ipBlock === undefined)
    refuse(ctx, 'needs podSelector, namespaceSelector or ipBlock');
  if (selectors && value.ipBlock !== undefined)
    refuse(ctx, 'cannot be combined with podSelector or namespaceSelector', ['ipBlock']);
});

const ingressRule = mapping({
  from: optional(z.array(orEmpty(peer))),
  ports: optional(z.array(orEmpty(policyPort))),
});
const egressRule = mapping({
  to: optional(z.array(orEmpty(peer))),
  ports: optional(z.array(orEmpty(policyPort))),
});

const policyTypes = z
  .array(z.enum(['Ingress', 'Egress']))
  .max(2, { error: 'must not have more than two entries' });

export const networkPolicySchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: namespacedMetadata(),
  spec: optional(
    mapping({
      podSelector: optional(selectorSchema),
      policyTypes: optional(policyTypes),
      ingress: optional(z.array(orEmpty(ingressRule))),
      egress: optional(z.array(orEmpty(egressRule))),
    }),
  ),
  status: z.unknown().optional(),
});

type PolicyDocument = z.output<typeof networkPolicySchema>;
type PeerDocument = z.output<typeof peer>;
type PortDocument = z.output<typeof policyPort>;

const EVERYTHING = { requirements: [] };

function lowerPeer(value: PeerDocument): PolicyPeer {
  if (value.ipBlock !== undefined) {
    const { cidr, except } = value.ipBlock;
    return { type: 'ipBlock', cidr: formatCidr(cidr), except: (except ?? []).map(formatCidr) };
  }
  return {
    type: 'pods',
    ...(value.namespaceSelector === undefined
      ? {}
      : { namespaceSelector: lowerSelector(value.namespaceSelector) }),
    podSelector: value.podSelector === undefined ? EVERYTHING : lowerSelector(value.podSelector),
  };
}

function lowerPort(value: PortDocument): PolicyPort {
  return {
    protocol: value.protocol ?? 'TCP',
    ...(value.port === undefined ? {} : { port: value.port }),
    ...(value.endPort === undefined ? {} : { endPort: value.endPort }),
  };
}

export function lowerNetworkPolicy(document: PolicyDocument, lowering: Lowering): NetworkPolicyResource {
  const spec: Partial<NonNullable<PolicyDocument['spec']>> = document.spec ?? {};
  const ingress = spec.ingress ?? [];
  const egress = spec.egress ?? [];
  const given = spec.policyTypes ?? [];
  const types = given.length > 0 ? given : egress.length > 0 ? ['Ingress', 'Egress'] : ['Ingress'];
  const rule = (
    field: string,
    index: number,
    peers: readonly PeerDocument[] | undefined,
    ports: readonly PortDocument[] | undefined,
  ): PolicyRule => ({
    index,
    origin: lowering.at(['spec', field, index]),
    peers: (peers ?? []).map(lowerPeer),
    ports: (ports ?? []).map(lowerPort),
  });
  return {
    kind: 'NetworkPolicy',
    name: document.metadata.name,
    namespace: document.metadata.namespace ?? 'default',
    origin: lowering.origin(),
    source: lowering.source,
    podSelector: spec.podSelector === undefined ? EVERYTHING : lowerSelector(spec.podSelector),
    ...(types.includes('Ingress')
      ? { ingress: ingress.map((value, i) => rule('ingress', i, value.from, value.ports)) }
      : {}),
    ...(types.includes('Egress')
      ? { egress: egress.map((value, i) => rule('egress', i, value.to, value.ports)) }
      : {}),
  };
}
