import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './command.js';

/** One run of a program. */
export interface Launched {
  readonly milliseconds: number;
  readonly status: number;
  readonly output: string;
}

const HEADER = 16;

/**
 * Starts programs from a small process (bench/tools/launch.c) and measures them there: starting one from Node costs
 * more than some of them take. One at a time.
 */
export class Launcher {
  readonly #child: ChildProcess;
  #received = Buffer.alloc(0);
  #waiting: ((result: Launched) => void) | undefined;

  /** Compiles the tool. Returns its path. */
  static build(): string {
    const folder = join('build', 'bench');
    mkdirSync(folder, { recursive: true });
    const tool = join(folder, 'launch');
    run('gcc', ['-O2', '-Wall', '-Wextra', '-o', tool, 'bench/tools/launch.c']);
    return tool;
  }

  constructor(tool: string) {
    this.#child = spawn(tool, [], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdout?.on('data', (chunk: Buffer) => this.#receive(chunk));
  }

  launch(path: string, environment: Readonly<Record<string, string>>, input: string): Promise<Launched> {
    const parts = [
      path,
      Object.entries(environment)
        .map(([name, value]) => `${name}=${value}\0`)
        .join(''),
      input,
    ].map((text) => Buffer.from(text));
    const header = Buffer.alloc(12);
    parts.forEach((part, i) => {
      header.writeUInt32LE(part.length, i * 4);
    });
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#child.stdin?.write(Buffer.concat([header, ...parts]));
    });
  }

  close(): void {
    this.#child.kill();
  }

  #receive(chunk: Buffer): void {
    this.#received = Buffer.concat([this.#received, chunk]);
    if (this.#received.length < HEADER) return;
    const length = this.#received.readUInt32LE(12);
    if (this.#received.length < HEADER + length) return;
    const result = {
      milliseconds: Number(this.#received.readBigUInt64LE(0)) / 1e6,
      status: this.#received.readUInt32LE(8),
      output: this.#received.toString('utf8', HEADER, HEADER + length),
    };
    this.#received = this.#received.subarray(HEADER + length);
    this.#waiting?.(result);
  }
}
