/**
 * `v1` Service: schema and lowering. Follows ValidateService and SetDefaults_Service of Kubernetes
 * (pkg/apis/core); null is the zero value everywhere. Fields that the API server fills in (clusterIPs,
 * nodePort, healthCheckNodePort) may be left out.
 */

import { z } from 'zod';
import { cidrContains, familyOf, formatCidr, parseAddress, parseCidr } from '../address.js';
import { ANNOTATIONS } from '../model/annotations.js';
import type { Origin } from '../model/resources.js';
import type {
  Balancing,
  IpFamily,
  LoadBalancerAddress,
  ServicePort,
  ServiceResource,
  TrafficPolicy,
} from '../model/service.js';
import {
  address,
  labelMap,
  mapping,
  maskedCidr,
  namespacedMetadata,
  optional,
  orEmpty,
  portNumber,
  protocol,
  refuse,
  textOf,
  wholeNumber,
} from './fields.js';
import { type Lowering, repeats } from './lowering.js';
import { badDnsLabel, badDnsSubdomain, badPortName } from './names.js';
import type { ServiceParts } from './plain-service.js';

/** What the annotations may say. */
const ANNOTATION_VALUES: Readonly<Record<string, readonly string[]>> = {
  [ANNOTATIONS.balancing]: ['random', 'least-connections'],
  [ANNOTATIONS.externalBalancing]: ['maglev', 'random'],
  [ANNOTATIONS.externalMode]: ['snat', 'dsr'],
};

const UNUSABLE = [
  '0.0.0.0/8',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '224.0.0.0/4',
  '::/128',
  '::1/128',
  'fe80::/10',
  'ff00::/8',
].map((text) => parseCidr(text));

/** An address that others can reach (ValidateNonSpecialIP). */
const reachable = address.superRefine((text, ctx) => {
  const bytes = parseAddress(text);
  const special = UNUSABLE.find((cidr) => cidrContains(cidr, bytes));
  if (special !== undefined) refuse(ctx, `${text} is in ${formatCidr(special)}: no service can have it`);
});

const clusterIp = optional(
  z.string().transform((text, ctx) => {
    if (text === '' || text === 'None') return text;
    const result = address.safeParse(text);
    if (result.success) return result.data;
    refuse(ctx, `"${text}" must be an address, "None" (headless) or empty`);
    return z.NEVER;
  }),
);

/** A port number or the name of a port. */
const targetPort = optional(
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
);

const servicePort = mapping({
  name: optional(textOf((text) => (text === '' ? undefined : badDnsLabel(text)))),
  protocol: optional(protocol),
  appProtocol: z.unknown().optional(),
  port: portNumber,
  targetPort,
  nodePort: optional(wholeNumber(0, 65535)),
});

const ingress = mapping({
  ip: optional(
    z
      .string()
      .transform((text) => (text === '' ? undefined : text))
      .pipe(address.optional()),
  ),
  hostname: optional(z.string()),
  ipMode: optional(z.enum(['VIP', 'Proxy'])),
  ports: z.unknown().optional(),
});

const traffic = optional(z.enum(['Cluster', 'Local']));

const spec = mapping({
  type: optional(z.enum(['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'])),
  selector: optional(labelMap),
  ports: optional(z.array(orEmpty(servicePort))),
  clusterIP: clusterIp,
  clusterIPs: optional(z.array(clusterIp).max(2, { error: 'must not have more than two addresses' })),
  ipFamilies: optional(
    z.array(z.enum(['IPv4', 'IPv6'])).max(2, { error: 'must not have more than two families' }),
  ),
  ipFamilyPolicy: optional(z.enum(['SingleStack', 'PreferDualStack', 'RequireDualStack'])),
  externalIPs: optional(z.array(reachable)),
  externalName: optional(z.string()),
  sessionAffinity: optional(z.enum(['None', 'ClientIP'])),
  sessionAffinityConfig: optional(
    mapping({ clientIP: optional(mapping({ timeoutSeconds: optional(wholeNumber(1, 86400)) })) }),
  ),
  internalTrafficPolicy: traffic,
  externalTrafficPolicy: traffic,
  healthCheckNodePort: optional(wholeNumber(0, 65535)),
  loadBalancerIP: optional(z.string()),
  loadBalancerClass: optional(z.string()),
  loadBalancerSourceRanges: optional(
    z.array(
      z
        .string()
        .transform((text) => text.trim())
        .pipe(maskedCidr),
    ),
  ),
  allocateLoadBalancerNodePorts: optional(z.boolean()),
  publishNotReadyAddresses: optional(z.boolean()),
  trafficDistribution: optional(z.enum(['PreferClose', 'PreferSameZone', 'PreferSameNode'])),
});

