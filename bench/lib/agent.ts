import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Expedite } from '../../src/dataplane/expedite.js';
import type { ApplyResult, DropEvent, Explanation, Listing, ListingName, Status } from '../../src/engine.js';
import { run, sh } from './command.js';
import { killAndWait, netnsPath, type Scratch, unmount } from './netns.js';

/** Settings of the agent's configuration file besides the paths, which are in a folder of its own. */
export type AgentSettings = Readonly<Record<string, unknown>>;

/**
 * A real agent (`bin/sluice agent`) in a network namespace, with its own folder, BPF file system and socket.
 * All of it is removed when `scratch` is closed.
 */
export class Agent {
  readonly folder: string;
  readonly socket: string;
  readonly #netns: string;
  readonly configFile: string;
  readonly #logFile: string;
  readonly #stateDir: string;
  readonly pinPath: string;
  #process: ChildProcess | undefined;

  constructor(scratch: Scratch, netns: string, settings: AgentSettings = {}) {
    this.#netns = netns;
    this.folder = scratch.folder(mkdtempSync(join(tmpdir(), `${netns}-`)));
    const bpffs = join(this.folder, 'bpf');
    mkdirSync(bpffs);
    sh(`mount -t bpf bpf ${bpffs}`);
    scratch.onClose(() => unmount(bpffs));
    // One that is killed leaves its socket where Docker looks for plugins.
    const { dockerPlugin = '' } = settings;
    if (typeof dockerPlugin === 'string' && dockerPlugin !== '')
      scratch.onClose(() => rmSync(dockerPlugin, { force: true }));
    this.socket = join(this.folder, 'run', 'sluice.sock');
    this.configFile = join(this.folder, 'agent.yaml');
    this.#logFile = join(this.folder, 'agent.log');
    const config = {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'AgentConfig',
      instance: netns.replace(/[^a-z0-9-]/g, '-').slice(0, 32),
      stateDir: join(this.folder, 'state'),
      runDir: join(this.folder, 'run'),
      pinPath: join(bpffs, 'sluice'),
      cgroupRoot: '',
      definitions: '',
      metricsAddress: '',
      ...settings,
    };
    this.#stateDir = config.stateDir;
    this.pinPath = config.pinPath;
    // JSON is YAML.
    writeFileSync(this.configFile, JSON.stringify(config, null, 2));
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /**
   * Starts the agent and waits until it is ready. `command`: what runs it, with its arguments. Throws with the agent's
   * last lines if it ends before, or is not ready in time.
   */
  async start(
    scratch: Scratch,
    options: { readonly command?: readonly string[]; readonly seconds?: number } = {},
  ): Promise<Status> {
    const { command = [], seconds = 60 } = options;
    const log = openSync(this.#logFile, 'a');
    const agent = spawn(
      'nsenter',
      [
        `--net=${netnsPath(this.#netns)}`,
        '--',
        ...command,
        'bin/sluice',
        'agent',
        '--config',
        this.configFile,
      ],
      { stdio: ['ignore', log, log] },
    );
    closeSync(log);
    this.#process = agent;
    scratch.onClose(() => {
      if (agent.exitCode === null && agent.signalCode === null) killAndWait(agent.pid);
      Expedite.restore(this.#stateDir); // nobody else comes after one that was killed
    });
    for (const deadline = Date.now() + seconds * 1000; ; ) {
      if (agent.exitCode !== null || Date.now() > deadline) {
        throw new Error(`the agent did not start:\n${this.log().trim().split('\n').slice(-8).join('\n')}`);
      }
      try {
        const status = await this.status();
        if (status.state !== 'starting') return status;
      } catch {
        // not listening yet
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Ends the agent without giving it a chance to do anything, and waits until it is gone. */
  async kill(): Promise<void> {
    const agent = this.#process;
    if (agent === undefined || agent.exitCode !== null || agent.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => agent.once('exit', () => resolve()));
    agent.kill('SIGKILL');
    await gone;
  }

  /** Waits until the agent has ended by itself; false if it has not within five seconds. */
  async ended(): Promise<boolean> {
    const agent = this.#process;
    for (const deadline = Date.now() + 5000; Date.now() < deadline; ) {
      if (agent === undefined || agent.exitCode !== null || agent.signalCode !== null) return true;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return false;
  }

  /** What the agent wrote to its log. */
  log(): string {
    return readFileSync(this.#logFile, 'utf8');
  }

  status(): Promise<Status> {
    return this.#call<Status>('GET', '/v1/status');
  }

  /** The objects of a listing, as text. */
  async list(name: ListingName): Promise<string> {
    return JSON.stringify((await this.#call<Listing>('GET', `/v1/list/${name}`)).objects);
  }

  /** What `sluice explain` says; the query is that of /v1/explain. Throws with the agent's own line if it has none. */
  async explain(query: Readonly<Record<string, string>>): Promise<Explanation> {
    const path = `/v1/explain?${new URLSearchParams(query).toString()}`;
    const answer = await this.#call<Explanation | { errors: readonly { message: string }[] }>('GET', path);
    if ('errors' in answer) throw new Error(answer.errors.map(({ message }) => message).join('\n'));
    return answer;
  }

  /** The latest drops, oldest first. */
  async drops(limit: number): Promise<DropEvent[]> {
    const lines = (await this.#text('GET', `/v1/drops?limit=${limit}`)).split('\n');
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as DropEvent);
  }

  /** Applies definitions; throws with every line if they are refused. */
  apply(text: string, file = 'definitions.yaml'): Promise<ApplyResult & { readonly ok: true }> {
    return this.#change('/v1/apply', text, file);
  }

  /** Deletes the objects that the documents name; throws with every line if that is refused. */
  delete(text: string, file = 'definitions.yaml'): Promise<ApplyResult & { readonly ok: true }> {
    return this.#change('/v1/delete', text, file);
  }

  async #change(path: string, text: string, file: string): Promise<ApplyResult & { readonly ok: true }> {
    const result = await this.#call<ApplyResult>('POST', path, { sources: [{ file, text }] });
    if (result.ok) return result;
    throw new Error(
      result.errors.map(({ message, line, field }) => `${file}:${line}: ${field}: ${message}`).join('\n'),
    );
  }

  /** Any other request of the API; throws with every line of a refusal. */
  async request<T>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await this.#call<T | { errors: readonly { message: string; code: string }[] }>(
      method,
      path,
      body,
    );
    if (typeof answer === 'object' && answer !== null && 'errors' in answer)
      throw new Error(answer.errors.map(({ message, code }) => `${message} (${code})`).join('\n'));
    return answer;
  }

  /** Runs the CLI against this agent and returns what it printed. */
  cli(...args: readonly string[]): string {
    return run(process.execPath, ['bin/sluice', ...args], { env: { SLUICE_SOCKET: this.socket } });
  }

  /** Removes everything from the kernel and waits for the end of the agent. */
  async down(): Promise<void> {
    const agent = this.#process;
    await this.#call('POST', '/v1/down');
    if (agent !== undefined && agent.exitCode === null) {
      await new Promise<void>((resolve) => agent.once('exit', () => resolve()));
    }
  }

  async #call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const text = await this.#text(method, path, body);
    try {
      return JSON.parse(text) as T;
    } catch {
      throw new Error(`${method} ${path}: the answer is not JSON`);
    }
  }

  #text(method: string, path: string, body?: unknown): Promise<string> {
    return new Promise<string>((resolve, reject) => {
      const options = { socketPath: this.socket, method, path, timeout: 60_000, agent: false } as const;
      const call = request(options, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
      });
      call.on('error', reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}
