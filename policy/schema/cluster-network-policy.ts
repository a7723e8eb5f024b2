/**
 * `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy: schema and lowering. Follows the custom
 * resource definition of the network policy API (experimental channel, v0.2.0) with its CEL rules. As
 * for any custom resource, a null field counts as left out and a null item is an error.
 *
 * Stricter where that definition leaves open what no implementation can evaluate: label selectors are
 * checked as in NetworkPolicy, and a named port needs a name.
 */
import { z } from 'zod';
import { type Cidr, formatCidr } from '../address.js';
import { badDomainPattern, canonicalDomain } from '../domains.js';
import { SluiceError } from '../errors.js';
import type {
  ClusterNetworkPolicyResource,
  ClusterPolicyRule,
  PolicyPeer,
  PolicyPort,
  PortProtocol,
} from '../model/resources.js';
import {
  clusterMetadata,
  mapping,
  maskedCidr,
  oneOf,
  optional,
  portNumber,
  refuse,
  refuseWith,
  textOf,
  wholeNumber,
} from './fields.js';
import type { Lowering } from './lowering.js';
import { badDnsSubdomain } from './names.js';
import { lowerSelector, customSelectorSchema as selector } from './selector.js';

/** Most rules of a direction, and most entries of each list in a rule. */
const MAX_ITEMS = 25;
const MAX_NAME = 100;
const MAX_CIDR = 43;

const EVERYTHING = { requirements: [] };

function items<T extends z.ZodType>(type: T) {
  return z
    .array(type)
    .min(1)
    .max(MAX_ITEMS, { error: `must not have more than ${MAX_ITEMS} entries` });
}

const range = mapping({ start: portNumber, end: portNumber }).superRefine(({ start, end }, ctx) => {
  if (start >= end) refuse(ctx, `must be greater than start (${start}), not ${end}`, ['end']);
});

/** The API wants at least one field here, and there is no other. */
const portMatch = mapping({
  destinationPort: oneOf({ number: optional(portNumber), range: optional(range) }),
});

const protocolMatch = oneOf({
  tcp: optional(portMatch),
  udp: optional(portMatch),
  sctp: optional(portMatch),
  destinationNamedPort: optional(textOf((text) => (text === '' ? 'must not be empty' : undefined))),
});

const namespacedPod = mapping({ namespaceSelector: optional(selector), podSelector: selector });

const networks = items(
  z.string().superRefine((text, ctx) => {
    if (text.length > MAX_CIDR) refuse(ctx, `must not be longer than ${MAX_CIDR} characters`);
  }),
).transform((texts, ctx): Cidr[] => {
  const first = new Map<string, number>();
  return texts.flatMap((text, i) => {
    const other = first.get(text);
    if (other === undefined) first.set(text, i);
    else
      ctx.issues.push({
        code: 'custom',
        message: `"${text}" is listed twice (also ${other})`,
        input: text,
        path: [i],
      });
    const result = maskedCidr.safeParse(text);
    if (result.success) return [result.data];
    for (const issue of result.error.issues)
      ctx.issues.push({ ...issue, code: 'custom', message: issue.message, input: text, path: [i] });
    return [];
  });
});

const domainNames = items(textOf(badDomainPattern));

const podPeers = { namespaces: optional(selector), pods: optional(namespacedPod) };
const ingressPeer = oneOf(podPeers);
const egressPeer = oneOf({
  ...podPeers,
  nodes: optional(selector),
  networks: optional(networks),
  domainNames: optional(domainNames),
});

const rule = {
  name: optional(
    textOf((text) =>
      [...text].length > MAX_NAME
        ? `must not be longer than ${MAX_NAME} characters (it has ${[...text].length})`
        : undefined,
    ),
  ),
  action: z.enum(['Accept', 'Deny', 'Pass']),
  protocols: optional(items(protocolMatch)),
};
const ingressRule = mapping({ ...rule, from: items(ingressPeer) });
const egressRule = mapping({ ...rule, to: items(egressPeer) }).superRefine(
  ({ to, protocols, action }, ctx) => {
    const named = (protocols ?? []).findIndex((match) => match.destinationNamedPort !== undefined);
    const kind = (['nodes', 'networks', 'domainNames'] as const).find((field) =>
      to.some((peer) => peer[field] !== undefined),
    );
    const names = to.findIndex((peer) => peer.domainNames !== undefined);
    if (names >= 0 && action !== 'Accept')
      refuseWith(ctx, SluiceError.of('SLU7301', { action }), ['to', names, 'domainNames']);
    if (named >= 0 && kind !== undefined)
      refuse(ctx, `cannot be used with a peer of ${kind}: they have no named ports`, [
        'protocols',
        named,
        'destinationNamedPort',
      ]);
  },
);

