/**
 * The real BPF object with maps of its own, filled as the agent fills them, and BPF_PROG_TEST_RUN on it. Runs in
 * a network namespace that is the process's own (see bench/datapath.ts): packets go nowhere.
 *
 * A test run changes its packet, and a repeat gets what the run before it made. So the bed has one MAC address for
 * every device: a packet that was sent on to another container is a valid packet of the first one again.
 */

import { bytesCodec, type Codec, u32Codec } from '../../loader/abi/codec.js';
import { FlowState, gcArgsCodec, MAPS, NetworkFlag } from '../../loader/abi/gen/types.gen.js';
import type { BpfMap } from '../../loader/map.js';
import { BpfObject } from '../../loader/object.js';
import { objectPath } from '../../loader/paths.js';
import type { BpfProgram } from '../../loader/program.js';
import { parseAddress, parseCidr } from '../../policy/address.js';
import {
  type CompiledState,
  type CompilerInput,
  type EndpointInput,
  PolicyCompiler,
} from '../../policy/compile/compiler.js';
import { parseSources } from '../../policy/schema/parse.js';
import { sh } from './command.js';
import { TCP, tcpFrame, tupleOf } from './packet.js';

export const MAC = Buffer.from('020000000001', 'hex');
const NONE = new Uint8Array(16);

/** Devices and addresses of the bed. */
export const CLIENT = { name: 'client', ifindex: 101, address: '10.1.0.2' } as const;
export const SERVER = { name: 'server', ifindex: 102, address: '10.1.0.3', port: 8080 } as const;
export const UPLINK = { ifindex: 103, address: '198.51.100.1' } as const;
export const OUTSIDE = { address: '203.0.113.9', port: 443 } as const;

/** Ports of the server that every rule opens beside one of its own. */
export const RANGE = { first: 32_768, last: 36_863 } as const;

const TC_ACT_REDIRECT = 7;
const EPOCH = 1;
/** Passes of expiry after which a tuple is no longer known (MARK_PASSES). */
const PASSES = 3;

/** struct __sk_buff as far as a test run takes it: the device that the packet came in by. */
function context(ifindex: number): Buffer {
  const skb = Buffer.alloc(192);
  skb.writeUInt32LE(ifindex, 40);
  return skb;
}

/** The devices behind the indexes; once per namespace. */
export function makeDevices(): void {
  for (const [name, { ifindex }] of Object.entries({ client: CLIENT, server: SERVER, uplink: UPLINK })) {
    sh(`ip link add name ${name} index ${ifindex} address 02:00:00:00:00:01 type veth peer name ${name}-p`);
    sh(`ip link set ${name}-p up`);
    sh(`ip link set ${name} up`);
  }
  sh('sysctl -qw net.ipv4.ip_forward=1');
  sh(`ip address add ${UPLINK.address}/24 dev uplink`);
  sh('ip route add default via 198.51.100.2');
  sh('ip neighbour add 198.51.100.2 lladdr 02:00:00:00:00:02 dev uplink');
}

/**
 * What the compiler makes of `rules` rules for the server, of which one lets the client in, by labels and port.
 * The others are for other peers, every tenth a block of addresses, with a port and a range each. The client is
 * isolated too, and may go anywhere.
 */
function compiled(rules: number): CompiledState {
  const from = (i: number): unknown =>
    i % 10 === 9
      ? { ipBlock: { cidr: `172.16.${i >> 8}.${i & 255}/32` } }
      : { podSelector: { matchLabels: { app: i === 0 ? CLIENT.name : `peer-${i}` } } };
  const policy = (name: string, spec: unknown): string =>
    JSON.stringify({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name, namespace: 'bench' },
      spec,
    });
  const text = [
    policy('client', {
      podSelector: { matchLabels: { app: CLIENT.name } },
      policyTypes: ['Egress'],
      egress: [{}],
    }),
    policy('server', {
      podSelector: { matchLabels: { app: SERVER.name } },
      policyTypes: ['Ingress'],
      ingress: Array.from({ length: rules }, (_, i) => ({
        from: [from(i)],
        ports: [
          { protocol: 'TCP', port: SERVER.port + i },
          { protocol: 'TCP', port: RANGE.first, endPort: RANGE.last },
        ],
      })),
    }),
  ].join('\n---\n');
  const { resources, errors } = parseSources([{ file: 'policies.yaml', text }]);
  if (errors[0] !== undefined) throw errors[0];
  const endpoint = (name: string, ipv4: string): EndpointInput => ({
    kind: 'Endpoint',
    id: name,
    namespace: 'bench',
    name,
    labels: { app: name },
    ports: [],
    ipv4,
  });
  const compiler = new PolicyCompiler();
  compiler.update({
    upsert: [
      endpoint(CLIENT.name, CLIENT.address),
      endpoint(SERVER.name, SERVER.address),
      ...Array.from({ length: rules }, (_, i) => endpoint(`peer-${i}`, `10.2.${i >> 8}.${i & 255}`)),
      ...resources.filter((resource) => resource.kind === 'NetworkPolicy'),
    ] satisfies CompilerInput[],
    remove: [],
  });
  return compiler.fullState();
}

