/** `sluice host install` and `uninstall`, into a root of the test's own. */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'slhi-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function host(...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, ['bin/sluice', 'host', ...args, '--root', root], { encoding: 'utf8' });
}

const units = (): string => join(root, 'etc', 'systemd', 'system');

it('writes units that are enabled, and takes back what it wrote', () => {
  expect(host('install')).toMatchObject({ status: 0, stderr: '' });
  const agent = readFileSync(join(units(), 'sluice.service'), 'utf8');
  expect(agent).toContain(`ExecStart=${process.execPath} ${process.cwd()}/bin/sluice agent\n`);
  expect(agent).toContain('Before=network-pre.target');
  expect(readFileSync(join(units(), 'sluice-boot.service'), 'utf8')).toContain('/bin/sluice boot\n');
  expect(readdirSync(join(units(), 'multi-user.target.wants'))).toEqual(['sluice.service']);
  expect(readdirSync(join(units(), 'sysinit.target.wants'))).toEqual(['sluice-boot.service']);
  const verify = spawnSync('systemd-analyze', ['verify', `--root=${root}`, join(units(), 'sluice.service')], {
    encoding: 'utf8',
  });
  expect(verify.stderr).not.toMatch(/sluice[a-z-]*\.service:\d+:/);

  const settings = join(root, 'etc', 'sluice', 'agent.yaml');
  writeFileSync(settings, `${readFileSync(settings, 'utf8')}metricsAddress: ""\n`);
  expect(host('install').stdout).not.toContain('agent.yaml');
  expect(readFileSync(settings, 'utf8')).toContain('metricsAddress');

  expect(host('uninstall')).toMatchObject({ status: 0, stderr: '' });
  expect(existsSync(join(units(), 'sluice.service'))).toBe(false);
  expect(existsSync(join(units(), 'multi-user.target.wants', 'sluice.service'))).toBe(false);
  expect(existsSync(settings)).toBe(true);
  expect(host('uninstall', '--purge')).toMatchObject({ status: 0, stderr: '' });
  expect(existsSync(join(root, 'etc', 'sluice'))).toBe(false);
});

it('leaves a unit of somebody else alone', () => {
  mkdirSync(units(), { recursive: true });
  writeFileSync(join(units(), 'sluice.service'), '[Service]\nExecStart=/bin/true\n');
  const refused = host('install');
  expect(refused.status).toBe(1);
  expect(refused.stderr).toContain('SLU7012');
  expect(readFileSync(join(units(), 'sluice.service'), 'utf8')).toContain('/bin/true');
});
