import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sh } from '../../bench/lib/command.js';
import { DatapathBed, loadSingle, makeDevices, UPLINK } from '../../bench/lib/datapath-bed.js';
import {
  NODE_PORT,
  nodePortService,
  type RemoteEndpoint,
  remoteEndpoints,
  ServiceBed,
} from '../../bench/lib/service-bed.js';
import { XdpMd } from '../../loader/abi/gen/kernel.gen.js';
import { attachXdp, type BpfLink } from '../../loader/link.js';
import { createNetns, insideNetns, type Netns } from '../../loader/netns.js';
import { FLAG, frame, PROTO } from '../lib/packet.js';

/** Maglev in the maps that the agent writes, asked by the program: who gets which new connection from outside. */

const XDP_PASS = 2;
const XDP_TX = 3;
const FLOWS = 20_000;
/** For shares by the program: so many that luck is a percent. */
const MANY_FLOWS = 60_000;
/** Offsets in a frame without VLAN tags and IPv4 options. */
const SOURCE = 26;
const DESTINATION = 30;
const SOURCE_PORT = 34;
const MOST_MOVED = 0.02;
const MOST_UNEVEN = 0.03;
let netns: Netns;
let link: BpfLink;
let bed: DatapathBed;
let services: ServiceBed;

beforeAll(() => {
  netns = createNetns();
  insideNetns(netns, () => {
    makeDevices();
    sh('sysctl -qw net.ipv4.conf.all.forwarding=1');
    // A test run needs a device whose queues XDP has been set up for.
    link = attachXdp(loadSingle('bench_empty.bpf.o', 'bench_empty_xdp'), UPLINK.ifindex, 'native');
    bed = new DatapathBed(1);
    services = new ServiceBed(bed);
  });
});
afterAll(() => {
  link?.close();
  netns?.close();
});

const define = (endpoints: readonly RemoteEndpoint[]): void =>
  insideNetns(netns, () => services.apply(nodePortService(endpoints, [])));

/** The backend of each of the same new connections, by address. */
function choices(flows = FLOWS): string[] {
  const context = Buffer.alloc(XdpMd.size);
  context.writeUInt32LE(UPLINK.ifindex, XdpMd.ingressIfindex);
  const data = frame({
    sourceMac: '02:00:00:00:00:02',
    destinationMac: '02:00:00:00:00:01',
    source: '203.0.0.1',
    destination: UPLINK.address,
    sourcePort: 1024,
    destinationPort: NODE_PORT.port,
    proto: PROTO.tcp,
    flags: FLAG.syn,
  });
  context.writeUInt32LE(data.length, XdpMd.dataEnd);
  return insideNetns(netns, () =>
    Array.from({ length: flows }, (_, i) => {
      // XDP changes checksums by what it changes itself, so they need not be right.
      data[SOURCE + 2] = i % 113;
      data[SOURCE + 3] = 1 + (i % 251);
      data.writeUInt16BE(1024 + ((i * 3) % 64_000), SOURCE_PORT);
      for (let tries = 0; tries < 10; tries++) {
        const { retval, dataOut } = bed.xdp.testRun({ data, ctxIn: context });
        if (retval === XDP_TX) return dataOut.subarray(DESTINATION, DESTINATION + 4).join('.');
        // One packet in a second is the kernel's, so that it looks after the neighbour.
        if (retval !== XDP_PASS) throw new Error(`the program answers ${retval}`);
      }
      return ''; // its first ports are taken: TC tries more
    }),
  );
}

function counts(list: readonly string[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const one of list) found.set(one, (found.get(one) ?? 0) + 1);
  return found;
}

describe('Maglev', () => {
  it('moves few flows of the others when one of 100 backends goes, and none when it comes back', () => {
    const all = remoteEndpoints(4, 100);
    define(all);
    const before = choices();
    expect(counts(before).size).toBeLessThanOrEqual(101);
    expect(all.filter(({ address }) => before.includes(address)).length).toBe(100);
    const gone = all[41]?.address ?? '';
    define(all.filter(({ address }) => address !== gone));
    const after = choices();
    expect(after).not.toContain(gone);
    const kept = before.flatMap((address, i) =>
      address === gone || address === '' || after[i] === '' ? [] : [i],
    );
    expect(kept.length).toBeGreaterThan(FLOWS * 0.97);
    const others = kept.length;
    const moved = kept.filter((i) => before[i] !== after[i]).length;
    expect(moved / others).toBeLessThanOrEqual(MOST_MOVED);
    define(all);
    const again = choices();
    expect(kept.filter((i) => again[i] !== '' && again[i] !== before[i])).toEqual([]);
  });

  it('gives each of 100 backends an even share', () => {
    define(remoteEndpoints(4, 100));
    const table = insideNetns(netns, () => services.table());
    const shares = counts(table);
    expect(shares.size).toBe(100);
    for (const count of shares.values())
      expect(Math.abs(count / (table.length / 100) - 1)).toBeLessThanOrEqual(MOST_UNEVEN);
  });

  it('gives backends shares by their weights, in the table and by the program', () => {
    const endpoints = remoteEndpoints(4, 20).map((endpoint, i) => ({ ...endpoint, weight: (i % 4) + 1 }));
    const total = endpoints.reduce((sum, { weight }) => sum + weight, 0);
    define(endpoints);
    const table = insideNetns(netns, () => services.table());
    const shares = counts(table);
    for (const { address, weight } of endpoints) {
      const wanted = (table.length * weight) / total;
      expect(Math.abs((shares.get(address) ?? 0) / wanted - 1)).toBeLessThanOrEqual(MOST_UNEVEN);
    }
    // The flows are always the same, so this is no matter of luck: connections by weight.
    const weights = new Map(endpoints.map(({ address, weight }) => [address, String(weight)]));
    const chosen = counts(choices(MANY_FLOWS).map((address) => weights.get(address) ?? ''));
    expect(chosen.get('') ?? 0).toBeLessThan(MANY_FLOWS / 100);
    for (const weight of [1, 2, 3, 4]) {
      const wanted = (MANY_FLOWS * weight * 5) / total;
      expect(Math.abs((chosen.get(String(weight)) ?? 0) / wanted - 1)).toBeLessThanOrEqual(MOST_UNEVEN);
    }
  });
});
