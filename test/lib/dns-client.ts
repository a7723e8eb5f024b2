/** A process in a container's namespace that asks name servers, and sends them junk. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { netnsPath } from '../../bench/lib/netns.js';
import type { World } from '../e2e/world.js';

export interface Resolver {
  /** The answer as `RCODE data, data`, or `no answer` after a second. */
  ask(server: string, name: string, type: string, transport?: 'udp' | 'tcp'): Promise<string>;
  /**
   * Sends so many messages that are no questions, over UDP and over connections that stay open, and asks for a
   * name all the while: how many answers came, and after how many milliseconds (median).
   */
  flood(server: string, messages: number): Promise<{ readonly answers: number; readonly median: number }>;
}

export async function resolver(world: World, netns: string): Promise<Resolver> {
  const child = spawn(
    'nsenter',
    [`--net=${netnsPath(netns)}`, '--', process.execPath, 'test/tools/dns-client.cjs'],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  world.scratch.onClose(() => void child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout });
  const call = <T>(request: object): Promise<T> =>
    new Promise((resolve) => {
      lines.once('line', (line) => resolve(JSON.parse(line) as T));
      child.stdin.write(`${JSON.stringify(request)}\n`);
    });
  return {
    ask: (server, name, type, transport = 'udp') => call({ call: 'ask', server, name, type, transport }),
    flood: (server, messages) => call({ call: 'flood', server, messages }),
  };
}
