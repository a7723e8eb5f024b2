import { compareAddresses, familyOf, parseAddress } from '../../policy/address.js';
import type {
  Bandwidth,
  ContainerRoute,
  HostPort,
  PortProtocol,
  RateLimit,
} from '../../policy/model/resources.js';
import { badLabelValue, badQualifiedName } from '../../policy/schema/names.js';
import { CniError } from './errors.js';
import {
  address,
  addressOrCidr,
  cidr,
  flag,
  goObject,
  invalid,
  isObject,
  type JsonObject,
  listOf,
  mac,
  object,
  optional,
  text,
  wholeNumber,
} from './fields.js';
import { readResolvConf } from './resolv-conf.js';
import { type CniVersion, isCniVersion, UNVERSIONED } from './versions.js';

/** One range of addresses of a configuration that brings its own. */
export interface RangeConfig {
  readonly cidr: string;
  readonly gateway?: string;
  readonly first?: string;
  readonly last?: string;
}

/** Where the addresses of containers come from. */
export type Addresses =
  | { readonly type: 'network'; readonly network: string } // a Network that is defined
  | { readonly type: 'ranges'; readonly ipv4?: RangeConfig; readonly ipv6?: RangeConfig }
  | { readonly type: 'delegate'; readonly plugin: string }; // another IPAM plugin

export interface DnsConfig {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

/** A network configuration with what the runtime asks for, read and checked. */
export interface NetConf {
  readonly cniVersion: CniVersion;
  readonly name: string;
  readonly addresses: Addresses;
  /** For a network that the configuration brings itself. */
  readonly mode: 'routed' | 'bridge';
  readonly masquerade: boolean;
  readonly mtu?: number;
  /** Absent: a default route for each family, if the container has none yet. */
  readonly routes?: readonly ContainerRoute[];
  readonly labels: Readonly<Record<string, string>>;
  /** Socket of Podman's API, which is asked for the labels of each container. */
  readonly podman?: string;
  readonly hostPorts: readonly HostPort[];
  readonly bandwidth?: Bandwidth;
  /** Wanted addresses, at most one of a family. */
  readonly ips: readonly string[];
  readonly mac?: string;
  readonly aliases: readonly string[];
  readonly dns?: DnsConfig;
  /** The result of the plugin before, or of ADD for CHECK and DEL. */
  readonly prevResult?: JsonObject;
}

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
/** Bits a second; the same as in Kubernetes. */
const MIN_RATE = 1000;
/** IPAM types that are served without another program. */
const BUILT_IN: ReadonlySet<string> = new Set(['', 'sluice', 'sluice-cni', 'host-local']);

const UTF8 = new TextDecoder('utf-8', { fatal: true });

/** JSON of a request. Throws CniError 6. */
export function readJson(input: Buffer): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(UTF8.decode(input));
  } catch (error) {
    throw CniError.of('SLU5114', { reason: error instanceof Error ? error.message : String(error) });
  }
  if (!isObject(value)) throw CniError.of('SLU5114', { reason: 'it is not an object' });
  return value;
}

/** The version of a configuration. Throws CniError 1 if it is none of ours. */
export function versionOf(raw: JsonObject): CniVersion {
  const given = raw.cniVersion === undefined || raw.cniVersion === '' ? UNVERSIONED : raw.cniVersion;
  if (typeof given === 'string' && isCniVersion(given)) return given;
  throw CniError.of('SLU5110', { version: typeof given === 'string' ? given : JSON.stringify(given) });
}

/** What DEL and GC need of a configuration: the rest may be wrong, and what was made has to go all the same. */
export interface Target {
  readonly name: string;
  /** IPAM plugin that has to be asked too. */
  readonly delegate?: string;
  /** GC: what is to be kept, as `containerID/ifname`. */
  readonly valid: ReadonlySet<string>;
}

/** Throws CniError 7 for a name that cannot be. */
export function readTarget(raw: JsonObject): Target {
  const name = readName(raw);
  const ipam = isObject(raw.ipam) ? raw.ipam : {};
  const { type } = ipam;
  const delegated = typeof type === 'string' && !BUILT_IN.has(type) && NAME.test(type);
  return { name, ...(delegated ? { delegate: type } : {}), valid: readValid(raw) };
}

function readName(raw: JsonObject): string {
  const name = optional(raw, 'name', '', text) ?? '';
  if (name === '') throw invalid('name', 'is required');
  if (!NAME.test(name) || name.length > 200)
    throw invalid('name', `"${name}" must be letters, digits, "_", "." and "-", first a letter or digit`);
  return name;
}

