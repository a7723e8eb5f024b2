import { afterAll, beforeAll, expect, it } from 'vitest';
import { sh } from '../../bench/lib/command.js';
import { CLIENT, DatapathBed, loadSingle, MAC, makeDevices, UPLINK } from '../../bench/lib/datapath-bed.js';
import { TCP, tcpFrame, tupleOf } from '../../bench/lib/packet.js';
import { NODE_PORT, nodePortService, remoteEndpoints, ServiceBed } from '../../bench/lib/service-bed.js';
import { XdpMd } from '../../loader/abi/gen/kernel.gen.js';
import { attachXdp, type BpfLink } from '../../loader/link.js';
import { createNetns, insideNetns, type Netns } from '../../loader/netns.js';
import { parseAddress } from '../../policy/address.js';
import { FLAG, frame, type Parsed, PROTO, parse } from '../lib/packet.js';

/**
 * The source ports that XDP gives to new connections: one that another connection has, whoever has opened it and
 * whichever table it is in, is not given away. There is one backend, so a port says which connection is meant.
 */

const XDP_PASS = 2;
const XDP_TX = 3;
const PORTS = { first: 1024, count: 28_976 } as const;
const BACKEND = { address: '10.3.0.1', port: 8080 } as const;
/** struct xdp_syn; `client`: the last byte of its address. */
const SLOT = { size: 64, client: 31 } as const;
let netns: Netns;
let link: BpfLink;
let bed: DatapathBed;

beforeAll(() => {
  netns = createNetns();
  insideNetns(netns, () => {
    makeDevices();
    sh('sysctl -qw net.ipv4.conf.all.forwarding=1 net.ipv6.conf.all.forwarding=1');
    sh(`ip address add ${NODE_PORT.address6}/64 dev uplink nodad`);
    sh('ip -6 route add default via 2001:db8:1::2');
    sh('ip neighbour add 2001:db8:1::2 lladdr 02:00:00:00:00:02 dev uplink');
    // A test run needs a device whose queues XDP has been set up for.
    link = attachXdp(loadSingle('bench_empty.bpf.o', 'bench_empty_xdp'), UPLINK.ifindex, 'native');
    bed = new DatapathBed(1);
    new ServiceBed(bed).apply(nodePortService(remoteEndpoints(4, 1), remoteEndpoints(6, 1)));
  });
});
afterAll(() => {
  link?.close();
  netns?.close();
});

/** The hash of a TCP packet and the port that it asks for first: tuple_hash() and snat_port() of lib/nat.h. */
function firstPort(source: string, sourcePort: number, destination: string, destinationPort: number): number {
  const words = (address: string): number[] => {
    const bytes = Buffer.from(parseAddress(address));
    return [0, 4, 8, 12].map((at) => bytes.readUInt32LE(at));
  };
  const swapped = (port: number): number => ((port & 255) << 8) | (port >> 8);
  const mix = (h: number, v: number): number => {
    const mixed = Math.imul(h ^ v, 0x85ebca6b);
    return mixed ^ (mixed >>> 13);
  };
  let h = 0x9e3779b9;
  for (const [a = 0, b = 0, c = 0, d = 0] of [words(source), words(destination)]) {
    h = mix(h, d ^ a);
    h = mix(h, c ^ b);
  }
  h = mix(h, (swapped(sourcePort) << 16) | swapped(destinationPort));
  h = mix(h, PROTO.tcp);
  h = (h ^ (h >>> 16)) >>> 0;
  const turned = ((h << 16) | (h >>> 16)) >>> 0;
  return PORTS.first + Number((BigInt(turned) * BigInt(PORTS.count)) >> 32n);
}

interface Opener {
  readonly source: string;
  readonly sourcePort: number;
}

let network = 0;
/** A client, unlike any before, whose connection to the node port asks for this port first. */
function asksFor(port: number): Opener {
  for (network++; ; network++) {
    const source = `203.0.${network >> 8}.${network & 255}`;
    for (let sourcePort = 20_000; sourcePort < 60_000; sourcePort++) {
      if (firstPort(source, sourcePort, UPLINK.address, NODE_PORT.port) === port)
        return { source, sourcePort };
    }
  }
}

/** What becomes of a packet in XDP; undefined: it is TC's. One packet in a second is the kernel's, so it is sent again. */
function xdp(data: Buffer): Parsed | undefined {
  const context = Buffer.alloc(XdpMd.size);
  context.writeUInt32LE(UPLINK.ifindex, XdpMd.ingressIfindex);
  context.writeUInt32LE(data.length, XdpMd.dataEnd);
  return insideNetns(netns, () => {
    for (let tries = 0; tries < 10; tries++) {
      const { retval, dataOut } = bed.xdp.testRun({ data, ctxIn: context });
      if (retval === XDP_TX) return parse(Buffer.from(dataOut));
      expect(retval).toBe(XDP_PASS);
    }
    return undefined;
  });
}

