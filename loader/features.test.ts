import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bpfFileSystemFeature, cgroup2Feature, kernelFeature, privilegeFeature } from './features.js';
import { objectPath, packageRoot } from './paths.js';

describe('kernelFeature', () => {
  it.each([
    ['5.15.0', true],
    ['5.15', true],
    ['6.1.0-44-amd64', true],
    ['10.0.1', true],
    ['5.14.21', false],
    ['5.4.0-150-generic', false],
    ['4.19.0-25-amd64', false],
  ])('%s: %s', (release, supported) => {
    const result = kernelFeature(release).probe();
    expect(result.supported).toBe(supported);
    if (!supported) expect(result.detail).toBe(`this is Linux ${release}, Sluice needs Linux 5.15 or newer`);
  });

  it('does not decide about a release without a number', () => {
    expect(kernelFeature('mine').probe().supported).toBeUndefined();
  });
});

describe('privilegeFeature', () => {
  it('names the capabilities that are missing', () => {
    expect(privilegeFeature('CapEff:\t000001ffffffffff\n').probe().supported).toBe(true);
    expect(privilegeFeature('CapEff:\t0000000000000000\n').probe()).toEqual({
      supported: false,
      detail: 'this process lacks CAP_NET_ADMIN and CAP_SYS_ADMIN: run it as root',
    });
    expect(privilegeFeature('CapEff:\t0000000000001000\n').probe().detail).toContain('lacks CAP_SYS_ADMIN:');
  });
});

describe('cgroup2Feature', () => {
  it('finds the mount, also with a space in its path', () => {
    const line = '30 23 0:26 / /sys/fs/my\\040group rw,nosuid shared:4 - cgroup2 cgroup2 rw';
    const v1 = '31 23 0:27 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu';
    expect(cgroup2Feature(`${v1}\n${line}\n`).probe()).toEqual({
      supported: true,
      detail: '/sys/fs/my group',
    });
    expect(cgroup2Feature(`${v1}\n`).probe().supported).toBe(false);
  });
});

describe('bpfFileSystemFeature', () => {
  it('looks at the nearest folder that exists', () => {
    const result = bpfFileSystemFeature('/tmp/does/not/exist').probe();
    expect(result.supported).toBe(false);
    expect(result.detail).toContain('/tmp is no bpf file system');
  });
});

describe('paths', () => {
  it('are found from the sources', () => {
    expect(existsSync(`${packageRoot()}/package.json`)).toBe(true);
    expect(objectPath()).toBe(`${packageRoot()}/dist/bpf/sluice.bpf.o`);
  });
});
