import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { SluiceError } from '../../policy/errors.js';
import type { SafeEngine } from '../change/safe.js';
import type { ApplyOptions } from '../change/types.js';
import { type ApplyResult, type Engine, type ErrorLine, LISTINGS, type Status } from '../engine.js';
import type { Logger } from '../log.js';
import { together } from '../state/error-lines.js';
import { type ApplyRequest, asSluiceError, type ErrorResponse, toErrorLine } from './api.js';
import { parseApplyRequest, readBody } from './body.js';
import { answerHistory, readAudit, readConfirm, readFlowQuery, readRollback, readSuggest } from './change.js';
import { streamDrops } from './drops.js';
import { readExplainRequest } from './explain.js';
import { listenPrivately } from './socket.js';

/** What the API needs of the agent around the engine. */
export interface ApiHost {
  readonly engine: Engine;
  /** Absent: this engine has no history, no flow log, and predicts nothing. */
  readonly safe?: SafeEngine;
  /** Definitions for all hosts that share an etcd; absent: this one shares none. */
  readonly shared?: {
    apply(sources: ApplyRequest['sources']): Promise<ApplyResult>;
    delete(sources: ApplyRequest['sources']): Promise<ApplyResult>;
  };
  readonly log: Logger;
  /** Problems that the engine does not know of, such as files that could not be read. */
  readonly problems: () => readonly ErrorLine[];
  /** Removes everything; called once, no change is accepted from then on. */
  readonly down: () => Promise<void>;
  /** Called when the answer to `down` has been sent (or its client is gone). */
  readonly stopped: () => void;
}

type Handler = (
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
) => Promise<void> | void;

/** The API that api.ts describes. Each request is handled on its own; no client waits for another. */
export class ApiServer {
  readonly #server: Server;
  readonly #host: ApiHost;
  readonly #routes: ReadonlyMap<string, Readonly<Record<string, Handler>>>;
  #stopping = false;

