/**
 * `sluice.dev/v1alpha1` HostPolicy: schema and lowering. The rules look like those of a ClusterNetworkPolicy; a rule
 * without peers is for every peer, one without protocols for everything.
 */
import { z } from 'zod';
import { formatCidr } from '../address.js';
import type { PortRange } from '../compile/ports.js';
import { PROTOCOL } from '../compile/types.js';
import { canonicalDomain } from '../domains.js';
import { SluiceError } from '../errors.js';
import type { HostPeer, HostPolicyResource, HostRule, HostSubject } from '../model/host-policy.js';
import { badDomainPattern } from './domain-name.js';
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
import { badDeviceName, badDnsSubdomain } from './names.js';
import { lowerSelector, customSelectorSchema as selector } from './selector.js';

const MAX_RULES = 1000;
const MAX_ITEMS = 1000;
const MAX_RATE = 100_000_000;
const MAX_USER = 0xfffffffe;

const EVERYTHING = { requirements: [] };

function items<T extends z.ZodType>(type: T) {
  return z
    .array(type)
    .min(1, { error: 'must not be empty: leave it out for everything' })
    .max(MAX_ITEMS, { error: `must not have more than ${MAX_ITEMS} entries` });
}

function absolute(what: string) {
  return textOf((text) => {
    if (!text.startsWith('/')) return `must be ${what} that begins with "/", not "${text}"`;
    if (text.includes('\0') || text.split('/').includes('..')) return `"${text}" must not contain ".."`;
    return undefined;
  });
}

const unit = textOf((text) =>
  /^[A-Za-z0-9:_.@\\-]{1,250}\.(?:service|scope|slice)$/.test(text)
    ? undefined
    : `"${text}" is not the name of a unit with processes, such as nginx.service`,
);

const user = z.unknown().transform((value, ctx): number | string => {
  if (typeof value === 'number') {
    if (Number.isInteger(value) && value >= 0 && value <= MAX_USER) return value;
  } else if (typeof value === 'string' && /^[a-z_][a-z0-9_-]{0,30}\$?$/.test(value)) return value;
  ctx.issues.push({
    code: 'custom',
    message: 'must be a user id or the name of a user',
    input: value,
    path: [],
  });
  return z.NEVER;
});

/** `host: {}` has no fields. */
const subject = oneOf({
  host: optional(mapping({})),
  interface: optional(textOf(badDeviceName)),
  unit: optional(unit),
  cgroup: optional(absolute('a path below the root of the cgroup hierarchy')),
  user: optional(user),
});

const range = mapping({ start: portNumber, end: portNumber }).superRefine(({ start, end }, ctx) => {
  if (start >= end) refuse(ctx, `must be greater than start (${start}), not ${end}`, ['end']);
});

const portMatch = mapping({
  destinationPort: optional(oneOf({ number: optional(portNumber), range: optional(range) })),
});

const icmpMatch = mapping({
  type: optional(wholeNumber(0, 255)),
  code: optional(wholeNumber(0, 255)),
}).superRefine(({ type, code }, ctx) => {
  if (code !== undefined && type === undefined) refuse(ctx, 'needs type', ['code']);
});

const protocolMatch = oneOf({
  tcp: optional(portMatch),
  udp: optional(portMatch),
  sctp: optional(portMatch),
  icmp: optional(icmpMatch),
  icmpv6: optional(icmpMatch),
});

const domainName = textOf(badDomainPattern);

const peer = {
  networks: optional(items(maskedCidr)),
  list: optional(absolute('the path of a file')),
  namespaces: optional(selector),
  pods: optional(mapping({ namespaceSelector: optional(selector), podSelector: selector })),
};
const ingressPeer = oneOf({ ...peer, domainNames: optional(z.unknown()) }).superRefine(
  ({ domainNames }, ctx) => {
    if (domainNames !== undefined) refuseWith(ctx, SluiceError.of('SLU7009', {}), ['domainNames']);
  },
);
const egressPeer = oneOf({ ...peer, domainNames: optional(items(domainName)) });

const limit = mapping({
  packetsPerSecond: optional(wholeNumber(1, MAX_RATE)),
  connectionsPerSecond: optional(wholeNumber(1, MAX_RATE)),
  burst: optional(wholeNumber(1, MAX_RATE)),
  perSource: optional(z.boolean()),
}).superRefine(({ packetsPerSecond, connectionsPerSecond }, ctx) => {
  if (packetsPerSecond === undefined && connectionsPerSecond === undefined)
    refuse(ctx, 'needs packetsPerSecond or connectionsPerSecond');
});

const base = {
  name: optional(
    textOf((text) => (text.length > 100 ? 'must not be longer than 100 characters' : undefined)),
  ),
  action: z.enum(['Accept', 'Deny', 'Pass']),
  protocols: optional(items(protocolMatch)),
  limit: optional(limit),
  log: optional(z.boolean()),
};

function rule<T extends z.core.$ZodLooseShape>(shape: T) {
  return mapping({ ...base, ...shape }).superRefine((value, ctx) => {
    const { action, limit: given } = value as { action: string; limit?: unknown };
    if (given !== undefined && action !== 'Accept')
      refuse(ctx, `belongs to a rule that accepts, not to ${action}: what is over the limit is dropped`, [
        'limit',
      ]);
  });
}

