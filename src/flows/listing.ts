import { type Flow, FlowFlag, type FlowKey, FlowState } from '../../loader/abi/gen/types.gen.js';
import { formatAddress } from '../../policy/address.js';
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
export function listFlows(maps: Pick<KernelMaps, 'flows' | 'half'>, context: EventContext): Listing {
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
  let seen = 0;
  for (const [key, flow] of maps.flows.entries()) {
    if (++seen > MAX_ENTRIES || rows.length >= MAX_FLOWS) break;
    if ((flow.flags & FlowFlag.Reply) === 0) add(key, flow, maps.flows.get(replyKey(flow)), false);
  }
  for (const [, { f, r }] of maps.half.entries()) {
    if (rows.length >= MAX_FLOWS) break;
    add(replyKey(r), f, r, true);
  }
  return { columns: COLUMNS, rows, objects };
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
  if (half) return 'opening';
  if (flow.state === FlowState.Closing || reply?.state === FlowState.Closing) return 'closing';
  if (flow.proto === PROTOCOLS.TCP) return 'established';
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
