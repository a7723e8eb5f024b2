import { createServer, type Server } from 'node:http';
import { isIPv6, type Socket } from 'node:net';
import { SluiceError } from '../../policy/errors.js';
import type { IpFamily } from '../../policy/model/service.js';
import type { Logger } from '../log.js';

/** Ready backends on this node of a service that has a health check port. */
export interface HealthCheck {
  readonly namespace: string;
  readonly name: string;
  readonly port: number;
  /** By family of the service: a backend with two addresses is one in each. */
  readonly endpoints: ReadonlyMap<IpFamily, number>;
}

/**
 * Answers on the health check ports of services with externalTrafficPolicy Local, as kube-proxy does: 200 where the
 * node has a ready backend of the family that is asked, else 503, and the numbers as JSON. A terminating backend does not
 * count.
 */
export class HealthPorts {
  readonly #log: Logger;
  readonly #serves: (address: string) => boolean;
  readonly #servers = new Map<
    string,
    { readonly port: number; readonly server: Server; check: HealthCheck }
  >();
  readonly problems = new Map<string, SluiceError>();

  /** `serves`: whether node ports are served on an address of the host. */
  constructor(log: Logger, serves: (address: string) => boolean) {
    this.#log = log;
    this.#serves = serves;
  }

  /** Sets or (undefined) closes the port of a service. */
  set(key: string, check: HealthCheck | undefined): void {
    const open = this.#servers.get(key);
    if (open !== undefined && open.port === check?.port) {
      open.check = check;
      return;
    }
    open?.server.close();
    open?.server.closeAllConnections();
    this.#servers.delete(key);
    this.problems.delete(key);
    if (check !== undefined) this.#open(key, check);
  }

  close(): void {
    for (const key of [...this.#servers.keys()]) this.set(key, undefined);
  }

  #open(key: string, check: HealthCheck): void {
    const server = createServer(({ socket }, response) => {
      const { namespace, name, endpoints } = this.#servers.get(key)?.check ?? check;
      const asked = isIPv6(addressOf(socket)) ? 6 : 4;
      const count = endpoints.get(asked) ?? Math.max(0, ...endpoints.values());
      const body = { service: { namespace, name }, localEndpoints: count, serviceProxyHealthy: true };
      const text = `${JSON.stringify(body)}\n`;
      response.writeHead(count > 0 ? 200 : 503, {
        'Content-Type': 'application/json',
        'Content-Length': String(text.length),
        'X-Content-Type-Options': 'nosniff',
        'X-Load-Balancing-Endpoint-Weight': String(count),
      });
      response.end(text);
    });
    server.on('connection', (socket) => {
      if (!this.#serves(addressOf(socket))) socket.resetAndDestroy();
    });
    server.on('error', (error) => {
      const problem = SluiceError.of('SLU3602', { port: check.port, service: key, reason: error.message });
      this.problems.set(key, problem);
      this.#log.error(problem.toLine());
    });
    server.keepAliveTimeout = 1000;
    server.listen(check.port); // both families, or the only one of the host
    server.unref();
    this.#servers.set(key, { port: check.port, server, check });
  }
}

/** The address of this host that was asked. */
function addressOf(socket: Socket): string {
  return socket.localAddress?.replace(/^::ffff:/, '') ?? '::';
}
