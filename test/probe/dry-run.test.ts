/** Probes through the real programs: every protocol and family, devices that do not exist, nothing changed. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DropReason, ReservedIdentity } from '../../loader/abi/gen/types.gen.js';
import { createNetns, insideNetns, type Netns } from '../../loader/netns.js';
import { formatAddress, parseAddress } from '../../policy/address.js';
import { EMPTY_ENDPOINT } from '../../src/dataplane/endpoints.js';
import { DryRun, type ProbeHook } from '../../src/probe/dry-run.js';
import type { ProbePacket, ProbeProtocol } from '../../src/probe/packet.js';

const MAC = Uint8Array.of(2, 0, 0, 0, 0, 7);
const DEVICE = 4000;
const HERE = { 4: parseAddress('10.9.0.2'), 6: parseAddress('fd09::2') } as const;
const THERE = { 4: parseAddress('203.0.113.7'), 6: parseAddress('2001:db8::7') } as const;

let dry: DryRun;
let netns: Netns;
beforeAll(() => {
  netns = createNetns();
  dry = DryRun.load({ constants: {}, sizes: { flows: 64, half: 64, endpoints: 4096 } });
  dry.maps.endpoints.set(DEVICE, {
    ...EMPTY_ENDPOINT,
    ifindex: DEVICE,
    network: 1,
    identity4: 300,
    identity6: 300,
    mac: MAC,
    addr4: HERE[4],
    addr6: HERE[6],
  });
  for (const address of Object.values(HERE))
    dry.maps.addrs.set(address, {
      identity: 300,
      ifindex: DEVICE,
      network: 1,
      flags: 0,
      node: new Uint8Array(16),
    });
});
afterAll(() => {
  dry.close();
  netns.close();
});

const probe = (hook: ProbeHook, packet: ProbePacket) =>
  insideNetns(netns, () => dry.probe(hook, DEVICE, packet));

const NUMBERS = { TCP: 6, UDP: 17, SCTP: 132, ICMP: 1 } as const;
const CASES = (['TCP', 'UDP', 'SCTP', 'ICMP'] as const).flatMap((protocol) =>
  ([4, 6] as const).map((family) => [protocol, family] as const),
);

describe('a probe', () => {
  it.each(CASES)('over %s and IPv%s is what its protocol begins with', (protocol: ProbeProtocol, family) => {
    const out = { source: HERE[family], destination: THERE[family], protocol, port: 443, sourceMac: MAC };
    const number = protocol === 'ICMP' && family === 6 ? 58 : NUMBERS[protocol];
    const trace = probe('container', out);
    expect(trace).toMatchObject({
      reason: DropReason.None,
      srcIdentity: 300,
      dstIdentity: ReservedIdentity.World,
      key: { proto: number, dport: protocol === 'ICMP' ? 0 : 443, ifindex: DEVICE },
    });
    expect(formatAddress(trace?.key.daddr ?? HERE[4])).toBe(formatAddress(THERE[family]));
    const back = { source: THERE[family], destination: HERE[family], protocol, port: 443 };
    expect(probe('uplink', back)).toMatchObject({ reason: DropReason.None, flow: { oif: DEVICE } });
    expect(probe('host', back)).toMatchObject({ reason: DropReason.None, dstIdentity: 300 });
  });

  it('that nothing here has a say in is left to the host', () => {
    const between = { source: THERE[4], destination: THERE[4], protocol: 'TCP', port: 80 } as const;
    expect(probe('uplink', between)).toBeUndefined();
  });

  it('with another source address or MAC is refused as a packet would be', () => {
    const other = { source: THERE[4], destination: HERE[4], protocol: 'UDP', port: 1 } as const;
    expect(probe('container', { ...other, sourceMac: MAC })?.reason).toBe(DropReason.SpoofedAddr);
    expect(probe('container', { ...other, source: HERE[4] })?.reason).toBe(DropReason.SpoofedMac);
  });

  it('changes nothing', () => {
    expect([...dry.maps.flows.entries()]).toEqual([]);
    expect([...dry.maps.half.entries()]).toEqual([]);
    for (const [, counters] of dry.maps.metrics.entriesPerCpu())
      expect(counters.every(({ packets }) => packets === 0n)).toBe(true);
  });
});
