import { createHash } from 'node:crypto';
import { release } from 'node:os';
import { isAbsent } from '../../loader/netlink/errors.js';
import type { Rtnetlink } from '../../loader/netlink/route.js';
import {
  Wireguard,
  type WireguardChange,
  type WireguardPeer,
  type WireguardPeerState,
} from '../../loader/netlink/wireguard.js';
import { writeSysctl } from '../../loader/sysctl.js';
import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';
import { stableName } from '../ipam/mac.js';
import { INNER_RANGE, innerAddressText } from '../nodes/inner-address.js';
import { KEY_FILE, type NodeKey, nodeKey } from '../nodes/node-key.js';
import { aliasOf } from '../state/desired.js';
import { NODE_ROUTE_PROTOCOL } from './node-routes.js';
import { asError } from './rollback.js';

/** The last resort of a table: nothing leaves it for the host's other routes. The highest metric that iproute2 uses too. */
const LAST_METRIC = 4_278_198_272;
/** Peers of one request: an attribute takes 64 KiB. */
const PEERS_AT_ONCE = 256;

type Settings = Pick<AgentConfig, 'instance' | 'nodeEncryption' | 'wireguardPort'>;

/** What a node has told, and where it is. */
export interface NodePeer {
  /** Absent: it has told none. */
  readonly publicKey?: string;
  /** Where its datagrams go; absent: not known. */
  readonly address?: string;
}

/** A node that traffic is encrypted for. */
export interface PeerStatus {
  readonly node: string;
  readonly endpoint?: string;
  /** Seconds since 1970; 0: never. */
  readonly lastHandshake: number;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

export interface EncryptionStatus {
  readonly device: string;
  readonly publicKey: string;
  readonly port: number;
  readonly peers: readonly PeerStatus[];
  /** Nodes that nothing is sent to, because they have told no key of their own. */
  readonly withoutKey: readonly string[];
}

/** Names of the two devices, and the number of the routing table. */
export function encryptionNames(instance: string): { device: string; vrf: string; table: number } {
  const digest = createHash('sha256').update(`wireguard\0${instance}`).digest();
  return {
    device: stableName('slwg', instance),
    vrf: stableName('slvr', instance),
    table: 0x54_00_00_00 + digest.readUIntBE(0, 3),
  };
}

/**
 * WireGuard between nodes, below the overlay: the overlay's device sends through a WireGuard device, in which each node
 * has an address that follows from its name (`innerAddress`) and is all that its key may use. Both devices are apart from
 * the rest of the host in a VRF of their own, whose table leads into WireGuard and nowhere else. So the overlay's UDP
 * sockets get nothing that was not encrypted for this node, and nothing that they send can leave the host in the clear.
 */
export class Encryption {
  readonly #rtnl: Rtnetlink;
  readonly #wireguard: Wireguard;
  readonly #settings: Settings;
  readonly #own: string;
  readonly #names: ReturnType<typeof encryptionNames>;
  readonly key: NodeKey;
  readonly #wanted = new Map<string, NodePeer>();
  /** Which node a key is of. */
  readonly #owners = new Map<string, string>();
  /** What the kernel has, by public key. */
  #present = new Map<string, WireguardPeer>();
  readonly #problems = new Map<string, SluiceError>();
  #ifindex: number | undefined;
  #vrf = 0;

  private constructor(rtnl: Rtnetlink, wireguard: Wireguard, settings: Settings, key: NodeKey, own: string) {
    this.#rtnl = rtnl;
    this.#wireguard = wireguard;
    this.#settings = settings;
    this.key = key;
    this.#own = own;
    this.#names = encryptionNames(settings.instance);
  }

  /** `own`: name of this node. Undefined: encryption is not asked for. Throws SLU6002, SLU6004. */
  static open(
    rtnl: Rtnetlink,
    config: Settings & Pick<AgentConfig, 'stateDir'>,
    own: string,
  ): Encryption | undefined {
    if (config.nodeEncryption === 'none') return undefined;
    const key = nodeKey(config.stateDir);
    return new Encryption(rtnl, openWireguard(), config, key, own);
  }

  /** Index of the WireGuard device, which the overlay's device sends through. */
  get ifindex(): number | undefined {
    return this.#ifindex;
  }

  /** Whether a device is one of the two. */
  owns(ifindex: number): boolean {
    return ifindex === this.#ifindex || ifindex === this.#vrf;
  }

  /** Nodes that nothing can be sent to, and why. */
  get problems(): IterableIterator<SluiceError> {
    return this.#problems.values();
  }