/** Checks name, what ADD needs, and the runtime's wishes. Throws CniError 2 or 7. */
export function readConfig(raw: JsonObject): NetConf {
  const name = readName(raw);
  const runtime = optional(raw, 'runtimeConfig', '', object) ?? {};
  const args = optional(optional(raw, 'args', '', object) ?? {}, 'cni', 'args', object) ?? {};
  for (const key of ['infinibandGUID', 'deviceID', 'cgroupPath'] as const) refuse(runtime, key);
  const ipam = optional(raw, 'ipam', '', object) ?? {};
  const addresses = readAddresses(raw, ipam, runtime);
  const routes = optional(ipam, 'routes', 'ipam', listOf(readRoute));
  const bandwidth = optional(runtime, 'bandwidth', 'runtimeConfig', readBandwidth);
  const macText =
    optional(runtime, 'mac', 'runtimeConfig', macOrEmpty) ??
    optional(args, 'mac', 'args.cni', macOrEmpty) ??
    optional(raw, 'mac', '', macOrEmpty);
  const ips =
    optional(runtime, 'ips', 'runtimeConfig', listOf(addressOrCidr)) ??
    optional(args, 'ips', 'args.cni', listOf(addressOrCidr)) ??
    [];
  const dns =
    optional(runtime, 'dns', 'runtimeConfig', readRuntimeDns) ??
    optional(raw, 'dns', '', readDns) ??
    (addresses.type === 'delegate' ? undefined : optional(ipam, 'resolvConf', 'ipam', readResolvConf));
  const prevResult = optional(raw, 'prevResult', '', readResult);
  const podman = optional(raw, 'podman', '', absolutePath);
  const mtu = optional(raw, 'mtu', '', wholeNumber(0, 65535)) ?? 0;
  return {
    cniVersion: versionOf(raw),
    name,
    addresses,
    mode: readMode(raw),
    masquerade: optional(raw, 'masquerade', '', flag) ?? optional(raw, 'ipMasq', '', flag) ?? true,
    ...(mtu === 0 ? {} : { mtu }),
    ...(routes === undefined || routes.length === 0 ? {} : { routes }),
    labels: { ...readLabels(raw), ...readArgLabels(args) },
    ...(podman === undefined ? {} : { podman }),
    hostPorts: optional(runtime, 'portMappings', 'runtimeConfig', listOf(readPort))?.flat() ?? [],
    ...(bandwidth === undefined ? {} : { bandwidth }),
    ips: onePerFamily(ips),
    ...(macText === undefined ? {} : { mac: macText }),
    aliases: readAliases(runtime, name),
    ...(dns === undefined || Object.keys(dns).length === 0 ? {} : { dns }),
    ...(prevResult === undefined ? {} : { prevResult }),
  };
}

/** A result of a plugin: its lists are lists of objects. */
function readResult(value: unknown, field: string): JsonObject {
  const result = object(value, field);
  for (const name of ['interfaces', 'ips', 'routes']) optional(result, name, field, listOf(object));
  return result;
}

function absolutePath(value: unknown, field: string): string {
  const path = text(value, field);
  if (!path.startsWith('/')) throw invalid(field, `must be an absolute path, not "${path}"`);
  return path;
}

function macOrEmpty(value: unknown, field: string): string | undefined {
  return value === '' ? undefined : mac(value, field);
}

/** Error 2 for a wish that cannot be fulfilled, with its key and value. */
function refuse(runtime: JsonObject, key: string): void {
  const value = runtime[key];
  if (value === undefined || value === null || value === '') return;
  // The path of a pod's cgroup is information, not a wish.
  if (key === 'cgroupPath') return;
  const reason =
    key === 'deviceID' ? 'there is no device of that id' : 'devices of Sluice are not InfiniBand';
  throw CniError.of('SLU5116', { key: `runtimeConfig.${key}`, value: JSON.stringify(value), reason });
}

function readMode(raw: JsonObject): NetConf['mode'] {
  const mode = optional(raw, 'mode', '', text) ?? 'routed';
  if (mode === 'routed' || mode === 'bridge') return mode;
  throw CniError.of('SLU5116', { key: 'mode', value: mode, reason: 'it must be routed or bridge' });
}

