import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SystemError } from '../errors.js';
import * as libc from './libc.js';

function caught(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('libc', () => {
  it('opens, reads, maps and closes a file', () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-libc-'));
    try {
      writeFileSync(join(folder, 'a'), 'hello');
      const fd = libc.open(join(folder, 'a'), libc.O_RDWR);
      const into = Buffer.alloc(16);
      expect(libc.read(fd, into)).toBe(5);
      expect(into.toString('utf8', 0, 5)).toBe('hello');
      const { address, memory } = libc.mmap(fd, 5, libc.PROT_READ | libc.PROT_WRITE);
      expect(memory.toString()).toBe('hello');
      libc.munmap(address, 5);
      libc.close(fd);
      expect(caught(() => libc.read(fd, into))).toMatchObject({ code: 'EBADF' });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('names operation, path and error of a failing call', () => {
    const error = caught(() => libc.open('/nonexistent/x', libc.O_RDONLY));
    expect(error).toBeInstanceOf(SystemError);
    expect(error).toMatchObject({ operation: 'open /nonexistent/x', errno: 2, code: 'ENOENT' });
    expect((error as Error).message).toBe('open /nonexistent/x: no such file or directory (ENOENT)');
    expect(caught(() => libc.mmap(-1, 4096, libc.PROT_READ))).toMatchObject({ code: 'EBADF' });
    expect(caught(() => libc.syscall('bpf', -1))).toMatchObject({ code: 'ENOSYS', operation: 'bpf' });
  });

  it('talks over a netlink socket without waiting', () => {
    const fd = libc.socket(libc.AF_NETLINK, libc.SOCK_RAW, 0);
    try {
      const address = Buffer.alloc(12);
      address.writeUInt16LE(libc.AF_NETLINK, 0);
      libc.bind(fd, address);
      expect(libc.getsockname(fd).readUInt32LE(4)).toBeGreaterThan(0);
      expect(libc.recv(fd, Buffer.alloc(64), libc.MSG_DONTWAIT)).toBe(-1);
      libc.setsockopt(fd, libc.SOL_SOCKET, libc.SO_RCVBUF, 65536);
      expect(libc.getsockopt(fd, libc.SOL_SOCKET, libc.SO_RCVBUF, 4).readInt32LE(0)).toBe(131072);
      // RTM_GETLINK for lo (index 1).
      const request = Buffer.alloc(32);
      request.writeUInt32LE(32, 0);
      request.writeUInt16LE(18, 4);
      request.writeUInt16LE(1, 6);
      request.writeInt32LE(1, 20);
      expect(libc.sendto(fd, request)).toBe(32);
      const reply = Buffer.alloc(8192);
      expect(libc.recv(fd, reply)).toBeGreaterThan(32);
      expect(reply.readUInt16LE(4)).toBe(16);
    } finally {
      libc.close(fd);
    }
  });

  it('starts the thread pool before it returns', () => {
    const threads = () => readdirSync('/proc/self/task').length;
    libc.warmThreadPool();
    const after = threads();
    libc.warmThreadPool();
    expect(threads()).toBe(after);
    expect(after).toBeGreaterThan(4);
  });
});
