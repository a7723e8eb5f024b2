/** Requests to the API server over node's own HTTP client. */
import { Agent, type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest, Agent as TlsAgent } from 'node:https';
import { SluiceError } from '../../policy/errors.js';
import { version } from '../version.js';
import { Outage } from './backoff.js';
import type { ClusterAccess, TlsMaterial } from './credentials.js';

/** An answer other than 2xx, with what the server's Status object says. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  /** Machine-readable, such as `Expired` or `AlreadyExists`; '' if the server gave none. */
  readonly reason: string;
  /** Milliseconds that the server asks to wait. */
  readonly retryAfter: number | undefined;
  readonly what: string;

  constructor(what: string, status: number, reason: string, message: string, retryAfter?: number) {
    super(message);
    this.what = what;
    this.status = status;
    this.reason = reason;
    this.retryAfter = retryAfter;
  }

  /** The resource version or the continuation is too old: only a new list helps. */
  get expired(): boolean {
    return this.status === 410 || this.reason === 'Expired' || this.reason === 'Gone';
  }

  toSluiceError(): SluiceError {
    return SluiceError.of('SLU6205', { status: this.status, what: this.what, reason: this.message });
  }
}

export interface ApiRequest {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** From the root of the API: `/api/v1/pods`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  /** The connection is given up when nothing has come for so long. */
  readonly idleMs?: number;
}

const IDLE_MS = 30_000;
/** For the connection to be made: without a limit of ours, attempts that nobody answers come ever more rarely. */
const CONNECT_MS = 5000;
/** A server that vanished without a word is noticed after about this and ten seconds more. */
const KEEP_ALIVE_MS = 15_000;
const MAX_BODY = 16 * 1024 * 1024;
/** Connections of one agent: one for each watch, and a few for everything else. */
const MAX_SOCKETS = 32;

/** A client of one API server. Throws ApiError for answers that are errors, SluiceError if none came. */
export class ApiClient {
  /** For those that wait because the server can't be reached. */
  readonly outage = new Outage();
  readonly #access: ClusterAccess;
  readonly #base: string;
  #tls: TlsMaterial | undefined;
  #agent: Agent | undefined;

  constructor(access: ClusterAccess) {
    this.#access = access;
    this.#base = access.server.pathname.replace(/\/$/, '');
  }

  get server(): string {
    return this.#access.server.origin;
  }

  close(): void {
    this.#agent?.destroy();
  }

  /** Sends a request and reads the answer's object. */
  async json<T>(request: ApiRequest): Promise<T> {
    const chunks: Buffer[] = [];
    let size = 0;
    await this.stream(request, (chunk) => {
      size += chunk.length;
      if (size > MAX_BODY)
        throw SluiceError.of('SLU6208', { what: describe(request), reason: 'it is too large' });
      chunks.push(chunk);
    });
    const text = Buffer.concat(chunks).toString('utf8');
    try {
      return (text === '' ? undefined : JSON.parse(text)) as T;
    } catch (error) {
      throw SluiceError.of('SLU6208', { what: describe(request), reason: (error as Error).message });
    }
  }