type Codecs = typeof MAPS;
type Decoded<C> = C extends Codec<infer T> ? T : never;

export class DatapathBed {
  readonly #object: BpfObject;
  readonly fromContainer: BpfProgram;
  readonly fromUplink: BpfProgram;
  readonly xdp: BpfProgram;
  readonly #expiry: BpfProgram;

  /** Loads the object; `rules`: how many rules of policy are in force for the server. */
  constructor(rules: number) {
    this.#object = BpfObject.open(objectPath());
    this.#object.load();
    this.fromContainer = this.#object.program('sluice_from_container');
    this.fromUplink = this.#object.program('sluice_from_uplink');
    this.xdp = this.#object.program('sluice_xdp');
    this.#expiry = this.#object.program('sluice_gc');
    this.#fill(rules);
  }

  map<N extends keyof Codecs>(name: N): BpfMap<Decoded<Codecs[N]['key']>, Decoded<Codecs[N]['value']>> {
    const { key, value } = MAPS[name] as {
      key: Codec<Decoded<Codecs[N]['key']>>;
      value: Codec<Decoded<Codecs[N]['value']>>;
    };
    return this.#object.map(name, key, value);
  }

  /** An array whose values have a type that only the programs know, of `size` bytes. */
  privateArray(name: string, size: number): BpfMap<number, Uint8Array> {
    return this.#object.map(name, u32Codec, bytesCodec(size));
  }

