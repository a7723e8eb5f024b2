/**
 * A bed for tests of the BPF programs: a namespace with real devices, the real object with maps of its own, two
 * containers on one network, one on another, an uplink. Packets are run through BPF_PROG_TEST_RUN.
 */
import { execFileSync } from 'node:child_process';
import { u32Codec } from '../../loader/abi/codec.js';
import {
  AddrFlag,
  type AddrInfo,
  addrInfoCodec,
  type Bandwidth,
  backendCodec,
  bandwidthCodec,
  type CidrKey,
  type Counter,
  cidrKeyCodec,
  counterCodec,
  type Decision,
  DropReason,
  decisionCodec,
  type Endpoint,
  EndpointFlag,
  endpointCodec,
  type Flow,
  type FlowKey,
  flowCodec,
  flowKeyCodec,
  flowLogCodec,
  flowLogKeyCodec,
  fragCodec,
  fragKeyCodec,
  type GcArgs,
  gcArgsCodec,
  type HalfFlow,
  type Hostport,
  type HostportKey,
  type HotTable,
  halfFlowCodec,
  hostportCodec,
  hostportKeyCodec,
  hotTableCodec,
  NetworkFlag,
  type Node,
  networkCodec,
  nodeCodec,
  policyPeerCodec,
  policyPeerKeyCodec,
  policyPortCodec,
  policyPortKeyCodec,
  type ServiceState,
  serviceCodec,
  serviceKeyCodec,
  serviceStateCodec,
  traceCodec,
  uplinkCodec,
  Verdict,
  type YoungFlow,
  type YoungSet,
  youngFlowCodec,
  youngSetCodec,
} from '../../loader/abi/gen/types.gen.js';
import { warmThreadPool } from '../../loader/ffi/libc.js';
import { type BpfMap, possibleCpus } from '../../loader/map.js';
import { insideNetns, type Netns, openNetns } from '../../loader/netns.js';
import { BpfObject } from '../../loader/object.js';
import { objectPath } from '../../loader/paths.js';
import { formatAddress, parseAddress } from '../../policy/address.js';
import { youngFlows } from '../../src/flows/listing.js';
import { frame, macBytes, type PacketSpec, type Parsed, parse } from '../lib/packet.js';

export const REDIRECT = 7;
export const DROPPED = 2;
/** TC_ACT_UNSPEC: on to the next program and the stack. */
export const CONTINUE = 0xffffffff;
const NONE = new Uint8Array(16);

export const A = {
  ifindex: 1001,
  v4: '10.7.0.2',
  v6: 'fd07::2',
  mac: '02:00:00:00:00:0a',
  host: '02:00:00:00:0f:0a',
  network: 1,
  id: 300,
} as const;
export const B = {
  ifindex: 1002,
  v4: '10.7.0.3',
  v6: 'fd07::3',
  mac: '02:00:00:00:00:0b',
  host: '02:00:00:00:0f:0b',
  network: 1,
  id: 301,
} as const;
/** On another network. */
export const C = {
  ifindex: 1003,
  v4: '10.8.0.2',
  v6: 'fd08::2',
  mac: '02:00:00:00:00:0c',
  host: '02:00:00:00:0f:0c',
  network: 2,
  id: 302,
} as const;
export type Guest = typeof A | typeof B | typeof C;
export const UPLINK = {
  ifindex: 1010,
  v4: '198.51.100.1',
  v6: '2001:db8:1::1',
  mac: '02:00:00:00:00:01',
} as const;
export const ROUTER = { v4: '198.51.100.254', v6: '2001:db8:1::fe', mac: '02:00:00:00:00:fe' } as const;
export const OUTSIDE = { v4: '203.0.113.9', v6: '2001:db8:9::9' } as const;
export const GATEWAY = { v4: '10.7.0.1', v6: 'fd07::1' } as const;

export type HookName =
  | 'sluice_from_container'
  | 'sluice_to_container'
  | 'sluice_from_uplink'
  | 'sluice_l2_egress'
  | 'sluice_l2_ingress';

export interface Outcome {
  readonly retval: number;
  readonly packet: Parsed;
  readonly raw: Buffer;
}

let sequence = 0;

const NO_DECISION: Decision = decisionCodec.decode(Buffer.alloc(decisionCodec.size), 0);
const NO_SERVICES: ServiceState = serviceStateCodec.decode(Buffer.alloc(serviceStateCodec.size), 0);