function rules<T extends z.ZodType>(type: T) {
  return optional(z.array(type).max(MAX_ITEMS, { error: `must not have more than ${MAX_ITEMS} rules` }));
}

export const clusterNetworkPolicySchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: clusterMetadata('ClusterNetworkPolicy', badDnsSubdomain),
  spec: mapping({
    tier: z.enum(['Admin', 'Baseline']),
    priority: wholeNumber(0, 1000),
    subject: oneOf(podPeers),
    ingress: rules(ingressRule),
    egress: rules(egressRule),
  }),
});

type PolicyDocument = z.output<typeof clusterNetworkPolicySchema>;
type PeerDocument = Partial<z.output<typeof egressPeer>>;
type ProtocolDocument = z.output<typeof protocolMatch>;
type SubjectDocument = Pick<PeerDocument, 'namespaces' | 'pods'>;

function lowerPods({ namespaces, pods }: SubjectDocument): ClusterNetworkPolicyResource['subject'] {
  const inNamespaces = namespaces ?? pods?.namespaceSelector;
  return {
    namespaceSelector: inNamespaces === undefined ? EVERYTHING : lowerSelector(inNamespaces),
    podSelector: pods === undefined ? EVERYTHING : lowerSelector(pods.podSelector),
  };
}

function lowerPeer(peer: PeerDocument): PolicyPeer[] {
  if (peer.networks !== undefined)
    return peer.networks.map((cidr) => ({ type: 'ipBlock', cidr: formatCidr(cidr), except: [] }));
  if (peer.domainNames !== undefined)
    return peer.domainNames.map((name) => ({ type: 'domain', pattern: canonicalDomain(name) }));
  if (peer.nodes !== undefined) return [{ type: 'nodes', nodeSelector: lowerSelector(peer.nodes) }];
  return [{ type: 'pods', ...lowerPods(peer) }];
}

const PROTOCOLS = [
  ['tcp', 'TCP'],
  ['udp', 'UDP'],
  ['sctp', 'SCTP'],
] as const satisfies readonly (readonly [string, PortProtocol])[];

/** A named port of any protocol is one of each. */
function lowerProtocol(match: ProtocolDocument): PolicyPort[] {
  const name = match.destinationNamedPort;
  if (name !== undefined) return PROTOCOLS.map(([, protocol]) => ({ protocol, port: name }));
  return PROTOCOLS.flatMap(([field, protocol]): PolicyPort[] => {
    const { number, range: ports } = match[field]?.destinationPort ?? {};
    if (ports !== undefined) return [{ protocol, port: ports.start, endPort: ports.end }];
    return number === undefined ? [] : [{ protocol, port: number }];
  });
}

export function lowerClusterNetworkPolicy(
  document: PolicyDocument,
  lowering: Lowering,
): ClusterNetworkPolicyResource {
  const { metadata, spec } = document;
  const lowerRule = (
    direction: 'ingress' | 'egress',
    index: number,
    value: Pick<z.output<typeof ingressRule>, 'name' | 'action' | 'protocols'>,
    peers: readonly PeerDocument[],
  ): ClusterPolicyRule => ({
    index,
    origin: lowering.at(['spec', direction, index]),
    ...(value.name === undefined || value.name === '' ? {} : { name: value.name }),
    action: value.action,
    peers: peers.flatMap(lowerPeer),
    ports: (value.protocols ?? []).flatMap(lowerProtocol),
  });
  return {
    kind: 'ClusterNetworkPolicy',
    name: metadata.name,
    origin: lowering.origin(),
    source: lowering.source,
    tier: spec.tier,
    priority: spec.priority,
    subject: lowerPods(spec.subject),
    ingress: (spec.ingress ?? []).map((value, i) => lowerRule('ingress', i, value, value.from)),
    egress: (spec.egress ?? []).map((value, i) => lowerRule('egress', i, value, value.to)),
  };
}
