import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { kernelFeature, privilegeFeature } from '../loader/features.js';
import { checkBpfFs, checkKernel, checkRights } from './preflight.js';

describe('checkRights', () => {
  it('names the capabilities that are missing', () => {
    expect(() => checkRights(privilegeFeature('CapEff:\t000001ffffffffff\n'))).not.toThrow();
    expect(() => checkRights(privilegeFeature('CapEff:\t0000000000001000\n'))).toThrow(
      'not enough rights: this process lacks CAP_SYS_ADMIN: run it as root',
    );
  });
});

describe('checkKernel', () => {
  it.each(['5.15.0', '5.15.0-rc1', '6.1.0-18-amd64', '10.0.1'])('accepts %s', (release) => {
    expect(() => checkKernel(kernelFeature(release))).not.toThrow();
  });

  it.each(['5.14.21', '5.10.0-28-amd64', '4.19.0', '3.10.0-1160.el7'])('refuses %s', (release) => {
    expect(() => checkKernel(kernelFeature(release))).toThrow(
      `the kernel is too old: this is Linux ${release}, Sluice needs Linux 5.15 or newer`,
    );
  });
});

describe('checkBpfFs', () => {
  it('refuses a path on another file system, whether it exists or not, and says how to mount one', () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-nobpf-'));
    try {
      expect(() => checkBpfFs(folder)).toThrow(`no BPF file system at ${folder}`);
      expect(() => checkBpfFs(join(folder, 'a', 'b'))).toThrow(`"mount -t bpf bpf ${join(folder, 'a')}"`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
