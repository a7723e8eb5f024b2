import { SystemError } from '../errors.js';
import { NLM_F, NLMSGERR_ATTR, RTM } from './constants.js';
import { align4, forEachAttribute, stringAttribute } from './message.js';

/**
 * A netlink request or a namespace operation failed. `operation` says what on which object
 * (`create veth sl1234`), `errno` (positive) and `code` what the kernel answered, `detail` why, as far as the
 * kernel (extended acknowledgement) or the check before the request said more.
 */
export class NetlinkError extends SystemError {
  readonly detail: string | undefined;

  constructor(operation: string, errno: number, detail?: string) {
    super(operation, errno);
    this.name = 'NetlinkError';
    this.detail = detail;
    if (detail !== undefined) this.message = `${operation}: ${detail} (${this.code})`;
  }

  /** The same failure under the name of the operation that it was part of. */
  static from(operation: string, error: unknown): unknown {
    if (!(error instanceof SystemError)) return error;
    return new NetlinkError(operation, error.errno, error instanceof NetlinkError ? error.detail : undefined);
  }
}

/** Link (ENODEV), address (EADDRNOTAVAIL), route (ESRCH) and neighbour or name (ENOENT) that are not there. */
const ABSENT: ReadonlySet<string> = new Set(['ENODEV', 'EADDRNOTAVAIL', 'ESRCH', 'ENOENT']);

/** True if an operation failed because what it was to delete or to change is not there. */
export function isAbsent(error: unknown): boolean {
  return error instanceof NetlinkError && ABSENT.has(error.code);
}

/** What an error number means where the kernel adds no text and its usual text misleads ("no such process"). */
const MEANINGS: ReadonlyMap<number, Readonly<Record<number, string>>> = new Map([
  [RTM.NEWROUTE, { 17: 'there is a route to this destination with this metric already' }],
  [RTM.DELROUTE, { 3: 'there is no such route' }],
  [RTM.NEWADDR, { 17: 'the device has this address already' }],
  [RTM.DELADDR, { 99: 'the device does not have this address' }],
  [RTM.DELNEIGH, { 2: 'there is no such entry' }],
]);

/** The error of a request of a message type. `text` is the kernel's extended acknowledgement. */
export function requestError(operation: string, type: number, errno: number, text?: string): NetlinkError {
  return new NetlinkError(operation, errno, text ?? MEANINGS.get(type)?.[errno]);
}

/** What an NLMSG_ERROR message says. `errno` 0: the request was carried out. */
export interface Acknowledgement {
  readonly errno: number;
  readonly text?: string;
}

const SUCCESS: Acknowledgement = { errno: 0 };

/**
 * Reads the payload of an NLMSG_ERROR: negative errno, header of the request, the request's own
 * payload unless capped, then the attributes of the extended acknowledgement.
 */
export function decodeAcknowledgement(
  buffer: Buffer,
  flags: number,
  start: number,
  end: number,
): Acknowledgement {
  const errno = -buffer.readInt32LE(start);
  if (errno === 0) return SUCCESS;
  if ((flags & NLM_F.ACK_TLVS) === 0) return { errno };
  const request = start + 4;
  const tlvs = request + ((flags & NLM_F.CAPPED) !== 0 ? 16 : align4(buffer.readUInt32LE(request)));
  return withText(errno, buffer, tlvs, end);
}

/** Reads the payload of an NLMSG_DONE, which carries the error of a dump that failed. */
export function decodeDone(buffer: Buffer, flags: number, start: number, end: number): Acknowledgement {
  if (end - start < 4) return SUCCESS;
  const errno = -buffer.readInt32LE(start);
  if (errno <= 0) return SUCCESS;
  return (flags & NLM_F.ACK_TLVS) === 0 ? { errno } : withText(errno, buffer, start + 4, end);
}

function withText(errno: number, buffer: Buffer, start: number, end: number): Acknowledgement {
  let text: string | undefined;
  forEachAttribute(buffer, start, end, (type, at, length) => {
    if (type === NLMSGERR_ATTR.MSG) text = stringAttribute(buffer, at, length).replace(/[.\s]+$/, '');
  });
  return text === undefined || text === '' ? { errno } : { errno, text };
}