const ingressRule = rule({ from: optional(items(ingressPeer)) });
const egressRule = rule({ to: optional(items(egressPeer)) });

function rules<T extends z.ZodType>(type: T) {
  return optional(z.array(type).max(MAX_RULES, { error: `must not have more than ${MAX_RULES} rules` }));
}

export const hostPolicySchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: clusterMetadata('HostPolicy', badDnsSubdomain),
  spec: mapping({
    tier: optional(z.enum(['Admin', 'Baseline'])),
    priority: optional(wholeNumber(0, 1000)),
    subject,
    ingress: rules(ingressRule),
    egress: rules(egressRule),
  }),
  status: z.unknown().optional(),
});

/** Priority of a policy that gives none. */
const DEFAULT_PRIORITY = 500;

type PolicyDocument = z.output<typeof hostPolicySchema>;
type PeerDocument = Omit<z.output<typeof egressPeer>, never>;
type ProtocolDocument = z.output<typeof protocolMatch>;
type RuleDocument = Omit<z.output<typeof egressRule>, 'to'>;

function lowerSubject(value: PolicyDocument['spec']['subject']): HostSubject {
  if (value.interface !== undefined) return { type: 'interface', name: value.interface };
  if (value.unit !== undefined) return { type: 'unit', name: value.unit };
  if (value.cgroup !== undefined)
    return { type: 'cgroup', path: value.cgroup.replace(/\/+/g, '/').replace(/(.)\/$/, '$1') };
  if (value.user !== undefined) return { type: 'user', user: value.user };
  return { type: 'host' };
}

function lowerPeer(value: PeerDocument): HostPeer[] {
  if (value.networks !== undefined) return [{ type: 'networks', cidrs: value.networks.map(formatCidr) }];
  if (value.list !== undefined) return [{ type: 'list', path: value.list }];
  if (value.domainNames !== undefined)
    return value.domainNames.map((name) => ({ type: 'domain', name: canonicalDomain(name) }));
  const namespaces = value.namespaces ?? value.pods?.namespaceSelector;
  return [
    {
      type: 'pods',
      namespaceSelector: namespaces === undefined ? EVERYTHING : lowerSelector(namespaces),
      podSelector: value.pods === undefined ? EVERYTHING : lowerSelector(value.pods.podSelector),
    },
  ];
}

const LAST_PORT = 65535;

const PORTS = [
  ['tcp', PROTOCOL.TCP],
  ['udp', PROTOCOL.UDP],
  ['sctp', PROTOCOL.SCTP],
] as const;
const ICMP = [
  ['icmp', PROTOCOL.ICMP],
  ['icmpv6', PROTOCOL.ICMPv6],
] as const;

function lowerProtocol(match: ProtocolDocument): PortRange[] {
  const out: PortRange[] = [];
  for (const [field, protocol] of PORTS) {
    const value = match[field];
    if (value === undefined) continue;
    const { number, range: ports } = value.destinationPort ?? {};
    if (number !== undefined) out.push({ protocol, low: number, high: number });
    else out.push({ protocol, low: ports?.start ?? 0, high: ports?.end ?? LAST_PORT });
  }
  for (const [field, protocol] of ICMP) {
    const value = match[field];
    if (value === undefined) continue;
    const { type, code } = value;
    if (type === undefined) out.push({ protocol, low: 0, high: LAST_PORT });
    else out.push({ protocol, low: type * 256 + (code ?? 0), high: type * 256 + (code ?? 255) });
  }
  return out;
}

export function lowerHostPolicy(document: PolicyDocument, lowering: Lowering): HostPolicyResource {
  const { metadata, spec } = document;
  const lowerRule = (
    direction: 'ingress' | 'egress',
    index: number,
    value: RuleDocument,
    peers: readonly PeerDocument[] | undefined,
  ): HostRule => ({
    index,
    origin: lowering.at(['spec', direction, index]),
    ...(value.name === undefined || value.name === '' ? {} : { name: value.name }),
    action: value.action,
    peers: (peers ?? []).flatMap(lowerPeer),
    ports: value.protocols === undefined ? 'all' : value.protocols.flatMap(lowerProtocol),
    ...(value.limit === undefined ? {} : { limit: lowerLimit(value.limit) }),
    log: value.log ?? false,
  });
  return {
    kind: 'HostPolicy',
    name: metadata.name,
    origin: lowering.origin(),
    source: lowering.source,
    tier: spec.tier ?? 'Admin',
    priority: spec.priority ?? DEFAULT_PRIORITY,
    subject: lowerSubject(spec.subject),
    ingress: (spec.ingress ?? []).map((value, i) =>
      lowerRule('ingress', i, value, value.from as readonly PeerDocument[] | undefined),
    ),
    egress: (spec.egress ?? []).map((value, i) => lowerRule('egress', i, value, value.to)),
  };
}

function lowerLimit({ packetsPerSecond, connectionsPerSecond, burst, perSource }: z.output<typeof limit>) {
  return {
    ...(packetsPerSecond === undefined ? {} : { packetsPerSecond }),
    ...(connectionsPerSecond === undefined ? {} : { connectionsPerSecond }),
    ...(burst === undefined ? {} : { burst }),
    perSource: perSource ?? false,
  };
}
