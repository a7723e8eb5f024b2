import { type BigIntStats, closeSync, constants, fstatSync, openSync, readdirSync, statSync } from 'node:fs';
import { SystemError } from './errors.js';
import { CLONE_NEWNET, ioctl, setns, unshare, warmThreadPool } from './ffi/libc.js';
import { NetlinkError } from './netlink/errors.js';

/** Which network namespace: a name below /run/netns, a path, or that of a process. */
export type NetnsRef =
  | { readonly type: 'name'; readonly name: string }
  | { readonly type: 'path'; readonly path: string }
  | { readonly type: 'pid'; readonly pid: number };

/** Where `ip netns` keeps named namespaces. */
export const NETNS_FOLDER = '/run/netns';

const CURRENT = '/proc/thread-self/ns/net';
const EINVAL = 22;
const ESRCH = 3;
/** ioctl on a namespace's descriptor that returns its CLONE_NEW* type (linux/nsfs.h); arm64 has its own numbers. */
const NS_GET_NSTYPE = 0xb703;

/** An open network namespace. It lives at least until close(). */
export class Netns {
  readonly fd: number;
  /** `inode` with `device` identifies the namespace for as long as it lives. */
  readonly inode: bigint;
  readonly device: bigint;
  readonly path: string;
  #open = true;

  /** Use openNetns or currentNetns. Takes over the descriptor. */
  constructor(path: string, fd: number, stat: BigIntStats) {
    this.path = path;
    this.fd = fd;
    this.inode = stat.ino;
    this.device = stat.dev;
  }

  /** True if both are the same namespace, whatever the paths. */
  sameAs(other: { readonly inode: bigint; readonly device: bigint }): boolean {
    return this.inode === other.inode && this.device === other.device;
  }

  /** True if it is the namespace that this process is in. */
  isCurrent(): boolean {
    const current = stack.at(-1) ?? statOf(CURRENT);
    return this.sameAs(current);
  }