type SpecDocument = z.output<typeof spec>;

export const serviceSchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: namespacedMetadata(badDnsLabel).superRefine(({ annotations = {} }, ctx) => {
    for (const [key, values] of Object.entries(ANNOTATION_VALUES)) {
      const value = annotations[key];
      if (value === undefined || values.includes(value)) continue;
      refuse(ctx, `must be ${values.map((one) => `"${one}"`).join(' or ')}, not "${value}"`, [
        'annotations',
        key,
      ]);
    }
  }),
  spec: optional(spec.superRefine(checkSpec)),
  status: optional(
    z.looseObject({ loadBalancer: optional(z.looseObject({ ingress: optional(z.array(ingress)) })) }),
  ),
});

type ServiceDocument = z.output<typeof serviceSchema>;

type Context = Parameters<Parameters<typeof spec.superRefine>[0]>[1];

/** What fields may not be together (ValidateService). */
function checkSpec(value: SpecDocument, ctx: Context): void {
  const type = value.type ?? 'ClusterIP';
  const ports = value.ports ?? [];
  const ips = clusterIpsOf(value);
  if (type === 'ExternalName') {
    const reason = badDnsSubdomain((value.externalName ?? '').replace(/\.$/, ''));
    if (reason !== undefined) refuse(ctx, reason, ['externalName']);
    if (ips.length > 0 && ips !== 'None') refuse(ctx, 'must be empty for type ExternalName', ['clusterIP']);
  } else if (ports.length === 0 && ips !== 'None') refuse(ctx, 'needs at least one port', ['ports']);
  if (ips === 'None' && (type === 'NodePort' || type === 'LoadBalancer'))
    refuse(ctx, `must not be "None" for type ${type}`, ['clusterIP']);
  const first = value.clusterIPs?.[0];
  if (value.clusterIP && first && value.clusterIP !== first)
    refuse(ctx, `must be the same as clusterIP (${value.clusterIP})`, ['clusterIPs', 0]);
  if (ips !== 'None') {
    if (ips.length === 2 && familyOfText(ips[0] ?? '') === familyOfText(ips[1] ?? ''))
      refuse(ctx, 'two addresses must be one of each family', ['clusterIPs']);
    ips.forEach((text, i) => {
      const family = value.ipFamilies?.[i];
      if (family !== undefined && family !== `IPv${familyOfText(text)}`)
        refuse(ctx, `${text} is no ${family} address, and ipFamilies says so`, ['clusterIPs', i]);
      const special = UNUSABLE.find((cidr) => cidrContains(cidr, parseAddress(text)));
      if (special !== undefined)
        refuse(ctx, `${text} is in ${formatCidr(special)}: no service can have it`, ['clusterIP']);
    });
  }
  if (value.ipFamilies?.length === 2 && value.ipFamilies[0] === value.ipFamilies[1])
    refuse(ctx, 'must not name a family twice', ['ipFamilies']);
  if (
    value.ipFamilyPolicy === 'SingleStack' &&
    (value.ipFamilies?.length === 2 || ips.length === 2) &&
    ips !== 'None'
  )
    refuse(ctx, 'must be PreferDualStack or RequireDualStack for two families', ['ipFamilyPolicy']);
  checkPorts(value, type, ctx);
  checkExternal(value, type, ctx);
}

