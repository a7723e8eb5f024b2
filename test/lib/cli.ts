/** The command line without a process for each command: what `bin/sluice` runs, in the process of the test. */
import { Readable, Writable } from 'node:stream';
import { main } from '../../src/cli/main.js';

export interface Finished {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

class Text extends Writable {
  text = '';

  override _write(chunk: Buffer | string, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

/** Runs a command against the agent that listens on `socket`. */
export async function sluice(socket: string, args: readonly string[], input = ''): Promise<Finished> {
  const [stdout, stderr] = [new Text(), new Text()];
  const env = { ...process.env, SLUICE_SOCKET: socket };
  const code = await main(args, { stdin: Readable.from([input]), stdout, stderr, env });
  return { code, out: stdout.text, err: stderr.text };
}

/** The same; what it printed, or an Error with its own line. */
export async function mustSluice(socket: string, ...args: readonly string[]): Promise<string> {
  const { code, out, err } = await sluice(socket, args);
  if (code !== 0) throw new Error(`sluice ${args.join(' ')}: ${err.trim() || out.trim()}`);
  return out;
}
