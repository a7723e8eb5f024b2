/** `sluice.dev/v1alpha1` Container: schema and lowering. */
import { z } from 'zod';
import { cidrContains, parseAddress, parseCidr } from '../address.js';
import type { ContainerNetwork, ContainerResource, NamespaceRef } from '../model/resources.js';
import {
  address,
  mapping,
  namespacedMetadata,
  portNumber,
  protocol,
  refuse,
  textOf,
  wholeNumber,
} from './fields.js';
import type { Lowering } from './lowering.js';
import { badDeviceName, badDnsLabel, badPortName } from './names.js';

/** Namespace of a container that names none. */
export const DEFAULT_NAMESPACE = 'default';

const MULTICAST = [parseCidr('224.0.0.0/4'), parseCidr('ff00::/8')];

const netnsName = textOf((text) =>
  text === '' || text === '.' || text === '..' || text.includes('/') || text.length > 255
    ? `"${text}" is not the name of a network namespace (a file in /run/netns); for a path write {path: ...}`
    : undefined,
);

const netns = z.preprocess(
  (value) => (typeof value === 'string' ? { name: value } : value),
  mapping({
    name: netnsName.optional(),
    path: textOf((text) =>
      text.startsWith('/') && text.length < 4096 ? undefined : `"${text}" must be an absolute path`,
    ).optional(),
    pid: wholeNumber(1, 4194304).optional(),
  }).superRefine((value, ctx) => {
    const given = Object.values(value).filter((part) => part !== undefined).length;
    if (given !== 1) refuse(ctx, `needs exactly one of name, path and pid, not ${given}`);
  }),
);

const MAC = /^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/;

function badMac(text: string): string | undefined {
  if (!MAC.test(text)) return `"${text}" is not a MAC address such as 02:00:00:00:00:01`;
  if (/^[0:]+$/.test(text)) return 'must not be all zero';
  const first = Number.parseInt(text.slice(0, 2), 16);
  return (first & 1) === 1 ? `${text} is a multicast address: the first byte must be even` : undefined;
}

const network = z.preprocess(
  (value) => (typeof value === 'string' ? { name: value } : value),
  mapping({
    name: textOf(badDnsLabel),
    ipv4: address
      .superRefine((text, ctx) => {
        if (text.includes(':')) refuse(ctx, `must be an IPv4 address, not "${text}"`);
      })
      .optional(),
    ipv6: address
      .superRefine((text, ctx) => {
        if (!text.includes(':')) refuse(ctx, `must be an IPv6 address, not "${text}"`);
      })
      .optional(),
    mac: textOf(badMac).optional(),
    aliases: z.array(textOf(badDnsLabel)).max(64, { error: 'must not have more than 64 names' }).optional(),
    device: textOf((text) =>
      text === 'lo' ? 'lo is the loopback device: choose another name' : badDeviceName(text),
    ).optional(),
  }),
);

const hostPort = mapping({
  protocol: protocol.optional(),
  hostAddress: address
    .superRefine((text, ctx) => {
      const bytes = parseAddress(text);
      if (MULTICAST.some((cidr) => cidrContains(cidr, bytes)) || text === '255.255.255.255') {
        refuse(ctx, `${text} is not an address that a host can have`);
      }
    })
    .optional(),
  hostPort: portNumber,
  containerPort: portNumber,
});

const namedPort = mapping({
  name: textOf(badPortName),
  protocol: protocol.optional(),
  containerPort: portNumber,
});

export const containerSchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: namespacedMetadata(badDnsLabel),
  spec: mapping({
    netns: netns.optional(),
    networks: z.array(network).min(1).max(16, { error: 'must not have more than 16 networks' }),
    hostPorts: z.array(hostPort).optional(),
    ports: z
      .array(namedPort)
      .superRefine((ports, ctx) => {
        const seen = new Set<string>();
        ports.forEach((port, i) => {
          // A policy refers to a port by name and protocol.
          const key = `${port.name}/${port.protocol ?? 'TCP'}`;
          if (seen.has(key)) refuse(ctx, `the port ${key} is listed twice: names must differ`, [i, 'name']);
          seen.add(key);
        });
      })
      .optional(),
  }),
});

type ContainerDocument = z.output<typeof containerSchema>;

function lowerNetns(value: ContainerDocument['spec']['netns']): NamespaceRef | undefined {
  if (value?.name !== undefined) return { type: 'name', name: value.name };
  if (value?.path !== undefined) return { type: 'path', path: value.path };
  return value?.pid === undefined ? undefined : { type: 'pid', pid: value.pid };
}

function lowerAttachment(
  value: ContainerDocument['spec']['networks'][number],
  index: number,
): ContainerNetwork {
  return {
    network: value.name,
    device: value.device ?? `eth${index}`,
    ...(value.ipv4 === undefined ? {} : { ipv4: value.ipv4 }),
    ...(value.ipv6 === undefined ? {} : { ipv6: value.ipv6 }),
    ...(value.mac === undefined ? {} : { mac: value.mac.toLowerCase() }),
    ...(value.aliases === undefined ? {} : { aliases: value.aliases }),
  };
}

export function lowerContainer(document: ContainerDocument, lowering: Lowering): ContainerResource {
  const { metadata, spec } = document;
  const ns = lowerNetns(spec.netns);
  const positions = [
    'spec.netns',
    'spec.networks',
    'spec.hostPorts',
    ...spec.networks.flatMap((value, i) => [
      `spec.networks[${i}]`,
      ...(['name', 'ipv4', 'ipv6', 'mac', 'device'] as const)
        .filter((field) => value[field] !== undefined)
        .map((field) => `spec.networks[${i}].${field}`),
    ]),
    ...(spec.hostPorts ?? []).flatMap((value, i) => [
      `spec.hostPorts[${i}].hostPort`,
      ...(value.hostAddress === undefined ? [] : [`spec.hostPorts[${i}].hostAddress`]),
    ]),
  ];
  return {
    kind: 'Container',
    name: metadata.name,
    namespace: metadata.namespace ?? DEFAULT_NAMESPACE,
    labels: metadata.labels ?? {},
    origin: lowering.origin(positions),
    source: lowering.source,
    ...(ns === undefined ? {} : { netns: ns }),
    networks: spec.networks.map(lowerAttachment),
    hostPorts: (spec.hostPorts ?? []).map((value) => ({
      protocol: value.protocol ?? 'TCP',
      ...(value.hostAddress === undefined ? {} : { hostAddress: value.hostAddress }),
      hostPort: value.hostPort,
      containerPort: value.containerPort,
    })),
    ports: (spec.ports ?? []).map((value) => ({
      name: value.name,
      protocol: value.protocol ?? 'TCP',
      port: value.containerPort,
    })),
  };
}