function readAddresses(raw: JsonObject, ipam: JsonObject, runtime: JsonObject): Addresses {
  const network = optional(raw, 'network', '', text) ?? '';
  const type = optional(ipam, 'type', 'ipam', text) ?? '';
  if (network !== '') {
    if (type !== '' && !BUILT_IN.has(type))
      throw invalid('ipam', `network ${network} has its own addresses: remove ipam or network`);
    return { type: 'network', network };
  }
  if (!BUILT_IN.has(type)) {
    if (!NAME.test(type)) throw invalid('ipam.type', `"${type}" is not the name of a plugin`);
    return { type: 'delegate', plugin: type };
  }
  const sets = [
    ...(optional(runtime, 'ipRanges', 'runtimeConfig', listOf(listOf(readRange))) ?? []),
    ...(optional(ipam, 'ranges', 'ipam', listOf(listOf(readRange))) ?? []),
    ...(ipam.subnet === undefined ? [] : [[readRange(ipam, 'ipam')]]),
  ];
  const found: { ipv4?: RangeConfig; ipv6?: RangeConfig } = {};
  for (const set of sets) {
    const [range, another] = set;
    if (range === undefined) continue;
    const value = JSON.stringify(set.map((entry) => entry.cidr));
    if (another !== undefined)
      throw CniError.of('SLU5116', { key: 'ipam.ranges', value, reason: 'a set may have one range' });
    const family = range.cidr.includes(':') ? 'ipv6' : 'ipv4';
    if (found[family] !== undefined) {
      const reason = `a container gets one ${family === 'ipv4' ? 'IPv4' : 'IPv6'} address`;
      throw CniError.of('SLU5116', { key: 'ipam.ranges', value, reason });
    }
    found[family] = range;
  }
  return { type: 'ranges', ...found };
}

function readRange(value: unknown, field: string): RangeConfig {
  const given = goObject(value, field);
  const subnet = optional(given, 'subnet', field, cidr);
  if (subnet === undefined) throw invalid(`${field}.subnet`, 'is required');
  const gateway = optional(given, 'gateway', field, address);
  const first = optional(given, 'rangeStart', field, address);
  const last = optional(given, 'rangeEnd', field, address);
  if (
    first !== undefined &&
    last !== undefined &&
    compareAddresses(parseAddress(first), parseAddress(last)) > 0
  )
    throw invalid(`${field}.rangeEnd`, `${last} comes before rangeStart ${first}`);
  return {
    cidr: subnet,
    ...(gateway === undefined ? {} : { gateway }),
    ...(first === undefined ? {} : { first }),
    ...(last === undefined ? {} : { last }),
  };
}

/** What a route may have besides (CNI 1.1.0), with the values that mean nothing special. */
const PLAIN_ROUTE: Readonly<Record<string, readonly number[]>> = {
  mtu: [0],
  advmss: [0],
  priority: [0],
  table: [0, 254],
  scope: [0],
};

export function readRoute(value: unknown, field: string): ContainerRoute {
  const given = object(value, field);
  for (const [key, plain] of Object.entries(PLAIN_ROUTE)) {
    const wish = given[key] ?? null;
    if (wish === null || plain.some((number) => number === wish)) continue;
    const reason = 'routes of containers have dst and gw alone';
    throw CniError.of('SLU5116', { key: `${field}.${key}`, value: JSON.stringify(wish), reason });
  }
  const destination = optional(given, 'dst', field, cidr);
  if (destination === undefined) throw invalid(`${field}.dst`, 'is required');
  const gateway = optional(given, 'gw', field, address);
  return { destination, ...(gateway === undefined ? {} : { gateway }) };
}

function readBandwidth(value: unknown, field: string): Bandwidth | undefined {
  const given = goObject(value, field);
  const read = (direction: 'ingress' | 'egress'): RateLimit | undefined => {
    const bits = wholeNumber(0, Number.MAX_SAFE_INTEGER);
    const rate = optional(given, `${direction}Rate`, field, bits) ?? 0;
    const burst = optional(given, `${direction}Burst`, field, bits) ?? 0;
    if (rate === 0 && burst === 0) return undefined;
    if (rate > 0 && rate < MIN_RATE)
      throw invalid(`${field}.${direction}Rate`, `must be at least ${MIN_RATE} bits a second, not ${rate}`);
    if (rate === 0) throw invalid(`${field}.${direction}Rate`, 'is required together with a burst');
    if (burst === 0) throw invalid(`${field}.${direction}Burst`, 'is required together with a rate');
    return { rate, burst };
  };
  const ingress = read('ingress');
  const egress = read('egress');
  if (ingress === undefined && egress === undefined) return undefined;
  return { ...(ingress === undefined ? {} : { ingress }), ...(egress === undefined ? {} : { egress }) };
}

