/** `sluice.dev/v1alpha1` Network: schema and lowering. */
import { z } from 'zod';
import {
  addressAt,
  type Cidr,
  cidrContains,
  cidrsOverlap,
  type Family,
  formatAddress,
  formatCidr,
  IPV6_MIN_MTU,
  lastAddress,
  parseAddress,
  parseCidr,
  textPrefixLength,
} from '../address.js';
import { SluiceError } from '../errors.js';
import type { NetworkMode, NetworkResource } from '../model/resources.js';
import {
  address,
  clusterMetadata,
  mapping,
  optional,
  refuse,
  refuseWith,
  strictCidr,
  textOf,
  wholeNumber,
} from './fields.js';
import type { Lowering } from './lowering.js';
import { badDeviceName } from './names.js';

const MODES = ['routed', 'bridge', 'host', 'none', 'macvlan'] as const;

/** Ranges that containers cannot have. */
const REFUSED: readonly (readonly [string, string])[] = [
  ['0.0.0.0/8', '"this network" (RFC 791)'],
  ['127.0.0.0/8', 'loopback'],
  ['169.254.0.0/16', 'link-local'],
  ['224.0.0.0/4', 'multicast'],
  ['240.0.0.0/4', 'reserved (RFC 1112)'],
  ['::/8', 'reserved (loopback and unspecified are in it)'],
  ['fe80::/10', 'link-local'],
  ['ff00::/8', 'multicast'],
];
const REFUSED_CIDRS = REFUSED.map(([cidr, what]) => ({ cidr: parseCidr(cidr), what }));

/** Prefix lengths: room for the gateway and one container at least, and no larger than any private range. */
const LENGTHS: Readonly<Record<Family, { min: number; max: number; why: string }>> = {
  4: {
    min: 8,
    max: 30,
    why: 'room for network, gateway, one container and broadcast, and no more than 10.0.0.0/8',
  },
  6: { min: 32, max: 126, why: 'room for the gateway and one container, and no more than one site has' },
};

function rangeOf(family: Family) {
  return mapping({ cidr: strictCidr, gateway: optional(address) }).superRefine(({ cidr, gateway }, ctx) => {
    const text = formatCidr(cidr);
    if (cidr.family !== family) {
      refuseWith(ctx, SluiceError.of('SLU1204', { family, what: 'CIDR', text }), ['cidr']);
      return;
    }
    const bad = badRange(cidr);
    if (bad !== undefined) {
      refuseWith(ctx, bad, ['cidr']);
    } else if (gateway !== undefined) {
      const error = badHostAddress(cidr, gateway);
      if (error !== undefined) refuseWith(ctx, error, ['gateway']);
    }
  });
}

/** Why a network cannot have this range (SLU1205, SLU1206). */
export function badRange(cidr: Cidr): SluiceError | undefined {
  const text = formatCidr(cidr);
  const { min, max, why } = LENGTHS[cidr.family];
  const length = textPrefixLength(cidr);
  if (length < min || length > max) return SluiceError.of('SLU1206', { cidr: text, min, max, why });
  const refused = REFUSED_CIDRS.find((entry) => cidrsOverlap(entry.cidr, cidr));
  return refused === undefined ? undefined : SluiceError.of('SLU1205', { cidr: text, what: refused.what });
}

/** Why an address cannot belong to an interface in this prefix (SLU1204, SLU1207, SLU1208). */
export function badHostAddress(cidr: Cidr, text: string): SluiceError | undefined {
  const bytes = parseAddress(text);
  if ((cidr.family === 4) === text.includes(':'))
    return SluiceError.of('SLU1204', { family: cidr.family, what: 'address', text });
  if (!cidrContains(cidr, bytes)) return SluiceError.of('SLU1207', { address: text, cidr: formatCidr(cidr) });
  const special = (what: string): SluiceError =>
    SluiceError.of('SLU1208', { address: text, what, cidr: formatCidr(cidr) });
  if (text === formatAddress(cidr.address)) {
    return special(cidr.family === 4 ? 'network address' : 'subnet-router anycast address (RFC 4291 2.6.1)');
  }
  if (cidr.family === 4 && text === formatAddress(lastAddress(cidr))) return special('broadcast address');
  return undefined;
}

export const networkSchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: clusterMetadata('Network'),
  spec: mapping({
    mode: z.enum(MODES).default('routed'),
    ipv4: rangeOf(4).optional(),
    ipv6: rangeOf(6).optional(),
    mtu: wholeNumber(576, 65535).optional(),
    masquerade: z.boolean().optional(),
    internal: z.boolean().optional(),
    parent: textOf(badDeviceName).optional(),
  }).superRefine((spec, ctx) => {
    const { mode } = spec;
    const addressed = mode === 'routed' || mode === 'bridge' || mode === 'macvlan';
    if (addressed && spec.ipv4 === undefined && spec.ipv6 === undefined) {
      refuse(ctx, `a network of mode ${mode} needs ipv4 or ipv6 with a cidr`);
    }
    for (const field of ['ipv4', 'ipv6', 'mtu', 'masquerade'] as const) {
      if (!addressed && spec[field] !== undefined)
        refuse(ctx, `a network of mode ${mode} has no ${field}: remove it`, [field]);
    }
    if (mode === 'macvlan') {
      if (spec.parent === undefined)
        refuse(ctx, 'a network of mode macvlan needs the device that it hangs on', ['parent']);
      if (spec.masquerade === true)
        refuse(
          ctx,
          'a network of mode macvlan is not masqueraded: its containers have addresses of the outer network',
          ['masquerade'],
        );
    } else if (spec.parent !== undefined) {
      refuse(ctx, `only a network of mode macvlan has a parent, not one of mode ${mode}`, ['parent']);
    }
    if (spec.internal === true && mode !== 'routed' && mode !== 'bridge')
      refuse(ctx, `only a network of mode routed or bridge can be internal, not one of mode ${mode}`, [
        'internal',
      ]);
    if (spec.ipv6 !== undefined && spec.mtu !== undefined && spec.mtu < IPV6_MIN_MTU) {
      refuse(ctx, `must be at least ${IPV6_MIN_MTU} for IPv6 (RFC 8200), not ${spec.mtu}`, ['mtu']);
    }
  }),
});

type NetworkDocument = z.output<typeof networkSchema>;

function range(value: { readonly cidr: Cidr; readonly gateway?: string | undefined }): {
  cidr: string;
  gateway: string;
} {
  return { cidr: formatCidr(value.cidr), gateway: value.gateway ?? formatAddress(addressAt(value.cidr, 1n)) };
}

export function lowerNetwork(document: NetworkDocument, lowering: Lowering): NetworkResource {
  const { metadata, spec } = document;
  const mode: NetworkMode = spec.mode;
  return {
    kind: 'Network',
    name: metadata.name,
    origin: lowering.origin(['spec.ipv4.cidr', 'spec.ipv6.cidr', 'spec.parent']),
    source: lowering.source,
    mode,
    ...(spec.ipv4 === undefined ? {} : { ipv4: range(spec.ipv4) }),
    ...(spec.ipv6 === undefined ? {} : { ipv6: range(spec.ipv6) }),
    ...(spec.mtu === undefined ? {} : { mtu: spec.mtu }),
    masquerade: mode === 'routed' || mode === 'bridge' ? (spec.masquerade ?? true) : false,
    ...(spec.internal === true ? { internal: true } : {}),
    ...(spec.parent === undefined ? {} : { parent: spec.parent }),
  };
}
