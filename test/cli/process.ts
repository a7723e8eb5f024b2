import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Expedite } from '../../src/dataplane/expedite.js';
import { trafficTool } from '../e2e/world.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The command as users start it. */
export const SLUICE = join(ROOT, 'bin/sluice');

export interface Finished {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Fails early, and clearly, where the package is not compiled. */
export function needBuild(): void {
  if (!existsSync(join(ROOT, 'dist/src/cli/main.js'))) throw new Error('not built: run `make build` first');
}

/** Runs a command to its end; it is killed after a minute. */
export function run(
  command: readonly string[],
  options: { env?: NodeJS.ProcessEnv; input?: string } = {},
): Finished {
  const [file = '', ...args] = command;
  const { status, stdout, stderr, error } = spawnSync(file, args, {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, NODE_NO_WARNINGS: '1', ...options.env },
    ...(options.input === undefined ? {} : { input: options.input }),
  });
  if (error !== undefined) throw error;
  return { code: status, out: stdout, err: stderr };
}

/** Like `run`; throws with the output if the command fails. */
export function must(...command: string[]): string {
  const { code, out, err } = run(command);
  if (code !== 0) throw new Error(`${command.join(' ')}: status ${code}: ${err}${out}`);
  return out;
}

let count = 0;

/**
 * A place of its own for one agent: folders, a BPF file system, a network namespace, a configuration
 * file. Everything is gone after `remove`.
 */
export class Place {
  readonly root: string;
  readonly netns: string;
  readonly config: string;
  readonly settings: Record<string, unknown>;
  readonly #mounts: string[] = [];
  readonly #namespaces: string[] = [];
  readonly #processes = new Set<ChildProcess>();

  constructor(settings: Record<string, unknown> = {}) {
    this.root = mkdtempSync(join(tmpdir(), 'sluice-place-'));
    this.netns = this.addNamespace('node');
    must('ip', '-n', this.netns, 'link', 'set', 'lo', 'up');
    const bpf = join(this.root, 'bpf');
    mkdirSync(bpf);
    must('mount', '-t', 'bpf', 'bpf', bpf);
    this.#mounts.push(bpf);
    mkdirSync(join(this.root, 'definitions'));
    this.settings = {
      instance: `t${process.pid}-${count}`,
      stateDir: join(this.root, 'state'),
      runDir: join(this.root, 'run'),
      pinPath: join(bpf, 'pins'),
      cgroupRoot: '',
      uplinks: [],
      xdp: 'off',
      definitions: join(this.root, 'definitions'),
      metricsAddress: '127.0.0.1:9644',
      flowEntries: 4096,
      logLevel: 'info',
      ...settings,
    };
    this.config = this.writeConfig('agent.yaml', {});
  }

  /** The socket of an agent with the unchanged configuration. */
  get socket(): string {
    return join(this.root, 'run/sluice.sock');
  }

