import { readJson } from './config.js';
import { CniError } from './errors.js';
import { invalid, isObject, type JsonObject, listOf, object, optional, text, wholeNumber } from './fields.js';
import type { CniAnswer } from './service.js';
import { NEWEST_VERSION } from './versions.js';
import type { WireRequest } from './wire.js';

/** What carries CNI requests out. */
type Handle = (request: WireRequest) => Promise<CniAnswer>;

/** Options of `podman network create -o`; they mean what the fields of a CNI configuration do. */
const OPTIONS = ['network', 'mode', 'mtu', 'masquerade', 'podman', 'socket'] as const;
const COMMANDS = ['create', 'setup', 'teardown'] as const;
type Command = (typeof COMMANDS)[number];

/** Whether a request came from netavark. */
export function isNetavark({ environment }: WireRequest): boolean {
  return environment.has('NETAVARK_COMMAND');
}

/**
 * A request of netavark (containers/netavark, plugin-API.md), carried out as the CNI request that means the same:
 * `create` asks whether it could be served (STATUS), `setup` is ADD and `teardown` DEL. Never throws.
 */
export async function handleNetavark(handle: Handle, request: WireRequest): Promise<CniAnswer> {
  try {
    const command = COMMANDS.find((name) => name === request.environment.get('NETAVARK_COMMAND'));
    if (command === undefined) throw CniError.of('SLU5112', { names: 'NETAVARK_COMMAND' });
    const given = readJson(request.input);
    const network = command === 'create' ? given : (optional(given, 'network', '', object) ?? {});
    const answer = await handle(cniRequest(request, command, network, given));
    if (answer.status !== 0) return refusal(messageIn(answer.text));
    if (command === 'create') return { status: 0, text: json(given) };
    if (command === 'teardown') return answer;
    const { delivered } = answer;
    const status = statusBlock(JSON.parse(answer.text) as JsonObject, network);
    return { status: 0, text: json(status), ...(delivered === undefined ? {} : { delivered }) };
  } catch (error) {
    return refusal(CniError.from(error).message);
  }
}

function cniRequest(
  { environment, timeLeft }: WireRequest,
  command: Command,
  network: JsonObject,
  given: JsonObject,
): WireRequest {
  const container = command === 'create' ? {} : (optional(given, 'network_options', '', object) ?? {});
  const configuration = { ...networkConfig(network), ...containerConfig(given, container) };
  const variables: [string, string][] = [
    ['CNI_COMMAND', command === 'create' ? 'STATUS' : command === 'setup' ? 'ADD' : 'DEL'],
  ];
  if (command !== 'create')
    variables.push(
      ['CNI_CONTAINERID', optional(given, 'container_id', '', text) ?? ''],
      ['CNI_NETNS', environment.get('NETAVARK_NETNS') ?? ''],
      ['CNI_IFNAME', optional(container, 'interface_name', 'network_options', text) ?? ''],
    );
  return { environment: new Map(variables), input: Buffer.from(JSON.stringify(configuration)), timeLeft };
}

/** The part of a CNI configuration that the network says. Throws CniError for an option that is not known. */
function networkConfig(network: JsonObject): JsonObject {
  const options = optional(network, 'options', '', object) ?? {};
  for (const [name, value] of Object.entries(options)) {
    if (OPTIONS.some((known) => known === name)) continue;
    const reason = `known options are ${OPTIONS.join(', ')}`;
    throw CniError.of('SLU5116', { key: `options.${name}`, value: JSON.stringify(value), reason });
  }
  const { driver } = optional(network, 'ipam_options', '', object) ?? {};
  if (driver !== undefined && driver !== 'host-local' && driver !== '') {
    const reason = 'addresses are given by Podman or by Sluice';
    throw CniError.of('SLU5116', { key: 'ipam_options.driver', value: JSON.stringify(driver), reason });
  }
  if (network.internal === true) {
    const reason = 'define an internal Network and name it with -o network=NAME';
    throw CniError.of('SLU5116', { key: 'internal', value: 'true', reason });
  }
  const { mtu, masquerade, network: defined, mode, podman } = options;
  const ranges = (optional(network, 'subnets', '', listOf(object)) ?? []).map(range);
  // There is no chain here, in which another plugin would bring the addresses.
  if (defined === undefined && ranges.length === 0)
    throw invalid('subnets', 'name a Network of Sluice, or give ranges');
  return {
    cniVersion: NEWEST_VERSION,
    name: network.name,
    ...(defined === undefined ? {} : { network: defined }),
    ...(mode === undefined ? {} : { mode }),
    ...(mtu === undefined ? {} : { mtu: optionValue(mtu) }),
    ...(masquerade === undefined ? {} : { masquerade: optionValue(masquerade) }),
    ...(podman === undefined ? {} : { podman }),
    // With a network that is defined the ranges are its own, and podman has shown them.
    ...(defined === undefined ? { ipam: { ranges: ranges.map((entry) => [entry]) } } : {}),
  };
}

