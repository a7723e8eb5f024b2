import {
  type Flow,
  FlowFlag,
  type FlowKey,
  FlowState,
  type YoungFlow,
  YoungOwner,
} from '../../loader/abi/gen/types.gen.js';
import { formatAddress, isIpv4 } from '../../policy/address.js';
import type { KernelMaps } from '../dataplane/kernel-maps.js';
import type { Listing } from '../engine.js';
import type { EventContext } from './events.js';
import { PROTOCOLS, protocolName } from './protocols.js';

/** Flows in one listing, at most. */
const MAX_FLOWS = 10_000;
/** Entries that are looked at, at most: a full table of a million would stop the agent for too long. */
const MAX_ENTRIES = 100_000;

const COLUMNS = ['PROTO', 'SOURCE', 'DESTINATION', 'FROM', 'TO', 'STATE', 'PACKETS', 'BYTES', 'NAT'] as const;

/** The flows that are open, each once, with the counters of both directions. */
export function listFlows(
  maps: Pick<KernelMaps, 'flows' | 'half' | 'hot_tables' | 'young' | 'young_sets'>,
  context: EventContext,
): Listing {
  const rows: string[][] = [];
  const objects: unknown[] = [];
  const add = (key: FlowKey, flow: Flow, reply: Flow | undefined, half: boolean): void => {
    const entry = describeFlow(key, flow, reply, half, context);
    objects.push(entry);
    rows.push([
      entry.protocol,
      endpoint(entry.source, entry.sourcePort),
      endpoint(entry.destination, entry.destinationPort),
      entry.from,
      entry.to,
      entry.state,
      `${entry.packets.sent}/${entry.packets.received}`,
      `${entry.bytes.sent}/${entry.bytes.received}`,
      natText(entry),
    ]);
  };
  const hot = hotCounts(maps.hot_tables);
  let seen = 0;
  for (const [key, flow] of maps.flows.entries()) {
    if (++seen > MAX_ENTRIES || rows.length >= MAX_FLOWS) break;
    if ((flow.flags & FlowFlag.Reply) !== 0) continue;
    const back = replyKey(flow);
    const reply = maps.flows.get(back);
    add(key, withHot(flow, hot, key), reply && withHot(reply, hot, back), false);
  }
  for (const { fwd, f, r } of youngFlows(maps)) {
    if (rows.length >= MAX_FLOWS) break;
    add(fwd, f, r, false);
  }
  for (const [, { f, r }] of maps.half.entries()) {
    if (rows.length >= MAX_FLOWS) break;
    add(replyKey(r), f, r, true);
  }
  return { columns: COLUMNS, rows, objects };
}

/** Connections that have no entries in the flow table yet; see struct young_flow. */
export function* youngFlows(maps: Pick<KernelMaps, 'young' | 'young_sets'>): Generator<YoungFlow> {
  for (const [set, { ports }] of maps.young_sets.entries()) {
    for (const [way, taken] of ports.entries()) {
      if (taken === 0) continue;
      const young = maps.young.get(set * ports.length + way);
      if (young?.owner === YoungOwner.Live || young?.owner === YoungOwner.Moving) yield young;
    }
  }
}

interface Counts {
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** What the busiest flows have not yet added to their entries, by flow; see struct hot_flow. */
export function hotCounts(map: KernelMaps['hot_tables']): ReadonlyMap<string, Counts> {
  const counts = new Map<string, Counts>();
  for (const [, { flows }] of map.entries()) {
    for (const { saddr, daddr, sport, dport, ifindex, proto, packets, bytes } of flows) {
      if (packets === 0) continue;
      const key = hotKey(saddr, daddr, { sport, dport, ifindex, proto });
      const before = counts.get(key);
      counts.set(key, {
        packets: (before?.packets ?? 0n) + BigInt(packets),
        bytes: (before?.bytes ?? 0n) + bytes,
      });
    }
  }
  return counts;
}

function hotKey(saddr: number, daddr: number, rest: Omit<FlowKey, 'saddr' | 'daddr'>): string {
  return `${saddr} ${daddr} ${rest.sport} ${rest.dport} ${rest.ifindex} ${rest.proto}`;
}

export function withHot(flow: Flow, hot: ReadonlyMap<string, Counts>, key: FlowKey): Flow {
  if (hot.size === 0 || !isIpv4(key.saddr)) return flow;
  const counts = hot.get(hotKey(lastWord(key.saddr), lastWord(key.daddr), key));
  if (counts === undefined) return flow;
  return { ...flow, packets: flow.packets + counts.packets, bytes: flow.bytes + counts.bytes };
}

function lastWord(address: Uint8Array): number {
  return new DataView(address.buffer, address.byteOffset, address.byteLength).getUint32(12);
}

/** Key of the other direction of a flow: its tuple after translation, turned around. */
export function replyKey(flow: Flow): FlowKey {
  return {
    saddr: flow.daddr,
    daddr: flow.saddr,
    sport: flow.dport,
    dport: flow.sport,
    ifindex: flow.peerIfindex,
    proto: flow.proto,
  };
}

type FlowEntry = ReturnType<typeof describeFlow>;

function describeFlow(
  key: FlowKey,
  flow: Flow,
  reply: Flow | undefined,
  half: boolean,
  context: EventContext,
) {
  const translated = (flow.flags & FlowFlag.Nat) !== 0;
  return {
    protocol: protocolName(key.proto),
    source: formatAddress(key.saddr),
    sourcePort: key.sport,
    destination: formatAddress(key.daddr),
    destinationPort: key.dport,
    from: context.ownerOf(key.saddr),
    to: context.ownerOf(flow.daddr),
    state: stateText(flow, reply, half),
    packets: { sent: Number(flow.packets), received: Number(reply?.packets ?? 0n) },
    bytes: { sent: Number(flow.bytes), received: Number(reply?.bytes ?? 0n) },
    ...(translated
      ? {
          translated: {
            source: formatAddress(flow.saddr),
            sourcePort: flow.sport,
            destination: formatAddress(flow.daddr),
            destinationPort: flow.dport,
          },
        }
      : {}),
    epoch: flow.epoch,
    ruleEgress: flow.ruleEgress,
    ruleIngress: flow.ruleIngress,
  };
}

function stateText(flow: Flow, reply: Flow | undefined, half: boolean): string {
  if (flow.proto === PROTOCOLS.TCP) {
    if (half || flow.state < FlowState.Open) return 'opening';
    return Math.max(flow.state, reply?.state ?? 0) >= FlowState.Closing ? 'closing' : 'established';
  }
  return reply !== undefined && reply.packets > 0n ? 'answered' : 'unanswered';
}

function natText({ translated }: FlowEntry): string {
  if (translated === undefined) return '';
  const { source, sourcePort, destination, destinationPort } = translated;
  return `${endpoint(source, sourcePort)} -> ${endpoint(destination, destinationPort)}`;
}

function endpoint(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
