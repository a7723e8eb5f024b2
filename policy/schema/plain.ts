/**
 * Short ways through the schemas of kinds that come by the ten thousand. Each says whether a document is certainly
 * what the schema accepts, and the same before and after it (nothing to default, no null). If in doubt the answer is
 * no, and the schema reads it: these checks report nothing.
 */
import { tryParseAddress } from '../address.js';
import { badDnsLabel, badDnsSubdomain, badLabelValue, badPortName, badQualifiedName } from './names.js';

type Fields = Readonly<Record<string, unknown>>;
type Check = (value: unknown) => boolean;

/** In its one spelling. */
const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;

function fields(value: unknown, checks: Readonly<Record<string, Check>>): value is Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  for (const key in value) {
    const check = Object.hasOwn(checks, key) ? checks[key] : undefined;
    if (check === undefined || !check((value as Fields)[key])) return false;
  }
  return true;
}

const text =
  (bad: (text: string) => string | undefined): Check =>
  (value) =>
    typeof value === 'string' && bad(value) === undefined;

const listOf =
  (check: Check, most: number): Check =>
  (value) =>
    Array.isArray(value) && value.length <= most && value.every(check);

const oneOf =
  (...values: readonly unknown[]): Check =>
  (value) =>
    values.includes(value);

const isString: Check = (value) => typeof value === 'string';
const isBoolean: Check = (value) => typeof value === 'boolean';
const isPort: Check = (value) =>
  Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 65535;
const isProtocol = oneOf('TCP', 'UDP', 'SCTP');
const portName = text((name) => (name === '' ? undefined : badDnsLabel(name)));

const labels: Check = (value) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  for (const key in value) {
    const one = (value as Fields)[key];
    if (typeof one !== 'string' || badQualifiedName(key) !== undefined || badLabelValue(one) !== undefined)
      return false;
  }
  return true;
};

/** Metadata without anything but name, namespace and labels. */
function metadata(badName: (text: string) => string | undefined): Check {
  const checks = { name: text(badName), namespace: text(badDnsLabel), labels };
  return (value) => fields(value, checks) && 'name' in value;
}

const sliceMetadata = metadata(badDnsSubdomain);
const conditions = { ready: isBoolean, serving: isBoolean, terminating: isBoolean };

function endpoint(isAddress: Check): Check {
  const checks = {
    addresses: listOf(isAddress, 100),
    conditions: (value: unknown) => fields(value, conditions),
    nodeName: isString,
    zone: isString,
    targetRef: (value: unknown) => typeof value === 'object' && value !== null,
  };
  return (value) =>
    fields(value, checks) && Array.isArray(value.addresses) && (value.addresses as unknown[]).length > 0;
}

const isIpv4: Check = (value) => typeof value === 'string' && IPV4.test(value);
export const isIpv6: Check = (value) =>
  typeof value === 'string' && value.includes(':') && tryParseAddress(value) !== undefined;

const slicePort = { name: portName, protocol: isProtocol, port: isPort };

function slice(isAddress: Check) {
  return {
    apiVersion: isString,
    kind: isString,
    metadata: sliceMetadata,
    addressType: isString,
    endpoints: listOf(endpoint(isAddress), 1000),
    ports: listOf((value) => fields(value, slicePort), 100),
  };
}

const SLICES = { IPv4: slice(isIpv4), IPv6: slice(isIpv6) } as const;

/** An EndpointSlice of addresses without hints and annotations. */
export function isPlainSlice(value: unknown): boolean {
  const { addressType } = value as Fields;
  if (addressType !== 'IPv4' && addressType !== 'IPv6') return false;
  return fields(value, SLICES[addressType]) && 'metadata' in value;
}

const servicePort = {
  name: portName,
  protocol: isProtocol,
  port: isPort,
  targetPort: (value: unknown) =>
    isPort(value) || (typeof value === 'string' && badPortName(value) === undefined),
};

/** One that no service can have. */
export function isSpecialIpv4(text: string): boolean {
  return /^(?:0|127|169\.254|22[4-9]|23\d)\./.test(text);
}

const clusterIp: Check = (value) => isIpv4(value) && !isSpecialIpv4(value as string);

const serviceSpec = {
  type: oneOf('ClusterIP'),
  clusterIP: clusterIp,
  clusterIPs: listOf(clusterIp, 1),
  ipFamilies: listOf(oneOf('IPv4'), 1),
  ipFamilyPolicy: oneOf('SingleStack'),
  selector: labels,
  ports: (value: unknown) =>
    Array.isArray(value) &&
    value.length === 1 &&
    fields(value[0], servicePort) &&
    'port' in (value[0] as object),
  sessionAffinity: oneOf('None'),
  internalTrafficPolicy: oneOf('Cluster', 'Local'),
  publishNotReadyAddresses: isBoolean,
};

const service = {
  apiVersion: isString,
  kind: isString,
  metadata: metadata(badDnsLabel),
  spec: (value: unknown) =>
    fields(value, serviceSpec) &&
    'ports' in value &&
    ('clusterIPs' in value ? (value.clusterIPs as unknown[])[0] === value.clusterIP : true),
  status: (value: unknown) => fields(value, { loadBalancer: (part) => fields(part, {}) }),
};

/** A Service with one port, at most one IPv4 cluster address, for this cluster alone. */
export function isPlainService(value: unknown): boolean {
  return fields(value, service) && 'metadata' in value && 'spec' in value;
}
