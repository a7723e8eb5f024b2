import { request as httpRequest, type IncomingMessage } from 'node:http';
import { SluiceError } from '../../policy/errors.js';
import type { ErrorLine } from '../engine.js';
import { MAX_BODY, reasonOf } from '../http/api.js';
import { RefusedError } from './io.js';

/** Milliseconds that the agent has for an answer that needs no work. */
const READ_TIMEOUT = 30_000;

/**
 * Requests to the agent's Unix socket. Every method throws SLU2201 when nobody listens, SLU2202 when
 * the user may not connect, SLU2203 or SLU2204 when the answer does not come or makes no sense, and
 * RefusedError with the agent's own errors when it refuses.
 */
export class AgentClient {
  readonly socket: string;

  constructor(socket: string) {
    this.socket = socket;
  }

  async get<T>(path: string): Promise<T> {
    return this.#parse<T>(await this.#send('GET', path, undefined, READ_TIMEOUT));
  }

  /** Changes take as long as they take. */
  async post<T>(path: string, body: unknown = {}): Promise<T> {
    return this.#parse<T>(await this.#send('POST', path, Buffer.from(JSON.stringify(body)), 0));
  }

  /** The records of a stream (application/x-ndjson), until it ends or the loop is left. */
  async stream<T>(path: string): Promise<AsyncIterable<T>> {
    const response = await this.#send('GET', path, undefined, 0);
    if (response.statusCode !== 200) await this.#parse(response);
    return this.#records<T>(response);
  }

  async *#records<T>(response: IncomingMessage): AsyncGenerator<T> {
    const chunks = response.setEncoding('utf8')[Symbol.asyncIterator]() as AsyncIterableIterator<string>;
    let rest = '';
    try {
      for (;;) {
        const next = await chunks.next().catch((error: unknown) => {
          throw this.#failure(error);
        });
        if (next.done === true) break;
        const lines = (rest + next.value).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) yield this.#json<T>(line);
      }
    } finally {
      response.destroy();
    }
  }

  #send(method: string, path: string, body: Buffer | undefined, timeout: number): Promise<IncomingMessage> {
    if (body !== undefined && body.length > MAX_BODY) throw SluiceError.of('SLU2403', { limit: MAX_BODY });
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        socketPath: this.socket,
        method,
        path,
        timeout,
        agent: false,
        headers:
          body === undefined ? {} : { 'content-type': 'application/json', 'content-length': body.length },
      });
      request.once('timeout', () => request.destroy(new Error(`no answer within ${timeout / 1000} s`)));
      request.once('error', (error) => reject(this.#failure(error)));
      request.once('response', resolve);
      request.end(body);
    });
  }

  async #parse<T>(response: IncomingMessage): Promise<T> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
    } catch (error) {
      throw this.#failure(error);
    }
    const value = this.#json<T & { readonly errors?: unknown }>(Buffer.concat(chunks).toString('utf8'));
    if ((response.statusCode ?? 0) < 400) return value;
    if (Array.isArray(value.errors) && value.errors.length > 0)
      throw new RefusedError(value.errors as ErrorLine[]);
    throw SluiceError.of('SLU2204', { socket: this.socket, reason: `status ${response.statusCode}` });
  }

  #json<T>(text: string): T {
    try {
      const value: unknown = JSON.parse(text);
      if (typeof value === 'object' && value !== null) return value as T;
    } catch {
      // Falls through to the same error.
    }
    throw SluiceError.of('SLU2204', { socket: this.socket, reason: 'not JSON' });
  }

  #failure(error: unknown): SluiceError {
    const { socket } = this;
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (['ENOENT', 'ECONNREFUSED', 'ENOTDIR'].includes(code)) return SluiceError.of('SLU2201', { socket });
    if (['EACCES', 'EPERM'].includes(code)) return SluiceError.of('SLU2202', { socket });
    return SluiceError.of('SLU2203', {
      socket,
      reason: code === 'ECONNRESET' ? 'the agent went away' : reasonOf(error),
    });
  }
}
