import { createHash } from 'node:crypto';
import type {
  Bandwidth,
  ContainerNetwork,
  ContainerResource,
  ContainerRoute,
  NamespaceRef,
  NetworkMode,
  NetworkResource,
} from '../../policy/model/resources.js';
import type { Lease } from '../ipam/leases.js';
import { stableMac, stableName } from '../ipam/mac.js';
import { attachmentId, displayName } from './keys.js';

/** One family of an attachment. `prefix` is the network's (0 to 32 or 128, as text has it). */
export interface FamilySpec {
  readonly address: string;
  readonly gateway: string;
  readonly cidr: string;
  readonly prefix: number;
}

/** Everything that decides how the device of one container in one network has to look. */
export interface AttachmentSpec {
  readonly id: string;
  /** `namespace/name`. */
  readonly container: string;
  readonly network: string;
  /** Network's number in the kernel's maps. */
  readonly number: number;
  readonly mode: Extract<NetworkMode, 'routed' | 'bridge' | 'macvlan' | 'chained'>;
  /** Name inside the namespace. */
  readonly device: string;
  /** Name of the host side, and of its alias. */
  readonly hostName: string;
  readonly alias: string;
  readonly netns: NamespaceRef;
  readonly ipv4?: FamilySpec;
  readonly ipv6?: FamilySpec;
  readonly mac: string;
  readonly hostMac: string;
  readonly mtu: number;
  /** macvlan: name of the device that it hangs on. */
  readonly parent?: string;
  /** As a rule the first network of a container gives it its default routes. */
  readonly defaultRoute: boolean;
  /**
   * Of a runtime that moves the container's side into the namespace and configures it there: the name
   * that it has on the host until then. Such a device can't be made a second time.
   */
  readonly handover?: string;
  /** Its runtime sets the default routes: the network's range is on the link, and there is no other route. */
  readonly runtimeRoutes?: true;
  readonly routes?: readonly ContainerRoute[];
  readonly bandwidth?: Bandwidth;
}

export interface SpecContext {
  readonly instance: string;
  /** MTU of networks that give none. */
  readonly mtu: number;
  readonly number: number;
}

/** Modes in which a container gets a device of ours. */
export function hasDevice(mode: NetworkMode): mode is AttachmentSpec['mode'] {
  return mode === 'routed' || mode === 'bridge' || isJudged(mode);
}

/** Modes in which packets go their own way: the programs judge them, and do not forward. */
export function isJudged(mode: NetworkMode): mode is 'macvlan' | 'chained' {
  return mode === 'macvlan' || mode === 'chained';
}

/** The spec for a container in one of its networks, or undefined if it needs no device there. */
export function specOf(
  container: ContainerResource,
  network: NetworkResource,
  lease: Lease,
  context: SpecContext,
): AttachmentSpec | undefined {
  const position = container.networks.findIndex((entry) => entry.network === network.name);
  const entry = container.networks[position];
  if (entry === undefined || container.netns === undefined || !hasDevice(network.mode)) return undefined;
  const id = attachmentId(container, network.name);
  const ipv4 = familySpec(network.ipv4 ?? ownRange(entry, lease.ipv4), lease.ipv4);
  const ipv6 = familySpec(network.ipv6 ?? ownRange(entry, lease.ipv6), lease.ipv6);
  const { hostSide } = entry;
  return {
    id,
    container: displayName(container),
    network: network.name,
    number: context.number,
    mode: network.mode,
    device: entry.device,
    hostName: hostSide?.name ?? stableName('sl', context.instance, id),
    alias: aliasOf(context.instance, id),
    netns: container.netns,
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
    mac: lease.mac,
    hostMac: hostSide?.mac ?? stableMac(context.instance, id, 'host'),
    mtu: hostSide?.mtu ?? network.mtu ?? context.mtu,
    ...(network.parent === undefined ? {} : { parent: network.parent }),
    ...(entry.handover === undefined ? {} : { handover: entry.handover }),
    ...(entry.runtimeRoutes === undefined ? {} : { runtimeRoutes: entry.runtimeRoutes }),
    defaultRoute:
      entry.handover === undefined &&
      entry.runtimeRoutes === undefined &&
      hostSide === undefined &&
      (entry.defaultRoute ?? position === 0),
    ...(entry.routes === undefined ? {} : { routes: entry.routes }),
    ...(entry.bandwidth === undefined ? {} : { bandwidth: entry.bandwidth }),
  };
}

/** Interface aliases hold 255 bytes; a longer one keeps its start and ends in a hash. */
const MAX_ALIAS = 255;

/** The alias that tells whose device it is: `sluice:<instance>:<namespace>/<container>:<network>`. */
export function aliasOf(instance: string, id: string): string {
  const alias = `sluice:${instance}:${id}`;
  if (alias.length <= MAX_ALIAS) return alias;
  const hash = createHash('sha256').update(alias).digest('hex').slice(0, 16);
  return `${alias.slice(0, MAX_ALIAS - hash.length - 1)}#${hash}`;
}

/** Whether two specs differ in more than what can be changed on a live device (the MTU). */
export function needsNewDevice(a: AttachmentSpec, b: AttachmentSpec): boolean {
  return fingerprint(a) !== fingerprint(b);
}

/** Everything that a device is made from, as one text. */
export function fingerprint(spec: AttachmentSpec): string {
  const { mtu: _, ...rest } = spec;
  return JSON.stringify(rest, Object.keys(rest).sort().concat(PARTS));
}

/** Names of what is inside the fields of a spec. */
const PARTS = [
  'address',
  'gateway',
  'cidr',
  'prefix',
  'type',
  'name',
  'path',
  'pid',
  'destination',
  'ingress',
  'egress',
  'rate',
  'burst',
];

/** Of a device that others configured nothing but the address is known. */
function ownRange(entry: ContainerNetwork, address: string | undefined) {
  if (entry.hostSide === undefined || address === undefined) return undefined;
  return { cidr: `${address}/${address.includes(':') ? 128 : 32}`, gateway: address };
}

function familySpec(
  range: { readonly cidr: string; readonly gateway: string } | undefined,
  address: string | undefined,
) {
  if (range === undefined || address === undefined) return undefined;
  return {
    address,
    gateway: range.gateway,
    cidr: range.cidr,
    prefix: Number(range.cidr.slice(range.cidr.indexOf('/') + 1)),
  };
}
