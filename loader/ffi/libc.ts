import { randomBytes } from 'node:crypto';
import { SystemError } from '../errors.js';
import {
  bufferAt,
  cString,
  Library,
  type NativeFunction,
  nativeAsyncFunction,
  nativeFunction,
} from './native.js';

/**
 * The C library's functions that the loader needs. All are synchronous. A call that fails throws
 * SystemError; calls that a signal interrupts are repeated, except close.
 */

/** Flags and numbers of the Linux ABI that are the same on x86-64 and arm64. */
export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_DIRECTORY = process.arch === 'arm64' ? 0o40000 : 0o200000;
export const O_CLOEXEC = 0o2000000;
export const AF_NETLINK = 16;
export const SOCK_RAW = 3;
export const SOCK_DGRAM = 2;
export const SOCK_CLOEXEC = 0o2000000;
export const SOCK_NONBLOCK = 0o4000;
export const SOL_SOCKET = 1;
export const SO_RCVBUF = 8;
export const SO_SNDBUF = 7;
export const SO_RCVBUFFORCE = 33;
export const SO_SNDBUFFORCE = 32;
export const SO_NETNS_COOKIE = 71;
export const SOL_NETLINK = 270;
export const MSG_PEEK = 0x2;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const CLONE_NEWNS = 0x20000;
export const CLONE_NEWNET = 0x40000000;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 1;
export const MS_BIND = 4096;
export const MNT_DETACH = 2;
/** Scheduling policy (linux/sched.h). */
const SCHED_BATCH = 3;
const LOCK_EX = 2;
const LOCK_NB = 4;

type Functions = ReturnType<typeof prepare>;

