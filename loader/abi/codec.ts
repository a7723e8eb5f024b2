/** Writes and reads one C type at an offset of a buffer. The layout is that of the compiled BPF object. */
export interface Codec<T> {
  /** Size in bytes. */
  readonly size: number;
  /** Writes all `size` bytes, padding as 0. Throws RangeError when a number or a byte string does not fit. */
  encode(value: T, into: Buffer, offset: number): void;
  /** Reads a value that does not share memory with the buffer. */
  decode(from: Buffer, offset: number): T;
}

/** An IP address in 16 bytes, network byte order; IPv4 is v4-mapped (::ffff:a.b.c.d). */
export type IpAddr = Uint8Array;

/** A copy of part of a buffer. */
export function takeBytes(from: Buffer, offset: number, length: number): Uint8Array {
  const copy = new Uint8Array(length);
  for (let i = 0; i < length; i++) copy[i] = from[offset + i] as number;
  return copy;
}

/** Writes a byte string that must have exactly the given length. `field` is its name in errors. */
export function putBytes(
  value: Uint8Array,
  into: Buffer,
  offset: number,
  length: number,
  field: string,
): void {
  if (value.length !== length) throw new RangeError(`${field} needs ${length} bytes, not ${value.length}`);
  for (let i = 0; i < length; i++) into[offset + i] = value[i] as number;
}

/** Writes an array that must have exactly the given length. */
export function putArray<T>(
  values: readonly T[],
  codec: Codec<T>,
  into: Buffer,
  offset: number,
  length: number,
  field: string,
): void {
  if (values.length !== length) throw new RangeError(`${field} needs ${length} values, not ${values.length}`);
  for (let i = 0; i < length; i++) codec.encode(values[i] as T, into, offset + i * codec.size);
}

/** Reads an array. */
export function takeArray<T>(from: Buffer, codec: Codec<T>, offset: number, length: number): readonly T[] {
  return Array.from({ length }, (_, i) => codec.decode(from, offset + i * codec.size));
}

function scalar<T>(
  size: number,
  encode: (value: T, into: Buffer, offset: number) => unknown,
  decode: (from: Buffer, offset: number) => T,
): Codec<T> {
  return {
    size,
    encode(value, into, offset) {
      encode(value, into, offset);
    },
    decode,
  };
}

export const u8Codec: Codec<number> = scalar(
  1,
  (v, b, o) => b.writeUInt8(v, o),
  (b, o) => b.readUInt8(o),
);
export const u16Codec: Codec<number> = scalar(
  2,
  (v, b, o) => b.writeUInt16LE(v, o),
  (b, o) => b.readUInt16LE(o),
);
export const u32Codec: Codec<number> = scalar(
  4,
  (v, b, o) => b.writeUInt32LE(v, o),
  (b, o) => b.readUInt32LE(o),
);
export const u64Codec: Codec<bigint> = scalar(
  8,
  (v, b, o) => b.writeBigUInt64LE(v, o),
  (b, o) => b.readBigUInt64LE(o),
);
export const s8Codec: Codec<number> = scalar(
  1,
  (v, b, o) => b.writeInt8(v, o),
  (b, o) => b.readInt8(o),
);
export const s16Codec: Codec<number> = scalar(
  2,
  (v, b, o) => b.writeInt16LE(v, o),
  (b, o) => b.readInt16LE(o),
);
export const s32Codec: Codec<number> = scalar(
  4,
  (v, b, o) => b.writeInt32LE(v, o),
  (b, o) => b.readInt32LE(o),
);
export const s64Codec: Codec<bigint> = scalar(
  8,
  (v, b, o) => b.writeBigInt64LE(v, o),
  (b, o) => b.readBigInt64LE(o),
);
/** Network byte order in the kernel, host order in TypeScript. */
export const be16Codec: Codec<number> = scalar(
  2,
  (v, b, o) => b.writeUInt16BE(v, o),
  (b, o) => b.readUInt16BE(o),
);
/** Network byte order in the kernel, host order in TypeScript. */
export const be32Codec: Codec<number> = scalar(
  4,
  (v, b, o) => b.writeUInt32BE(v, o),
  (b, o) => b.readUInt32BE(o),
);
/** Network byte order in the kernel, host order in TypeScript. */
export const be64Codec: Codec<bigint> = scalar(
  8,
  (v, b, o) => b.writeBigUInt64BE(v, o),
  (b, o) => b.readBigUInt64BE(o),
);

/** `size` bytes as they are. */
export function bytesCodec(size: number): Codec<Uint8Array> {
  return scalar(
    size,
    (v, b, o) => putBytes(v, b, o, size, 'value'),
    (b, o) => takeBytes(b, o, size),
  );
}

export const ipAddrCodec: Codec<IpAddr> = scalar(
  16,
  (v, b, o) => putBytes(v, b, o, 16, 'address'),
  (b, o) => takeBytes(b, o, 16),
);
