/**
 * Netlink messages (RFC 3549, linux/netlink.h): a header of 16 bytes, a fixed header of the family,
 * attributes {u16 length, u16 type, value} that start on multiples of 4 and may be nested. Numbers
 * are in the byte order of the machine, which is little-endian on all that Sluice supports.
 */

const HEADER = 16;
/** Where the flags are in a header. */
const FLAGS_AT = 6;
const ATTRIBUTE_HEADER = 4;
/** The upper two bits of a type are flags (nested, network byte order). */
const TYPE_MASK = 0x3fff;

/** Rounds up to the alignment of messages and attributes. */
export function align4(length: number): number {
  return (length + 3) & ~3;
}

/** Writes messages one behind the other into one buffer that grows and is used again. */
export class MessageBuilder {
  #buffer: Buffer;
  #length = 0;
  #message = -1;

  constructor(capacity = 4096) {
    this.#buffer = Buffer.from(new ArrayBuffer(capacity));
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** A view of what was written; valid until the next write or reset. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  reset(): void {
    this.#length = 0;
    this.#message = -1;
  }

  /** Starts a message. */
  begin(type: number, flags: number, sequence: number): this {
    this.#message = this.#length;
    return this.u32(0).u16(type).u16(flags).u32(sequence).u32(0);
  }

  /** Ends the message: writes its length. */
  end(): void {
    this.#buffer.writeUInt32LE(this.#length - this.#message, this.#message);
    this.#pad();
    this.#message = -1;
  }

  /** Sets more flags in the header of the ended message that begins at `start`. */
  addFlags(start: number, flags: number): void {
    const at = start + FLAGS_AT;
    this.#buffer.writeUInt16LE(this.#buffer.readUInt16LE(at) | flags, at);
  }

  /** Takes back the message that was begun and not ended. */
  abandon(): void {
    if (this.#message >= 0) this.#length = this.#message;
    this.#message = -1;
  }

  u8(value: number): this {
    this.#room(1);
    this.#buffer[this.#length++] = value;
    return this;
  }

  u16(value: number): this {
    this.#room(2);
    this.#length = this.#buffer.writeUInt16LE(value, this.#length);
    return this;
  }

  u32(value: number): this {
    this.#room(4);
    this.#length = this.#buffer.writeUInt32LE(value >>> 0, this.#length);
    return this;
  }

  bytesOf(value: Uint8Array): this {
    this.#room(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  /** Attribute with a u8. */
  attribute8(type: number, value: number): this {
    this.#attribute(type, 1).u8(value);
    return this.#pad();
  }

  /** Attribute with a u32. */
  attribute32(type: number, value: number): this {
    return this.#attribute(type, 4).u32(value);
  }

  /** Attribute with raw bytes. */
  attributeBytes(type: number, value: Uint8Array): this {
    this.#attribute(type, value.length).bytesOf(value);
    return this.#pad();
  }

  /** Attribute with a NUL-terminated UTF-8 string. */
  attributeString(type: number, value: string): this {
    return this.attributeBytes(type, Buffer.from(`${value}\0`, 'utf8'));
  }

  /** Attribute that `fill` writes the content of: a fixed header or more attributes. */
  nested(type: number, fill: () => void): this {
    const start = this.#length;
    this.#attribute(type, 0);
    fill();
    const length = this.#length - start;
    if (length > 0xffff) throw new RangeError(`netlink attribute of ${length} bytes`);
    this.#buffer.writeUInt16LE(length, start);
    return this.#pad();
  }

  #attribute(type: number, length: number): this {
    if (length + ATTRIBUTE_HEADER > 0xffff) throw new RangeError(`netlink attribute of ${length} bytes`);
    return this.u16(length + ATTRIBUTE_HEADER).u16(type);
  }

  #pad(): this {
    while ((this.#length & 3) !== 0) this.u8(0);
    return this;
  }

  #room(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return;
    const larger = Buffer.from(new ArrayBuffer(Math.max(this.#buffer.length * 2, this.#length + bytes)));
    larger.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = larger;
  }
}

/** One received message. The payload is buffer[start, end). */
export type MessageVisitor = (
  type: number,
  flags: number,
  sequence: number,
  start: number,
  end: number,
) => void;

/** Calls `visit` for each message of a datagram. A broken length ends the walk. */
export function forEachMessage(buffer: Buffer, length: number, visit: MessageVisitor): void {
  let at = 0;
  while (at + HEADER <= length) {
    const size = buffer.readUInt32LE(at);
    if (size < HEADER || at + size > length) return;
    visit(
      buffer.readUInt16LE(at + 4),
      buffer.readUInt16LE(at + 6),
      buffer.readUInt32LE(at + 8),
      at + HEADER,
      at + size,
    );
    at += align4(size);
  }
}

/** Calls `visit` with type, start and length of the value of each attribute in buffer[start, end). */
export function forEachAttribute(
  buffer: Buffer,
  start: number,
  end: number,
  visit: (type: number, at: number, length: number) => void,
): void {
  let at = start;
  while (at + ATTRIBUTE_HEADER <= end) {
    const length = buffer.readUInt16LE(at);
    if (length < ATTRIBUTE_HEADER || at + length > end) return;
    visit(buffer.readUInt16LE(at + 2) & TYPE_MASK, at + ATTRIBUTE_HEADER, length - ATTRIBUTE_HEADER);
    at += align4(length);
  }
}

/** The text of a string attribute, without the NUL if it has one. */
export function stringAttribute(buffer: Buffer, at: number, length: number): string {
  const end = length > 0 && buffer[at + length - 1] === 0 ? at + length - 1 : at + length;
  return buffer.toString('utf8', at, end);
}
