import { readFileSync } from 'node:fs';
import { BpfLinkInfoTcx, BpfMapInfo, BpfProgInfo } from './abi/gen/kernel.gen.js';
import { BpfError } from './errors.js';
import { libbpf } from './ffi/libbpf.js';

/** What the kernel says about an object behind a file descriptor (BPF_OBJ_GET_INFO_BY_FD). */

export interface MapInfo {
  readonly id: number;
  readonly type: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  /** The first 15 characters. */
  readonly name: string;
}

export interface ProgramInfo {
  readonly id: number;
  readonly type: number;
  /** Hash of the instructions, 16 hexadecimal digits. */
  readonly tag: string;
  /** The first 15 characters. */
  readonly name: string;
  /** Instructions that the verifier went through. */
  readonly verifiedInstructions: number;
  /** Size of the machine code in bytes; 0 if the JIT compiler is off. */
  readonly jitedSize: number;
  /** Size of the BPF code in bytes. */
  readonly translatedSize: number;
  /** Nanoseconds since boot. */
  readonly loadTime: bigint;
}

export interface LinkInfo {
  readonly id: number;
  /** Number of the kernel's enum bpf_link_type. */
  readonly type: number;
  readonly programId: number;
  /** Device of a TCX or XDP link (both have it at the same place), 0 if it is gone. Else not meaningful. */
  readonly ifindex: number;
}

const buffer = Buffer.from(new ArrayBuffer(256));
const length = Buffer.from(new ArrayBuffer(4));

function query(fd: number, size: number, operation: string): Buffer {
  buffer.fill(0);
  length.writeUInt32LE(size, 0);
  const result = libbpf().bpf_obj_get_info_by_fd(fd, buffer, length);
  if (result < 0) throw new BpfError(operation, -result);
  return buffer;
}

function text(from: Buffer, offset: number, size: number): string {
  const bytes = from.subarray(offset, offset + size);
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? size : end);
}

export function mapInfo(fd: number): MapInfo {
  const info = query(fd, BpfMapInfo.size, 'read map information');
  return {
    id: info.readUInt32LE(BpfMapInfo.id),
    type: info.readUInt32LE(BpfMapInfo.type),
    keySize: info.readUInt32LE(BpfMapInfo.keySize),
    valueSize: info.readUInt32LE(BpfMapInfo.valueSize),
    maxEntries: info.readUInt32LE(BpfMapInfo.maxEntries),
    flags: info.readUInt32LE(BpfMapInfo.mapFlags),
    name: text(info, BpfMapInfo.name, 16),
  };
}

export function programInfo(fd: number): ProgramInfo {
  const info = query(fd, BpfProgInfo.size, 'read program information');
  return {
    id: info.readUInt32LE(BpfProgInfo.id),
    type: info.readUInt32LE(BpfProgInfo.type),
    tag: info.toString('hex', BpfProgInfo.tag, BpfProgInfo.tag + 8),
    name: text(info, BpfProgInfo.name, 16),
    verifiedInstructions: info.readUInt32LE(BpfProgInfo.verifiedInsns),
    jitedSize: info.readUInt32LE(BpfProgInfo.jitedProgLen),
    translatedSize: info.readUInt32LE(BpfProgInfo.xlatedProgLen),
    loadTime: info.readBigUInt64LE(BpfProgInfo.loadTime),
  };
}

export function linkInfo(fd: number): LinkInfo {
  const info = query(fd, BpfLinkInfoTcx.size, 'read link information');
  return {
    id: info.readUInt32LE(BpfLinkInfoTcx.id),
    type: info.readUInt32LE(BpfLinkInfoTcx.type),
    programId: info.readUInt32LE(BpfLinkInfoTcx.progId),
    ifindex: info.readUInt32LE(BpfLinkInfoTcx.ifindex),
  };
}

/** Bytes of kernel memory that an object holds, as far as the kernel says (`memlock` of fdinfo). */
export function memoryBytes(fd: number): number {
  const match = /^memlock:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
  return match === null ? 0 : Number(match[1]);
}
