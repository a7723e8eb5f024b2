/**
 * DNS messages (RFC 1035, EDNS: RFC 6891) as far as a resolver of local names needs them. The codec is
 * dns-packet; this file says which messages are answered and how.
 */
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  decode,
  encode,
  type OptAnswer,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
} from 'dns-packet';
import { formatAddress, tryParseAddress } from '../../policy/address.js';
import type { DnsAnswer } from './watch.js';

/** Largest message over TCP. */
export const MAX_MESSAGE = 65_535;
/** Largest answer over UDP that is sent whatever the client can take: fits every path (DNS flag day 2020). */
export const MAX_UDP = 1232;
const MIN_UDP = 512;
export const HEADER_BYTES = 12;
/** Seconds that an answer may be kept: containers come and go. */
export const TTL = 5;

export const RCODE = {
  ok: 0,
  format: 1,
  failure: 2,
  noName: 3,
  notImplemented: 4,
  refused: 5,
  badVersion: 16,
} as const;

const MAX_LABEL = 63;
const TRUNCATED = 0x0200;
const RESPONSE = 0x8000;
const OPCODE = 0x7800;
/** Of the flags of EDNS. */
const DNSSEC_OK = 0x8000;
/** Zone transfers are not forwarded (RFC 5936, RFC 1995). */
const TRANSFERS: ReadonlySet<string> = new Set(['AXFR', 'IXFR']);

const QTYPES_OF_TRANSFERS: ReadonlySet<number> = new Set([251, 252]);
/** Type and class, after the name of a question. */
const TYPE_CLASS_BYTES = 4;
/** A record's owner, as a pointer to the question's name (RFC 1035, 4.1.4). */
const QUESTION_NAME = Buffer.from([0xc0, HEADER_BYTES]);
/** A record of the root: the bytes before its length, and those of the length. */
const ROOT_RECORD_BYTES = 9;
const LENGTH_BYTES = 2;

/** Whether a message asks for a zone. Never throws. */
export function isTransfer(message: Buffer): boolean {
  const at = questionEnd(message) - TYPE_CLASS_BYTES;
  return at > HEADER_BYTES && at + 1 < message.length && QTYPES_OF_TRANSFERS.has(message.readUInt16BE(at));
}

/** Offset after the question (name, type, class) of a message, at most its length; 0 if its name is none of labels. */
export function questionEnd(message: Buffer): number {
  let at = HEADER_BYTES;
  for (let length = message[at] ?? 0; length !== 0; length = message[at] ?? 0) {
    if (length > MAX_LABEL) return 0;
    at += length + 1;
  }
  return Math.min(at + 1 + TYPE_CLASS_BYTES, message.length);
}

/** The name in the question of a message, see Query.name. */
function nameIn(message: Buffer): string {
  const labels: string[] = [];
  let at = HEADER_BYTES;
  for (let length = message[at] ?? 0; length !== 0; length = message[at] ?? 0) {
    const label = message.toString('utf8', at + 1, at + 1 + length).toLowerCase();
    labels.push(label.replaceAll('.', '\\.'));
    at += length + 1;
  }
  return labels.join('.');
}

/** A question that can be answered. */
export interface Query {
  readonly id: number;
  /** Lower case, without the final dot; a dot that is part of a label has a backslash before it, as in zone files. */
  readonly name: string;
  /** Name, type and class, byte for byte as they came: what the answer repeats. */
  readonly question: Buffer;
  readonly type: string;
  readonly recursionDesired: boolean;
  /** The client understands EDNS. */
  readonly edns: boolean;
  /** It wants to see records of DNSSEC; the answer repeats that (RFC 3225, 3). */
  readonly dnssec: boolean;
  /** Bytes of the longest answer over UDP that the client takes. */
  readonly maxUdp: number;
}

/** What a message is: a query, one that is answered with an error at once, or nothing that gets an answer. */
export type Read = { readonly query: Query } | { readonly reply: Buffer } | { readonly ignore: true };

/** Reads a message of a client. Never throws. */
export function readQuery(message: Buffer): Read {
  if (message.length < HEADER_BYTES) return { ignore: true };
  const flags = message.readUInt16BE(2);
  // Answers are never answered, so that two servers can't keep each other busy.
  if ((flags & RESPONSE) !== 0) return { ignore: true };
  if ((flags & OPCODE) !== 0) return { reply: errorReply(message, RCODE.notImplemented) };
  if (message.readUInt16BE(4) !== 1) return { reply: errorReply(message, RCODE.format) };
  let packet: ReturnType<typeof decode>;
  try {
    packet = decode(message);
  } catch {
    return { reply: errorReply(message, RCODE.format) };
  }
  const [question] = packet.questions ?? [];
  const end = questionEnd(message);
  if (question === undefined || end === 0) return { reply: errorReply(message, RCODE.format) };
  const [opt, more] = (packet.additionals ?? []).filter(
    (record): record is OptAnswer => record.type === 'OPT',
  );
  if (more !== undefined) return { reply: errorReply(message, RCODE.format) }; // RFC 6891, 6.1.1
  const query: Query = {
    id: message.readUInt16BE(0),
    name: nameIn(message),
    question: message.subarray(HEADER_BYTES, end),
    type: question.type,
    recursionDesired: (flags & RECURSION_DESIRED) !== 0,
    edns: opt !== undefined,
    dnssec: opt?.flag_do === true,
    maxUdp: Math.min(MAX_UDP, Math.max(MIN_UDP, opt?.udpPayloadSize ?? MIN_UDP)),
  };
  if (question.class !== undefined && question.class !== 'IN') return { reply: answer(query, RCODE.refused) };
  if (TRANSFERS.has(question.type)) return { reply: answer(query, RCODE.refused) };
  if (opt !== undefined && opt.ednsVersion !== 0) return { reply: answer(query, RCODE.badVersion) };
  return { query };
}

