import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { waitUntil } from '../../bench/lib/netns.js';
import { World } from '../e2e/world.js';
import { Dockerd } from '../lib/dockerd.js';
import { IMAGE } from '../lib/image.js';

/** How Docker is started: what it does by itself is not looked at. */
export const OPTIONS = ['--ip-forward=false', '--iptables=false', '--ip6tables=false', '--bridge=none'];
/** A server that says its container's name to who connects to port 80. */
export const SERVER = ['nc', '-ll', '-p', '80', '-e', '/bin/hostname'];

/** What the command of a container has printed, and its status. */
export interface Ended {
  readonly output: string;
  readonly status: number | null;
}

/** A host with an agent that can be told at which step to die, and a Docker that uses it. */
export class Rig {
  readonly driver = `sluice-${randomBytes(4).toString('hex')}`;
  readonly world: World;
  readonly docker: Dockerd;
  readonly #faultFile: string;

  constructor(prefix: string) {
    const socket = join(tmpdir(), `${this.driver}.sock`);
    this.world = new World(prefix, {
      dockerPlugin: `/run/docker/plugins/${this.driver}.sock`,
      dockerApi: socket,
      maxEndpointIndex: 1024,
    });
    this.#faultFile = join(this.world.agent.folder, 'fault');
    this.dieAt('');
    process.env.SLUICE_FAULT = this.#faultFile;
    this.docker = new Dockerd(this.world.scratch, this.world.host, socket);
  }

  async start(): Promise<void> {
    await this.world.agent.start(this.world.scratch);
    await this.docker.start(...OPTIONS);
    this.docker.makeImage();
  }

  close(): void {
    delete process.env.SLUICE_FAULT;
    this.world.close();
  }

  /** The agent kills itself at this step; '' is none. */
  dieAt(step: string): void {
    writeFileSync(this.#faultFile, step);
  }

  network(name: string, ...options: readonly string[]): void {
    this.docker.docker(
      'network',
      'create',
      '-d',
      this.driver,
      '--ipam-driver',
      this.driver,
      ...options,
      name,
    );
  }

  /** A container that says its name to who connects to port 80. Waits until it listens. */
  serve(name: string, ...options: readonly string[]): void {
    const where = ['--name', name, '--hostname', name, '--stop-timeout', '1'];
    this.docker.docker('run', '-d', ...where, ...options, IMAGE, ...SERVER);
    const pid = this.docker.docker('inspect', '-f', '{{.State.Pid}}', name);
    const listens = (): boolean => / 0*:0050 0*:0000 0A /.test(readFileSync(`/proc/${pid}/net/tcp6`, 'utf8'));
    if (!waitUntil(listens)) throw new Error(`${name} does not listen`);
  }

  /** What a container hears that asks, as the first thing that it does. */
  ask(whom: string, ...options: readonly string[]): string {
    const { stdout, stderr } = this.docker.try('run', '--rm', ...options, IMAGE, 'nc', '-w', '1', whom, '80');
    return `${stdout}${stderr}`.trim();
  }

  /** The same, beside what else goes on. */
  asking(whom: string, ...options: readonly string[]): Promise<Ended> {
    return this.run(options, 'nc', '-w', '1', whom, '80');
  }

  /** Runs a container. */
  async run(options: readonly string[], ...command: readonly string[]): Promise<Ended> {
    const args = ['-H', `unix://${this.docker.socket}`, 'run', '--rm', ...options, IMAGE, ...command];
    const client = spawn('docker', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [client.stdout, client.stderr])
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        output += chunk;
      });
    const status = await new Promise<number | null>((resolve) => client.once('close', resolve));
    return { output: output.trim(), status };
  }

  /** Stops the agent while it holds the file of a container that is being started, until Docker waits for that. */
  async delayed(begin: () => Promise<Ended>): Promise<Ended> {
    // It has to be stopped within the tenth of a second in which it holds the file.
    for (let tries = 0; tries < 5; tries++) {
      const client = begin();
      const pid = this.holding();
      process.kill(pid, 'SIGSTOP');
      let waited: boolean;
      try {
        waited = this.dockerWaits();
      } finally {
        process.kill(pid, 'SIGCONT');
      }
      const ended = await client;
      if (waited) return ended;
    }
    throw new Error('Docker never waited');
  }

  /** How each network of a container got its device. */
  async ways(name: string): Promise<readonly ('made' | 'moved')[]> {
    const containers = JSON.parse(await this.world.agent.list('containers')) as readonly {
      metadata: { name: string };
      spec: { networks: readonly { handover?: string; runtimeRoutes?: boolean }[] };
    }[];
    const found = containers.find(({ metadata }) => metadata.name === name);
    return (found?.spec.networks ?? []).map(({ handover, runtimeRoutes }) => {
      if ((handover === undefined) !== (runtimeRoutes === true))
        throw new Error(`${name} is neither made nor moved`);
      return handover === undefined ? 'made' : 'moved';
    });
  }

  /** Waits until the agent makes Docker wait for a file; the agent's process. */
  holding(): number {
    const { pid = 0 } = this.world.agent;
    const isHeld = (file: string): boolean => /\/containers\/\w+\/resolv\.conf$/.test(file);
    if (!waitUntil(() => openFiles(pid).some(isHeld))) throw new Error('no file is held');
    return pid;
  }

  /** Waits until Docker waits for a file that somebody holds; whether it does. */
  dockerWaits(): boolean {
    const daemon = Number(readFileSync(join(this.docker.folder, 'pid'), 'utf8'));
    return waitUntil(() => sleepsIn(daemon, '__break_lease'));
  }
}

export function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return []; // closed meanwhile
    }
  });
}

/** Whether a thread of a process waits in a function of the kernel. */
function sleepsIn(pid: number, kernelFunction: string): boolean {
  return readdirSync(`/proc/${pid}/task`).some((thread) => {
    try {
      return readFileSync(`/proc/${pid}/task/${thread}/wchan`, 'utf8') === kernelFunction;
    } catch {
      return false; // ended meanwhile
    }
  });
}
