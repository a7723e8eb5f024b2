import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { bind, close, recv, SOCK_CLOEXEC, SOCK_DGRAM, socket } from '../loader/ffi/libc.js';
import { notifyManager } from './systemd.js';

const AF_UNIX = 1;

function receiver(path: Buffer): { receive: () => string; close: () => void } {
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const address = Buffer.alloc(2 + path.length);
  address.writeUInt16LE(AF_UNIX, 0);
  path.copy(address, 2);
  bind(fd, address);
  const into = Buffer.alloc(256);
  return { receive: () => into.toString('utf8', 0, recv(fd, into)), close: () => close(fd) };
}

it('sends the state to the socket of the service manager, by path or abstract', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-notify-'));
  try {
    const path = join(folder, 'notify');
    const byPath = receiver(Buffer.from(path));
    expect(notifyManager('READY=1', path)).toBe(true);
    expect(byPath.receive()).toBe('READY=1');
    byPath.close();
    const name = `sluice-notify-${process.pid}`;
    const abstract = receiver(Buffer.from(`\0${name}`));
    expect(notifyManager('STOPPING=1', `@${name}`)).toBe(true);
    expect(abstract.receive()).toBe('STOPPING=1');
    abstract.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('does nothing without a manager, and bears one that is gone', () => {
  expect(notifyManager('READY=1', undefined)).toBe(false);
  expect(notifyManager('READY=1', 'relative')).toBe(false);
  expect(notifyManager('READY=1', '/nowhere/notify')).toBe(false);
});
