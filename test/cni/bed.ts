/** An agent with the CNI plugin installed, and namespaces for containers. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AgentSettings } from '../../bench/lib/agent.js';
import { inside, netnsPath } from '../../bench/lib/netns.js';
import { World } from '../e2e/world.js';
import { type Json, type PluginAnswer, runPlugin, type Sandbox, variables } from './runtime.js';

export class CniBed {
  readonly world: World;
  /** Folder with the installed plugin, and with those that a test puts there. */
  readonly binDir: string;
  readonly confDir: string;
  readonly socket: string;
  /** What `sluice cni install` wrote. */
  installed: Json = {};
  readonly #free: string[] = [];
  #count = 0;

  constructor(prefix: string, settings: AgentSettings = {}) {
    this.world = new World(prefix, settings);
    const folder = this.world.scratch.folder(mkdtempSync(join(tmpdir(), `${prefix}-cni-`)));
    this.binDir = join(folder, 'bin');
    this.confDir = join(folder, 'net.d');
    mkdirSync(this.binDir);
    this.socket = join(this.world.agent.folder, 'run', 'cni.sock');
  }

  async start(subnet: string): Promise<void> {
    await this.world.agent.start(this.world.scratch);
    this.install('installed', '--subnet', subnet);
    this.installed = JSON.parse(readFileSync(join(this.confDir, '10-installed.conflist'), 'utf8')) as Json;
  }

  /** `sluice cni install` of a network configuration. */
  install(name: string, ...options: readonly string[]): void {
    const where = [
      '--config',
      this.world.agent.configFile,
      '--bin-dir',
      this.binDir,
      '--conf-dir',
      this.confDir,
    ];
    this.world.agent.cli('cni', 'install', ...where, '--name', name, ...options);
  }

  /** A namespace of a container; those that were given back are used again. */
  namespace(): string {
    const name = this.#free.pop() ?? this.world.container(`c${this.#count++}`);
    return netnsPath(name);
  }

  giveBack(path: string): void {
    this.#free.push(path.replace(/^.*\//, ''));
  }

  get plugin(): string {
    return join(this.binDir, 'sluice-cni');
  }

  /** A configuration of one plugin for a network of its own. */
  conf(name: string, subnet: string, more: Json = {}): Json {
    const ipam = { ranges: [[{ subnet }]] };
    return { cniVersion: '1.1.0', name, type: 'sluice-cni', socket: this.socket, ipam, ...more };
  }

  /** Runs the installed plugin. */
  call(command: string, conf: Json | string, sandbox: Sandbox): Promise<PluginAnswer> {
    const input = typeof conf === 'string' ? conf : JSON.stringify(conf);
    return runPlugin(this.plugin, variables(command, sandbox, this.binDir), input);
  }

  /** Puts a plugin of a test's own beside ours: a shell script. */
  script(name: string, text: string): void {
    writeFileSync(join(this.binDir, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }

  inside(path: string, command: string): string {
    return inside(path.replace(/^.*\//, ''), command);
  }

  close(): void {
    this.world.close();
  }
}