  /** Sends a request and hands over the answer piece by piece. Resolves at its end. What `onChunk` throws ends it. */
  stream(request: ApiRequest, onChunk: (chunk: Buffer) => void): Promise<void> {
    const { method = 'GET', path, query = {}, body, signal, idleMs = IDLE_MS } = request;
    const what = describe(request);
    return new Promise<void>((resolve, reject) => {
      let settled = false;
      let outgoing: ClientRequest | undefined;
      const onAbort = (): void => void outgoing?.destroy(new Error('given up'));
      const finish = (error?: unknown): void => {
        if (settled) return;
        settled = true;
        signal?.removeEventListener('abort', onAbort);
        if (error === undefined) resolve();
        else reject(error instanceof Error ? error : new Error('unknown'));
        if (error !== undefined) outgoing?.destroy();
      };
      const unreachable = (error: Error): void =>
        finish(
          error instanceof SluiceError || error instanceof ApiError
            ? error
            : SluiceError.of('SLU6206', { server: this.server, reason: reasonFor(error) }),
        );
      try {
        const authorization = this.#access.authorization();
        const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
        const search = new URLSearchParams(query).toString();
        outgoing = this.#open({
          method,
          path: `${this.#base}${path}${search === '' ? '' : `?${search}`}`,
          headers: {
            accept: 'application/json',
            'user-agent': `sluice/${version()}`,
            ...(authorization === undefined ? {} : { authorization }),
            ...(payload === undefined
              ? {}
              : {
                  'content-type': request.contentType ?? 'application/json',
                  'content-length': String(payload.length),
                }),
          },
        });
        if (signal?.aborted === true) throw new Error('given up');
        signal?.addEventListener('abort', onAbort);
        const silent = (ms: number): void =>
          finish(SluiceError.of('SLU6207', { server: this.server, seconds: Math.round(ms / 1000) }));
        let patience = Math.min(idleMs, IDLE_MS);
        outgoing.setTimeout(patience, () => silent(patience));
        outgoing.on('error', unreachable);
        outgoing.on('socket', (socket) => {
          if (!socket.connecting) return;
          const timer = setTimeout(() => silent(CONNECT_MS), CONNECT_MS);
          socket.once('connect', () => socket.setKeepAlive(true, KEEP_ALIVE_MS));
          for (const event of ['connect', 'close']) socket.once(event, () => clearTimeout(timer));
        });
        outgoing.on('response', (response) => {
          response.on('error', unreachable);
          response.on('aborted', () => unreachable(new Error('the connection was cut')));
          const status = response.statusCode ?? 0;
          if (status < 200 || status >= 300) {
            readError(what, response).then(finish, unreachable);
            return;
          }
          this.outage.over();
          // Once it has begun, an answer may take its time: watches are silent for long.
          if (idleMs > patience) {
            patience = idleMs;
            outgoing?.setTimeout(patience);
          }
          response.on('data', (chunk: Buffer) => {
            if (settled) return;
            try {
              onChunk(chunk);
            } catch (error) {
              finish(error);
            }
          });
          response.on('end', () => finish());
        });
        outgoing.end(payload);
      } catch (error) {
        finish(error instanceof SluiceError ? error : new Error(String(error)));
      }
    });
  }

  #open(options: {
    readonly method: string;
    readonly path: string;
    readonly headers: Record<string, string>;
  }): ClientRequest {
    const { hostname, port, protocol } = this.#access.server;
    const host = hostname.replace(/^\[|\]$/g, '');
    const secure = protocol === 'https:';
    const target = { ...options, host, port: port === '' ? (secure ? 443 : 80) : Number(port) };
    if (!secure) {
      this.#agent ??= new Agent({ keepAlive: true, maxSockets: MAX_SOCKETS });
      return httpRequest({ ...target, agent: this.#agent });
    }
    const tls = this.#access.tls();
    if (this.#agent === undefined || !sameTls(this.#tls, tls)) {
      const { ca, cert, key, servername, insecure } = tls;
      this.#tls = tls;
      // Requests under way keep the old one until they end.
      this.#agent = new TlsAgent({
        keepAlive: true,
        maxSockets: MAX_SOCKETS,
        rejectUnauthorized: !insecure,
        minVersion: 'TLSv1.2',
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
        ...(servername === undefined ? {} : { servername }),
      });
    }
    return httpsRequest({ ...target, agent: this.#agent as TlsAgent });
  }
}

function sameTls(a: TlsMaterial | undefined, b: TlsMaterial): boolean {
  return a !== undefined && a.ca === b.ca && a.cert === b.cert && a.key === b.key;
}

function describe({ method = 'GET', path }: ApiRequest): string {
  return `${method} ${path}`;
}

/** Node's errors for several addresses have an empty message. */
function reasonFor(error: Error & { readonly code?: string }): string {
  return error.message !== '' ? error.message : (error.code ?? 'unknown');
}

async function readError(what: string, response: IncomingMessage): Promise<ApiError> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= 65_536) chunks.push(chunk);
  }
  const text = Buffer.concat(chunks).toString('utf8');
  const status = response.statusCode ?? 0;
  const header = Number(response.headers['retry-after']);
  const retryAfter = Number.isFinite(header) && header >= 0 ? header * 1000 : undefined;
  try {
    return statusError(what, JSON.parse(text), status, retryAfter);
  } catch {
    return new ApiError(what, status, '', text.trim().split('\n')[0] ?? '', retryAfter);
  }
}

/** The error that a Status object of the API stands for (meta/v1 Status). */
export function statusError(what: string, given: unknown, status = 500, retryAfter?: number): ApiError {
  const { code, reason, message, details } = (given ?? {}) as {
    readonly code?: number;
    readonly reason?: string;
    readonly message?: string;
    readonly details?: { readonly retryAfterSeconds?: number };
  };
  const seconds = details?.retryAfterSeconds;
  const wait = retryAfter ?? (seconds === undefined ? undefined : seconds * 1000);
  return new ApiError(what, code ?? status, reason ?? '', message ?? 'no reason given', wait);
}
