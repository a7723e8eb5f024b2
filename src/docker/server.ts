import { mkdirSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { SluiceError } from '../../policy/errors.js';
import { asSluiceError, reasonOf } from '../http/api.js';
import { readBody } from '../http/body.js';
import { listenPrivately } from '../http/socket.js';
import type { Logger } from '../log.js';
import type { DockerDriver } from './driver.js';
import type { DockerIpam } from './ipam.js';
import { programOf } from './peer.js';
import {
  createEndpoint,
  createNetwork,
  endpointId,
  external,
  join,
  networkId,
  parseRequest,
  poolId,
  releaseAddress,
  requestAddress,
  requestPool,
} from './requests.js';

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.1+json';
/** Docker's requests are small; the largest have a few thousand published ports. */
const MAX_BODY = 4 << 20;
const ADDRESS_TYPE = 'RequestAddressType';
const GATEWAY = 'com.docker.network.gateway';
const ADDRESS_SPACE = { LocalDefaultAddressSpace: 'sluice', GlobalDefaultAddressSpace: 'sluice-global' };

type Handler = (body: unknown, peer: Socket) => Promise<object> | object;

/** The plugin's side of Docker's protocol (moby, docs/extend/plugin_api.md): POST with JSON, on a Unix socket. */
export class DockerServer {
  readonly #server: Server;
  readonly #log: Logger;
  readonly #handlers: Readonly<Record<string, Handler>>;

  private constructor(driver: DockerDriver, ipam: DockerIpam, log: Logger) {
    this.#log = log;
    this.#handlers = handlers(driver, ipam);
    this.#server = createServer((request, response) => void this.#handle(request, response));
    this.#server.headersTimeout = 10_000;
    this.#server.requestTimeout = 60_000;
    this.#server.keepAliveTimeout = 60_000;
    this.#server.maxConnections = 256;
  }

  /**
   * Serves on a socket in Docker's folder of plugins; its name there is the name of the driver.
   * Throws SLU2104, SLU2106, SLU2108.
   */
  static async listen(
    path: string,
    driver: DockerDriver,
    ipam: DockerIpam,
    log: Logger,
  ): Promise<DockerServer> {
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    } catch (error) {
      throw SluiceError.of('SLU2106', { address: path, reason: reasonOf(error) });
    }
    const self = new DockerServer(driver, ipam, log);
    await listenPrivately(self.#server, path);
    self.#server.on('error', (err) => log.error({ err }, 'Docker plugin'));
    driver.reconcile(basename(path, '.sock'));
    return self;
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '/';
    try {
      const handler = Object.hasOwn(this.#handlers, path) ? this.#handlers[path] : undefined;
      if (handler === undefined || request.method !== 'POST') {
        request.resume();
        send(response, 404, { Err: SluiceError.of('SLU2401', { path }).toLine() });
        return;
      }
      const body = parseBody(await readBody(request, MAX_BODY));
      send(response, 200, await handler(body, request.socket));
    } catch (error) {
      if (request.destroyed && !request.complete) return; // Docker went away
      if (!(error instanceof SluiceError))
        this.#log.error({ err: error, path }, 'a request of Docker failed');
      const known = asSluiceError(error);
      this.#log.warn({ path }, known.toLine());
      request.resume();
      // The network driver reads Err, the IPAM driver Error.
      // Place and field are those of an object that Docker's user did not write.
      const line = `${known.message} (${known.code})`;
      send(response, 200, { Err: line, Error: line });
    }
  }
}

function handlers(driver: DockerDriver, ipam: DockerIpam): Readonly<Record<string, Handler>> {
  const nothing = (): object => ({});
  return {
    '/Plugin.Activate': (_, peer) => {
      driver.activate(programOf(peer));
      return { Implements: ['NetworkDriver', 'IpamDriver'] };
    },

    '/NetworkDriver.GetCapabilities': () => ({ Scope: 'local', ConnectivityScope: 'local' }),
    '/NetworkDriver.CreateNetwork': async (body) => {
      await driver.createNetwork(parseRequest(createNetwork, body));
      return {};
    },
    '/NetworkDriver.DeleteNetwork': async (body) => {
      await driver.deleteNetwork(parseRequest(networkId, body).NetworkID);
      return {};
    },
    '/NetworkDriver.CreateEndpoint': async (body) => ({
      Interface: await driver.createEndpoint(parseRequest(createEndpoint, body)),
    }),
    '/NetworkDriver.DeleteEndpoint': async (body) => {
      await driver.deleteEndpoint(parseRequest(endpointId, body));
      return {};
    },
    '/NetworkDriver.EndpointOperInfo': (body) => {
      driver.joined(parseRequest(endpointId, body));
      return { Value: {} };
    },
    '/NetworkDriver.Join': (body) => driver.join(parseRequest(join, body)),
    '/NetworkDriver.Leave': async (body) => {
      await driver.leave(parseRequest(endpointId, body));
      return {};
    },
    '/NetworkDriver.ProgramExternalConnectivity': async (body) => {
      await driver.publish(parseRequest(external, body));
      return {};
    },
    '/NetworkDriver.RevokeExternalConnectivity': async (body) => {
      await driver.unpublish(parseRequest(endpointId, body));
      return {};
    },
    '/NetworkDriver.DiscoverNew': nothing,
    '/NetworkDriver.DiscoverDelete': nothing,

    '/IpamDriver.GetCapabilities': () => ({ RequiresMACAddress: false, RequiresRequestReplay: false }),
    '/IpamDriver.GetDefaultAddressSpaces': () => ADDRESS_SPACE,
    '/IpamDriver.RequestPool': (body) => {
      const { Pool, SubPool, Options, V6 } = parseRequest(requestPool, body);
      const network = Options.network;
      const more = typeof network === 'string' ? { network } : {};
      const pool = ipam.requestPool({ cidr: Pool, range: SubPool, v6: V6, ...more });
      return { PoolID: pool.id, Pool: pool.cidr, Data: {} };
    },
    '/IpamDriver.ReleasePool': (body) => {
      ipam.releasePool(parseRequest(poolId, body).PoolID);
      return {};
    },
    '/IpamDriver.RequestAddress': async (body) => {
      const { PoolID, Address, Options } = parseRequest(requestAddress, body);
      await ipam.restorePool(PoolID);
      return { Address: ipam.requestAddress(PoolID, Address, Options[ADDRESS_TYPE] === GATEWAY), Data: {} };
    },
    '/IpamDriver.ReleaseAddress': (body) => {
      const { PoolID, Address } = parseRequest(releaseAddress, body);
      ipam.releaseAddress(PoolID, Address);
      return {};
    },
  };
}

/** Docker sends no body where a request has no fields. Throws SLU5202. */
function parseBody(body: Buffer): unknown {
  if (body.length === 0) return {};
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    throw SluiceError.of('SLU5202', { reason: 'the body is not JSON in UTF-8' });
  }
}

function send(response: ServerResponse, status: number, value: object): void {
  if (response.destroyed || response.headersSent) return;
  const body = JSON.stringify(value);
  response.writeHead(status, { 'content-type': CONTENT_TYPE, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}
