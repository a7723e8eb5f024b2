import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Btf } from '../../loader/abi/btf.js';
import * as kernel from '../../loader/abi/gen/kernel.gen.js';
import {
  bpfFeature,
  bpfFileSystemFeature,
  btfFeature,
  cgroup2Feature,
  jitFeature,
  kernelFeature,
  libbpfFeature,
  privilegeFeature,
  tcxFeature,
} from '../../loader/features.js';
import { mountBpf } from './support.js';

describe('the generated offsets', () => {
  let btf: Btf;
  beforeAll(() => {
    btf = Btf.parse(readFileSync('/sys/kernel/btf/vmlinux'));
  });

  const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

  it.each([
    ['bpf_prog_info', kernel.BpfProgInfo],
    ['bpf_map_info', kernel.BpfMapInfo],
  ] as const)('of %s are those of the running kernel', (name, offsets) => {
    const struct = btf.struct(name);
    for (const [member, offset] of Object.entries(offsets)) {
      if (member === 'size') continue;
      const found = struct?.members.find((m) => m.name === snake(member));
      expect(found?.bitOffset, `${name}.${member}`).toBe(offset * 8);
    }
  });

  it('of a TCX link are those of the running kernel', () => {
    const info = btf.struct('bpf_link_info');
    const union = info?.members.find((m) => m.name === '');
    const variants = btf.resolve(union?.type ?? 0);
    const tcx = variants.kind === 'union' ? variants.members.find((m) => m.name === 'tcx') : undefined;
    const struct = btf.resolve(tcx?.type ?? 0);
    expect(struct.kind).toBe('struct');
    const base = (union?.bitOffset ?? 0) / 8;
    const members = struct.kind === 'struct' ? struct.members : [];
    expect(members.map((m) => [m.name, base + m.bitOffset / 8])).toEqual([
      ['ifindex', kernel.BpfLinkInfoTcx.ifindex],
      ['attach_type', kernel.BpfLinkInfoTcx.attachType],
    ]);
    expect(info?.members.slice(0, 3).map((m) => m.bitOffset / 8)).toEqual([
      kernel.BpfLinkInfoTcx.type,
      kernel.BpfLinkInfoTcx.id,
      kernel.BpfLinkInfoTcx.progId,
    ]);
  });

  it('and the numbers of TCX and of the map types too', () => {
    const attach = new Map(btf.enumeration('bpf_attach_type')?.values.map((v) => [v.name, Number(v.value)]));
    expect([attach.get('BPF_TCX_INGRESS'), attach.get('BPF_TCX_EGRESS')]).toEqual([46, 47]);
    expect(attach.get('BPF_CGROUP_INET6_GETPEERNAME')).toBe(kernel.BpfAttachType.CgroupInet6Getpeername);
    const maps = new Map(btf.enumeration('bpf_map_type')?.values.map((v) => [v.name, Number(v.value)]));
    expect(maps.get('BPF_MAP_TYPE_RINGBUF')).toBe(kernel.BpfMapType.Ringbuf);
    expect(maps.get('BPF_MAP_TYPE_LRU_PERCPU_HASH')).toBe(kernel.BpfMapType.LruPercpuHash);
  });
});

describe('feature probes', () => {
  const bpffs = mountBpf();
  afterAll(() => bpffs.remove());

  it.each([
    kernelFeature(),
    privilegeFeature(),
    libbpfFeature,
    bpfFeature,
    jitFeature,
    tcxFeature,
    btfFeature,
    cgroup2Feature(),
    bpfFileSystemFeature(bpffs.path),
    bpfFileSystemFeature(`${bpffs.path}/not/yet`),
  ])('$name is found here', (feature) => {
    expect(feature.probe()).toMatchObject({ supported: true });
    expect(feature.minimum).not.toBe('');
  });
});
