/**
 * A real dockerd in a network namespace, with folders, socket and cgroup of its own, and an image of busybox
 * that needs no registry. Everything is gone after `scratch.close()`.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { killAndWait, netnsPath, type Scratch } from '../../bench/lib/netns.js';
import { IMAGE, imageTar } from './image.js';
import { removeLeftovers } from './leftovers.js';

export class Dockerd {
  readonly folder: string;
  readonly socket: string;
  readonly #netns: string;
  readonly #group: string | undefined;
  #process: ChildProcess | undefined;

  /** `socket`: where its API will be. `group`: a folder of cgroup v2 that daemon and containers are in. */
  constructor(scratch: Scratch, netns: string, socket: string, group?: string) {
    this.#netns = netns;
    this.folder = scratch.folder(mkdtempSync(join(tmpdir(), 'sluice-docker-')));
    this.socket = socket;
    this.#group = group;
    scratch.onClose(() => this.#cleanUp());
  }

  /** Starts it and waits until it answers. */
  async start(...more: readonly string[]): Promise<void> {
    const log = openSync(join(this.folder, 'log'), 'a');
    const parent = basename(this.#group ?? this.folder);
    const enter = this.#group === undefined ? '' : `echo $$ >${this.#group}/cgroup.procs && `;
    const daemon = spawn(
      'sh',
      [
        ...['-c', `${enter}exec nsenter "$@"`, 'sh'],
        `--net=${netnsPath(this.#netns)}`,
        '--',
        'dockerd',
        ...['--data-root', join(this.folder, 'data'), '--exec-root', join(this.folder, 'exec')],
        ...['-H', `unix://${this.socket}`, '--pidfile', join(this.folder, 'pid'), '--log-level', 'warn'],
        ...['--cgroup-parent', `/${parent}`, '--live-restore'],
        ...more,
      ],
      { stdio: ['ignore', log, log] },
    );
    closeSync(log);
    this.#process = daemon;
    for (const deadline = Date.now() + 30_000; ; ) {
      if (daemon.exitCode !== null || Date.now() > deadline)
        throw new Error(
          `dockerd did not start:\n${readFileSync(join(this.folder, 'log'), 'utf8').slice(-2000)}`,
        );
      if ((await this.api('/_ping')) === 'OK') return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Ends the daemon; with SIGKILL it leaves everything as it is. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const daemon = this.#process;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => daemon.once('exit', () => resolve()));
    daemon.kill(signal);
    await gone;
    // A killed process can stay a zombie where nobody reaps it, and Docker takes it for a running one.
    for (const file of ['pid', 'exec/containerd/containerd.pid'])
      if (signal === 'SIGKILL') rmSync(join(this.folder, file), { force: true });
  }

  /** Imports the image. */
  makeImage(): void {
    execFileSync('docker', ['-H', `unix://${this.socket}`, 'import', '-', IMAGE], {
      input: imageTar(),
      stdio: 'pipe',
    });
  }

  /** Runs a command of the client; throws with what it said. */
  docker(...args: readonly string[]): string {
    const { status, stdout, stderr } = this.try(...args);
    if (status !== 0) throw new Error(`docker ${args.join(' ')}: ${stderr.trim()}`);
    return stdout.trim();
  }

  try(...args: readonly string[]): {
    readonly status: number | null;
    readonly stdout: string;
    readonly stderr: string;
  } {
    return spawnSync('docker', ['-H', `unix://${this.socket}`, ...args], {
      encoding: 'utf8',
      timeout: 60_000,
    });
  }

  /** Runs a command in a container; its output and errors, whatever its status. */
  exec(container: string, ...command: readonly string[]): string {
    const { stdout, stderr } = this.try('exec', container, ...command);
    return `${stdout}${stderr}`.trim();
  }

  /** Body of the answer to GET, or '' if there is none. */
  api(path: string): Promise<string> {
    return new Promise((resolve) => {
      const call = request({ socketPath: this.socket, path, timeout: 5000 }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          body += chunk;
        });
        response.on('end', () => resolve(body));
      });
      call.on('timeout', () => call.destroy());
      call.on('error', () => resolve(''));
      call.end();
    });
  }

  #cleanUp(): void {
    const daemon = this.#process;
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null) {
      const ids = this.try('ps', '-aq')
        .stdout.split('\n')
        .filter((id) => id !== '');
      if (ids.length > 0) this.try('rm', '-f', ...ids);
    }
    killAndWait(daemon?.pid);
    removeLeftovers(this.folder);
    if (this.#group !== undefined) removeLeftovers(this.#group);
    rmSync(this.socket, { force: true });
  }
}