export interface BedOptions {
  readonly rodata?: Readonly<Record<string, number | bigint>>;
  readonly sizes?: Readonly<Record<string, number>>;
}

export class Bed {
  readonly #name = `slt-bpf-${process.pid}-${sequence++}`;
  readonly #ns: Netns;
  readonly #object: BpfObject;
  readonly #flows: BpfMap<FlowKey, Flow>;
  readonly half: BpfMap<FlowKey, HalfFlow>;
  readonly young: BpfMap<number, YoungFlow>;
  readonly #youngSets: BpfMap<number, YoungSet>;
  readonly endpoints: BpfMap<number, Endpoint>;
  readonly addrs: BpfMap<Uint8Array, AddrInfo>;
  readonly cidrs: BpfMap<CidrKey, AddrInfo>;
  readonly hostports: BpfMap<HostportKey, Hostport>;
  readonly node: BpfMap<number, Node>;
  readonly hot: BpfMap<number, HotTable>;
  readonly metrics: BpfMap<number, Counter>;
  #forwarded = 0;

  constructor(options: BedOptions = {}) {
    const ip = (...args: string[]) => execFileSync('ip', ['-n', this.#name, ...args], { stdio: 'pipe' });
    execFileSync('ip', ['netns', 'add', this.#name], { stdio: 'pipe' });
    try {
      for (const device of [A, B, C, UPLINK]) {
        const { ifindex } = device;
        const name = `d${ifindex}`;
        ip(
          'link',
          'add',
          name,
          'index',
          String(ifindex),
          'address',
          'host' in device ? device.host : device.mac,
          'type',
          'veth',
          'peer',
          'name',
          `${name}p`,
        );
        ip('link', 'set', `${name}p`, 'up');
        ip('link', 'set', name, 'up');
      }
      ip('link', 'set', 'lo', 'up');
      ip('address', 'add', `${UPLINK.v4}/24`, 'dev', `d${UPLINK.ifindex}`);
      ip('address', 'add', `${UPLINK.v6}/64`, 'dev', `d${UPLINK.ifindex}`, 'nodad');
      ip('route', 'add', 'default', 'via', ROUTER.v4);
      ip('route', 'add', 'default', 'via', ROUTER.v6);
      ip('route', 'add', 'unreachable', '203.0.113.66/32');
      warmThreadPool();
      this.#ns = openNetns({ type: 'name', name: this.#name });
      execFileSync('nsenter', [
        `--net=/run/netns/${this.#name}`,
        'sh',
        '-c',
        'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding',
      ]);
      this.#object = BpfObject.open(objectPath());
      this.#object.setRodata({ cfg_hz: 250, ...options.rodata });
      for (const [map, size] of Object.entries({ flows: 4096, hot_tables: possibleCpus(), ...options.sizes }))
        this.#object.setMaxEntries(map, size);
      this.#object.load();
    } catch (error) {
      execFileSync('ip', ['netns', 'del', this.#name], { stdio: 'pipe' });
      throw error;
    }
    const o = this.#object;
    this.#flows = o.map('flows', flowKeyCodec, flowCodec);
    this.young = o.map('young', u32Codec, youngFlowCodec);
    this.#youngSets = o.map('young_sets', u32Codec, youngSetCodec);
    this.half = o.map('half', flowKeyCodec, halfFlowCodec);
    this.endpoints = o.map('endpoints', u32Codec, endpointCodec);
    this.addrs = o.map('addrs', hostportKeyAddress, addrInfoCodec);
    this.cidrs = o.map('cidrs', cidrKeyCodec, addrInfoCodec);
    this.hostports = o.map('hostports', hostportKeyCodec, hostportCodec);
    this.node = o.map('node_map', u32Codec, nodeCodec);
    this.hot = o.map('hot_tables', u32Codec, hotTableCodec);
    this.metrics = o.map('metrics', u32Codec, counterCodec);
    this.#fill();
  }

  #fill(): void {
    for (const guest of [A, B, C]) {
      this.endpoint(guest);
      for (const address of [guest.v4, guest.v6]) {
        this.addrs.set(parseAddress(address), {
          identity: guest.id,
          ifindex: guest.ifindex,
          network: guest.network,
          flags: 0,
          node: NONE,
        });
      }
    }
    for (const address of [UPLINK.v4, UPLINK.v6, GATEWAY.v4, GATEWAY.v6]) {
      this.addrs.set(parseAddress(address), {
        identity: 1,
        ifindex: 0,
        network: 0,
        flags: AddrFlag.Host,
        node: NONE,
      });
    }
    const cidr = (text: string, prefixlen: number, flags: number, identity = 2) =>
      this.cidrs.set(
        { prefixlen, addr: parseAddress(text) },
        { identity, ifindex: 0, network: 1, flags, node: NONE },
      );
    cidr('10.7.0.0', 96 + 24, AddrFlag.Reserved);
    cidr('fd07::', 64, AddrFlag.Reserved);
    const networks = this.#object.map('networks', u32Codec, networkCodec);
    for (const [number, gateway4, gateway6] of [
      [1, GATEWAY.v4, GATEWAY.v6],
      [2, '10.8.0.1', 'fd08::1'],
    ] as const) {
      networks.set(number, {
        flags: NetworkFlag.Masquerade4 | NetworkFlag.Masquerade6,
        gateway4: parseAddress(gateway4),
        gateway6: parseAddress(gateway6),
      });
    }
    this.#object
      .map('uplinks', u32Codec, uplinkCodec)
      .set(UPLINK.ifindex, { snat4: parseAddress(UPLINK.v4), snat6: parseAddress(UPLINK.v6), mtu: 1500 });
    this.epoch(1);
  }

  /** As new: a load takes longer than all that a test does with it. */
  reset(): void {
    const clear = <K, V>(map: BpfMap<K, V>) => {
      for (const [key] of [...map.entries()]) map.delete(key);
    };
    this.young.mmap().fill(0);
    this.#youngSets.mmap().fill(0);
    clear(this.#flows);
    clear(this.half);
    clear(this.addrs);
    clear(this.cidrs);
    clear(this.hostports);
    clear(this.#object.map('bandwidths', u32Codec, bandwidthCodec));
    clear(this.#object.map('policy_peers', policyPeerKeyCodec, policyPeerCodec));
    clear(this.#object.map('policy_ports', policyPortKeyCodec, policyPortCodec));
    clear(this.#object.map('identity_class', u32Codec, u32Codec));
    clear(this.#object.map('frags', fragKeyCodec, fragCodec));
    clear(this.#object.map('services', serviceKeyCodec, serviceCodec));
    this.#object.map('service_state_map', u32Codec, serviceStateCodec).set(0, NO_SERVICES);
    const decisions = this.#object.map('decisions', u32Codec, decisionCodec);
    for (let slot = 0; slot < decisions.maxEntries; slot++) decisions.set(slot, NO_DECISION);
    this.hot.mmap().fill(0);
    this.node.set(0, {
      epoch: 1,
      trace: 0,
      pickup: 0,
      published: 0,
      gcScanned: 0n,
      gcExpired: 0n,
      logSlot: 0,
      tunnel: 0,
      tunnelId: 0,
      halfOpen: 0,
    });
    this.#fill();
    this.dropsSince();
    this.#forwarded = this.counted('None');
  }

  /** The flow table, with the young flows moved into it as expiry does after a second. */
  get flows(): BpfMap<FlowKey, Flow> {
    this.gc({ count: 0, now: this.gc({ count: 0 }).now + 500 });
    return this.#flows;
  }

  /** Entries of the flow table as it is, without the young flows, however old they are. */
  entries(): number {
    return this.gc({ now: 1 }).scanned;
  }

  /** Flows that are not in the flow table yet. */
  youngFlows(): YoungFlow[] {
    return [...youngFlows({ young: this.young, young_sets: this.#youngSets })];
  }

  /** Places of young flows that are taken, and how many of them are behind the sets of their addresses. */
  youngPlaces(): { readonly taken: number; readonly behind: number } {
    const sets = [...this.#youngSets.entries()].map(([, set]) => set);
    return {
      taken: sets.flatMap(({ ports }) => ports).filter((ports) => ports !== 0).length,
      behind: sets.reduce((sum, { more }) => sum + more, 0),
    };
  }

  endpoint(guest: Guest, change: Partial<Endpoint> = {}): void {
    this.endpoints.set(guest.ifindex, {
      ifindex: guest.ifindex,
      network: guest.network,
      setEgress: 0,
      setIngress: 0,
      identity4: guest.id,
      identity6: guest.id,
      flags: 0,
      mtu: 1500,
      mac: macBytes(guest.mac),
      hostMac: macBytes(guest.host),
      addr4: parseAddress(guest.v4),
      addr6: parseAddress(guest.v6),
      ...change,
    });
  }

  epoch(epoch: number): void {
    this.node.set(0, {
      epoch,
      trace: 0,
      pickup: 0,
      published: this.node.get(0)?.published ?? 0,
      gcScanned: 0n,
      gcExpired: 0n,
      logSlot: 0,
      tunnel: 0,
      tunnelId: 0,
      halfOpen: 0,
    });
  }

  bandwidth(guest: Guest, limits: Bandwidth): void {
    this.#object.map('bandwidths', u32Codec, bandwidthCodec).set(guest.ifindex, limits);
    this.endpoint(guest, { flags: EndpointFlag.Limit });
  }

  /** A set whose any-peer entry denies with rule 900 + set, and the given peers (identity to rule) are allowed. */
  set(set: number, allowed: Readonly<Record<number, number>>, any: 'deny' | 'allow' = 'deny'): void {
    const peers = this.#object.map('policy_peers', policyPeerKeyCodec, policyPeerCodec);
    peers.set(
      { set, identity: 0 },
      { profile: 0, rule: 900 + set, verdict: any === 'deny' ? Verdict.Deny : Verdict.Allow },
    );
    for (const [identity, rule] of Object.entries(allowed)) {
      peers.set({ set, identity: Number(identity) }, { profile: 0, rule, verdict: Verdict.Allow });
    }
  }

  /** Puts an identity into a class, a number that sets have entries for like those of identities. */
  classify(identity: number, peerClass: number): void {
    this.#object.map('identity_class', u32Codec, u32Codec).set(identity, peerClass);
  }

  /** Identity may reach the ports of a profile: [protocol, port, prefix length] each with a rule. */
  profile(
    set: number,
    identity: number,
    profile: number,
    ports: readonly (readonly [number, number, number, number])[],
  ): void {
    this.#object
      .map('policy_peers', policyPeerKeyCodec, policyPeerCodec)
      .set({ set, identity }, { profile, rule: 900 + set, verdict: Verdict.Ports });
    const map = this.#object.map('policy_ports', policyPortKeyCodec, policyPortCodec);
    for (const [proto, port, prefixlen, rule] of ports)
      map.set({ prefixlen, profile, proto, port }, { rule, verdict: Verdict.Allow });
  }

  hostport(host: string, port: number, proto: number, guest: Guest, to: number): void {
    const v6 = host.includes(':');
    this.hostports.set(
      { addr: parseAddress(host), port, proto },
      { addr: parseAddress(v6 ? guest.v6 : guest.v4), ifindex: guest.ifindex, port: to },
    );
    this.node.set(0, {
      epoch: 1,
      trace: 0,
      pickup: 0,
      published: 1,
      gcScanned: 0n,
      gcExpired: 0n,
      logSlot: 0,
      tunnel: 0,
      tunnelId: 0,
      halfOpen: 0,
    });
  }

  /** Backends of services, in the order of their numbers. */
  #backends = 0;

  /** A frontend of a service with one backend. */
  service(address: string, port: number, proto: number, guest: Guest, to: number): void {
    const number = ++this.#backends;
    const addr = parseAddress(address.includes(':') ? guest.v6 : guest.v4);
    this.#object.map('backends', u32Codec, backendCodec).set(number, { addr, port: to, proto });
    this.#object.map('service_slots', u32Codec, u32Codec).set(number, number);
    this.#object.map('services', serviceKeyCodec, serviceCodec).set(
      { addr: parseAddress(address), port, proto },
      {
        number,
        flags: 0,
        firstInternal: number,
        countInternal: 1,
        firstExternal: number,
        countExternal: 1,
        affinity: 0,
        firstLocal: 0,
        countLocal: 0,
      },
    );
    this.#object
      .map('service_state_map', u32Codec, serviceStateCodec)
      .set(0, { ...NO_SERVICES, active: number, generation: 1 });
  }

  /** `named`: what a dry run takes for the device (cb[0]). */
  run(hook: HookName, ifindex: number, spec: PacketSpec | Buffer, named = 0): Outcome {
    const data = Buffer.isBuffer(spec) ? spec : frame(spec);
    const skb = Buffer.alloc(192);
    skb.writeUInt32LE(ifindex, 40);
    skb.writeUInt32LE(named, 48);
    const program = this.#object.program(hook);
    const result = insideNetns(this.#ns, () => program.testRun({ data, ctxIn: skb }));
    program.close();
    return {
      retval: result.retval,
      raw: Buffer.from(result.dataOut),
      packet: parse(Buffer.from(result.dataOut)),
    };
  }

  /** From a container, with right MAC addresses unless given. */
  from(guest: Guest, spec: Omit<PacketSpec, 'sourceMac' | 'destinationMac'> & Partial<PacketSpec>): Outcome {
    return this.run('sluice_from_container', guest.ifindex, {
      sourceMac: guest.mac,
      destinationMac: guest.host,
      ...spec,
    });
  }

  fromUplink(spec: Omit<PacketSpec, 'sourceMac' | 'destinationMac'> & Partial<PacketSpec>): Outcome {
    return this.run('sluice_from_uplink', UPLINK.ifindex, {
      sourceMac: ROUTER.mac,
      destinationMac: UPLINK.mac,
      ...spec,
    });
  }

  fromHost(
    guest: Guest,
    spec: Omit<PacketSpec, 'sourceMac' | 'destinationMac'> & Partial<PacketSpec>,
  ): Outcome {
    return this.run('sluice_to_container', guest.ifindex, {
      sourceMac: guest.host,
      destinationMac: guest.mac,
      ...spec,
    });
  }

  /** Packets counted for a reason (`None`: forwarded), all directions and CPUs. */
  counted(reason: keyof typeof DropReason): number {
    let total = 0n;
    for (const direction of [0, 1]) {
      for (const cpu of this.metrics.getPerCpu(direction * 128 + DropReason[reason])) total += cpu.packets;
    }
    if (reason === 'None') for (const [, { packets }] of this.hot.entries()) total += packets;
    return Number(total);
  }

  /** Packets sent on since the bed was as new. */
  forwarded(): number {
    return this.counted('None') - this.#forwarded;
  }

  /** New flows that the flow log has, of both its halves. */
  logged(): number {
    const log = this.#object.map('flow_log_map', flowLogKeyCodec, flowLogCodec);
    return [...log.entriesPerCpu()].flatMap(([, all]) => all).reduce((sum, { flows }) => sum + flows, 0);
  }

  /** Packets of flows that ended and of drops, as the flow log has them. */
  loggedPackets(): { readonly sent: number; readonly answered: number } {
    const log = this.#object.map('flow_log_map', flowLogKeyCodec, flowLogCodec);
    const all = [...log.entriesPerCpu()].flatMap(([, counts]) => counts);
    return {
      sent: all.reduce((sum, { packets }) => sum + Number(packets), 0),
      answered: all.reduce((sum, { replyPackets }) => sum + Number(replyPackets), 0),
    };
  }

  /** Reasons counted since the last call, by name. */
  #last = new Map<string, number>();
  dropsSince(): Record<string, number> {
    const out: Record<string, number> = {};
    for (const name of Object.keys(DropReason) as (keyof typeof DropReason)[]) {
      if (name === 'None' || name === 'ReasonCount') continue;
      const count = this.counted(name);
      const more = count - (this.#last.get(name) ?? 0);
      if (more) out[name] = more;
      this.#last.set(name, count);
    }
    return out;
  }

  /** Entries of the main table as `ifindex proto source>destination` lines, sorted. */
  table(): string[] {
    return [...this.flows.entries()]
      .map(
        ([k]) =>
          `${k.ifindex} ${k.proto} ${formatAddress(k.saddr)}:${k.sport}>${formatAddress(k.daddr)}:${k.dport}`,
      )
      .sort();
  }

  trace() {
    return this.#object.map('trace_map', u32Codec, traceCodec).get(0);
  }

  gc(args: Partial<GcArgs>): GcArgs {
    const ctx = Buffer.alloc(gcArgsCodec.size);
    gcArgsCodec.encode(
      { start: 0, count: 1_000_000, now: 0, pressure: 0, scanned: 0, expired: 0, open: 0, half: 0, ...args },
      ctx,
      0,
    );
    const program = this.#object.program('sluice_gc');
    const result = program.testRun({ ctxIn: ctx });
    program.close();
    return gcArgsCodec.decode(result.ctxOut, 0);
  }

  close(): void {
    this.#object.close();
    this.#ns.close();
    execFileSync('ip', ['netns', 'del', this.#name], { stdio: 'pipe' });
  }
}

const hostportKeyAddress = {
  size: 16,
  encode(value: Uint8Array, into: Buffer, offset: number): void {
    into.set(value, offset);
  },
  decode(from: Buffer, offset: number): Uint8Array {
    return new Uint8Array(from.subarray(offset, offset + 16));
  },
};
export const ZERO_ADDRESS = NONE;
