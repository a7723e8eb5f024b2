import type { Endpoint, Hostport, HostportKey, Network } from '../../loader/abi/gen/types.gen.js';
import { MAPS } from '../../loader/abi/gen/types.gen.js';
import type { TcMethod } from '../../loader/link.js';
import { LinkRemover } from '../../loader/netlink/remover.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import type { AgentConfig } from '../config.js';
import { nodeNameOf } from '../services/node-context.js';
import { AddressTable } from './address-table.js';
import { arrayTable } from './array-table.js';
import { Attachments } from './attachments.js';
import { CidrTable } from './cidr-table.js';
import { Encryption } from './encryption.js';
import { EMPTY_ENDPOINT, EMPTY_NETWORK } from './endpoints.js';
import { Expedite } from './expedite.js';
import { hookMethod } from './hook-method.js';
import { Hooks } from './hooks.js';
import { HostAddresses } from './host-addresses.js';
import { HostDevices } from './host-devices.js';
import { NodeState } from './node.js';
import { nodePortFilter } from './node-port-addresses.js';
import { NodeRoutes } from './node-routes.js';
import { Overlay } from './overlay.js';
import { Pins } from './pins.js';
import { type NumbersInUse, PolicyMaps } from './policy-maps.js';
import { PoolThreads } from './pool-threads.js';
import { closeLoaded, type Loaded, type Loading, loadPrograms } from './programs.js';
import { ReservedPorts } from './reserved-ports.js';
import { SyncedMap } from './synced-map.js';
import { Uplinks } from './uplinks.js';

/**
 * The kernel side of the agent: programs, maps with the agent's copies of them, netlink. Opened once;
 * what an earlier agent left in the maps counts as stale until `sweep`.
 */
export class Kernel {
  readonly pins: Pins;
  readonly loaded: Loaded;
  readonly rtnl: Rtnetlink;
  readonly node: NodeState;
  readonly hooks: Hooks;
  readonly host: HostDevices;
  readonly endpoints: SyncedMap<number, Endpoint>;
  readonly networks: SyncedMap<number, Network>;
  readonly hostports: SyncedMap<HostportKey, Hostport>;
  readonly addresses: AddressTable;
  readonly cidrs: CidrTable;
  /** Class of each identity. */
  readonly classes: SyncedMap<number, number>;
  readonly policy: PolicyMaps;
  readonly uplinks: Uplinks;
  readonly reservedPorts: ReservedPorts;
  readonly overlay: Overlay;
  /** Present: what pods send to other nodes is encrypted. */
  readonly encryption: Encryption | undefined;
  readonly nodeRoutes: NodeRoutes;
  readonly hostAddresses: HostAddresses;
  readonly attachments: Attachments;
  readonly #remover: LinkRemover;
  readonly expedite: Expedite;
  /** Highest numbers in the maps when they were opened. */
  readonly numbers: NumbersInUse;
  readonly #synced: readonly { load(): void; sweep(): number }[];

