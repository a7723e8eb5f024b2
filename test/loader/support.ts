import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CLONE_NEWNET, close, O_RDONLY, open, setns, warmThreadPool } from '../../loader/ffi/libc.js';

/** What the loader's kernel tests share: compiled fixtures, a bpf file system, a namespace, all removed again. */

let sequence = 0;

/** A name that no other test of this machine has. */
export function uniqueName(prefix: string): string {
  return `${prefix}${process.pid.toString(36)}${(sequence++).toString(36)}`;
}

export function run(command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Compiles test/loader/bpf/NAME.bpf.c into a folder. Returns the object's path. */
export function compile(name: string, folder: string): string {
  const source = fileURLToPath(new URL(`bpf/${name}.bpf.c`, import.meta.url));
  const object = join(folder, `${name}.bpf.o`);
  const arch = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  const flags = ['-O2', '-g', '-target', 'bpf', '-mcpu=v3', `-I/usr/include/${arch}-linux-gnu`];
  run(process.env.CLANG ?? 'clang-19', ...flags, '-c', source, '-o', object);
  return object;
}

export function temporaryFolder(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'sluice-loader-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** A bpf file system of its own. */
export function mountBpf(): { readonly path: string; remove(): void } {
  const folder = temporaryFolder();
  run('mount', '-t', 'bpf', 'bpf', folder.path);
  return {
    path: folder.path,
    remove() {
      run('umount', folder.path);
      folder.remove();
    },
  };
}

/** A network namespace with a veth pair va-vb inside, both up. `inside` runs synchronous code in it. */
export function testNamespace(): {
  readonly name: string;
  readonly ifindex: number;
  inside<T>(work: () => T): T;
  remove(): void;
} {
  const name = uniqueName('slt-ld-');
  run('ip', 'netns', 'add', name);
  let ifindex: number;
  try {
    run('ip', '-n', name, 'link', 'add', 'va', 'type', 'veth', 'peer', 'name', 'vb');
    // Without IPv6 the devices send nothing of their own.
    for (const device of ['va', 'vb']) {
      run('ip', '-n', name, 'link', 'set', device, 'addrgenmode', 'none');
      run('ip', '-n', name, 'link', 'set', device, 'up');
    }
    ifindex = Number(run('ip', 'netns', 'exec', name, 'cat', '/sys/class/net/va/ifindex'));
  } catch (error) {
    run('ip', 'netns', 'del', name);
    throw error;
  }
  warmThreadPool();
  const home = open('/proc/self/ns/net', O_RDONLY);
  const there = open(`/var/run/netns/${name}`, O_RDONLY);
  return {
    name,
    ifindex,
    inside(work) {
      setns(there, CLONE_NEWNET);
      try {
        return work();
      } finally {
        setns(home, CLONE_NEWNET);
      }
    },
    remove() {
      close(there);
      close(home);
      run('ip', 'netns', 'del', name);
    },
  };
}

/** Resident memory in bytes. */
export function residentBytes(): number {
  const match = /^VmRSS:\s*(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(match?.[1]) * 1024;
}
