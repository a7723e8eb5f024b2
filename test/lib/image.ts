/** An image of busybox that needs no registry, as a tree of files, a tar of it, or an archive that runtimes load. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The image's name. */
export const IMAGE = 'box';
/** The same where names have to be complete. */
export const FULL_IMAGE = 'docker.io/library/box:latest';

const APPLETS = [
  'sh',
  'sleep',
  'ip',
  'nslookup',
  'wget',
  'ping',
  'cat',
  'httpd',
  'nc',
  'true',
  'echo',
  'hostname',
];

/** Its file system as a tar archive. */
export function imageTar(): Buffer {
  return inFolder((folder) => {
    mkdirSync(join(folder, 'bin'));
    for (const name of ['etc', 'tmp', 'proc']) mkdirSync(join(folder, name));
    copyFileSync('/bin/busybox', join(folder, 'bin', 'busybox'));
    for (const name of APPLETS) symlinkSync('busybox', join(folder, 'bin', name));
    return tar(folder);
  });
}

/** The image with a command, in the format of `docker save`. */
export function imageArchive(...command: readonly string[]): Buffer {
  return inFolder((folder) => {
    const layer = imageTar();
    const digest = createHash('sha256').update(layer).digest('hex');
    const config = {
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: { Cmd: command, Env: ['PATH=/bin'] },
      rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
    };
    const manifest = [{ Config: 'config.json', RepoTags: [FULL_IMAGE], Layers: ['layer.tar'] }];
    writeFileSync(join(folder, 'layer.tar'), layer);
    writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
    writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest));
    return tar(folder);
  });
}

function inFolder<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-image-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function tar(folder: string): Buffer {
  return execFileSync('tar', ['-C', folder, '--owner=0', '--group=0', '-c', '.'], { maxBuffer: 64 << 20 });
}
