import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { u32Codec, u64Codec } from '../../loader/abi/codec.js';
import { countFilters, findClsact } from '../../loader/clsact.js';
import { cgroup2Feature } from '../../loader/features.js';
import { type Attachment, attach, attachCgroup, openPinnedLink } from '../../loader/link.js';
import type { BpfMap } from '../../loader/map.js';
import { BpfObject } from '../../loader/object.js';
import type { BpfProgram } from '../../loader/program.js';
import { compile, mountBpf, run, temporaryFolder, testNamespace, uniqueName } from './support.js';

const folder = temporaryFolder();
let bpffs: ReturnType<typeof mountBpf>;
let netns: ReturnType<typeof testNamespace>;
let object: BpfObject;
let count: BpfProgram;
let other: BpfProgram;
let counts: BpfMap<number, bigint>;

beforeAll(() => {
  object = BpfObject.open(compile('maps', folder.path));
  object.load();
  count = object.program('count');
  other = object.program('answer');
  counts = object.map('array_map', u32Codec, u64Codec);
  bpffs = mountBpf();
  netns = testNamespace();
});
afterAll(() => {
  netns?.remove();
  bpffs?.remove();
  for (const part of [counts, count, other, object]) part?.close();
  folder.remove();
});

function caught(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}

/** Sends packets out of device vb, which come in on device va, and says how many the program saw. */
function seen(): number {
  counts.set(1, 0n);
  const script = [
    'import socket',
    's=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)',
    's.bind(("vb",0))',
    'for _ in range(7): s.send(b"\\xff"*6+b"\\x02\\0\\0\\0\\0\\1"+b"\\x88\\xb5"+bytes(46))',
  ].join('\n');
  run('ip', 'netns', 'exec', netns.name, 'python3', '-c', script);
  return Number(counts.get(1));
}

describe.each(['tcx', 'clsact'] as const)('%s', (method) => {
  it('attaches, replaces and detaches a program', () => {
    const attachment: Attachment = netns.inside(() => attach(count, netns.ifindex, 'ingress', method));
    expect(attachment.method).toBe(method);
    expect(seen()).toBe(7);
    netns.inside(() => attachment.update(other));
    expect(seen()).toBe(0);
    netns.inside(() => attachment.update(count));
    expect(seen()).toBe(7);
    netns.inside(() => attachment.detach());
    expect(seen()).toBe(0);
    expect(caught(() => netns.inside(() => attach(count, 9999, 'ingress', method)))).toMatchObject({
      code: 'ENODEV',
    });
  });
});

describe('a TCX link', () => {
  it('outlives its process by a pin, is adopted and updated in place', () => {
    const pin = `${bpffs.path}/link`;
    const link = netns.inside(() => attach(count, netns.ifindex, 'ingress', 'tcx'));
    link.pin(pin);
    const { id } = link.info;
    link.close();
    expect(seen()).toBe(7);
    const adopted = openPinnedLink(pin);
    expect(adopted.info).toMatchObject({ id, ifindex: netns.ifindex, programId: count.info.id });
    adopted.update(other);
    expect(adopted.info.programId).toBe(other.info.id);
    expect(seen()).toBe(0);
    adopted.detach();
    expect(existsSync(pin)).toBe(false);
    expect(caught(() => openPinnedLink(pin))).toMatchObject({ code: 'ENOENT' });
  });

  it('ends with its last holder when it is not pinned', () => {
    const again = () => netns.inside(() => attach(count, netns.ifindex, 'ingress', 'tcx'));
    const link = again();
    expect(seen()).toBe(7);
    expect(caught(again)).toMatchObject({ code: 'EEXIST' });
    link.close();
    expect(seen()).toBe(0);
    again().close();
  });

  it('says so when its device is gone, and can still be detached', () => {
    run('ip', '-n', netns.name, 'link', 'add', 'gone', 'type', 'veth', 'peer', 'name', 'gone2');
    const ifindex = Number(run('ip', 'netns', 'exec', netns.name, 'cat', '/sys/class/net/gone/ifindex'));
    const link = netns.inside(() => attach(count, ifindex, 'ingress', 'tcx'));
    expect(link.info.ifindex).toBe(ifindex);
    run('ip', '-n', netns.name, 'link', 'del', 'gone');
    expect(link.info.ifindex).toBe(0);
    expect(caught(() => link.update(other))).toMatchObject({ code: 'ENOLINK' });
    link.detach();
  });
});

describe('a clsact filter', () => {
  it('leaves the filters of others and their qdisc', () => {
    const tc = (...args: string[]) => run('ip', 'netns', 'exec', netns.name, 'tc', ...args);
    tc('qdisc', 'add', 'dev', 'va', 'clsact');
    other.pin(`${bpffs.path}/foreign`);
    tc(...'filter add dev va egress prio 7 bpf da pinned'.split(' '), `${bpffs.path}/foreign`);
    const first = netns.inside(() => attach(count, netns.ifindex, 'ingress', 'clsact'));
    expect(seen()).toBe(7);
    // Attached again (after a restart): replaced, not added.
    netns.inside(() => attach(other, netns.ifindex, 'ingress', 'clsact'));
    expect(netns.inside(() => countFilters(netns.ifindex, 'ingress'))).toBe(1);
    expect(seen()).toBe(0);
    expect(netns.inside(() => findClsact(netns.ifindex, 'egress'))).toBeUndefined();
    const found = netns.inside(() => findClsact(netns.ifindex, 'ingress'));
    expect(found).toBeDefined();
    netns.inside(() => found?.detach());
    expect(netns.inside(() => countFilters(netns.ifindex, 'ingress'))).toBe(0);
    expect(netns.inside(() => countFilters(netns.ifindex, 'egress'))).toBe(1);
    expect(tc('qdisc', 'show', 'dev', 'va')).toContain('clsact');
    netns.inside(() => first.detach());
    tc('filter', 'del', 'dev', 'va', 'egress');
    netns.inside(() => first.detach());
    expect(tc('qdisc', 'show', 'dev', 'va')).not.toContain('clsact');
  });
});

describe('a cgroup link', () => {
  it('judges connections of the cgroup', async () => {
    const mount = cgroup2Feature().probe();
    expect(mount.supported).toBe(true);
    const cgroup = `${mount.detail}/${uniqueName('sluice-test-')}`;
    const refuse = object.program('refuse');
    mkdirSync(cgroup);
    const server = createServer().listen(4711, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const home = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/';
    try {
      const link = attachCgroup(refuse, cgroup, 'CgroupInet4Connect');
      const tryConnect = () =>
        new Promise<string>((resolve) => {
          const socket = connect(4711, '127.0.0.1');
          socket.once('connect', () => {
            socket.destroy();
            resolve('connected');
          });
          socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
        });
      expect(await tryConnect()).toBe('connected');
      run('sh', '-c', `echo ${process.pid} > ${cgroup}/cgroup.procs`);
      expect(await tryConnect()).toBe('EPERM');
      link.detach();
      expect(await tryConnect()).toBe('connected');
      expect(caught(() => attachCgroup(refuse, '/nonexistent', 'CgroupInet4Connect'))).toMatchObject({
        code: 'ENOENT',
      });
    } finally {
      run('sh', '-c', `echo ${process.pid} > ${mount.detail}${home}/cgroup.procs`);
      server.close();
      refuse.close();
      rmdirSync(cgroup);
    }
  });
});