function checkPorts(value: SpecDocument, type: string, ctx: Context): void {
  const names = new Set<string>();
  const numbers = new Set<string>();
  const nodePorts = new Set<string>();
  const ports = value.ports ?? [];
  ports.forEach((port, i) => {
    const name = port.name ?? '';
    const key = `${port.protocol ?? 'TCP'} ${port.port}`;
    if (ports.length > 1 && name === '')
      refuse(ctx, 'is required when there are several ports', ['ports', i, 'name']);
    else if (names.has(name)) refuse(ctx, `"${name}" is used twice`, ['ports', i, 'name']);
    if (numbers.has(key))
      refuse(ctx, `${port.port}/${port.protocol ?? 'TCP'} is listed twice`, ['ports', i, 'port']);
    names.add(name);
    numbers.add(key);
    if (!port.nodePort) return;
    const node = `${port.protocol ?? 'TCP'} ${port.nodePort}`;
    if (nodePorts.has(node)) refuse(ctx, `${port.nodePort} is used twice`, ['ports', i, 'nodePort']);
    nodePorts.add(node);
    if (type !== 'NodePort' && type !== 'LoadBalancer')
      refuse(ctx, `may not be used with type ${type}`, ['ports', i, 'nodePort']);
  });
}

function checkExternal(value: SpecDocument, type: string, ctx: Context): void {
  const external = type === 'NodePort' || type === 'LoadBalancer' || (value.externalIPs?.length ?? 0) > 0;
  if (value.externalTrafficPolicy !== undefined && !external)
    refuse(ctx, 'may only be set for services that can be reached from outside', ['externalTrafficPolicy']);
  if (value.healthCheckNodePort && (type !== 'LoadBalancer' || value.externalTrafficPolicy !== 'Local'))
    refuse(ctx, 'may only be set for type LoadBalancer with externalTrafficPolicy Local', [
      'healthCheckNodePort',
    ]);
  if ((value.loadBalancerSourceRanges?.length ?? 0) > 0 && type !== 'LoadBalancer')
    refuse(ctx, 'may only be used with type LoadBalancer', ['loadBalancerSourceRanges']);
  if (value.sessionAffinity !== 'ClientIP' && value.sessionAffinityConfig?.clientIP !== undefined)
    refuse(ctx, 'must not be set when sessionAffinity is None', ['sessionAffinityConfig']);
}

function familyOfText(text: string): IpFamily {
  return text.includes(':') ? 6 : 4;
}

function clusterIpsOf(value: SpecDocument): readonly string[] | 'None' {
  const all = [value.clusterIP ?? '', ...(value.clusterIPs ?? []).map((text) => text ?? '')];
  if (all.includes('None')) return 'None';
  return [...new Set(all.filter((text) => text !== ''))];
}

/** Families of a service: those named, those of its addresses, else IPv4 (and IPv6 when it prefers both). */
function familiesOf(value: SpecDocument, ips: readonly string[]): readonly IpFamily[] {
  const named = (value.ipFamilies ?? []).map((text): IpFamily => (text === 'IPv6' ? 6 : 4));
  const found = [...new Set([...named, ...ips.map(familyOfText)])];
  const dual = value.ipFamilyPolicy === 'PreferDualStack' || value.ipFamilyPolicy === 'RequireDualStack';
  if (found.length === 0) return dual ? [4, 6] : [4];
  if (found.length === 1 && dual) return [...found, found[0] === 4 ? 6 : 4];
  return found;
}

/** Seconds that ClientIP affinity lasts unless the service says otherwise (SetDefaults_Service). */
const DEFAULT_AFFINITY = 10_800;

function lowerPort(port: NonNullable<SpecDocument['ports']>[number]): ServicePort {
  return {
    name: port.name ?? '',
    protocol: port.protocol ?? 'TCP',
    port: port.port,
    targetPort: port.targetPort ?? port.port,
    nodePort: port.nodePort ?? 0,
  };
}

/** Lists that most services have: one of each, as there are very many services. */
const NOTHING: readonly never[] = Object.freeze([]);
const ONLY_IPV4: readonly IpFamily[] = Object.freeze([4 as const]);
/** Services that come together often have the same ports, which then are one list. */
const likeBefore = repeats<ServicePort>(
  (a, b) =>
    a.name === b.name &&
    a.protocol === b.protocol &&
    a.port === b.port &&
    a.targetPort === b.targetPort &&
    a.nodePort === b.nodePort,
);

