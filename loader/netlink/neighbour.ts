import { AF, NDA, NEIGHBOUR_STATES } from './constants.js';
import { forEachAttribute, type MessageBuilder } from './message.js';
import { type Family, familyOf, ipBytes, ipText, macBytes, macText } from './text.js';

export type NeighbourState = keyof typeof NEIGHBOUR_STATES | 'none';

/** A neighbour entry to set. */
export interface NeighbourInput {
  readonly ifindex: number;
  readonly address: string;
  readonly mac: string;
  /** true: never resolved or aged by the kernel. false: starts as stale. */
  readonly permanent: boolean;
}

/** A neighbour entry of the kernel (ARP, IPv6 neighbour discovery). */
export interface Neighbour {
  readonly ifindex: number;
  readonly family: Family;
  readonly address: string;
  /** Absent while it is not resolved. */
  readonly mac?: string;
  readonly state: NeighbourState;
}

/** struct ndmsg: family, pad, index, state, flags, type. */
function encodeHeader(message: MessageBuilder, family: number, ifindex: number, state: number): void {
  message.u8(family).u8(0).u16(0).u32(ifindex).u16(state).u8(0).u8(0);
}

/** Payload of RTM_NEWNEIGH. Throws NetlinkError for values that can't be encoded. */
export function encodeNeighbour(operation: string, message: MessageBuilder, input: NeighbourInput): void {
  const bytes = ipBytes(operation, input.address);
  const state = input.permanent ? NEIGHBOUR_STATES.permanent : NEIGHBOUR_STATES.stale;
  encodeHeader(message, familyOf(bytes) === 4 ? AF.INET : AF.INET6, input.ifindex, state);
  message.attributeBytes(NDA.DST, bytes).attributeBytes(NDA.LLADDR, macBytes(operation, input.mac));
}

/** Payload of RTM_DELNEIGH. */
export function encodeNeighbourKey(
  operation: string,
  message: MessageBuilder,
  key: { readonly ifindex: number; readonly address: string },
): void {
  const bytes = ipBytes(operation, key.address);
  encodeHeader(message, familyOf(bytes) === 4 ? AF.INET : AF.INET6, key.ifindex, 0);
  message.attributeBytes(NDA.DST, bytes);
}

/** Payload of RTM_GETNEIGH for a dump of one device or of all. */
export function encodeNeighbourQuery(message: MessageBuilder, ifindex: number | undefined): void {
  encodeHeader(message, AF.UNSPEC, 0, 0);
  if (ifindex !== undefined) message.attribute32(NDA.IFINDEX, ifindex);
}

/** Decodes the payload of RTM_NEWNEIGH or RTM_DELNEIGH; undefined for families other than IP. */
export function decodeNeighbour(buffer: Buffer, start: number, end: number): Neighbour | undefined {
  const family = buffer[start];
  if (family !== AF.INET && family !== AF.INET6) return undefined;
  const state = buffer.readUInt16LE(start + 8);
  let address = '';
  let mac: string | undefined;
  forEachAttribute(buffer, start + 12, end, (type, at, length) => {
    if (type === NDA.DST && (length === 4 || length === 16)) address = ipText(buffer, at, length);
    else if (type === NDA.LLADDR) mac = macText(buffer, at, length);
  });
  return {
    ifindex: buffer.readInt32LE(start + 4),
    family: family === AF.INET ? 4 : 6,
    address,
    ...(mac === undefined ? {} : { mac }),
    state: stateName(state),
  };
}

function stateName(state: number): NeighbourState {
  for (const [name, value] of Object.entries(NEIGHBOUR_STATES)) {
    if ((state & value) !== 0) return name as NeighbourState;
  }
  return 'none';
}
