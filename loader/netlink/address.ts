import { AF, IFA, IFA_F, SCOPES } from './constants.js';
import { NetlinkError } from './errors.js';
import { forEachAttribute, type MessageBuilder } from './message.js';
import { type Family, familyOf, ipBytes, ipText } from './text.js';

export type Scope = keyof typeof SCOPES;

/** An address to add or to delete. */
export interface AddressInput {
  /** IPv4 or IPv6, without a prefix length. */
  readonly address: string;
  readonly prefix: number;
  /** IPv6: usable at once, without duplicate address detection. */
  readonly noDad?: boolean | undefined;
  /** No route to the prefix. */
  readonly noPrefixRoute?: boolean | undefined;
  readonly scope?: Scope | number | undefined;
}

/** An address of a device. */
export interface Address {
  readonly ifindex: number;
  readonly family: Family;
  readonly address: string;
  readonly prefix: number;
  readonly scope: Scope | number;
  /** IPv6: duplicate address detection has not ended, or found a duplicate. */
  readonly tentative: boolean;
  readonly duplicate: boolean;
}

const EINVAL = 22;
const SCOPE_NAMES: ReadonlyMap<number, Scope> = new Map(
  Object.entries(SCOPES).map(([name, value]) => [value, name as Scope]),
);

/** Name of a scope number; the number itself if it has none. */
export function scopeName(scope: number): Scope | number {
  return SCOPE_NAMES.get(scope) ?? scope;
}

/** Number of a scope. */
export function scopeNumber(scope: Scope | number): number {
  return typeof scope === 'number' ? scope : SCOPES[scope];
}

/** Payload of RTM_NEWADDR and RTM_DELADDR. Throws NetlinkError for values that can't be encoded. */
export function encodeAddress(
  operation: string,
  message: MessageBuilder,
  ifindex: number,
  input: AddressInput,
): void {
  const bytes = ipBytes(operation, input.address);
  if (!Number.isInteger(input.prefix) || input.prefix < 0 || input.prefix > bytes.length * 8) {
    throw new NetlinkError(operation, EINVAL, `prefix length is not between 0 and ${bytes.length * 8}`);
  }
  const flags =
    (input.noDad === true ? IFA_F.NODAD : 0) | (input.noPrefixRoute === true ? IFA_F.NOPREFIXROUTE : 0);
  encodeAddressHeader(message, {
    family: familyOf(bytes),
    prefix: input.prefix,
    flags: flags & 0xff,
    scope: scopeNumber(input.scope ?? 'universe'),
    ifindex,
  });
  message.attributeBytes(IFA.LOCAL, bytes).attributeBytes(IFA.ADDRESS, bytes);
  if (flags !== 0) message.attribute32(IFA.FLAGS, flags);
}

/** struct ifaddrmsg: family, prefix length, flags, scope, index. */
export function encodeAddressHeader(
  message: MessageBuilder,
  header: { family?: Family; prefix?: number; flags?: number; scope?: number; ifindex?: number },
): void {
  const family = header.family === undefined ? AF.UNSPEC : header.family === 4 ? AF.INET : AF.INET6;
  message
    .u8(family)
    .u8(header.prefix ?? 0)
    .u8(header.flags ?? 0)
    .u8(header.scope ?? 0)
    .u32(header.ifindex ?? 0);
}

/** Decodes the payload of RTM_NEWADDR or RTM_DELADDR; undefined for families other than IP. */
export function decodeAddress(buffer: Buffer, start: number, end: number): Address | undefined {
  const family = buffer[start];
  if (family !== AF.INET && family !== AF.INET6) return undefined;
  const size = family === AF.INET ? 4 : 16;
  let flags = buffer[start + 2] ?? 0;
  let local: string | undefined;
  let address = '';
  forEachAttribute(buffer, start + 8, end, (type, at, length) => {
    // IFA_ADDRESS is the other end on point-to-point devices; IFA_LOCAL, where there is one, is ours.
    if (type === IFA.LOCAL && length === size) local = ipText(buffer, at, length);
    else if (type === IFA.ADDRESS && length === size) address = ipText(buffer, at, length);
    else if (type === IFA.FLAGS) flags = buffer.readUInt32LE(at);
  });
  return {
    ifindex: buffer.readUInt32LE(start + 4),
    family: family === AF.INET ? 4 : 6,
    address: local ?? address,
    prefix: buffer[start + 1] ?? 0,
    scope: scopeName(buffer[start + 3] ?? 0),
    tentative: (flags & IFA_F.TENTATIVE) !== 0,
    duplicate: (flags & IFA_F.DADFAILED) !== 0,
  };
}