  private constructor(config: AgentConfig, pins: Pins, loaded: Loaded) {
    this.pins = pins;
    this.loaded = loaded;
    this.rtnl = Rtnetlink.open();
    const { maps, programs } = this.loaded;
    this.node = new NodeState(maps.node_map);
    this.hooks = new Hooks(programs, this.pins, hookMethod(config.hooks));
    this.host = new HostDevices(this.rtnl, config.instance, config.stateDir);
    this.reservedPorts = new ReservedPorts(config.stateDir);
    this.endpoints = new SyncedMap(arrayTable(maps.endpoints, EMPTY_ENDPOINT), MAPS.endpoints);
    this.networks = new SyncedMap(arrayTable(maps.networks, EMPTY_NETWORK), MAPS.networks);
    this.hostports = new SyncedMap(maps.hostports, MAPS.hostports);
    const addrs = new SyncedMap(maps.addrs, MAPS.addrs);
    const cidrs = new SyncedMap(maps.cidrs, MAPS.cidrs);
    const uplinks = new SyncedMap(maps.uplinks, MAPS.uplinks);
    const bandwidths = new SyncedMap(maps.bandwidths, MAPS.bandwidths);
    this.addresses = new AddressTable(addrs, nodePortFilter(config.nodePortAddresses));
    this.cidrs = new CidrTable(cidrs);
    this.classes = new SyncedMap(maps.identity_class, MAPS.identity_class);
    this.policy = new PolicyMaps(maps);
    this.uplinks = new Uplinks(this.rtnl, config, uplinks, this.hooks, this.host);
    const { rtnl, hooks, node } = this;
    this.encryption = Encryption.open(rtnl, config, nodeNameOf(config));
    const { encryption } = this;
    this.overlay = new Overlay(
      { rtnl, hooks, node, uplinks: this.uplinks, map: uplinks, encryption },
      config,
    );
    this.nodeRoutes = new NodeRoutes(rtnl, this.overlay, config);
    this.hostAddresses = new HostAddresses(this.rtnl, this.addresses);
    this.#remover = new LinkRemover();
    this.expedite = new Expedite(config.stateDir);
    const threads = new PoolThreads();
    void threads.find();
    this.attachments = new Attachments({
      rtnl: this.rtnl,
      hooks: this.hooks,
      host: this.host,
      endpoints: this.endpoints,
      addresses: this.addresses,
      bandwidths,
      expedite: this.expedite,
      remover: this.#remover,
      threads,
    });
    this.#synced = [
      this.endpoints,
      this.networks,
      this.hostports,
      addrs,
      cidrs,
      this.classes,
      uplinks,
      bandwidths,
    ];
    if (this.loaded.adopted) for (const table of this.#synced) table.load();
    this.numbers = this.#numbers(addrs, cidrs);
  }

  /** Loads or adopts the programs. Throws SluiceError (33xx), BpfError, NetlinkError. */
  static open(config: AgentConfig): Kernel {
    const pins = new Pins(config.pinPath);
    pins.prepare();
    return new Kernel(config, pins, loadPrograms(config, pins));
  }

  /** The same with programs that are being loaded. */
  static async take(config: AgentConfig, loading: Loading): Promise<Kernel> {
    return new Kernel(config, new Pins(config.pinPath), await loading.take());
  }

  get method(): TcMethod {
    return this.hooks.method;
  }

  /**
   * A process of the host is the backend of a service: from now on what leaves the host goes by a program that gives its
   * answers the address of the service. It stays until `down`: open connections need it also when the backend is gone.
   */
  translateAnswers(): void {
    this.expedite.during(() => {
      this.uplinks.translateAnswers();
      this.overlay.translateAnswers();
    });
  }

  /** Removes everything that an earlier agent left in the maps and that is not wanted now. */
  sweep(): void {
    for (const table of this.#synced) table.sweep();
    this.policy.sweep();
  }

  /** After the first sync: removes links of devices that are gone, and gateway addresses of no network. */
  removeForgotten(gateways: ReadonlySet<string>): void {
    const uplinks = new Set(this.uplinks.devices.map((device) => device.ifindex));
    for (const index of this.pins.linkedDevices()) {
      if (
        uplinks.has(index) ||
        index === this.overlay.ifindex ||
        this.attachments.idOfIndex(index) !== undefined
      )
        continue;
      this.hooks.detachLinks(index);
    }
    this.host.keepGateways(gateways);
    this.hostAddresses.refresh();
  }

  /** Resolves when the devices that are being removed are gone. */
  async idle(): Promise<void> {
    await this.#remover.idle();
    this.attachments.forgetGone();
  }

  /** Closes descriptors; the kernel goes on as it is. */
  close(): void {
    this.#remover.close();
    this.attachments.close();
    this.expedite.close();
    this.encryption?.close();
    this.rtnl.close();
    closeLoaded(this.loaded);
  }

  #numbers(...tables: readonly { leftOver(): Iterable<{ readonly identity: number }> }[]): NumbersInUse {
    const top = { ...this.policy.load() };
    for (const number of this.classes.leftOver()) top.peerClass = Math.max(top.peerClass, number);
    for (const table of tables) {
      for (const { identity } of table.leftOver()) top.identity = Math.max(top.identity, identity);
    }
    for (const slot of this.endpoints.leftOver()) {
      top.identity = Math.max(top.identity, slot.identity4, slot.identity6);
      top.set = Math.max(top.set, slot.setEgress, slot.setIngress);
    }
    return top;
  }
}
