import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, promises, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NetlinkError } from '../../loader/netlink/errors.js';
import {
  createNetns,
  currentNetns,
  insideNetns,
  listNetns,
  type Netns,
  type NetnsRef,
  openNetns,
} from '../../loader/netns.js';
import { ensureSysctls, readSysctl, writeSysctl } from '../../loader/sysctl.js';
import { newNetns, thrown } from './namespaces.js';

let first: { name: string; ns: Netns };
let second: { name: string; ns: Netns };
const folder = mkdtempSync(join(tmpdir(), 'slnl-'));

beforeAll(() => {
  first = newNetns();
  second = newNetns();
});
afterAll(() => rmSync(folder, { recursive: true }));

const here = (): string => readlinkSync('/proc/thread-self/ns/net');
const identity = (ns: Netns): string => `net:[${ns.inode}]`;
const error = (action: () => unknown): NetlinkError => thrown(action) as NetlinkError;

describe('createNetns', () => {
  it('makes one with a loopback device alone, and stays where it was', () => {
    const before = here();
    const made = createNetns();
    expect(here()).toBe(before);
    expect(made.isCurrent()).toBe(false);
    insideNetns(first.ns, () => {
      const inner = createNetns();
      expect(here()).toBe(identity(first.ns));
      expect(inner.sameAs(made)).toBe(false);
      inner.close();
    });
    const devices = insideNetns(made, () => {
      expect(here()).toBe(identity(made));
      return execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' });
    });
    expect(devices.trim().split('\n')).toHaveLength(1);
    expect(devices).toContain('lo:');
    made.close();
  });
});

describe('openNetns', () => {
  it('by name, by path and by process it is the same namespace', async () => {
    const child = spawn('ip', ['netns', 'exec', first.name, 'sleep', '60']);
    try {
      await once(child, 'spawn');
      // `ip` enters the namespace before it becomes `sleep`.
      await expect.poll(() => readlinkSync(`/proc/${child.pid}/ns/net`)).toBe(identity(first.ns));
      const refs: NetnsRef[] = [
        { type: 'name', name: first.name },
        { type: 'path', path: `/var/run/netns/${first.name}` },
        { type: 'pid', pid: child.pid ?? 0 },
      ];
      for (const ref of refs) {
        const ns = openNetns(ref);
        expect(ns.sameAs(first.ns)).toBe(true);
        expect(ns.sameAs(second.ns)).toBe(false);
        ns.close();
        ns.close();
      }
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    expect(error(() => openNetns({ type: 'pid', pid: child.pid ?? 0 })).message).toBe(
      `open network namespace of process ${child.pid}: the process does not exist or has ended (ESRCH)`,
    );
  });

  it('says what is wrong', () => {
    const file = join(folder, 'file');
    const pipe = join(folder, 'pipe');
    writeFileSync(file, '');
    execFileSync('mkfifo', [pipe]);
    const message = (ref: NetnsRef): string => error(() => openNetns(ref)).message;
    expect(message({ type: 'name', name: 'slnl-none' })).toBe(
      'open network namespace slnl-none: /run/netns/slnl-none does not exist (ENOENT)',
    );
    for (const name of ['', '.', '..', 'a/b'])
      expect(message({ type: 'name', name })).toContain('not a valid name');
    for (const path of [file, pipe, folder, '/proc/self/ns/mnt', '/dev/null']) {
      expect(message({ type: 'path', path })).toBe(
        `open network namespace ${path}: ${path} is not a network namespace (EINVAL)`,
      );
    }
    expect(message({ type: 'path', path: join(file, 'x') })).toContain('does not exist (ENOTDIR)');
    for (const pid of [0, -1, 1.5]) expect(message({ type: 'pid', pid })).toContain('not a valid process id');
  });

  it('lists named namespaces without leftovers, and knows the current one', () => {
    const leftover = `/run/netns/${first.name}-leftover`;
    writeFileSync(leftover, '');
    try {
      const list = listNetns();
      expect(list.find(({ name }) => name === first.name)?.inode).toBe(first.ns.inode);
      expect(list.some((entry) => first.ns.sameAs(entry))).toBe(true);
      expect(list.some(({ name }) => name.endsWith('leftover'))).toBe(false);
    } finally {
      rmSync(leftover);
    }
    const ours = currentNetns();
    expect(identity(ours)).toBe(here());
    expect(ours.isCurrent()).toBe(true);
    expect(first.ns.isCurrent()).toBe(false);
    ours.close();
  });
});

describe('insideNetns', () => {
  it('goes in and comes back, nested too, and after an error', () => {
    const home = here();
    const seen = insideNetns(first.ns, () => {
      const outer = here();
      const nested = insideNetns(second.ns, () => [here(), insideNetns(second.ns, here)]);
      expect(() =>
        insideNetns(second.ns, () => {
          throw new Error('from inside');
        }),
      ).toThrow('from inside');
      expect(currentNetns().sameAs(first.ns)).toBe(true);
      return [outer, ...nested, here()];
    });
    const [one, two] = [identity(first.ns), identity(second.ns)];
    expect(seen).toEqual([one, two, two, one]);
    expect(here()).toBe(home);
    expect(() => insideNetns(first.ns, async () => 1)).toThrow('must be synchronous');
    expect(here()).toBe(home);
  });

  it('leaves the threads of libuv where they are', async () => {
    const home = here();
    const answers = insideNetns(first.ns, () =>
      Array.from({ length: 16 }, () => promises.readlink('/proc/thread-self/ns/net')).map((answer) => ({
        answer,
      })),
    );
    const links = await Promise.all(answers.map(({ answer }) => answer));
    expect(new Set(links)).toEqual(new Set([home]));
  });

  it('children that are started inside run inside', () => {
    const child = insideNetns(first.ns, () =>
      execFileSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' }),
    );
    expect(child.trim()).toBe(identity(first.ns));
  });
});

describe('sysctl', () => {
  const key = 'net/ipv4/ip_forward';
  /** A new namespace has the value of the first one, which may forward. */
  beforeAll(() => {
    for (const { ns } of [first, second]) writeSysctl(key, 0, ns);
  });

  it('reads and writes the value of the namespace that is named', () => {
    const before = readSysctl(key);
    writeSysctl(key, 1, first.ns);
    expect(readSysctl(key, first.ns)).toBe('1');
    expect(readSysctl(key, second.ns)).toBe('0');
    expect(readSysctl(key)).toBe(before);
  });

  it('writes only what differs, and tells the former values', () => {
    const values = {
      [key]: 1,
      'net/ipv6/conf/all/forwarding': 1,
      'net/ipv4/ip_local_port_range': '2000 3000',
    };
    expect(ensureSysctls(values, second.ns)).toEqual({
      [key]: '0',
      'net/ipv6/conf/all/forwarding': '0',
      'net/ipv4/ip_local_port_range': '32768 60999',
    });
    expect(ensureSysctls(values, second.ns)).toEqual({});
  });

  it('says what is wrong', () => {
    expect(error(() => readSysctl('net/ipv4/nope')).message).toBe(
      'read sysctl net/ipv4/nope: no such setting (ENOENT)',
    );
    expect(error(() => writeSysctl('net/ipv4/nope', 1)).code).toBe('ENOENT');
    expect(error(() => writeSysctl(key, 'x', first.ns))).toMatchObject({
      code: 'EINVAL',
      operation: `write sysctl ${key}=x`,
    });
    for (const bad of ['ip_forward', '/net/ipv4', 'net/../kernel/x', '']) {
      expect(error(() => readSysctl(bad)).message).toContain('not a path below /proc/sys');
    }
  });
});
