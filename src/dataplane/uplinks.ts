import type { Uplink } from '../../loader/abi/gen/types.gen.js';
import { BpfError } from '../../loader/errors.js';
import type { XdpMode } from '../../loader/link.js';
import type { Address } from '../../loader/netlink/address.js';
import type { Link } from '../../loader/netlink/link.js';
import type { Rtnetlink } from '../../loader/netlink/route.js';
import { formatAddress, IPV6_MIN_MTU, isUnset, parseAddress } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';
import { NO_ADDRESS } from './endpoints.js';
import type { Hooks } from './hooks.js';
import type { HostDevices } from './host-devices.js';
import type { SyncedMap } from './synced-map.js';

/** MTU of containers when there is no uplink. */
const DEFAULT_MTU = 1500;
const MAX_MTU = 65535;
/** Bytes around a packet: IP, UDP, VXLAN, Ethernet (RFC 7348); IP, UDP and a message of type 4 with its tag. */
const VXLAN_OVER_4 = 50;
const VXLAN_OVER_6 = 70;
const WIREGUARD_OVER_4 = 60;
const WIREGUARD_OVER_6 = 80;

export interface UplinkDevice {
  readonly name: string;
  readonly ifindex: number;
  /** Kind of a virtual device (`veth` and so on); absent: hardware. */
  readonly kind?: string;
  readonly value: Uplink;
}

/** Devices that lead out of the host: found, written to the map, with the program attached. */
export class Uplinks {
  readonly #rtnl: Rtnetlink;
  readonly #config: Pick<AgentConfig, 'uplinks' | 'xdp' | 'nodeRouting' | 'nodeAddresses' | 'nodeEncryption'>;
  readonly #map: SyncedMap<number, Uplink>;
  readonly #hooks: Hooks;
  readonly #host: HostDevices;
  #devices: readonly UplinkDevice[] = [];
  #problems: readonly SluiceError[] = [];
  #attached = false;
  #answers = false;
  readonly #modes = new Map<number, XdpMode>();
  readonly #xdpProblems = new Map<number, SluiceError>();

  constructor(
    rtnl: Rtnetlink,
    config: Pick<AgentConfig, 'uplinks' | 'xdp' | 'nodeRouting' | 'nodeAddresses' | 'nodeEncryption'>,
    map: SyncedMap<number, Uplink>,
    hooks: Hooks,
    host: HostDevices,
  ) {
    this.#rtnl = rtnl;
    this.#config = config;
    this.#map = map;
    this.#hooks = hooks;
    this.#host = host;
  }

  get devices(): readonly UplinkDevice[] {
    return this.#devices;
  }

  get problems(): readonly SluiceError[] {
    return this.#problems;
  }

  /** Uplinks without the XDP program that the settings insist on. */
  get xdpProblems(): IterableIterator<SluiceError> {
    return this.#xdpProblems.values();
  }

  /** How XDP runs on an uplink; undefined: it does not. */
  xdpMode(ifindex: number): XdpMode | undefined {
    return this.#modes.get(ifindex);
  }