  #fill(rules: number): void {
    const { addresses, cidrs, classes, peers, ports, endpoints } = compiled(rules);
    const places = [CLIENT, SERVER];
    const host = { network: 1, flags: 0, mtu: 1500, mac: MAC, hostMac: MAC, addr6: NONE };
    for (const { id, ...numbers } of endpoints) {
      const place = places.find(({ name }) => name === id);
      if (place === undefined) continue;
      const { ifindex, address } = place;
      this.map('endpoints').set(ifindex, { ...host, ...numbers, ifindex, addr4: parseAddress(address) });
    }
    const addrs = this.map('addrs');
    for (const [text, identity] of addresses) {
      const ifindex = places.find(({ address }) => address === text)?.ifindex ?? 0;
      addrs.set(parseAddress(text), { identity, ifindex, network: 1, flags: 0, node: NONE });
    }
    const prefixes = this.map('cidrs');
    for (const [text, identity] of cidrs) {
      const { address: addr, prefixLength: prefixlen } = parseCidr(text);
      prefixes.set({ prefixlen, addr }, { identity, ifindex: 0, network: 0, flags: 0, node: NONE });
    }
    const identityClass = this.map('identity_class');
    for (const [identity, peerClass] of classes) identityClass.set(identity, peerClass);
    const policyPeers = this.map('policy_peers');
    for (const [set, identity, value] of peers) policyPeers.set({ set, identity }, value);
    const policyPorts = this.map('policy_ports');
    for (const [{ profile, protocol, port, prefixLength }, value] of ports) {
      policyPorts.set({ prefixlen: prefixLength, profile, proto: protocol, port }, value);
    }
    this.map('networks').set(1, {
      flags: NetworkFlag.Masquerade4,
      gateway4: parseAddress('10.1.0.1'),
      gateway6: NONE,
    });
    this.map('uplinks').set(UPLINK.ifindex, { snat4: parseAddress(UPLINK.address), snat6: NONE, mtu: 1500 });
    this.map('node_map').set(0, {
      epoch: EPOCH,
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
  }

  /** Runs the hook of a device once; throws if the packet is not sent on. Returns it as it leaves. */
  pass(program: BpfProgram, ifindex: number, frame: Buffer): Buffer {
    const { retval, dataOut } = program.testRun({ data: frame, ctxIn: context(ifindex) });
    if (retval !== TC_ACT_REDIRECT) throw new Error(`${program.name} answers ${retval}, not a redirect`);
    return dataOut;
  }

  /** Opens a TCP connection by its handshake, to the server or a service whose backend it is; returns a later packet of the client. */
  establish(
    to: 'server' | 'outside' | { readonly address: string; readonly port: number },
    sourcePort: number,
  ): Buffer {
    const target = to === 'server' ? SERVER : to === 'outside' ? OUTSIDE : to;
    const packet = {
      sourceMac: MAC,
      destinationMac: MAC,
      source: CLIENT.address,
      destination: target.address,
      sourcePort,
      destinationPort: target.port,
      ttl: 255,
    };
    const arrived = tupleOf(
      this.pass(this.fromContainer, CLIENT.ifindex, tcpFrame({ ...packet, flags: TCP.syn })),
    );
    const answer = tcpFrame({
      ...packet,
      source: arrived.destination,
      destination: arrived.source,
      sourcePort: arrived.destinationPort,
      destinationPort: arrived.sourcePort,
      flags: TCP.syn | TCP.ack,
    });
    if (to !== 'outside') this.pass(this.fromContainer, SERVER.ifindex, answer);
    else this.pass(this.fromUplink, UPLINK.ifindex, answer);
    this.pass(this.fromContainer, CLIENT.ifindex, tcpFrame({ ...packet, flags: TCP.ack }));
    return tcpFrame({ ...packet, flags: TCP.ack | TCP.psh, payload: 64 });
  }

  /**
   * Adds the flow that undoes the masquerade of `frame`'s flow: a packet that was translated and is given to
   * the program again is translated back, at the same cost.
   */
  mirrorMasquerade(frame: Buffer): void {
    const out = tupleOf(this.pass(this.fromContainer, CLIENT.ifindex, frame));
    const own = tupleOf(frame);
    const flows = this.map('flows');
    const key = {
      saddr: parseAddress(own.source),
      daddr: parseAddress(own.destination),
      sport: own.sourcePort,
      dport: own.destinationPort,
      ifindex: CLIENT.ifindex,
      proto: 6,
    };
    const flow = flows.get(key);
    if (flow === undefined) throw new Error('the masqueraded connection is not in the flow table');
    flows.set(
      { ...key, saddr: parseAddress(out.source), sport: out.sourcePort },
      {
        ...flow,
        saddr: key.saddr,
        sport: key.sport,
        csumAddr: ~flow.csumAddr & 0xffff,
        csumPort: ~flow.csumPort & 0xffff,
      },
    );
  }

  /** Nanoseconds a run of `program` with a packet of the client takes, the mean of `repeat` runs. */
  time(program: BpfProgram, frame: Buffer, repeat: number): number {
    return program.testRun({ data: frame, ctxIn: context(CLIENT.ifindex), repeat }).durationNs;
  }

  /**
   * Forgets half-open connections, wherever they are, so that the next SYN opens a new one; and with a few passes of
   * expiry, as there are between two connections with the same ports, that their tuples were in the flow table.
   */
  clearHalfOpen(): void {
    const half = this.map('half');
    half.deleteBatch([...half.entries()].map(([key]) => key));
    const flows = this.map('flows');
    const open = (state: number): boolean => state !== FlowState.New && state !== FlowState.Synack;
    flows.deleteBatch([...flows.entries()].filter(([, flow]) => !open(flow.state)).map(([key]) => key));
    for (const name of ['young', 'young_sets'] as const) {
      const map = this.map(name);
      map.mmap().fill(0);
      map.close();
    }
    const nodes = this.map('node_map');
    const node = nodes.get(0);
    if (node !== undefined) nodes.set(0, { ...node, halfOpen: 0 });
    this.expire(PASSES);
  }

  /** Passes of expiry, for which no time has gone by. */
  expire(passes: number): void {
    const pass = Buffer.alloc(gcArgsCodec.size);
    const count = 0xffff_ffff;
    const counts = { scanned: 0, expired: 0, open: 0, half: 0 };
    gcArgsCodec.encode({ start: 0, count, now: 1, pressure: 0, ...counts }, pass, 0);
    for (let i = 0; i < passes; i++) this.#expiry.testRun({ ctxIn: pass });
  }
}

/** The program of a small object that has only one, such as bench_empty. */
export function loadSingle(object: string, program: string): BpfProgram {
  const loaded = BpfObject.open(objectPath(object));
  loaded.load();
  return loaded.program(program);
}

/** bench_lookup with the client's flow to the server in its table. */
export function bareLookup(sourcePort: number): BpfProgram {
  const loaded = BpfObject.open(objectPath('bench_lookup.bpf.o'));
  loaded.load();
  const key = Buffer.alloc(44);
  key.set(parseAddress(CLIENT.address), 0);
  key.set(parseAddress(SERVER.address), 16);
  key.writeUInt16BE(sourcePort, 32);
  key.writeUInt16BE(SERVER.port, 34);
  key.writeUInt32LE(CLIENT.ifindex, 36);
  key.writeUInt32LE(6, 40);
  const flow = Buffer.alloc(40);
  flow.writeUInt32LE(SERVER.ifindex, 24);
  flow.set(MAC, 28);
  flow.set(MAC, 34);
  loaded.map('bench_flows', bytesCodec(44), bytesCodec(40)).set(key, flow);
  return loaded.program('bench_lookup');
}
