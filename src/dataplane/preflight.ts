import { NetlinkError } from '../../loader/netlink/errors.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import { currentNetns, type Netns, netnsPath, openNetns } from '../../loader/netns.js';
import { parseCidr } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { ContainerResource, NamespaceRef, NetworkResource } from '../../policy/model/resources.js';
import { type AttachmentSpec, isJudged } from '../state/desired.js';
import { displayName } from '../state/keys.js';
import { type Attachments, netnsText } from './attachments.js';
import type { HostDevices } from './host-devices.js';
import type { Wanted } from './plan.js';

/** What the device of an attachment will be made in, found out before anything is touched. */
export interface Place {
  /** `device:inode` of the namespace. */
  readonly netns: string;
  /** Index of a macvlan's parent. */
  readonly parent?: number;
  /** Open until `closePlaces`: entering a namespace once is enough where few devices are made. */
  readonly open?: OpenPlace;
}

/** A namespace that stays open, with a socket in it from when it is needed. */
export class OpenPlace {
  readonly netns: Netns;
  #inside: Rtnetlink | undefined;

  constructor(netns: Netns, inside?: Rtnetlink) {
    this.netns = netns;
    this.#inside = inside;
  }

  get inside(): Rtnetlink {
    this.#inside ??= Rtnetlink.open(this.netns);
    return this.#inside;
  }

  /** Has ready what will be asked for when the device is there. Throws NetlinkError. */
  enter(): void {
    this.inside.netnsCookie();
  }

  close(): void {
    this.#inside?.close();
    this.netns.close();
  }
}

/** Closes what places keep open; closing twice does nothing. */
export function closePlaces(places: Iterable<{ readonly place: Place }>): void {
  for (const { place } of places) place.open?.close();
}

/**
 * Checks that an attachment can be made: the namespace is there and not the agent's own, its device name is
 * free or will be (`leaving`), a macvlan's parent exists. With `keep` the namespace stays open; with `unnamed` whether
 * the name is free is left to the kernel, which is asked for the device at once. Throws SluiceError 43xx.
 */
export function preflight(
  rtnl: Rtnetlink,
  wanted: Wanted,
  leaving: ReadonlySet<string>,
  { keep, unnamed = false }: { readonly keep: boolean; readonly unnamed?: boolean },
): Place {
  const { spec, container } = wanted;
  const netns = openDeviceNetns(spec, container);
  let inside: Rtnetlink | undefined;
  let kept = false;
  try {
    if (spec.handover !== undefined) return { netns: netnsText(netns) };
    if (netns.isCurrent()) throw SluiceError.of('SLU4307', { container: spec.container }, container.origin);
    if (spec.mode === 'chained') {
      if (rtnl.link(spec.hostName)?.kind === 'veth') return { netns: netnsText(netns) };
      const reason = `its host side ${spec.hostName} is gone`;
      throw SluiceError.of(
        'SLU4303',
        { device: spec.device, container: spec.container, reason },
        container.origin,
      );
    }
    if (keep && unnamed && !isJudged(spec.mode)) {
      kept = true;
      return { netns: netnsText(netns), open: new OpenPlace(netns) };
    }
    inside = Rtnetlink.open(netns);
    if (!leaving.has(deviceKey(netnsText(netns), spec.device)) && inside.hasLink(spec.device)) {
      throw nameTaken(wanted);
    }
    let place: Place = { netns: netnsText(netns) };
    if (spec.mode === 'macvlan') {
      const parent = spec.parent === undefined ? undefined : rtnl.link(spec.parent);
      if (parent === undefined) {
        const params = { device: spec.parent ?? '', network: spec.network };
        throw SluiceError.of('SLU4302', params, container.origin);
      }
      place = { ...place, parent: parent.index };
    }
    kept = keep;
    return keep ? { ...place, open: new OpenPlace(netns, inside) } : place;
  } finally {
    if (!kept) {
      inside?.close();
      netns.close();
    }
  }
}

/** The container has a device of that name. */
export function nameTaken({ spec, container }: Pick<Wanted, 'spec' | 'container'>): SluiceError {
  return SluiceError.of('SLU4306', { device: spec.device, container: spec.container }, container.origin);
}

/** Identifies a device inside a namespace. */
function deviceKey(netns: string, device: string): string {
  return `${netns} ${device}`;
}

/** The devices inside namespaces that these attachments have, for `preflight`. */
export function devicesOf(attachments: Attachments, ids: readonly string[]): Set<string> {
  const lives = ids.map((id) => attachments.get(id)).filter((live) => live !== undefined);
  return new Set(lives.map((live) => deviceKey(live.netns, live.spec.device)));
}

/** Throws SLU4302 if the device that a macvlan network hangs on does not exist. */
export function checkParent(rtnl: Rtnetlink, network: NetworkResource): void {
  if (network.mode !== 'macvlan' || network.parent === undefined || rtnl.link(network.parent) !== undefined)
    return;
  const { file, line, fields } = network.origin;
  const place = { file, line: fields?.['spec.parent'] ?? line, field: 'spec.parent' };
  throw SluiceError.of('SLU4302', { device: network.parent, network: network.name }, place);
}

/**
 * Throws SLU1316 if a range that the network did not have has an address of the host: its containers would get that
 * address, or those of the host's neighbours. A gateway may be one that the host has, but on no uplink.
 */
export function checkRanges(
  host: Pick<HostDevices, 'foreignAddresses'>,
  uplinks: ReadonlySet<number>,
  before: NetworkResource | undefined,
  after: NetworkResource,
): void {
  if (after.mode !== 'routed' && after.mode !== 'bridge') return;
  for (const family of ['ipv4', 'ipv6'] as const) {
    const range = after[family];
    if (range === undefined || before?.[family]?.cidr === range.cidr) continue;
    const found = host
      .foreignAddresses(parseCidr(range.cidr))
      .find(({ address, ifindex }) => address !== range.gateway || uplinks.has(ifindex));
    if (found === undefined) continue;
    const field = `spec.${family}.cidr`;
    const { file, line, fields } = after.origin;
    const { address, device } = found;
    throw SluiceError.of(
      'SLU1316',
      { cidr: range.cidr, address, device },
      { file, line: fields?.[field] ?? line, field },
    );
  }
}

/** Opens the namespace in which the container's side of a device is made. */
export function openDeviceNetns(spec: AttachmentSpec, container: ContainerResource): Netns {
  return spec.handover === undefined ? openContainerNetns(spec, container) : currentNetns();
}

/** Opens the namespace of a container; throws SLU4301 or SLU4303 with the container's position. */
export function openContainerNetns(
  { netns, device }: { readonly netns: NamespaceRef; readonly device: string },
  container: ContainerResource,
): Netns {
  try {
    return openNetns(netns);
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
    const name = displayName(container);
    const missing = error.code === 'ENOENT' || error.code === 'ENOTDIR' || error.code === 'ESRCH';
    const namespace = netns.type === 'name' ? netns.name : netnsPath(netns);
    throw missing
      ? SluiceError.of('SLU4301', { namespace, container: name }, container.origin)
      : SluiceError.of('SLU4303', { device, container: name, reason: error.message }, container.origin);
  }
}
