import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { SluiceError } from '../../policy/errors.js';
import { reasonOf } from '../http/api.js';
import type { Logger } from '../log.js';
import { type Check, checkLines, type Health } from './health.js';
import { parseHostPort } from './host-port.js';
import type { Metrics } from './metrics.js';

/** Serves /metrics, /healthz, /readyz and /livez. It listens before the engine exists, so a taken port is known first. */
export class MetricsServer {
  readonly #server: Server;
  readonly #metrics: Metrics;
  readonly #health: Health;
  readonly #log: Logger;

  private constructor(metrics: Metrics, health: Health, log: Logger) {
    this.#metrics = metrics;
    this.#health = health;
    this.#log = log;
    this.#server = createServer((request, response) => void this.#answer(request, response));
    this.#server.headersTimeout = 10_000;
    this.#server.requestTimeout = 10_000;
    this.#server.maxConnections = 64;
  }

  /** Throws SLU2105 (address in use) or SLU2106. */
  static async listen(
    address: string,
    metrics: Metrics,
    health: Health,
    log: Logger,
  ): Promise<MetricsServer> {
    const at = parseHostPort(address);
    if (at === undefined) throw SluiceError.of('SLU2106', { address, reason: 'not host:port' });
    const self = new MetricsServer(metrics, health, log);
    await new Promise<void>((resolve, reject) => {
      self.#server.once('error', (error: NodeJS.ErrnoException) => {
        reject(
          error.code === 'EADDRINUSE'
            ? SluiceError.of('SLU2105', { address })
            : SluiceError.of('SLU2106', { address, reason: reasonOf(error) }),
        );
      });
      self.#server.listen({ host: at.host, port: at.port, exclusive: true }, resolve);
    });
    self.#server.removeAllListeners('error');
    self.#server.on('error', (err) => log.error({ err }, 'metrics server'));
    return self;
  }

  /** The address that it listens on, with the port that was chosen if the setting's port is 0. */
  get address(): string {
    const { address, port, family } = this.#server.address() as AddressInfo;
    return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const path = (request.url ?? '/').split('?', 1)[0];
      if (path === undefined || !PATHS.includes(path)) {
        reply(response, 404, `not found: try ${PATHS.join(', ')}\n`);
      } else if (request.method !== 'GET' && request.method !== 'HEAD') {
        response.setHeader('allow', 'GET, HEAD');
        reply(response, 405, 'method not allowed\n');
      } else if (path === '/healthz') {
        const healthy = this.#health.ready().every(({ ok }) => ok);
        reply(response, healthy ? 200 : 503, healthy ? 'ok\n' : 'not ready\n');
      } else if (path === '/readyz' || path === '/livez') {
        const checks: readonly Check[] = path === '/readyz' ? this.#health.ready() : this.#health.alive();
        reply(response, checks.every(({ ok }) => ok) ? 200 : 503, checkLines(checks));
      } else {
        reply(response, 200, await this.#metrics.scrape(), this.#metrics.contentType);
      }
    } catch (err) {
      this.#log.error({ err }, 'metrics could not be read');
      if (response.headersSent) response.destroy();
      else reply(response, 500, "the metrics could not be read; the agent's log has more\n");
    }
  }
}

const PATHS = ['/metrics', '/healthz', '/readyz', '/livez'];

function reply(
  response: ServerResponse,
  status: number,
  body: string,
  type = 'text/plain; charset=utf-8',
): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}
