import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkBpfFs, checkKernel, checkRights } from './preflight.js';

describe('checkRights', () => {
  it('accepts all capabilities, and just the needed ones', () => {
    expect(() => checkRights('Name:\tx\nCapEff:\t000001ffffffffff\n')).not.toThrow();
    expect(() =>
      checkRights(`CapEff:\t${((1n << 12n) | (1n << 21n)).toString(16).padStart(16, '0')}\n`),
    ).not.toThrow();
  });

  it('names the missing ones', () => {
    expect(() => checkRights('CapEff:\t0000000000000000\n')).toThrow(
      'not enough rights: run as root (missing CAP_NET_ADMIN, CAP_SYS_ADMIN)',
    );
    expect(() => checkRights('CapEff:\t0000000000001000\n')).toThrow('(missing CAP_SYS_ADMIN)');
    expect(() => checkRights('')).toThrow('CAP_NET_ADMIN');
  });
});

describe('checkKernel', () => {
  it.each(['5.15.0', '5.15', '5.15.0-rc1', '6.1.0-18-amd64', '6.12.8', '10.0.1'])('accepts %s', (release) => {
    expect(() => checkKernel(release)).not.toThrow();
  });

  it.each(['5.14.21', '5.10.0-28-amd64', '4.19.0', '3.10.0-1160.el7'])('refuses %s', (release) => {
    expect(() => checkKernel(release)).toThrow(`Linux ${release} is too old: Sluice needs 5.15 or newer`);
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
