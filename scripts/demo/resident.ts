/**
 * A process inside one network namespace of the demo: real servers, and clients that the demo asks for over
 * the IPC channel. Arguments: its name, then the TCP ports that it serves (HTTP, both families).
 *
 *   GET /       one line: who answers, and who it thinks is asking
 *   GET /ticks  a number every 10 ms, for as long as the connection lives
 */
import { createServer, get, request } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What the demo asks. `port` and `address` are where to connect to. */
export type Order =
  | { readonly id: number; readonly kind: 'call'; readonly url: string; readonly timeoutMs: number }
  | { readonly id: number; readonly kind: 'stream'; readonly url: string }
  | { readonly id: number; readonly kind: 'ticks' };

/** What is known of the stream: numbers are those of the server, times CLOCK_MONOTONIC in milliseconds. */
export interface Ticks {
  readonly received: number;
  readonly last: number;
  readonly lastAt: number;
  /** Numbers that were skipped or came twice: 0 if the stream is whole. */
  readonly outOfOrder: number;
  readonly longestPauseMs: number;
  readonly closed: boolean;
}

export interface Answer {
  readonly id: number;
  readonly text?: string;
  /** Why there was no answer, such as ETIMEDOUT. */
  readonly error?: string;
  readonly ticks?: Ticks;
}

const TICK_MS = 10;

const now = (): number => Number(process.hrtime.bigint()) / 1e6;
const plain = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/, '');

const [name = '', ...ports] = process.argv.slice(2);
let ticks: Ticks = { received: 0, last: 0, lastAt: 0, outOfOrder: 0, longestPauseMs: 0, closed: true };

for (const port of ports.map(Number)) {
  const server = createServer((incoming, response) => {
    const { remoteAddress, remotePort } = incoming.socket;
    if (incoming.url !== '/ticks') {
      response.end(`${name} answers ${plain(remoteAddress)} port ${remotePort}`);
      return;
    }
    let number = 0;
    const timer = setInterval(() => {
      number += 1;
      response.write(`${number}\n`);
    }, TICK_MS);
    incoming.socket.on('error', () => {}).on('close', () => clearInterval(timer));
  });
  server.listen(port, '::', () => {
    process.send?.({ id: 0, text: `port ${(server.address() as AddressInfo).port}` } satisfies Answer);
  });
}
if (ports.length === 0) process.send?.({ id: 0, text: 'no port' } satisfies Answer);

function call(url: string, timeoutMs: number, done: (answer: Omit<Answer, 'id'>) => void): void {
  const asking = request(url, { agent: false, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    response.on('end', () => done({ text }));
  });
  asking.on('error', (error: NodeJS.ErrnoException) => done({ error: error.code ?? error.message }));
  asking.end();
}

function stream(url: string, done: (answer: Omit<Answer, 'id'>) => void): void {
  const update = (change: Partial<Ticks>): void => {
    ticks = { ...ticks, ...change };
  };
  const asking = get(url, { agent: false }, (response) => {
    update({ received: 0, last: 0, lastAt: now(), outOfOrder: 0, longestPauseMs: 0, closed: false });
    let rest = '';
    response.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      const at = now();
      const pause = Math.max(ticks.longestPauseMs, at - ticks.lastAt);
      for (const line of lines) {
        const number = Number(line);
        update({
          received: ticks.received + 1,
          outOfOrder: ticks.outOfOrder + (number === ticks.last + 1 ? 0 : 1),
          last: number,
        });
      }
      update({ lastAt: at, longestPauseMs: pause });
    });
    response.on('error', () => {}).on('close', () => update({ closed: true }));
    done({ text: 'open' });
  });
  asking.on('error', (error: NodeJS.ErrnoException) => {
    update({ closed: true });
    done({ error: error.code ?? error.message });
  });
}

process.on('message', (order: Order) => {
  const answer = (result: Omit<Answer, 'id'>): void => {
    process.send?.({ id: order.id, ...result } satisfies Answer);
  };
  if (order.kind === 'call') call(order.url, order.timeoutMs, answer);
  else if (order.kind === 'stream') stream(order.url, answer);
  else answer({ ticks });
});
process.on('disconnect', () => process.exit(0));