  /** A configuration file with some settings changed. */
  writeConfig(name: string, change: Record<string, unknown>): string {
    const file = join(this.root, name);
    const settings = { apiVersion: 'sluice.dev/v1alpha1', kind: 'AgentConfig', ...this.settings, ...change };
    writeFileSync(
      file,
      Object.entries(settings)
        .map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`)
        .join(''),
    );
    return file;
  }

  /** A new network namespace; the name is unique on the machine. */
  addNamespace(name: string): string {
    const unique = `sl-${process.pid}-${count++}-${name}`;
    must('ip', 'netns', 'add', unique);
    this.#namespaces.push(unique);
    return unique;
  }

  /** A command line inside the node's network namespace. */
  inside(...command: string[]): string[] {
    return ['nsenter', `--net=/run/netns/${this.netns}`, ...command];
  }

  /** Runs a client command against this place's agent. */
  sluice(...args: string[]): Finished {
    return run([SLUICE, '--socket', this.socket, ...args]);
  }

  /** Runs a client command with standard input. */
  sluiceWith(input: string, ...args: string[]): Finished {
    return run([SLUICE, '--socket', this.socket, ...args], { input });
  }

  /** Starts an agent in the node's namespace. */
  startAgent(config: string = this.config): Agent {
    const [file = '', ...args] = this.inside(SLUICE, 'agent', '--config', config);
    const child = spawn(file, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_NO_WARNINGS: '1' },
    });
    this.#processes.add(child);
    child.once('exit', () => this.#processes.delete(child));
    return new Agent(child);
  }

  /** Starts a TCP server in a namespace; resolves when it listens. */
  async serve(netns: string, port: number): Promise<ChildProcess> {
    const command = [trafficTool(), 'tcp-server', '::', String(port), '600'];
    const child = spawn('nsenter', [`--net=/run/netns/${netns}`, ...command], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#processes.add(child);
    child.once('exit', () => this.#processes.delete(child));
    await new Promise((resolve, reject) => {
      child.stdout.once('data', resolve);
      child.once('exit', () => reject(new Error(`nobody can listen on port ${port} of ${netns}`)));
    });
    return child;
  }

  /** Whether a TCP server answers a client in a namespace. */
  reaches(netns: string, address: string, port: number): boolean {
    const command = [trafficTool(), 'tcp-probe', address, String(port), '500'];
    return must('nsenter', `--net=/run/netns/${netns}`, ...command) === 'open\n';
  }

  /** Asks the agent's API; an answer that is JSON. */
  ask<T>(path: string): T {
    return JSON.parse(must('curl', '-sS', '--unix-socket', this.socket, `http://agent${path}`)) as T;
  }

  /** Deletes what a document names over the API; what is not there is not missed. */
  delete(text: string): void {
    const body = JSON.stringify({ sources: [{ file: 'delete.yaml', text }] });
    must('curl', '-sS', '--unix-socket', this.socket, '-d', body, 'http://agent/v1/delete');
  }

  /** Ends what still runs and removes everything, whatever state it is in. */
  remove(): void {
    for (const child of this.#processes) child.kill('SIGKILL');
    Expedite.restore(join(this.root, 'state'));
    for (const mount of this.#mounts.reverse()) run(['umount', '-l', mount]);
    for (const name of this.#namespaces) run(['ip', 'netns', 'del', name]);
    rmSync(this.root, { recursive: true, force: true });
  }
}

/** A running agent and what it has logged. */
export class Agent {
  readonly process: ChildProcess;
  readonly exited: Promise<number | null>;
  #text = '';
  readonly #waiting = new Set<() => void>();
  #over = false;

  constructor(child: ChildProcess) {
    this.process = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.#text += text;
        for (const wake of this.#waiting) wake();
      });
    }
    this.exited = new Promise((resolve) => {
      child.once('close', (code) => {
        this.#over = true;
        for (const wake of this.#waiting) wake();
        resolve(code);
      });
    });
  }

  /** Everything that it wrote so far. */
  get text(): string {
    return this.#text;
  }

  /** Its log so far; lines that are not JSON are left out. */
  get log(): { readonly level: string; readonly msg: string; readonly [key: string]: unknown }[] {
    return this.#text
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => JSON.parse(line) as { level: string; msg: string });
  }

  /** Resolves when the log has a record with this message; rejects when it ends before, or after 30 s. */
  async logged(message: string | RegExp, times = 1): Promise<void> {
    const matches = (text: string): boolean =>
      typeof message === 'string' ? text === message : message.test(text);
    await new Promise<void>((resolve, reject) => {
      const finish = (end: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(check);
        end();
      };
      const check = (): void => {
        if (this.log.filter(({ msg }) => matches(msg)).length >= times) finish(resolve);
        else if (this.#over)
          finish(() => reject(new Error(`the agent ended before "${String(message)}": ${this.#text}`)));
      };
      const timer = setTimeout(
        () => finish(() => reject(new Error(`no "${String(message)}" in: ${this.#text}`))),
        30_000,
      );
      this.#waiting.add(check);
      check();
    });
  }

  /** Sends a signal and waits for the end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.process.kill(signal);
    return this.exited;
  }
}