/** Aliases that are followed in one answer. */
const MAX_ALIASES = 16;

/** The addresses that an answer gives a name, and the aliases on the way. Empty for what is no such answer. */
export function addressesIn(message: Buffer, asked: string): DnsAnswer {
  const names = [asked];
  const addresses: { address: string; ttl: number }[] = [];
  let records: readonly Answer[];
  try {
    const packet = decode(message);
    if (((packet.flags ?? 0) & 0xf) !== RCODE.ok) return { names, addresses };
    records = packet.answers ?? [];
  } catch {
    return { names, addresses };
  }
  const owner = (name: string): string => name.toLowerCase().replace(/\.$/, '');
  for (let at = 0; at < names.length && names.length < MAX_ALIASES; at++)
    for (const record of records)
      if (record.type === 'CNAME' && owner(record.name) === names[at] && !names.includes(owner(record.data)))
        names.push(owner(record.data));
  for (const record of records) {
    if ((record.type !== 'A' && record.type !== 'AAAA') || !names.includes(owner(record.name))) continue;
    const bytes = tryParseAddress(record.data);
    if (bytes !== undefined) addresses.push({ address: formatAddress(bytes), ttl: record.ttl ?? 0 });
  }
  return { names, addresses };
}

/** A record of the name that was asked. */
export interface OwnRecord {
  readonly type: 'A' | 'AAAA' | 'PTR';
  readonly data: string;
}

/**
 * An answer of our own, of at most `limit` bytes: with the records that fit, and TC set if others do not, so that who
 * can asks by TCP, and who can't has some.
 */
export function answer(
  query: Query,
  rcode: number,
  records: readonly OwnRecord[] = [],
  limit = query.maxUdp,
): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  const authoritative = rcode === RCODE.ok || rcode === RCODE.noName;
  const opt = query.edns ? optOf(rcode, query.dnssec) : Buffer.alloc(0);
  const parts = [header, query.question];
  let length = HEADER_BYTES + query.question.length + opt.length;
  let count = 0;
  for (const rest of encoded(records)) {
    length += QUESTION_NAME.length + rest.length;
    if (length > limit) break;
    parts.push(QUESTION_NAME, rest);
    count++;
  }
  header.writeUInt16BE(query.id, 0);
  header.writeUInt16BE(
    RESPONSE |
      (authoritative ? AUTHORITATIVE_ANSWER : 0) |
      (count < records.length ? TRUNCATED : 0) |
      (query.recursionDesired ? RECURSION_DESIRED : 0) |
      RECURSION_AVAILABLE |
      (rcode & 0xf),
    2,
  );
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(count, 6);
  header.writeUInt16BE(query.edns ? 1 : 0, 10);
  return Buffer.concat([...parts, opt]);
}

/** The records without their owner's name. */
function encoded(records: readonly OwnRecord[]): Buffer[] {
  if (records.length === 0) return [];
  const answers = records.map(({ type, data }): Answer => ({ type, name: '.', class: 'IN', ttl: TTL, data }));
  const message = encode({ type: 'response', answers });
  let at = HEADER_BYTES;
  return answers.map(() => {
    const end = at + ROOT_RECORD_BYTES + LENGTH_BYTES + message.readUInt16BE(at + ROOT_RECORD_BYTES);
    const rest = message.subarray(at + 1, end);
    at = end;
    return rest;
  });
}

function optOf(rcode: number, dnssec: boolean): Buffer {
  const opt: OptAnswer = {
    type: 'OPT',
    name: '.',
    udpPayloadSize: MAX_UDP,
    extendedRcode: rcode >> 4,
    ednsVersion: 0,
    flags: dnssec ? DNSSEC_OK : 0,
    flag_do: dnssec,
    options: [],
  };
  return encode({ type: 'response', additionals: [opt] }).subarray(HEADER_BYTES);
}

/** Another server's answer as it can go over UDP: whole, or its header and question with TC set. */
export function fitUdp(reply: Buffer, query: Query): Buffer {
  if (reply.length <= query.maxUdp) return reply;
  const short = answer(query, RCODE.ok);
  short.writeUInt16BE(reply.readUInt16BE(2) | TRUNCATED, 2);
  return short;
}

/** The header alone with an error: for messages whose question can't be read. */
function errorReply(message: Buffer, rcode: number): Buffer {
  const reply = Buffer.alloc(HEADER_BYTES);
  message.copy(reply, 0, 0, 2);
  const flags = message.readUInt16BE(2);
  reply.writeUInt16BE(RESPONSE | (flags & (OPCODE | RECURSION_DESIRED)) | RECURSION_AVAILABLE | rcode, 2);
  return reply;
}

/** The address in a name of in-addr.arpa or ip6.arpa, as canonical text, or undefined. */
export function reverseAddress(name: string): string | undefined {
  const v4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name);
  if (v4 !== null) return v4.slice(1, 5).reverse().join('.');
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name);
  if (v6 === null) return undefined;
  const digits = (v6[1] ?? '').split('.').reverse().join('');
  return digits.replace(/(.{4})(?=.)/g, '$1:');
}
