import { type Agent, request } from 'node:http';

/** Largest answer that is read. */
const MAX_ANSWER = 64 << 20;

export interface UnixGet {
  readonly socket: string;
  readonly path: string;
  /** Milliseconds without a byte after which it fails. */
  readonly timeout: number;
  /** Connections to use again; default: one for this request. */
  readonly agent?: Agent;
}

/** GET over a Unix socket, of a container runtime's API. Rejects when there is no whole answer. */
export function unixGet({
  socket,
  path,
  timeout,
  agent,
}: UnixGet): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const call = request(
      { socketPath: socket, path, agent: agent ?? false, timeout, headers: { host: 'runtime' } },
      (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size > MAX_ANSWER) call.destroy(new Error('the answer is too large'));
          else chunks.push(chunk);
        });
        response.on('error', reject);
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') }),
        );
      },
    );
    call.on('timeout', () => call.destroy(new Error(`no answer within ${timeout / 1000} s`)));
    call.on('error', reject);
    call.end();
  });
}