function prepare() {
  const libc = Library.open(null);
  const errnoLocation = nativeFunction(libc, '__errno_location', 'ptr', []);
  // errno of the main thread: its address does not change, so it is read without a call.
  const errno = bufferAt(errnoLocation(), 4);
  return {
    errno: new Int32Array(errno.buffer, errno.byteOffset, 1),
    open: nativeFunction(libc, 'open', 'i32', ['ptr', 'i32', 'u32']),
    close: nativeFunction(libc, 'close', 'i32', ['i32']),
    read: nativeFunction(libc, 'read', 'i64', ['i32', 'ptr', 'u64']),
    write: nativeFunction(libc, 'write', 'i64', ['i32', 'ptr', 'u64']),
    socket: nativeFunction(libc, 'socket', 'i32', ['i32', 'i32', 'i32']),
    bind: nativeFunction(libc, 'bind', 'i32', ['i32', 'ptr', 'u32']),
    getsockname: nativeFunction(libc, 'getsockname', 'i32', ['i32', 'ptr', 'ptr']),
    sendto: nativeFunction(libc, 'sendto', 'i64', ['i32', 'ptr', 'u64', 'i32', 'ptr', 'u32']),
    sendLater: nativeAsyncFunction(libc, 'send', ['i32', 'ptr', 'u64', 'i32']),
    recv: nativeFunction(libc, 'recv', 'i64', ['i32', 'ptr', 'u64', 'i32']),
    setsockopt: nativeFunction(libc, 'setsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'u32']),
    getsockopt: nativeFunction(libc, 'getsockopt', 'i32', ['i32', 'i32', 'i32', 'ptr', 'ptr']),
    setns: nativeFunction(libc, 'setns', 'i32', ['i32', 'i32']),
    unshare: nativeFunction(libc, 'unshare', 'i32', ['i32']),
    mmap: nativeFunction(libc, 'mmap', 'ptr', ['ptr', 'u64', 'i32', 'i32', 'i32', 'i64']),
    munmap: nativeFunction(libc, 'munmap', 'i32', ['ptr', 'u64']),
    mount: nativeFunction(libc, 'mount', 'i32', ['ptr', 'ptr', 'ptr', 'u64', 'ptr']),
    umount2: nativeFunction(libc, 'umount2', 'i32', ['ptr', 'i32']),
    syscall: nativeFunction(libc, 'syscall', 'i64', ['i64', 'i64', 'i64', 'i64', 'i64', 'i64', 'i64']),
    fcntl: nativeFunction(libc, 'fcntl', 'i32', ['i32', 'i32', 'i64']),
    flock: nativeFunction(libc, 'flock', 'i32', ['i32', 'i32']),
    schedSetscheduler: nativeFunction(libc, 'sched_setscheduler', 'i32', ['i32', 'i32', 'ptr']),
    schedYield: nativeFunction(libc, 'sched_yield', 'i32', []),
    schedGetcpu: nativeFunction(libc, 'sched_getcpu', 'i32', []),
    schedGetaffinity: nativeFunction(libc, 'sched_getaffinity', 'i32', ['i32', 'u64', 'ptr']),
    schedSetaffinity: nativeFunction(libc, 'sched_setaffinity', 'i32', ['i32', 'u64', 'ptr']),
    syscallLater: nativeAsyncFunction(libc, 'syscall', ['i64']),
    getpagesize: nativeFunction(libc, 'getpagesize', 'i32', []),
  };
}

let prepared: Functions | undefined;
function c(): Functions {
  prepared ??= prepare();
  return prepared;
}

const EINTR = 4;

/** The error number that the last failing call left. Read it before any other call. */
export function errno(): number {
  return c().errno[0] as number;
}

function checked(operation: string, call: () => number | bigint): number {
  for (;;) {
    const result = Number(call());
    if (result >= 0) return result;
    const error = errno();
    if (error !== EINTR) throw new SystemError(operation, error);
  }
}

/** open(2). Returns a file descriptor; O_CLOEXEC is always added. */
export function open(path: string, flags: number, mode = 0): number {
  const name = cString(path);
  return checked(`open ${path}`, () => c().open(name, flags | O_CLOEXEC, mode));
}

/** close(2). Errors are ignored: the descriptor is gone in any case. */
export function close(fd: number): void {
  c().close(fd);
}

let malloc: NativeFunction<'i32'> | null | undefined;

/** malloc_trim(3): gives memory that was freed back to the system. A C library without it does nothing. */
export function trimHeap(): void {
  if (malloc === undefined) {
    try {
      malloc = nativeFunction(Library.open(null), 'malloc_trim', 'i32', ['u64']);
    } catch {
      malloc = null;
    }
  }
  malloc?.(0);
}

const F_DUPFD_CLOEXEC = 1030;

/** A second descriptor of the same open file. */
export function duplicate(fd: number): number {
  return checked('duplicate descriptor', () => c().fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_GETLEASE = 1025;
const LEASES = { read: 0, write: 1 } as const; // F_RDLCK, F_WRLCK
export type LeaseKind = keyof typeof LEASES;
const F_UNLCK = 2;
/** Ignored unless somebody asks for it, unlike SIGIO, which a lease would send. */
const SIGURG = 23;

/**
 * Takes a lease on an open file (fcntl(2), F_SETLEASE): who opens it for writing waits; with a write lease, who opens it
 * at all. A write lease is to be had only while nobody else has the file open. No signal tells of those who wait.
 */
export function takeLease(fd: number, kind: LeaseKind): void {
  checked('set signal of lease', () => c().fcntl(fd, F_SETSIG, SIGURG));
  checked('take lease', () => c().fcntl(fd, F_SETLEASE, LEASES[kind]));
}

/** Whether the lease is as it was taken: nobody waits, and the kernel has not ended it. */
export function hasLease(fd: number, kind: LeaseKind): boolean {
  return checked('look at lease', () => c().fcntl(fd, F_GETLEASE, 0)) === LEASES[kind];
}

/** Ends a lease: who waits goes on. */
export function endLease(fd: number): void {
  checked('end lease', () => c().fcntl(fd, F_SETLEASE, F_UNLCK));
}

/** read(2) into the buffer. Returns the number of bytes. */
export function read(fd: number, into: Uint8Array): number {
  return checked('read', () => c().read(fd, into, into.length));
}

/** write(2). Returns the number of bytes that were taken. */
export function write(fd: number, bytes: Uint8Array): number {
  return checked('write', () => c().write(fd, bytes, bytes.length));
}

/** socket(2). Returns a file descriptor; SOCK_CLOEXEC is always added. */
export function socket(family: number, type: number, protocol: number): number {
  return checked('socket', () => c().socket(family, type | SOCK_CLOEXEC, protocol));
}

/** bind(2) to a raw sockaddr. */
export function bind(fd: number, address: Uint8Array): void {
  checked('bind', () => c().bind(fd, address, address.length));
}

const sockLength = Buffer.from(new ArrayBuffer(4));

/** getsockname(2). Returns the raw sockaddr. */
export function getsockname(fd: number): Buffer {
  const address = Buffer.alloc(128);
  sockLength.writeUInt32LE(address.length, 0);
  checked('getsockname', () => c().getsockname(fd, address, sockLength));
  return address.subarray(0, sockLength.readUInt32LE(0));
}

/** sendto(2); without an address like send(2). Returns the number of bytes sent. */
export function sendto(fd: number, bytes: Uint8Array, flags = 0, address: Uint8Array | null = null): number {
  return checked('sendto', () => c().sendto(fd, bytes, bytes.length, flags, address, address?.length ?? 0));
}

/**
 * send(2) on a thread of the pool, for what the kernel carries out while the caller waits. Returns the number of
 * bytes, negative when it failed (the reason is not known then).
 */
export async function sendLater(fd: number, bytes: Uint8Array): Promise<number> {
  warmThreadPool();
  return Number(await c().sendLater(fd, bytes, bytes.length, 0));
}

/**
 * recv(2). Returns the number of bytes (with MSG_TRUNC the real length of the datagram, also if it is longer
 * than the buffer), or -1 if there is nothing to read and the socket or the flags say not to wait.
 */
export function recv(fd: number, into: Uint8Array, flags = 0): number {
  for (;;) {
    const result = Number(c().recv(fd, into, into.length, flags));
    if (result >= 0) return result;
    const error = errno();
    if (error === 11) return -1;
    if (error !== EINTR) throw new SystemError('recv', error);
  }
}

/** Values of options: memory that C gets the first time has to be registered. */
const optionValue = Buffer.from(new ArrayBuffer(256));
const optionInt = optionValue.subarray(0, 4);

/** setsockopt(2) with an int or raw bytes. */
export function setsockopt(fd: number, level: number, option: number, value: number | Uint8Array): void {
  if (typeof value === 'number') optionInt.writeInt32LE(value, 0);
  const bytes = typeof value === 'number' ? optionInt : value;
  checked(`setsockopt ${level}/${option}`, () => c().setsockopt(fd, level, option, bytes, bytes.length));
}

/** getsockopt(2). Returns a copy of the option's bytes, at most `size` (and 256). */
export function getsockopt(fd: number, level: number, option: number, size: number): Buffer {
  sockLength.writeUInt32LE(Math.min(size, optionValue.length), 0);
  checked(`getsockopt ${level}/${option}`, () => c().getsockopt(fd, level, option, optionValue, sockLength));
  return Buffer.from(optionValue.subarray(0, sockLength.readUInt32LE(0)));
}

/**
 * setns(2): moves the main thread to another namespace. Call warmThreadPool() before the first one
 * and switch back before anything asynchronous runs.
 */
export function setns(fd: number, type: number): void {
  checked('setns', () => c().setns(fd, type));
}

/** unshare(2) of the main thread. The same care as with setns. */
export function unshare(flags: number): void {
  checked('unshare', () => c().unshare(flags));
}

/** mmap(2) of a file descriptor, shared. Returns the address for munmap and a view of the memory. */
export function mmap(
  fd: number,
  length: number,
  protection: number,
  offset = 0,
): { readonly address: bigint; readonly memory: Buffer } {
  const address = c().mmap(null, length, protection, MAP_SHARED, fd, offset);
  if (address === 0xffffffffffffffffn) throw new SystemError('mmap', errno());
  return { address, memory: bufferAt(address, length) };
}

/** munmap(2). Views of the memory must not be used any more. */
export function munmap(address: bigint, length: number): void {
  checked('munmap', () => c().munmap(address, length));
}

/** mount(2). */
export function mount(source: string, target: string, type: string, flags = 0, data = ''): void {
  const [s, t, y, d] = [cString(source), cString(target), cString(type), cString(data)];
  checked(`mount ${type} at ${target}`, () => c().mount(s, t, y, flags, d));
}

/** umount2(2). */
export function umount2(target: string, flags = 0): void {
  const name = cString(target);
  checked(`umount ${target}`, () => c().umount2(name, flags));
}

/** syscall(2) with up to six arguments. Returns the result, or throws with `operation` as the name. */
export function syscall(
  operation: string,
  number: number,
  ...args: readonly (number | bigint | Uint8Array)[]
): number {
  const [a = 0, b = 0, d = 0, e = 0, f = 0, g = 0] = args;
  return checked(operation, () => c().syscall(number, a, b, d, e, f, g));
}

const SYS_IOCTL = process.arch === 'arm64' ? 29 : 16;

/** ioctl(2) with a number or with memory. Throws with `operation` as the name. */
export function ioctl(operation: string, fd: number, request: number, argument: number | Uint8Array): number {
  return syscall(operation, SYS_IOCTL, fd, request, argument);
}

/** The same where failing is an answer: returns the negative error number then, which costs much less than throwing. */
export function tryIoctl(fd: number, request: number, argument: number | Uint8Array): number {
  const result = Number(c().syscall(SYS_IOCTL, fd, request, argument, 0, 0, 0));
  return result >= 0 ? result : -errno();
}

/** flock(2), exclusive and without waiting. False: another open file has the lock. */
export function tryFlock(fd: number): boolean {
  try {
    checked('flock', () => c().flock(fd, LOCK_EX | LOCK_NB));
    return true;
  } catch (error) {
    if (error instanceof SystemError && error.code === 'EAGAIN') return false;
    throw error;
  }
}

/** struct sched_param: priority 0, the only one of ordinary threads. */
const ordinary = Buffer.from(new ArrayBuffer(4));

/** sched_setscheduler(2): the thread, of any process, takes the processor from nobody when it wakes up. */
export function setBatch(thread: number): void {
  checked('sched_setscheduler', () => c().schedSetscheduler(thread, SCHED_BATCH, ordinary));
}

/** sched_yield(2): who waits for this processor gets it now; returns at once if nobody does. */
export function yieldProcessor(): void {
  c().schedYield();
}

/** sched_getcpu(3): the processor that this thread runs on. */
export function currentProcessor(): number {
  return checked('sched_getcpu', () => c().schedGetcpu());
}

/** sched_getaffinity(2): reads the set of processors that a thread may run on (0: this one), one bit each. */
export function readProcessors(thread: number, into: Uint8Array): void {
  checked('sched_getaffinity', () => c().schedGetaffinity(thread, into.length, into));
}

/** sched_setaffinity(2). EINVAL: there is none of them. */
export function setProcessors(thread: number, processors: Uint8Array): void {
  checked('sched_setaffinity', () => c().schedSetaffinity(thread, processors.length, processors));
}

const SYS_GETTID = process.arch === 'arm64' ? 178 : 186;

/** gettid(2) on a thread of the pool. Those that are idle take turns. */
export async function poolThread(): Promise<number> {
  warmThreadPool();
  return Number(await c().syscallLater(SYS_GETTID));
}

/** Size of a memory page in bytes. */
export function pageSize(): number {
  return c().getpagesize();
}

let warm = false;

/**
 * Starts libuv's thread pool. A thread inherits the network namespace of the thread that creates
 * it, so the pool must run before the main thread changes its namespace for the first time. All of
 * the pool's threads exist when this returns.
 */
export function warmThreadPool(): void {
  if (warm) return;
  warm = true;
  // Queued to the pool in every release of Node (file operations may go through io_uring instead).
  randomBytes(1, () => {});
}
