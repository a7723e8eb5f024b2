import type { Uplink } from '../../loader/abi/gen/types.gen.js';
import type { Rtnetlink } from '../../loader/netlink/route.js';
import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';
import { stableName } from '../ipam/mac.js';
import { aliasOf } from '../state/desired.js';
import { type Encryption, removeEncryption } from './encryption.js';
import type { Hooks } from './hooks.js';
import type { NodeState } from './node.js';
import { asError } from './rollback.js';
import type { SyncedMap } from './synced-map.js';
import type { Uplinks } from './uplinks.js';

/** Name of the overlay's device. */
export function overlayName(instance: string): string {
  return stableName('slvx', instance);
}

/** The VXLAN device of the overlay between nodes, with its program. Without an overlay there is none. */
export class Overlay {
  readonly #rtnl: Rtnetlink;
  readonly #hooks: Hooks;
  readonly #node: NodeState;
  readonly #uplinks: Uplinks;
  readonly #map: SyncedMap<number, Uplink>;
  readonly #config: AgentConfig;
  readonly #encryption: Encryption | undefined;
  #ifindex: number | undefined;
  #attached = false;
  #answers = false;

  constructor(
    parts: {
      readonly rtnl: Rtnetlink;
      readonly hooks: Hooks;
      readonly node: NodeState;
      readonly uplinks: Uplinks;
      readonly map: SyncedMap<number, Uplink>;
      readonly encryption?: Encryption | undefined;
    },
    config: AgentConfig,
  ) {
    this.#rtnl = parts.rtnl;
    this.#hooks = parts.hooks;
    this.#node = parts.node;
    this.#uplinks = parts.uplinks;
    this.#map = parts.map;
    this.#encryption = parts.encryption;
    this.#config = config;
  }

  /** Index of the device, if there is an overlay. */
  get ifindex(): number | undefined {
    return this.#ifindex;
  }

  /** Whether a device is the overlay's or one below it. */
  owns(ifindex: number): boolean {
    return ifindex === this.#ifindex || this.#encryption?.owns(ifindex) === true;
  }

  /**
   * Makes the device or brings it to what it has to be, after the uplinks have been read. True if it is a new one:
   * routes through the one before are gone. Throws SLU6001, SLU6007.
   */
  refresh(): boolean {
    const { instance, nodeRouting, vxlanPort, vxlanId } = this.#config;
    const name = overlayName(instance);
    const { mtu, tunnelMtu } = this.#uplinks;
    if (nodeRouting === 'overlay') this.#encryption?.refresh(tunnelMtu);
    const lower = this.#encryption?.ifindex;
    const present = this.#rtnl.link(name);
    if (nodeRouting !== 'overlay') {
      this.#node.overlay = { ifindex: 0, id: 0 };
      if (present?.alias === aliasOf(instance, 'overlay')) this.#rtnl.deleteLink(present.index);
      return false;
    }
    const same =
      present?.vxlan?.port === vxlanPort && present.vxlan.metadata && present.vxlan.lower === lower;
    const link = same ? present : undefined;
    let ifindex = link?.index;
    try {
      if (present !== undefined && link === undefined) this.#rtnl.deleteLink(present.index);
      ifindex ??= this.#rtnl.createVxlan({
        name,
        mtu,
        alias: aliasOf(instance, 'overlay'),
        port: vxlanPort,
        lower,
        noIpv6LinkLocal: true,
      }).ifindex;
      if (link === undefined || !link.up || link.mtu !== mtu)
        this.#rtnl.setLink(ifindex, { mtu, noArp: true, up: true });
    } catch (error) {
      throw SluiceError.of('SLU6001', { device: name, reason: asError(error).message, port: vxlanPort });
    }
    const isNew = this.#ifindex !== ifindex;
    if (this.#ifindex !== undefined && isNew) {
      this.#hooks.forget(this.#ifindex);
      this.#map.delete(this.#ifindex);
    }
    this.#ifindex = ifindex;
    const [first] = this.#uplinks.devices;
    this.#map.set(ifindex, {
      snat4: first?.value.snat4 ?? new Uint8Array(16),
      snat6: first?.value.snat6 ?? new Uint8Array(16),
      mtu: tunnelMtu,
    });
    // A new device has no program yet; that of an earlier agent goes on until `attach`.
    if (link === undefined) this.#attach(ifindex);
    this.#node.overlay = { ifindex, id: vxlanId };
    return isNew;
  }

  /** The present program, when the maps are complete. */
  attach(): void {
    this.#attached = true;
    if (this.#ifindex !== undefined) this.#attach(this.#ifindex);
    // Of an agent with other settings.
    if (this.#encryption === undefined) removeEncryption(this.#rtnl, this.#config.instance);
  }

  /** From now on what the host's own processes send is looked at too; see `Kernel.translateAnswers`. */
  translateAnswers(): void {
    this.#answers = true;
    if (this.#attached && this.#ifindex !== undefined) this.#hooks.attachAnswers(this.#ifindex);
  }

  #attach(ifindex: number): void {
    this.#hooks.attachTunnel(ifindex);
    if (this.#answers || this.#hooks.hasAnswers(ifindex)) this.#hooks.attachAnswers(ifindex);
  }
}