  /** Closes the descriptor; closing twice does nothing. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }
}

function statOf(path: string): { readonly inode: bigint; readonly device: bigint } {
  const { ino, dev } = statSync(path, { bigint: true });
  return { inode: ino, device: dev };
}

/** Path of a reference's namespace file. */
export function netnsPath(ref: NetnsRef): string {
  if (ref.type === 'name') return `${NETNS_FOLDER}/${ref.name}`;
  return ref.type === 'path' ? ref.path : `/proc/${ref.pid}/ns/net`;
}

function described(ref: NetnsRef): string {
  if (ref.type === 'name') return ref.name;
  return ref.type === 'path' ? ref.path : `of process ${ref.pid}`;
}

/**
 * Opens a network namespace. Throws NetlinkError: ENOENT when name or path does not exist, ESRCH
 * when the process has ended, EINVAL when it is something else than a network namespace, EACCES.
 */
export function openNetns(ref: NetnsRef): Netns {
  const path = netnsPath(ref);
  const operation = `open network namespace ${described(ref)}`;
  if (
    ref.type === 'name' &&
    (ref.name === '' || ref.name === '.' || ref.name === '..' || /[/\0]/.test(ref.name))
  ) {
    throw new NetlinkError(operation, EINVAL, 'not a valid name');
  }
  if (ref.type === 'pid' && !(Number.isSafeInteger(ref.pid) && ref.pid > 0)) {
    throw new NetlinkError(operation, EINVAL, 'not a valid process id');
  }
  return openPath(operation, path, ref.type === 'pid');
}

/** Opens the namespace that this process is in (inside insideNetns: that one). */
export function currentNetns(): Netns {
  return openPath('open the current network namespace', CURRENT, false);
}

function openPath(operation: string, path: string, process: boolean): Netns {
  let fd: number;
  try {
    // Without waiting: a path to a named pipe must not stop the agent.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw openError(operation, path, process, error);
  }
  if (!isNetworkNamespace(fd)) {
    closeSync(fd);
    throw new NetlinkError(operation, EINVAL, `${path} is not a network namespace`);
  }
  return new Netns(path, fd, fstatSync(fd, { bigint: true }));
}

function openError(operation: string, path: string, process: boolean, error: unknown): unknown {
  const { errno, code } = error as NodeJS.ErrnoException;
  if (errno === undefined)
    return new NetlinkError(operation, EINVAL, `${JSON.stringify(path)} is not a path`);
  if (process && (code === 'ENOENT' || code === 'ESRCH')) {
    return new NetlinkError(operation, ESRCH, 'the process does not exist or has ended');
  }
  const missing = code === 'ENOENT' || code === 'ENOTDIR';
  return new NetlinkError(operation, -errno, missing ? `${path} does not exist` : `can't open ${path}`);
}

function isNetworkNamespace(fd: number): boolean {
  try {
    return ioctl('ioctl NS_GET_NSTYPE', fd, NS_GET_NSTYPE, 0) === CLONE_NEWNET;
  } catch (error) {
    if (error instanceof SystemError) return false;
    throw error;
  }
}

/** A namespace that `ip netns` would list. */
export interface NamedNetns {
  readonly name: string;
  readonly inode: bigint;
  readonly device: bigint;
}

/** The named namespaces, without leftovers that no namespace is mounted on. */
export function listNetns(): NamedNetns[] {
  let names: string[];
  try {
    names = readdirSync(NETNS_FOLDER);
  } catch {
    return []; // made by the first `ip netns add`
  }
  const { dev: nsfs } = statSync(CURRENT, { bigint: true });
  const found: NamedNetns[] = [];
  for (const name of names) {
    const stat = statSync(`${NETNS_FOLDER}/${name}`, { bigint: true, throwIfNoEntry: false });
    if (stat?.dev === nsfs) found.push({ name, inode: stat.ino, device: stat.dev });
  }
  return found;
}

/** The namespaces that the main thread is in: its own at the bottom. */
const stack: Netns[] = [];

/**
 * Runs a function with the main thread in another namespace, and returns to where it was, also
 * when the function throws. It must be synchronous: anything that runs later runs in the old
 * namespace. Threads of libuv's pool and of V8 stay where they are. May be nested. Throws
 * NetlinkError when the namespace can't be entered.
 */
export function insideNetns<T>(ns: Netns, synchronous: () => T): T {
  if (stack.length === 0) {
    warmThreadPool();
    stack.push(currentNetns());
  }
  const from = stack[stack.length - 1] as Netns;
  if (from.sameAs(ns)) return refusePromise(synchronous());
  enter(ns);
  stack.push(ns);
  try {
    return refusePromise(synchronous());
  } finally {
    stack.pop();
    enter(from);
  }
}

/**
 * Makes a network namespace without a name: a loopback device that is down, no addresses, no routes. It
 * ends when its descriptor is closed and nobody is inside. Throws NetlinkError.
 */
export function createNetns(): Netns {
  warmThreadPool();
  const from = stack.at(-1) ?? currentNetns();
  try {
    unshare(CLONE_NEWNET);
  } catch (error) {
    throw NetlinkError.from('make a network namespace', error);
  }
  try {
    return currentNetns();
  } finally {
    enter(from);
    if (stack.length === 0) from.close();
  }
}

function enter(ns: Netns): void {
  try {
    setns(ns.fd, CLONE_NEWNET);
  } catch (error) {
    throw NetlinkError.from(`enter network namespace ${ns.path}`, error);
  }
}

function refusePromise<T>(value: T): T {
  if (value instanceof Promise) throw new TypeError('insideNetns: the function must be synchronous');
  return value;
}

let nsfs: bigint | undefined;

/** Whether a device number is that of the file system of namespaces. */
export function isNamespace(device: bigint): boolean {
  nsfs ??= statSync('/proc/self/ns/net', { bigint: true }).dev;
  return device === nsfs;
}