  /** MTU of containers whose network gives none: the smallest of the uplinks, less the headers of the overlay. */
  get mtu(): number {
    return Math.max(IPV6_MIN_MTU, this.outerMtu - this.#overhead());
  }

  /** MTU of what the overlay's device sends. */
  get tunnelMtu(): number {
    return this.#config.nodeEncryption === 'none' ? this.outerMtu : this.mtu + VXLAN_OVER_6;
  }

  /** The smallest MTU of the uplinks. */
  get outerMtu(): number {
    const smallest = Math.min(...this.#devices.map((device) => device.value.mtu));
    return Number.isFinite(smallest) ? smallest : DEFAULT_MTU;
  }

  /** The main addresses of the uplinks, IPv4 first. */
  get addresses(): string[] {
    const all = (['snat4', 'snat6'] as const).flatMap((field) =>
      this.#devices.map(({ value }) => value[field]).filter((address) => !isUnset(address)),
    );
    return all.map(formatAddress);
  }

  /** Headers of VXLAN over IPv4, or over IPv6 between nodes without IPv4; of WireGuard, with VXLAN over IPv6 inside. */
  #overhead(): number {
    const { nodeRouting, nodeAddresses, nodeEncryption } = this.#config;
    if (nodeRouting !== 'overlay') return 0;
    const own = nodeAddresses === 'auto' ? this.addresses : nodeAddresses;
    const over4 = own.length === 0 || own.some((address) => !address.includes(':'));
    if (nodeEncryption === 'wireguard') return VXLAN_OVER_6 + (over4 ? WIREGUARD_OVER_4 : WIREGUARD_OVER_6);
    return over4 ? VXLAN_OVER_4 : VXLAN_OVER_6;
  }

  /**
   * Reads devices, addresses and routes again and writes what differs. Programs go on new devices only if
   * `attach` is set. Returns whether something changed that flows depend on.
   */
  refresh(attach: boolean): boolean {
    const { devices, problems } = this.#find();
    this.#problems = problems;
    let changed = false;
    for (const device of devices) {
      const before = this.#devices.find((other) => other.ifindex === device.ifindex);
      if (JSON.stringify(before) === JSON.stringify(device)) continue;
      changed = true;
      this.#map.set(device.ifindex, device.value);
      if (before !== undefined) continue;
      const acceptRa = `net/ipv6/conf/${device.name}/accept_ra`;
      ignoreErrors(() => this.#host.keepRouterAdvertisements(acceptRa));
      if (attach) this.#attach(device);
    }
    for (const gone of this.#devices) {
      if (devices.some((device) => device.ifindex === gone.ifindex)) continue;
      changed = true;
      this.#map.delete(gone.ifindex);
      this.#hooks.detachUplink(gone.ifindex);
      this.#modes.delete(gone.ifindex);
      this.#xdpProblems.delete(gone.ifindex);
      this.#host.noteFilter(gone.ifindex, false);
    }
    this.#devices = devices;
    return changed;
  }

  /** Puts the program on every uplink (after the first full sync). */
  attachAll(): void {
    this.#attached = true;
    for (const device of this.#devices) this.#attach(device);
  }

  /** From now on what the host's own processes send is looked at too; see `Kernel.translateAnswers`. */
  translateAnswers(): void {
    this.#answers = true;
    if (this.#attached) for (const { ifindex } of this.#devices) this.#hooks.attachAnswers(ifindex);
  }

  #attach(device: UplinkDevice): void {
    const { ifindex } = device;
    this.#host.noteFilter(ifindex, this.#hooks.method === 'clsact');
    this.#hooks.attachUplink(ifindex);
    if (this.#answers || this.#hooks.hasAnswers(ifindex)) this.#hooks.attachAnswers(ifindex);
    this.#attachXdp(device);
  }

  /** After the program at TC, which has to be there for what XDP passes on. */
  #attachXdp({ name, ifindex, kind }: UplinkDevice): void {
    const wanted = this.#config.xdp;
    this.#modes.delete(ifindex);
    this.#xdpProblems.delete(ifindex);
    // The other end of a veth would have to take frames too, and checksums that hardware would complete are missing.
    if (wanted === 'off' || (wanted === 'auto' && kind === 'veth')) {
      this.#hooks.detachXdp(ifindex);
      return;
    }
    const mode = wanted === 'auto' ? 'native' : wanted;
    try {
      this.#hooks.attachXdp(ifindex, mode);
      this.#modes.set(ifindex, mode);
    } catch (error) {
      if (!(error instanceof BpfError)) throw error;
      if (wanted === 'auto') return;
      this.#xdpProblems.set(
        ifindex,
        SluiceError.of('SLU3603', { device: name, mode, reason: error.message }),
      );
    }
  }

  #find(): { devices: UplinkDevice[]; problems: SluiceError[] } {
    const problems: SluiceError[] = [];
    const links: Link[] = [];
    const setting = this.#config.uplinks;
    if (setting === 'auto') {
      const indexes = new Set(
        this.#rtnl
          .routes()
          .filter((route) => route.destination === 'default' && route.type === 'unicast')
          .flatMap((route) => route.hops.map((hop) => hop.ifindex)),
      );
      for (const index of [...indexes].sort((a, b) => a - b)) {
        const link = this.#rtnl.link(index);
        if (link !== undefined && !link.loopback) links.push(link);
      }
      if (links.length === 0) problems.push(SluiceError.of('SLU4305', {}));
    } else {
      for (const name of setting) {
        const link = this.#rtnl.link(name);
        if (link === undefined) problems.push(SluiceError.of('SLU4304', { device: name }));
        else links.push(link);
      }
    }
    const addresses = this.#rtnl.addresses();
    const devices = links.map((link) => ({
      name: link.name,
      ifindex: link.index,
      ...(link.kind === undefined ? {} : { kind: link.kind }),
      value: {
        snat4: mainAddress(addresses, link.index, 4),
        snat6: mainAddress(addresses, link.index, 6),
        mtu: Math.min(link.mtu, MAX_MTU),
      },
    }));
    return { devices, problems };
  }
}

/** The first global address of the family, as the kernel lists them: the main one. */
function mainAddress(addresses: readonly Address[], ifindex: number, family: 4 | 6): Uint8Array {
  const found = addresses.find(
    (address) =>
      address.ifindex === ifindex &&
      address.family === family &&
      address.scope === 'universe' &&
      !address.tentative &&
      !address.duplicate,
  );
  return found === undefined ? NO_ADDRESS : parseAddress(found.address);
}

function ignoreErrors(action: () => void): void {
  try {
    action();
  } catch {
    // A device without IPv6 has no such setting.
  }
}
