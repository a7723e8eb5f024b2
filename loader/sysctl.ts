import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { NetlinkError } from './netlink/errors.js';
import { insideNetns, type Netns } from './netns.js';

/**
 * Values below /proc/sys. A key is the path below it, with slashes (device names may contain
 * dots): `net/ipv4/conf/eth0/rp_filter`. Keys below net/ belong to a network namespace: that of
 * the process unless `ns` is given.
 */

/**
 * Where /proc/sys can be written: in an unprivileged container that folder is read-only, and the host's is mounted
 * elsewhere. Keys below net/ are those of the caller's network namespace in any mount.
 */
const ROOT = process.env.SLUICE_PROC_SYS ?? '/proc/sys';

const EINVAL = 22;
const buffer = Buffer.alloc(4096);

function path(operation: string, key: string): string {
  if (!/^[^/\0]+(\/[^/\0]+)+$/.test(key) || key.split('/').includes('..')) {
    throw new NetlinkError(operation, EINVAL, 'not a path below /proc/sys');
  }
  return `${ROOT}/${key}`;
}

function failed(operation: string, error: unknown): unknown {
  const { errno, code } = error as NodeJS.ErrnoException;
  if (errno === undefined || error instanceof NetlinkError) return error;
  const detail =
    code === 'ENOENT' ? 'no such setting' : code === 'EROFS' ? '/proc/sys is mounted read-only' : undefined;
  return new NetlinkError(operation, Math.abs(errno), detail);
}

function readHere(key: string): string {
  const operation = `read sysctl ${key}`;
  try {
    const fd = openSync(path(operation, key), 'r');
    try {
      return buffer
        .toString('utf8', 0, readSync(fd, buffer, 0, buffer.length, 0))
        .trim()
        .replace(/\s+/g, ' ');
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw failed(operation, error);
  }
}

function writeHere(key: string, value: string | number): void {
  const operation = `write sysctl ${key}=${value}`;
  try {
    const fd = openSync(path(operation, key), 'r+');
    try {
      writeSync(fd, String(value));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw failed(operation, error);
  }
}

function inside<T>(ns: Netns | undefined, action: () => T): T {
  return ns === undefined ? action() : insideNetns(ns, action);
}

/** The value without the newline; several values have one space between them. Throws NetlinkError (ENOENT: no such setting). */
export function readSysctl(key: string, ns?: Netns): string {
  return inside(ns, () => readHere(key));
}

/** Writes a value. Throws NetlinkError (ENOENT: no such setting, EINVAL: value refused, EROFS). */
export function writeSysctl(key: string, value: string | number, ns?: Netns): void {
  inside(ns, () => writeHere(key, value));
}

/**
 * Makes settings have these values with one change of namespace, and writes only those that
 * differ. Returns the former values of those that were written.
 */
export function ensureSysctls(
  values: Readonly<Record<string, string | number>>,
  ns?: Netns,
): Record<string, string> {
  return inside(ns, () => {
    const former: Record<string, string> = {};
    for (const [key, value] of Object.entries(values)) {
      const now = readHere(key);
      if (now === String(value)) continue;
      writeHere(key, value);
      former[key] = now;
    }
    return former;
  });
}
