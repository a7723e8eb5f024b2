import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot } from '../../loader/paths.js';
import { SluiceError } from '../../policy/errors.js';
import { writeAtomically } from '../state/files.js';

/** Folder that is installed with the program: units of systemd and the first settings. */
const DEPLOY = join(packageRoot(), 'deploy');
const UNITS = ['sluice-boot.service', 'sluice.service'] as const;
const UNIT_FOLDER = 'etc/systemd/system';
const PACKAGED = ['lib/systemd/system', 'usr/lib/systemd/system'] as const;
const MARK = '# Installed by "sluice host install"; "sluice host uninstall" removes it.\n';
/** What the units start, as they are in the package. */
const COMMAND = '/usr/bin/sluice';

export interface InstallOptions {
  /** Root of the file system to install into; '/' is this machine. */
  readonly root: string;
  /** Command that starts this program, for the units. */
  readonly command: string;
  /** Start the units too (only with root '/'). */
  readonly start: boolean;
}

/**
 * Puts the units in place, makes the folders and the first settings, and has systemd start them at every start of the
 * machine. Doing it again brings the units up to date. Returns what was done. Throws SLU7011, SLU7012.
 */
export function installHost({ root, command, start }: InstallOptions): string[] {
  const done: string[] = [];
  const packaged = PACKAGED.find((folder) => UNITS.every((unit) => existsSync(join(root, folder, unit))));
  for (const unit of packaged === undefined ? UNITS : []) {
    const path = join(root, UNIT_FOLDER, unit);
    refuseForeign(path);
    mkdirSync(dirname(path), { recursive: true });
    const text = readFileSync(join(DEPLOY, 'systemd', unit), 'utf8').replaceAll(COMMAND, command);
    writeAtomically(path, MARK + text, 0o644);
    done.push(`wrote ${path}`);
  }
  const settings = join(root, 'etc/sluice/agent.yaml');
  mkdirSync(join(root, 'etc/sluice/definitions'), { recursive: true, mode: 0o755 });
  if (!existsSync(settings)) {
    writeFileSync(settings, readFileSync(join(DEPLOY, 'agent.yaml')), { mode: 0o644 });
    done.push(`wrote ${settings}`);
  }
  const isHere = root === '/';
  if (isHere) systemctl(['daemon-reload']);
  systemctl([...(isHere ? [] : [`--root=${root}`]), '--quiet', 'enable', ...UNITS]);
  done.push('enabled sluice-boot.service and sluice.service');
  if (isHere && start) {
    systemctl(['restart', 'sluice.service']);
    done.push('started sluice.service');
  }
  return done;
}

/** Stops and removes the units that `installHost` wrote. What is in the kernel stays; see `sluice down`. */
export function uninstallHost(root: string): string[] {
  const done: string[] = [];
  const isHere = root === '/';
  const present = UNITS.filter((unit) => existsSync(join(root, UNIT_FOLDER, unit)));
  for (const unit of present) refuseForeign(join(root, UNIT_FOLDER, unit));
  if (present.length > 0)
    systemctl([...(isHere ? ['--now'] : [`--root=${root}`]), '--quiet', 'disable', ...present]);
  for (const unit of present) {
    const path = join(root, UNIT_FOLDER, unit);
    rmSync(path);
    done.push(`removed ${path}`);
  }
  if (isHere && present.length > 0) systemctl(['daemon-reload']);
  return done;
}

/** Removes settings, definitions and state. */
export function purgeHost(root: string, stateDir: string): string[] {
  return [join(root, 'etc/sluice'), join(root, stateDir)].filter(existsSync).map((path) => {
    rmSync(path, { recursive: true });
    return `removed ${path}`;
  });
}

function refuseForeign(path: string): void {
  if (existsSync(path) && !readFileSync(path, 'utf8').startsWith(MARK))
    throw SluiceError.of('SLU7012', { path });
}

function systemctl(args: readonly string[]): void {
  const { error, status, stderr } = spawnSync('systemctl', args, { encoding: 'utf8' });
  if (error !== undefined) throw SluiceError.of('SLU7011', { reason: error.message });
  if (status !== 0)
    throw SluiceError.of('SLU7011', { reason: stderr.trim().split('\n')[0] ?? `status ${status}` });
}
