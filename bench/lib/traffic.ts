import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { netnsPath } from './netns.js';

/** Modes that print "ready" before they begin. */
const SAY_READY = ['udp-sink', 'tcp-server', 'tcp-clients'];

let tool: string | undefined;

/** Compiles test/tools/traffic.c, which makes and counts the traffic. */
function trafficTool(): string {
  if (tool === undefined) {
    mkdirSync(join('build', 'bench'), { recursive: true });
    tool = join('build', 'bench', 'traffic');
    execFileSync('gcc', ['-O2', '-o', tool, join('test', 'tools', 'traffic.c')], { stdio: 'pipe' });
  }
  return tool;
}

/**
 * Where traffic is made: on one CPU before all else that runs there, or, as packets from a wire do, also before that
 * (`interrupts`).
 */
export interface Place {
  readonly netns: string;
  readonly cpu: number;
  readonly interrupts?: boolean;
}

/** Starts it, with the arguments that stand in its source. `done`: the line of JSON that it ends with. */
export async function start(
  { netns, cpu, interrupts = false }: Place,
  mode: string,
  ...args: readonly (string | number)[]
): Promise<{ readonly pid: number; readonly done: Promise<string> }> {
  const child = spawn(
    'nsenter',
    [
      `--net=${netnsPath(netns)}`,
      'taskset',
      '-c',
      String(cpu),
      ...(interrupts ? ['chrt', '-f', '1'] : ['nice', '-n', '-20']),
      trafficTool(),
      mode,
      ...args.map(String),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let output = '';
  const ready = new Promise<void>((resolve, reject) => {
    child.once('exit', () => reject(new Error(`traffic ${mode} ended: ${output}`)));
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (output.includes('ready\n')) resolve();
    });
  });
  ready.catch(() => undefined);
  const done = new Promise<string>((resolve) => {
    child.once('close', () => resolve(output.trim().split('\n').at(-1) ?? ''));
  });
  if (SAY_READY.includes(mode)) await ready;
  return { pid: child.pid ?? 0, done };
}