  private constructor(host: ApiHost) {
    this.#host = host;
    const { engine } = host;
    this.#routes = new Map<string, Readonly<Record<string, Handler>>>([
      [
        '/v1/apply',
        {
          POST: (request, response) =>
            this.#change(request, response, (sources, options) =>
              options.shared === true ? this.#shared().apply(sources) : engine.apply(sources, options),
            ),
        },
      ],
      [
        '/v1/delete',
        {
          POST: (request, response) =>
            this.#change(request, response, (sources, options) =>
              options.shared === true ? this.#shared().delete(sources) : engine.delete(sources, options),
            ),
        },
      ],
      ...this.#changeRoutes(host.safe),
      ['/v1/down', { POST: (_, response) => this.#down(response) }],
      ['/v1/status', { GET: (_, response) => sendJson(response, 200, this.#status()) }],
      ['/v1/drops', { GET: (_, response, query) => streamDrops(engine, response, query, host.safe) }],
      [
        '/v1/explain',
        {
          GET: async (_, response, query) =>
            sendJson(response, 200, await engine.explain(readExplainRequest(query))),
        },
      ],
      ...LISTINGS.map(
        (name) =>
          [
            `/v1/list/${name}`,
            {
              GET: async (_: IncomingMessage, response: ServerResponse) =>
                sendJson(response, 200, await engine.list(name)),
            },
          ] as const,
      ),
    ]);
    this.#server = createServer((request, response) => void this.#handle(request, response));
    this.#server.headersTimeout = 10_000;
    this.#server.requestTimeout = 60_000;
    this.#server.keepAliveTimeout = 5_000;
    this.#server.maxConnections = 1024;
  }

  /** Serves on a Unix socket of mode 0600. Throws SLU2104, SLU2106, SLU2108. */
  static async listen(path: string, host: ApiHost): Promise<ApiServer> {
    const self = new ApiServer(host);
    await listenPrivately(self.#server, path);
    self.#server.on('error', (err) => host.log.error({ err }, 'API server'));
    return self;
  }

  /** Refuses new changes, ends open streams and removes the socket. */
  async close(): Promise<void> {
    this.#stopping = true;
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const [path = '/', query] = (request.url ?? '/').split('?', 2);
      const methods = this.#routes.get(path);
      if (methods === undefined)
        return this.#fail(request, response, 404, SluiceError.of('SLU2401', { path }));
      const method = request.method ?? 'GET';
      const handler = Object.hasOwn(methods, method) ? methods[method] : undefined;
      if (handler === undefined) {
        const allowed = Object.keys(methods).join(', ');
        response.setHeader('allow', allowed);
        return this.#fail(request, response, 405, SluiceError.of('SLU2402', { method, path, allowed }));
      }
      await handler(request, response, new URLSearchParams(query));
    } catch (error) {
      if (request.destroyed && !request.complete) return; // the client went away
      const known = asSluiceError(error);
      if (!(error instanceof SluiceError))
        this.#host.log.error({ err: error, url: request.url }, 'API request failed');
      const status = STATUS_OF[known.code] ?? (UNANSWERABLE.test(known.code) ? 422 : 500);
      this.#fail(request, response, status, known);
    }
  }

  async #change(
    request: IncomingMessage,
    response: ServerResponse,
    run: (sources: ApplyRequest['sources'], options: ApplyOptions) => Promise<ApplyResult>,
  ): Promise<void> {
    const { sources, ...options } = parseApplyRequest(await readBody(request));
    if (this.#stopping) throw SluiceError.of('SLU2405', {});
    const result = await run(sources, options);
    sendJson(response, result.ok ? 200 : 422, result);
  }

  #shared(): NonNullable<ApiHost['shared']> {
    const { shared } = this.#host;
    if (shared === undefined) throw SluiceError.of('SLU6106', {});
    return shared;
  }

  #changeRoutes(safe: SafeEngine | undefined): [string, Readonly<Record<string, Handler>>][] {
    if (safe === undefined) return [];
    return [
      [
        '/v1/history',
        { GET: (_, response, query) => sendJson(response, 200, answerHistory(safe.changes, query)) },
      ],
      [
        '/v1/rollback',
        {
          POST: async (request, response) => {
            const { to, by } = await readRollback(request);
            if (this.#stopping) throw SluiceError.of('SLU2405', {});
            const result = await safe.changes.rollback(to, by);
            sendJson(response, result.ok ? 200 : 422, result);
          },
        },
      ],
      [
        '/v1/confirm',
        {
          POST: async (request, response) =>
            sendJson(response, 200, await safe.changes.confirm((await readConfirm(request)).by)),
        },
      ],
      [
        '/v1/flows',
        {
          GET: async (_, response, query) => sendJson(response, 200, await safe.flows(readFlowQuery(query))),
        },
      ],
      [
        '/v1/diff',
        {
          POST: async (request, response) => {
            const result = await safe.diff(parseApplyRequest(await readBody(request)).sources);
            sendJson(response, result.ok ? 200 : 422, result);
          },
        },
      ],
      [
        '/v1/audit',
        {
          GET: (_, response) => sendJson(response, 200, safe.audit()),
          POST: async (request, response) =>
            sendJson(response, 200, await safe.setAudit(await readAudit(request))),
        },
      ],
      [
        '/v1/suggest',
        {
          GET: async (_, response, query) => sendJson(response, 200, await safe.suggest(readSuggest(query))),
        },
      ],
    ];
  }

  async #down(response: ServerResponse): Promise<void> {
    if (this.#stopping) throw SluiceError.of('SLU2405', {});
    this.#stopping = true;
    const answered = new Promise<void>((resolve) => response.once('close', resolve));
    try {
      await this.#host.down();
      sendJson(response, 200, { ok: true });
    } finally {
      void answered.then(this.#host.stopped);
    }
  }

  #status(): Status {
    const status = this.#host.engine.status();
    const problems = together(status.problems, this.#host.problems());
    const state = status.state === 'ready' && problems.length > 0 ? 'degraded' : status.state;
    return { ...status, state, problems };
  }

  #fail(request: IncomingMessage, response: ServerResponse, status: number, error: SluiceError): void {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    // A body that nobody reads is thrown away; closing instead could cost the client this answer.
    request.resume();
    const body: ErrorResponse = { ok: false, errors: [toErrorLine(error)] };
    sendJson(response, status, body);
  }
}

const STATUS_OF: Readonly<Record<string, number>> = { SLU2403: 413, SLU2404: 400, SLU2405: 503 };
/** Questions of `explain` that have no answer, and changes that cannot be. */
const UNANSWERABLE = /^SLU(17|72|73)/;

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  if (response.destroyed) return;
  const body = Buffer.from(`${JSON.stringify(value)}\n`);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length });
  response.end(body);
}
