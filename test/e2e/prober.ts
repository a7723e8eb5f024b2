/** A process in a namespace that opens connections to order and answers those of others (test/tools/prober.py). */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { netnsPath } from '../../bench/lib/netns.js';
import type { World } from './world.js';

export interface Order {
  /** 1 to 65535, unique among those that are under way. */
  readonly id: number;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP' | 'ICMP';
  readonly address: string;
  readonly port: number;
}

/** What became of an order so far. */
export interface Outcome {
  sourcePort?: number;
  answered: boolean;
}

export class Prober {
  readonly outcomes = new Map<number, Outcome>();
  readonly #child: ChildProcessWithoutNullStreams;
  #rest = '';
  #errors = '';

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    child.stderr.on('data', (chunk: Buffer) => {
      this.#errors += chunk.toString();
    });
  }

  /** Starts it and waits until it serves these ports. */
  static async start(world: World, netns: string, ports: readonly number[]): Promise<Prober> {
    const args = [`--net=${netnsPath(netns)}`, '--', 'python3', 'test/tools/prober.py', ...ports.map(String)];
    const child = spawn('nsenter', args, { stdio: 'pipe' });
    world.scratch.onClose(() => void child.kill('SIGKILL'));
    const prober = new Prober(child);
    await new Promise<void>((resolve, reject) => {
      child.once('exit', () => reject(new Error(`the prober ended: ${prober.#errors}`)));
      child.stdout.on('data', (chunk: Buffer) => {
        if (prober.#take(chunk)) resolve();
      });
    });
    return prober;
  }

  begin(order: Order): void {
    this.outcomes.set(order.id, { answered: false });
    this.#child.stdin.write(`${JSON.stringify(order)}\n`);
  }

  /** Closes everything that is open and forgets all outcomes. */
  end(): void {
    this.outcomes.clear();
    this.#child.stdin.write('{"end":true}\n');
  }

  /** Takes lines of output; true if "ready" was among them. */
  #take(chunk: Buffer): boolean {
    const lines = (this.#rest + chunk.toString()).split('\n');
    this.#rest = lines.pop() ?? '';
    let ready = false;
    for (const line of lines) {
      if (line === 'ready') {
        ready = true;
        continue;
      }
      const { id, port, answered } = JSON.parse(line) as { id: number; port?: number; answered?: true };
      const outcome = this.outcomes.get(id);
      if (outcome === undefined) continue;
      if (port !== undefined) outcome.sourcePort = port;
      if (answered === true) outcome.answered = true;
    }
    return ready;
  }
}
