/**
 * A real containerd in a network namespace, with folders and socket of its own and an image that needs no registry.
 * Everything is gone after `scratch.close()`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { killAndWait, netnsPath, type Scratch } from '../../bench/lib/netns.js';
import { Cri } from './cri.js';
import { FULL_IMAGE, imageArchive } from './image.js';
import { removeLeftovers } from './leftovers.js';

/** containerd's namespace of what came over CRI. */
const CRI_NAMESPACE = 'k8s.io';

export interface CniFolders {
  readonly binDir: string;
  readonly confDir: string;
}

export class Containerd {
  readonly folder: string;
  /** Its containers' namespace in containerd, and their cgroups' parent. */
  readonly namespace: string;
  readonly cri: Cri;
  readonly #netns: string;
  readonly #socket: string;
  readonly #cni: CniFolders;
  #process: ChildProcess | undefined;
  #execs = 0;

  constructor(scratch: Scratch, netns: string, cni: CniFolders) {
    this.#netns = netns;
    this.#cni = cni;
    this.folder = scratch.folder(mkdtempSync(join(tmpdir(), 'sluice-ctd-')));
    this.namespace = basename(this.folder);
    this.#socket = join(this.folder, 'containerd.sock');
    this.cri = new Cri(this.#socket, `/${this.namespace}`);
    const config = [
      'version = 2',
      `root = "${join(this.folder, 'root')}"`,
      `state = "${join(this.folder, 'state')}"`,
      '[grpc]',
      `address = "${this.#socket}"`,
      '[plugins."io.containerd.internal.v1.opt"]',
      `path = "${join(this.folder, 'opt')}"`,
      '[plugins."io.containerd.grpc.v1.cri"]',
      `sandbox_image = "${FULL_IMAGE}"`,
      'netns_mounts_under_state_dir = true',
      'disable_apparmor = true',
      'restrict_oom_score_adj = true',
      '[plugins."io.containerd.grpc.v1.cri".containerd]',
      'snapshotter = "native"',
      '[plugins."io.containerd.grpc.v1.cri".cni]',
      `bin_dir = "${cni.binDir}"`,
      `conf_dir = "${cni.confDir}"`,
    ];
    writeFileSync(join(this.folder, 'config.toml'), `${config.join('\n')}\n`);
    scratch.onClose(() => this.#cleanUp());
  }

  /** Starts it and waits until it answers. */
  async start(): Promise<void> {
    const log = openSync(join(this.folder, 'log'), 'a');
    const args = ['containerd', '-c', join(this.folder, 'config.toml'), '-l', 'warn'];
    const daemon = spawn('nsenter', [`--net=${netnsPath(this.#netns)}`, '--', ...args], {
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    this.#process = daemon;
    for (const deadline = Date.now() + 30_000; ; ) {
      if (daemon.exitCode !== null || Date.now() > deadline)
        throw new Error(
          `containerd did not start:\n${readFileSync(join(this.folder, 'log'), 'utf8').slice(-2000)}`,
        );
      if (this.try('version').status === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Ends the daemon as by a crash; containers go on. */
  kill(): void {
    killAndWait(this.#process?.pid);
    rmSync(this.#socket, { force: true });
  }

  /** Imports the image for `ctr` and for CRI; `command` is what runs in a pod without containers. */
  makeImage(...command: readonly string[]): void {
    const file = join(this.folder, 'image.tar');
    writeFileSync(file, imageArchive(...command));
    for (const namespace of [this.namespace, CRI_NAMESPACE])
      this.#ctr(namespace, 'images', 'import', '--snapshotter', 'native', file);
  }

  /** Runs a container in the background with the network of CNI. */
  run(id: string, ...command: readonly string[]): void {
    const options = ['-d', '--cni', '--snapshotter', 'native', FULL_IMAGE];
    this.#ctr(this.namespace, 'run', ...options, id, ...command);
  }

  /** Runs a container until it ends, and removes it; its output. */
  runOnce(id: string, ...command: readonly string[]): string {
    return this.#ctr(
      this.namespace,
      'run',
      '--rm',
      '--cni',
      '--snapshotter',
      'native',
      FULL_IMAGE,
      id,
      ...command,
    );
  }

  /** Runs a command in a container; its output and errors, whatever its status. */
  exec(id: string, ...command: readonly string[]): string {
    return this.#exec(this.namespace, id, command);
  }

  /** The same in a pod. */
  execInPod(id: string, ...command: readonly string[]): string {
    return this.#exec(CRI_NAMESPACE, id, command);
  }

  /** First process of a container. */
  pidOf(id: string): number {
    const row = this.#ctr(this.namespace, 'task', 'ls')
      .split('\n')
      .find((line) => line.startsWith(`${id} `));
    return Number(row?.split(/\s+/)[1] ?? 0);
  }

  /** Kills a container, if it runs, and removes it. */
  remove(id: string): void {
    this.try('task', 'delete', '-f', id);
    this.#ctr(this.namespace, 'container', 'delete', id);
  }

  /** Runs `ctr`. */
  try(...args: readonly string[]): {
    readonly status: number | null;
    readonly stdout: string;
    readonly stderr: string;
  } {
    return this.#try(this.namespace, args);
  }

  #exec(namespace: string, id: string, command: readonly string[]): string {
    const exec = ['task', 'exec', '--exec-id', `e${this.#execs++}`, id];
    const { stdout, stderr } = this.#try(namespace, [...exec, ...command]);
    return `${stdout}${stderr}`.trim();
  }

  #ctr(namespace: string, ...args: readonly string[]): string {
    const { status, stdout, stderr } = this.#try(namespace, args);
    if (status !== 0) throw new Error(`ctr ${args.join(' ')}: ${stderr.trim()}`);
    return stdout.trim();
  }

  /** `ctr` knows no other folders than the usual ones: it gets a mount namespace in which those are ours. */
  #try(namespace: string, args: readonly string[]) {
    const { binDir, confDir } = this.#cni;
    const mounts = [
      'mount -t tmpfs none /opt',
      'mkdir -p /opt/cni/bin',
      `mount --bind ${binDir} /opt/cni/bin`,
      `mount --bind ${confDir} /etc/cni/net.d`,
      // ctr does not ask for DEL when a container is deleted, so what its CNI library remembers would stay.
      'mkdir -p /var/lib/cni',
      'mount -t tmpfs none /var/lib/cni',
      'exec "$@"',
    ];
    const ctr = ['ctr', '-a', this.#socket, '-n', namespace, ...args];
    return spawnSync(
      'nsenter',
      [
        `--net=${netnsPath(this.#netns)}`,
        '--',
        'unshare',
        '-m',
        'sh',
        '-ec',
        mounts.join('\n'),
        'sh',
        ...ctr,
      ],
      { encoding: 'utf8', timeout: 60_000 },
    );
  }

  #cleanUp(): void {
    this.kill();
    removeLeftovers(this.folder);
  }
}