/** Options are text. What is neither number nor truth value stays text and is refused as such. */
function optionValue(option: unknown): unknown {
  if (option === 'true' || option === 'false') return option === 'true';
  return typeof option === 'string' && /^\d{1,9}$/.test(option) ? Number(option) : option;
}

function range(subnet: JsonObject): JsonObject {
  const lease = optional(subnet, 'lease_range', 'subnets', object) ?? {};
  return {
    subnet: subnet.subnet,
    gateway: subnet.gateway ?? null,
    rangeStart: lease.start_ip ?? null,
    rangeEnd: lease.end_ip ?? null,
  };
}

/** The part that is of one container. Its name is one of its names on the network. */
function containerConfig(given: JsonObject, options: JsonObject): JsonObject {
  const name = optional(given, 'container_name', '', text) ?? '';
  const aliases = optional(options, 'aliases', 'network_options', listOf(text)) ?? [];
  const ips = optional(options, 'static_ips', 'network_options', listOf(text)) ?? [];
  const mac = optional(options, 'static_mac', 'network_options', text);
  const ports = optional(given, 'port_mappings', '', listOf(object)) ?? [];
  return {
    runtimeConfig: {
      aliases: [...new Set([...(name === '' ? [] : [name]), ...aliases])],
      portMappings: ports.flatMap(portMappings),
      ...(ips.length === 0 ? {} : { ips }),
      ...(mac === undefined || mac === '' ? {} : { mac }),
    },
  };
}

/** A mapping may be of several protocols (`tcp,udp`) and of a range of ports, both counting up. */
function portMappings(port: JsonObject, index: number): JsonObject[] {
  const path = `port_mappings[${index}]`;
  const number = wholeNumber(0, 65535);
  const hostPort = optional(port, 'host_port', path, number) ?? 0;
  const containerPort = optional(port, 'container_port', path, number) ?? 0;
  const count = Math.max(1, optional(port, 'range', path, number) ?? 1);
  const protocols = (optional(port, 'protocol', path, text) || 'tcp').split(',');
  const hostIP = optional(port, 'host_ip', path, text) ?? '';
  return protocols.flatMap((protocol) =>
    Array.from({ length: count }, (_, i) => ({
      hostPort: hostPort + i,
      containerPort: containerPort + i,
      protocol,
      hostIP,
    })),
  );
}

/** Netavark's StatusBlock for the result of an ADD. */
function statusBlock(result: JsonObject, network: JsonObject): JsonObject {
  const interfaces = Array.isArray(result.interfaces) ? (result.interfaces as unknown[]) : [];
  const ips = Array.isArray(result.ips) ? (result.ips as unknown[]).filter(isObject) : [];
  const made = interfaces.flatMap((entry, index): [string, JsonObject][] => {
    if (!isObject(entry) || entry.sandbox === undefined) return [];
    const subnets = ips
      .filter((ip) => ip.interface === index)
      .map(({ address, gateway }) => ({ ipnet: address, ...(gateway === undefined ? {} : { gateway }) }));
    return [[String(entry.name), { mac_address: entry.mac, subnets }]];
  });
  const dns = isObject(result.dns) && network.dns_enabled !== false ? result.dns : {};
  return {
    interfaces: Object.fromEntries(made),
    dns_server_ips: dns.nameservers ?? [],
    dns_search_domains: dns.search ?? [],
  };
}

/** What the CNI error object says. */
function messageIn(answer: string): string {
  const { msg, details } = JSON.parse(answer) as { readonly msg: string; readonly details: string };
  return details === '' ? msg : `${msg} (${details})`;
}

function refusal(error: string): CniAnswer {
  return { status: 1, text: json({ error }) };
}

function json(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}
