/**
 * Podman in a network namespace, with folders of its own, CNI networks and an image that needs no registry. Everything
 * is gone after `scratch.close()`.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { killAndWait, netnsPath, type Scratch } from '../../bench/lib/netns.js';
import { IMAGE, imageTar } from './image.js';
import { removeLeftovers } from './leftovers.js';

/** Where libcni keeps results of ADD. */
const RESULTS = '/var/lib/cni/results';

export interface PodmanFolders {
  /** Plugins. */
  readonly binDir: string;
  /** Network configurations. */
  readonly confDir: string;
}

export class Podman {
  readonly folder: string;
  /** Where its API is while the service runs. */
  readonly socket: string;
  readonly #netns: string;
  #service: ChildProcess | undefined;

  constructor(scratch: Scratch, netns: string, socket: string, { binDir, confDir }: PodmanFolders) {
    this.#netns = netns;
    this.folder = scratch.folder(mkdtempSync(join(tmpdir(), 'sluice-podman-')));
    this.socket = socket;
    const config = [
      '[network]',
      'network_backend = "cni"',
      `cni_plugin_dirs = ["${binDir}"]`,
      `network_config_dir = "${confDir}"`,
      '[engine]',
      'cgroup_manager = "cgroupfs"',
      'events_logger = "file"',
      'lock_type = "file"',
      'runtime = "runc"',
      `infra_image = "localhost/${IMAGE}:latest"`,
      '[containers]',
      'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]',
    ];
    writeFileSync(join(this.folder, 'containers.conf'), `${config.join('\n')}\n`);
    scratch.onClose(() => this.#cleanUp());
  }

  /** Starts its API service and waits until it listens. */
  async startService(): Promise<void> {
    const [command, ...args] = this.#command('system', 'service', '-t', '0', `unix://${this.socket}`);
    const service = spawn(command ?? '', args, { stdio: 'ignore', env: this.#environment() });
    this.#service = service;
    for (const deadline = Date.now() + 20_000; !existsSync(this.socket); ) {
      if (service.exitCode !== null || Date.now() > deadline)
        throw new Error('the service of podman did not start');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  stopService(): void {
    killAndWait(this.#service?.pid);
    this.#service = undefined;
  }

  /** Imports the image. */
  makeImage(): void {
    // Of pods it is the first container, too, which is to run for as long as its pod.
    const [command, ...args] = this.#command('import', '--change', 'CMD ["/bin/sleep","100000"]', '-', IMAGE);
    execFileSync(command ?? '', args, { input: imageTar(), stdio: 'pipe', env: this.#environment() });
  }

  /** Runs a command; throws with what it said. */
  podman(...args: readonly string[]): string {
    const { status, stdout, stderr } = this.try(...args);
    if (status !== 0) throw new Error(`podman ${args.join(' ')}: ${stderr.trim()}`);
    return stdout.trim();
  }

  try(...args: readonly string[]): {
    readonly status: number | null;
    readonly stdout: string;
    readonly stderr: string;
  } {
    const group = args[0] === 'run' ? [`--cgroup-parent=/${basename(this.folder)}`] : [];
    const [command, ...rest] = this.#command(...args.slice(0, 1), ...group, ...args.slice(1));
    return spawnSync(command ?? '', rest, { encoding: 'utf8', timeout: 60_000, env: this.#environment() });
  }

  /** Runs a command in a container; its output and errors, whatever its status. */
  exec(container: string, ...command: readonly string[]): string {
    const { stdout, stderr } = this.try('exec', container, ...command);
    return `${stdout}${stderr}`.trim();
  }

  #environment(): NodeJS.ProcessEnv {
    return { ...process.env, CONTAINERS_CONF: join(this.folder, 'containers.conf') };
  }

  #command(...args: readonly string[]): string[] {
    const folders = ['--root', 'root', '--runroot', 'run', '--tmpdir', 'tmp'].map((word) =>
      word.startsWith('--') ? word : join(this.folder, word),
    );
    const storage = ['--storage-driver', 'vfs'];
    return ['nsenter', `--net=${netnsPath(this.#netns)}`, '--', 'podman', ...folders, ...storage, ...args];
  }

  #cleanUp(): void {
    this.try('rm', '-f', '-t', '0', '-a');
    this.stopService();
    this.#forgetResults();
    removeLeftovers(this.folder);
  }

  /** Removes what its CNI library remembers of containers for which DEL failed: that is in a folder for all. */
  #forgetResults(): void {
    const events = join(this.folder, 'tmp', 'events', 'events.log');
    if (!existsSync(events) || !existsSync(RESULTS)) return;
    const ids = new Set(readFileSync(events, 'utf8').match(/\b[0-9a-f]{64}\b/g));
    for (const file of readdirSync(RESULTS))
      if (ids.has(/-([0-9a-f]{64})-/.exec(file)?.[1] ?? '')) rmSync(join(RESULTS, file), { force: true });
  }
}