/** Nothing for a host port of 0: the runtime does not want it published. */
function readPort(value: unknown, field: string): HostPort[] {
  const given = goObject(value, field);
  const hostPort = optional(given, 'hostPort', field, wholeNumber(0, 65535)) ?? 0;
  const containerPort = optional(given, 'containerPort', field, wholeNumber(1, 65535));
  if (containerPort === undefined) throw invalid(`${field}.containerPort`, 'is required');
  const protocol = (optional(given, 'protocol', field, text) || 'tcp').toUpperCase();
  if (protocol !== 'TCP' && protocol !== 'UDP' && protocol !== 'SCTP') {
    const reason = 'it must be tcp, udp or sctp';
    throw CniError.of('SLU5116', { key: `${field}.protocol`, value: protocol.toLowerCase(), reason });
  }
  const hostIp = optional(given, 'hostIP', field, (ip, at) => (ip === '' ? undefined : address(ip, at)));
  if (hostPort === 0) return [];
  const bound = hostIp === undefined ? {} : { hostAddress: hostIp };
  return [{ protocol: protocol satisfies PortProtocol, ...bound, hostPort, containerPort }];
}

function readDns(value: unknown, field: string): DnsConfig {
  const given = object(value, field);
  const nameservers = optional(given, 'nameservers', field, listOf(text));
  const domain = optional(given, 'domain', field, text);
  const search = optional(given, 'search', field, listOf(text));
  const options = optional(given, 'options', field, listOf(text));
  return dnsOf(nameservers, search, options, domain);
}

/** The capability has other names than the result. */
function readRuntimeDns(value: unknown, field: string): DnsConfig {
  const given = goObject(value, field);
  const servers = optional(given, 'servers', field, listOf(text));
  const searches = optional(given, 'searches', field, listOf(text));
  const options = optional(given, 'options', field, listOf(text));
  return dnsOf(servers, searches, options, undefined);
}

function dnsOf(
  nameservers: readonly string[] | undefined,
  search: readonly string[] | undefined,
  options: readonly string[] | undefined,
  domain: string | undefined,
): DnsConfig {
  return {
    ...(nameservers === undefined || nameservers.length === 0 ? {} : { nameservers }),
    ...(domain === undefined || domain === '' ? {} : { domain }),
    ...(search === undefined || search.length === 0 ? {} : { search }),
    ...(options === undefined || options.length === 0 ? {} : { options }),
  };
}

function checkLabel(field: string, key: string, value: string): void {
  const bad = badQualifiedName(key) ?? badLabelValue(value);
  if (bad !== undefined) throw invalid(field, bad);
}

/** `labels` of the configuration: for all its containers. */
function readLabels(raw: JsonObject): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const [key, value] of Object.entries(optional(raw, 'labels', '', object) ?? {})) {
    checkLabel(`labels.${key}`, key, text(value, `labels.${key}`));
    labels[key] = text(value, `labels.${key}`);
  }
  return labels;
}

/** `args.cni.labels`: a list of {key, value} (CONVENTIONS.md). */
function readArgLabels(args: JsonObject): Record<string, string> {
  const labels: Record<string, string> = {};
  const pairs = optional(args, 'labels', 'args.cni', listOf(object)) ?? [];
  pairs.forEach((pair, i) => {
    const field = `args.cni.labels[${i}]`;
    const key = optional(pair, 'key', field, text) ?? '';
    const value = optional(pair, 'value', field, text) ?? '';
    checkLabel(field, key, value);
    labels[key] = value;
  });
  return labels;
}

/** A list, or (Podman) lists by the name of the network. */
function readAliases(runtime: JsonObject, network: string): string[] {
  const given = runtime.aliases;
  if (isObject(given)) return optional(given, network, 'runtimeConfig.aliases', listOf(text)) ?? [];
  return optional(runtime, 'aliases', 'runtimeConfig', listOf(text)) ?? [];
}

/** The same address twice is one: Podman asks so for those that it has to get back (`podman network reload`). */
function onePerFamily(given: readonly string[]): string[] {
  const ips = [...new Set(given)];
  const families = new Set(ips.map((ip) => familyOf(parseAddress(ip))));
  if (families.size < ips.length) {
    const reason = 'a container has one address of a family in a network';
    throw CniError.of('SLU5116', { key: 'ips', value: JSON.stringify(ips), reason });
  }
  return ips;
}

function readValid(raw: JsonObject): Set<string> {
  const list = raw['cni.dev/valid-attachments'] ?? raw['cni.dev/attachments'] ?? [];
  const field = 'cni.dev/valid-attachments';
  const pairs = listOf(object)(list, field);
  return new Set(
    pairs.map((pair, i) => {
      const at = `${field}[${i}]`;
      return `${optional(pair, 'containerID', at, text) ?? ''}/${optional(pair, 'ifname', at, text) ?? ''}`;
    }),
  );
}
