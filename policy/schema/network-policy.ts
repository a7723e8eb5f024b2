/**
 * `networking.k8s.io/v1` NetworkPolicy: schema and lowering. Follows ValidateNetworkPolicy and
 * SetDefaults_NetworkPolicy of Kubernetes (pkg/apis/networking); null is the zero value everywhere.
 * Stricter than that in one way: addresses with leading zeros and v4-mapped IPv6 are refused, as the
 * API server does with StrictIPCIDRValidation.
 */

import { z } from 'zod';
import { cidrContainsCidr, formatCidr } from '../address.js';
import { badDomainPattern, canonicalDomain } from '../domains.js';
import { SluiceError } from '../errors.js';
import { ANNOTATIONS } from '../model/annotations.js';
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
  refuseWith,
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

const DOMAIN_NAMES = ANNOTATIONS.egressDomainNames;
const MAX_DOMAIN_NAMES = 1000;

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
}).superRefine(({ metadata, spec }, ctx) => {
  const text = metadata.annotations?.[DOMAIN_NAMES];
  if (text === undefined) return;
  const path = ['metadata', 'annotations', DOMAIN_NAMES];
  const given = spec?.policyTypes ?? [];
  if (!given.includes('Egress') && (given.length > 0 || (spec?.egress ?? []).length === 0))
    refuseWith(ctx, SluiceError.of('SLU7302', { annotation: DOMAIN_NAMES }), path);
  const entries = entriesOf(text);
  if (entries.length === 0 || entries.length > MAX_DOMAIN_NAMES)
    refuse(ctx, `must have 1 to ${MAX_DOMAIN_NAMES} entries, not ${entries.length}`, path);
  for (const entry of entries) {
    const read = domainEntry(entry);
    if (typeof read === 'string') refuse(ctx, read, path);
  }
});

type PolicyDocument = z.output<typeof networkPolicySchema>;

/** An entry of the annotation: a name or pattern, all ports or one. */
function domainEntry(text: string): { readonly pattern: string; readonly port?: PolicyPort } | string {
  const match = /^([^:/]*)(?::(\d{1,5})(?:\/(TCP|UDP|SCTP))?)?$/.exec(text);
  const [, name = '', port, protocol = 'TCP'] = match ?? [];
  const bad =
    match === null ? `"${text}" must be NAME, NAME:PORT or NAME:PORT/PROTOCOL` : badDomainPattern(name);
  if (bad !== undefined) return bad;
  const pattern = canonicalDomain(name);
  if (port === undefined) return { pattern };
  if (Number(port) < 1 || Number(port) > 65535) return `the port of "${text}" must be from 1 to 65535`;
  return { pattern, port: { protocol: protocol as 'TCP', port: Number(port) } };
}

const entriesOf = (text: string): string[] => text.split(/[\s,]+/).filter((entry) => entry !== '');

/** Rules of the annotation: one for each entry, behind those of the document. */
function domainRules(text: string, first: number, origin: PolicyRule['origin']): PolicyRule[] {
  return entriesOf(text).flatMap((entry, i) => {
    const read = domainEntry(entry);
    if (typeof read === 'string') return [];
    const { pattern, port } = read;
    const ports = port === undefined ? [] : [port];
    return [{ index: first + i, origin, peers: [{ type: 'domain', pattern }], ports }];
  });
}
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
      ? {
          egress: [
            ...egress.map((value, i) => rule('egress', i, value.to, value.ports)),
            ...domainRules(
              document.metadata.annotations?.[DOMAIN_NAMES] ?? '',
              egress.length,
              lowering.at(['metadata', 'annotations', DOMAIN_NAMES]),
            ),
          ],
        }
      : {}),
  };
}
