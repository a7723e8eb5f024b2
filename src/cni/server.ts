import { createServer, type Server, type Socket } from 'node:net';
import { yieldProcessor } from '../../loader/ffi/libc.js';
import { listenPrivately } from '../http/socket.js';
import type { Logger } from '../log.js';
import { CNI_CODE, CniError } from './errors.js';
import { handleNetavark, isNetavark } from './netavark.js';
import type { CniAnswer, CniService } from './service.js';
import { encodeAnswer, WireError, WireReader, type WireRequest } from './wire.js';

/** The plugin sends its request at once; who takes longer is none. */
const REQUEST_MS = 10_000;
/** Time to print the answer. */
const DELIVERY_MS = 10_000;
/** Connections that have not sent their request yet; the oldest goes when there are more. */
const MAX_INCOMPLETE = 512;
/** Bytes of requests that are not complete yet, all together. */
const MAX_BUFFERED = 32 * 1024 * 1024;

interface Incomplete {
  readonly reader: WireReader;
  readonly timer: NodeJS.Timeout;
}

/** The socket that the plugin connects to: one request and one answer a connection, each on its own. */
export class CniServer {
  readonly #server: Server;
  readonly #service: CniService;
  readonly #log: Logger;
  readonly #incomplete = new Map<Socket, Incomplete>();
  readonly #open = new Set<Socket>();
  readonly #busy = new Set<Promise<void>>();
  #buffered = 0;

  private constructor(service: CniService, log: Logger) {
    this.#service = service;
    this.#log = log;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** Serves on a Unix socket of mode 0600. Throws SLU2104, SLU2106, SLU2108. */
  static async listen(path: string, service: CniService, log: Logger): Promise<CniServer> {
    const self = new CniServer(service, log);
    await listenPrivately(self.#server, path);
    self.#server.on('error', (err) => log.error({ err }, 'CNI server'));
    return self;
  }

  /** Takes no more requests, waits for those under way, and removes the socket. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of [...this.#incomplete.keys()]) this.#drop(socket);
    await Promise.all(this.#busy);
    for (const socket of this.#open) socket.destroySoon();
    this.#service.close();
    await closed;
  }

  #accept(socket: Socket): void {
    this.#open.add(socket);
    const timer = setTimeout(() => this.#drop(socket), REQUEST_MS);
    timer.unref();
    this.#incomplete.set(socket, { reader: new WireReader(), timer });
    socket.on('error', () => undefined); // 'close' follows
    socket.once('close', () => {
      this.#forget(socket);
      this.#open.delete(socket);
    });
    socket.on('data', (chunk) => this.#receive(socket, chunk));
    if (this.#incomplete.size > MAX_INCOMPLETE) this.#dropOldest();
  }

  #receive(socket: Socket, chunk: Buffer): void {
    const incomplete = this.#incomplete.get(socket);
    if (incomplete === undefined) return;
    this.#buffered += chunk.length;
    try {
      const request = incomplete.reader.push(chunk);
      if (request === undefined) {
        while (this.#buffered > MAX_BUFFERED && this.#incomplete.size > 0) this.#dropOldest();
        return;
      }
      this.#forget(socket);
      const work = this.#serve(socket, request);
      this.#busy.add(work);
      void work.finally(() => this.#busy.delete(work));
    } catch (error) {
      this.#forget(socket);
      if (!(error instanceof WireError)) throw error;
      // Whoever it is may understand an error; nothing more is read.
      socket.pause();
      socket.end(encodeAnswer(1, new CniError(CNI_CODE.decode, error.message, 'SLU5114').toJson()));
      this.#destroyLater(socket);
    }
  }

  async #serve(socket: Socket, request: WireRequest): Promise<void> {
    const alive = (): boolean => !socket.destroyed;
    const handle = (cni: WireRequest): Promise<CniAnswer> => this.#service.handle(cni, alive);
    const answer = isNetavark(request) ? handleNetavark(handle, request) : handle(request);
    const { status, text, delivered } = await answer;
    if (socket.destroyed) return;
    this.#destroyLater(socket);
    if (delivered !== undefined) {
      socket.once('data', () => {
        try {
          delivered();
        } catch (err) {
          this.#log.error({ err }, 'the delivery of a CNI result could not be noted');
        }
      });
    }
    // The plugin ends the connection when it has printed the answer.
    socket.write(encodeAnswer(status, text));
    // It waits for this processor, often, and has little to do; here things are to be done that can wait.
    yieldProcessor();
  }

  /** The other side has a while to read its answer. The timer does not keep what is closed before. */
  #destroyLater(socket: Socket): void {
    const timer = setTimeout(() => socket.destroy(), DELIVERY_MS);
    timer.unref();
    socket.once('close', () => clearTimeout(timer));
  }

  #dropOldest(): void {
    const [oldest] = this.#incomplete.keys();
    if (oldest !== undefined) this.#drop(oldest);
  }

  #drop(socket: Socket): void {
    this.#forget(socket);
    socket.destroy();
  }

  /** Takes a connection off the incomplete ones. */
  #forget(socket: Socket): void {
    const incomplete = this.#incomplete.get(socket);
    if (incomplete === undefined) return;
    clearTimeout(incomplete.timer);
    this.#incomplete.delete(socket);
    this.#buffered -= incomplete.reader.length;
  }
}
