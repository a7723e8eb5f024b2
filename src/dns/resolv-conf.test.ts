import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { HostResolvers, parseResolvConf } from './resolv-conf.js';

describe('parseResolvConf', () => {
  it('takes the first three name servers and nothing else', () => {
    const text =
      '# nameserver 192.0.2.9\nsearch x\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver no\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n';
    expect(parseResolvConf(text)).toEqual(['192.0.2.1', '2001:db8::1', 'fe80::1%eth0']);
    expect(parseResolvConf('nameserver FD00:0:0::1\nnameserver FE80::1%eth0')).toEqual([
      'fd00::1',
      'fe80::1%eth0',
    ]);
    expect(parseResolvConf('')).toEqual([]);
  });
});

describe('HostResolvers', () => {
  it('has none without a file', () => {
    const dir = mkdtempSync(join(tmpdir(), 'sluice-resolv-'));
    try {
      expect(new HostResolvers(join(dir, 'none')).servers()).toEqual([]);
      writeFileSync(join(dir, 'resolv.conf'), 'nameserver 192.0.2.1\n');
      expect(new HostResolvers(join(dir, 'resolv.conf')).servers()).toEqual(['192.0.2.1']);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