  status(): EncryptionStatus {
    let peers: readonly WireguardPeerState[] = [];
    passAbsent(() => {
      if (this.#ifindex !== undefined) peers = this.#wireguard.device(this.#ifindex).peers;
    });
    const nodes = peers.flatMap((peer) => {
      const node = this.#owners.get(peer.publicKey);
      return node === undefined ? [] : [statusOf(node, peer)];
    });
    return {
      device: this.#names.device,
      publicKey: this.key.publicKey,
      port: this.#settings.wireguardPort,
      peers: nodes.sort((a, b) => (a.node < b.node ? -1 : 1)),
      withoutKey: [...this.#problems.keys()].sort(),
    };
  }

  /**
   * Makes the devices or brings them to what they have to be; `mtu`: of the overlay's packets with their headers. Of what
   * an earlier agent left, nothing is touched that is as wanted. Throws SLU6002, SLU6007.
   */
  refresh(mtu: number): void {
    const { device, vrf, table } = this.#names;
    const { instance, wireguardPort: listenPort } = this.#settings;
    const alias = aliasOf(instance, 'encryption');
    try {
      let port = this.#rtnl.link(device);
      let master = this.#rtnl.link(vrf);
      if (master === undefined) {
        // What belonged to an earlier one would not get anything any more.
        if (port !== undefined) this.#rtnl.deleteLink(port.index);
        port = undefined;
        this.#rtnl.createVrf({ name: vrf, alias, table, noIpv6LinkLocal: true });
        writeSysctl(`net/ipv6/conf/${vrf}/disable_ipv6`, '0');
        master = this.#rtnl.link(vrf);
      }
      if (master === undefined) throw new Error(`the device ${vrf} is gone`);
      this.#vrf = master.index;
      if (!master.up) this.#rtnl.setLink(master.index, { up: true });
      this.#routes(table, [
        { destination: 'default', family: 4, type: 'unreachable', metric: LAST_METRIC },
        { destination: 'default', family: 6, type: 'unreachable', metric: LAST_METRIC },
      ]);
      const ifindex =
        port?.index ?? this.#rtnl.createWireguard({ name: device, alias, noIpv6LinkLocal: true }).ifindex;
      const present = this.#wireguard.device(ifindex);
      if (present.publicKey !== this.key.publicKey || present.listenPort !== listenPort)
        this.#wireguard.setDevice(ifindex, { privateKey: this.key.privateKey, listenPort });
      if (port?.master !== master.index) this.#rtnl.setLink(ifindex, { master: master.index });
      if (port?.mtu !== mtu) this.#rtnl.setLink(ifindex, { mtu });
      if (port === undefined) writeSysctl(`net/ipv6/conf/${device}/disable_ipv6`, '0');
      if (port?.up !== true) this.#rtnl.setLink(ifindex, { up: true });
      this.#address(ifindex);
      this.#routes(table, [{ destination: INNER_RANGE, ifindex }]);
      this.#ifindex = ifindex;
      this.#present = new Map(present.peers.map((peer) => [peer.publicKey, peer]));
      for (const node of this.#wanted.keys()) this.#write(node);
    } catch (error) {
      throw SluiceError.of('SLU6007', { device, reason: asError(error).message, port: listenPort });
    }
  }

  /** A node is as told from now on. Returns what takes it back. */
  set(node: string, peer: NodePeer): () => void {
    const before = this.#wanted.get(node);
    this.#replace(node, peer);
    return () => this.#replace(node, before);
  }

  delete(node: string): void {
    this.#replace(node, undefined);
  }

  /** After the first full sync: peers of an earlier agent that nobody wants go. */
  sweep(): void {
    const gone = [...this.#present.keys()].filter((key) => !this.#owners.has(key));
    for (let at = 0; at < gone.length; at += PEERS_AT_ONCE) this.#remove(gone.slice(at, at + PEERS_AT_ONCE));
  }

  close(): void {
    this.#wireguard.close();
  }

  #replace(node: string, peer: NodePeer | undefined): void {
    const before = this.#wanted.get(node)?.publicKey;
    if (peer === undefined) this.#wanted.delete(node);
    else this.#wanted.set(node, peer);
    this.#problems.delete(node);
    if (before !== undefined && before !== peer?.publicKey && this.#owners.get(before) === node) {
      this.#owners.delete(before);
      if (this.#present.has(before)) this.#remove([before]);
      // A node that had the same key may have it now.
      for (const [other, { publicKey }] of this.#wanted) if (publicKey === before) this.#write(other);
    }
    if (peer !== undefined) this.#write(node);
  }

  #write(node: string): void {
    const { publicKey, address } = this.#wanted.get(node) ?? {};
    this.#problems.delete(node);
    if (publicKey === undefined) {
      this.#problems.set(node, SluiceError.of('SLU6005', { node }));
      return;
    }
    const owner = publicKey === this.key.publicKey ? this.#own : (this.#owners.get(publicKey) ?? node);
    if (owner !== node) {
      this.#problems.set(node, SluiceError.of('SLU6006', { node, other: owner, file: KEY_FILE }));
      return;
    }
    this.#owners.set(publicKey, node);
    const peer: WireguardPeer = {
      publicKey,
      ...(address === undefined ? {} : { endpoint: { address, port: this.#settings.wireguardPort } }),
      allowedIps: [`${innerAddressText(node)}/128`],
    };
    if (this.#ifindex === undefined || samePeer(this.#present.get(publicKey), peer)) return;
    this.#setDevice({ peers: [peer] });
    this.#present.set(publicKey, peer);
  }

  #remove(keys: readonly string[]): void {
    this.#setDevice({ remove: keys });
    for (const key of keys) this.#present.delete(key);
  }

  /** A device that somebody took away is made again, with all peers, when that is noticed. */
  #setDevice(change: WireguardChange): void {
    const ifindex = this.#ifindex;
    if (ifindex !== undefined) passAbsent(() => this.#wireguard.setDevice(ifindex, change));
  }

  /** The device's only address is this node's. */
  #address(ifindex: number): void {
    const address = innerAddressText(this.#own);
    const present = this.#rtnl.addresses(ifindex);
    for (const other of present) if (other.address !== address) this.#rtnl.deleteAddress(ifindex, other);
    if (!present.some((one) => one.address === address))
      this.#rtnl.addAddress(ifindex, { address, prefix: 128, noDad: true });
  }

  /** Adds what is missing: replacing a route would lose packets. */
  #routes(table: number, wanted: readonly (Parameters<Rtnetlink['addRoute']>[0] & object)[]): void {
    const present = this.#rtnl.routes({ table });
    for (const route of wanted) {
      const there = present.some(
        (one) =>
          one.destination === route.destination &&
          one.type === (route.type ?? 'unicast') &&
          (route.family === undefined || one.family === route.family) &&
          (route.ifindex === undefined || one.ifindex === route.ifindex),
      );
      if (!there) this.#rtnl.addRoute({ ...route, table, protocol: NODE_ROUTE_PROTOCOL });
    }
  }
}

/** Takes the devices and their table away, whether they are there or not. */
export function removeEncryption(rtnl: Rtnetlink, instance: string): void {
  const { device, vrf, table } = encryptionNames(instance);
  for (const name of [device, vrf]) {
    const link = rtnl.link(name);
    if (link?.alias === aliasOf(instance, 'encryption')) passAbsent(() => rtnl.deleteLink(link.index));
  }
  for (const { destination, family, type } of rtnl.routes({ table, protocol: NODE_ROUTE_PROTOCOL }))
    passAbsent(() => rtnl.deleteRoute({ destination, family, type, table }));
}

function passAbsent(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
}

/** Throws SLU6002 if it is asked for and the kernel does not have it. Nothing has been touched then. */
export function requireWireguard({ nodeEncryption }: Pick<AgentConfig, 'nodeEncryption'>): void {
  if (nodeEncryption === 'wireguard') openWireguard().close();
}

function openWireguard(): Wireguard {
  const wireguard = Wireguard.open();
  if (wireguard !== undefined) return wireguard;
  const reason = `the kernel ${release()} has no WireGuard (CONFIG_WIREGUARD)`;
  throw SluiceError.of('SLU6002', { reason });
}

function samePeer(present: WireguardPeer | undefined, wanted: WireguardPeer): boolean {
  return (
    present !== undefined &&
    present.allowedIps.join() === wanted.allowedIps.join() &&
    (wanted.endpoint === undefined ||
      (present.endpoint?.address === wanted.endpoint.address &&
        present.endpoint.port === wanted.endpoint.port))
  );
}

function statusOf(node: string, peer: WireguardPeerState): PeerStatus {
  const { endpoint, lastHandshake, receivedBytes, sentBytes } = peer;
  const end =
    endpoint === undefined
      ? undefined
      : `${endpoint.address.includes(':') ? `[${endpoint.address}]` : endpoint.address}:${endpoint.port}`;
  return {
    node,
    ...(end === undefined ? {} : { endpoint: end }),
    lastHandshake,
    receivedBytes,
    sentBytes,
  };
}