const packet = (
  source: string,
  sourcePort: number,
  destination: string,
  port: number,
  flags: number,
): Buffer =>
  frame({
    sourceMac: '02:00:00:00:00:02',
    destinationMac: '02:00:00:00:00:01',
    source,
    destination,
    sourcePort,
    destinationPort: port,
    proto: PROTO.tcp,
    flags,
  });

const from = ({ source, sourcePort }: Opener, flags: number): Parsed | undefined =>
  xdp(packet(source, sourcePort, UPLINK.address, NODE_PORT.port, flags));
const answer = (port: number, flags: number): Parsed | undefined =>
  xdp(packet(BACKEND.address, BACKEND.port, UPLINK.address, port, flags));
/**
 * The rest of a handshake, and where an answer of the backend then leads. The first one may be the kernel's, and a
 * SYN that is repeated is TC's.
 */
function open(opener: Opener, port: number): Parsed | undefined {
  answer(port, FLAG.syn | FLAG.ack);
  expect(from(opener, FLAG.ack)).toMatchObject({ sourcePort: port, broken: [] });
  return answer(port, FLAG.ack | FLAG.psh);
}
const isOf = ({ source, sourcePort }: Opener) => ({
  destination: source,
  destinationPort: sourcePort,
  broken: [],
});
/** The port that a SYN of the opener leaves with. */
const portOf = (opener: Opener): number | undefined => from(opener, FLAG.syn)?.sourcePort;

it('sends SYNs on with right checksums, in both families, and each again by its own port', () => {
  for (const [source, destination] of [
    ['203.1.0.1', UPLINK.address],
    ['2001:db8:9::1', NODE_PORT.address6],
  ] as const) {
    const syn = packet(source, 4711, destination, NODE_PORT.port, FLAG.syn);
    const port = firstPort(source, 4711, destination, NODE_PORT.port);
    for (let i = 0; i < 3; i++)
      expect(xdp(syn)).toMatchObject({ source: destination, sourcePort: port, ttl: 63, broken: [] });
  }
});

it('keeps a port for a connection that is half-open, open, and while expiry leaves it', () => {
  const port = 5000;
  const one = asksFor(port);
  expect(portOf(one)).toBe(port);
  const half = portOf(asksFor(port));
  expect(half).toBeGreaterThan(0);
  expect(half).not.toBe(port);
  expect(portOf(one)).toBe(port);
  expect(open(one, port)).toMatchObject(isOf(one));
  expect(portOf(asksFor(port))).not.toBe(port);
  bed.expire(5);
  expect(portOf(asksFor(port))).not.toBe(port);
  expect(from(one, FLAG.ack | FLAG.psh)).toMatchObject({ sourcePort: port });
});

it('gives a port away again when its connection is gone', () => {
  const port = 6000;
  const one = asksFor(port);
  expect(portOf(one)).toBe(port);
  open(one, port);
  const flows = bed.map('flows');
  const ours = [...flows.entries()].filter(
    ([, flow]) => flow.sport === port || flow.dport === one.sourcePort,
  );
  expect(ours).toHaveLength(2);
  for (const [key] of ours) flows.delete(key);
  const two = asksFor(port);
  expect(portOf(two)).toBe(port);
  expect(open(two, port)).toMatchObject(isOf(two));
});

it('takes no port that a connection of a container has', () => {
  const sourcePort = 33_000;
  const out = insideNetns(netns, () =>
    bed.pass(
      bed.fromContainer,
      CLIENT.ifindex,
      tcpFrame({
        sourceMac: MAC,
        destinationMac: MAC,
        source: CLIENT.address,
        destination: BACKEND.address,
        sourcePort,
        destinationPort: BACKEND.port,
        ttl: 64,
        flags: TCP.syn,
      }),
    ),
  );
  const port = tupleOf(out).sourcePort;
  expect(port).toBe(firstPort(CLIENT.address, sourcePort, BACKEND.address, BACKEND.port));
  const given = portOf(asksFor(port));
  expect(given).toBeGreaterThan(0);
  expect(given).not.toBe(port);
});

it('sends no answer to where a slot says that two programs have written at once', () => {
  const port = 7000;
  const one = asksFor(port);
  expect(portOf(one)).toBe(port);
  const slots = bed.privateArray('xdp_syns', SLOT.size);
  const slot = Buffer.from(slots.get(port) ?? []);
  slot.writeUInt8(slot.readUInt8(SLOT.client) ^ 1, SLOT.client);
  slots.set(port, slot);
  expect(answer(port, FLAG.syn | FLAG.ack)).toBeUndefined();
  const again = portOf(one) ?? 0;
  expect(again).not.toBe(port);
  expect(open(one, again)).toMatchObject(isOf(one));
});