export function lowerService(document: ServiceDocument, lowering: Lowering): ServiceResource {
  const value: SpecDocument = document.spec ?? ({} as SpecDocument);
  const { metadata } = document;
  const type = value.type ?? 'ClusterIP';
  const ips = clusterIpsOf(value);
  const families = familiesOf(value, ips === 'None' ? [] : ips);
  const annotations = metadata.annotations ?? {};
  const balancing = annotations[ANNOTATIONS.balancing];
  const external = annotations[ANNOTATIONS.externalBalancing];
  const mode = annotations[ANNOTATIONS.externalMode];
  const balanced = type === 'LoadBalancer';
  const service: ServiceResource = {
    kind: 'Service',
    name: metadata.name,
    namespace: metadata.namespace ?? 'default',
    labels: metadata.labels ?? {},
    origin: lowering.origin(),
    source: lowering.source,
    type,
    ports: likeBefore((value.ports ?? []).map(lowerPort)),
    clusterIps: ips,
    families: families.length === 1 && families[0] === 4 ? ONLY_IPV4 : families,
    familyPolicy: value.ipFamilyPolicy ?? 'SingleStack',
    externalIps: value.externalIPs ?? NOTHING,
    loadBalancer: balanced ? loadBalancerOf(document) : NOTHING,
    sourceRanges: balanced
      ? (value.loadBalancerSourceRanges ?? legacyRanges(annotations)).map(formatCidr)
      : NOTHING,
    affinitySeconds:
      value.sessionAffinity === 'ClientIP'
        ? (value.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? DEFAULT_AFFINITY)
        : 0,
    internalTrafficPolicy: value.internalTrafficPolicy ?? ('Cluster' satisfies TrafficPolicy),
    externalTrafficPolicy: value.externalTrafficPolicy ?? ('Cluster' satisfies TrafficPolicy),
    healthCheckNodePort: value.healthCheckNodePort ?? 0,
    publishNotReady: value.publishNotReadyAddresses ?? false,
  };
  const { selector, trafficDistribution } = value;
  const selects = selector !== undefined && Object.keys(selector).length > 0;
  const givenOnly = balanced && value.allocateLoadBalancerNodePorts === false;
  if (
    !selects &&
    !givenOnly &&
    [trafficDistribution, balancing, external, mode].every((one) => one === undefined)
  )
    return service;
  return {
    ...service,
    ...(givenOnly ? { givenNodePortsOnly: true } : {}),
    ...(selects ? { selector } : {}),
    ...(trafficDistribution === undefined ? {} : { trafficDistribution }),
    ...(balancing === undefined ? {} : { balancing: balancing as Balancing }),
    ...(external === undefined ? {} : { maglev: external === 'maglev' }),
    ...(mode === undefined ? {} : { directReturn: mode === 'dsr' }),
  };
}

/** A service with one port and at most one IPv4 cluster address, for this cluster alone. Frozen. */
export function lowerPlainService(
  {
    name,
    namespace,
    labels,
    ports,
    clusterIp,
    selector,
    internalTrafficPolicy,
    publishNotReady,
  }: ServiceParts,
  origin: Origin,
  source: unknown,
): ServiceResource {
  const service: ServiceResource = {
    kind: 'Service',
    name,
    namespace,
    labels,
    origin,
    source,
    type: 'ClusterIP',
    ports: likeBefore(ports),
    clusterIps: clusterIp === undefined ? NOTHING : Object.freeze([clusterIp]),
    families: ONLY_IPV4,
    familyPolicy: 'SingleStack',
    externalIps: NOTHING,
    loadBalancer: NOTHING,
    sourceRanges: NOTHING,
    affinitySeconds: 0,
    internalTrafficPolicy,
    externalTrafficPolicy: 'Cluster',
    healthCheckNodePort: 0,
    publishNotReady,
  };
  return Object.freeze(selector === undefined ? service : { ...service, selector });
}

function loadBalancerOf(document: ServiceDocument): LoadBalancerAddress[] {
  return (document.status?.loadBalancer?.ingress ?? []).flatMap(({ ip, ipMode }) =>
    ip === undefined ? [] : [{ address: ip, mode: ipMode ?? 'VIP' }],
  );
}

/** The annotation that came before the field `loadBalancerSourceRanges`. */
function legacyRanges(annotations: Readonly<Record<string, string>>) {
  const text = annotations['service.beta.kubernetes.io/load-balancer-source-ranges'] ?? '';
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .flatMap((part) => {
      try {
        return [parseCidr(part, 'clear')];
      } catch {
        return [];
      }
    });
}

/** Family of an address in text form. */
export function familyOfAddress(text: string): IpFamily {
  return familyOf(parseAddress(text));
}
