/**
 * A stand-in for the API server of Kubernetes: the real protocol (lists in pages, watches with bookmarks, 410, patches,
 * status subresources, tokens, client certificates, TLS) over objects in memory, and the faults that a cluster has.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { apiVersionOf, keyOf, type Stored, selection, type Target, TYPES, targetOf } from './resources.js';
import { type Given, Refused, Store, type StoredEvent, type Table } from './store.js';

/** What goes wrong. */
export interface Faults {
  /** The next requests whose path matches are answered with an error. */
  refuse?: { match: string; code: number; count: number; retryAfter?: number };
  /** Continuations of lists have expired. */
  expirePages?: number;
  bookmarks: boolean;
  /** Milliseconds between the pieces of an answer, each of `bytes`. */
  slow?: { bytes: number; ms: number };
  /** Watches stay open and say nothing. */
  stalled: boolean;
  /** The next lists end in the middle. */
  truncate: number;
  /** The next events of watches are followed by rubbish. */
  garbage: number;
}

export interface ServerOptions {
  readonly tls?: { readonly key: string; readonly cert: string; readonly ca?: string };
  /** Bearer tokens that are accepted; none: everybody is. */
  readonly tokens?: ReadonlySet<string>;
  /** Whether what is asked for is allowed; absent: everything is. */
  readonly allowed?: (verb: string, target: Target) => boolean;
  readonly bookmarkMs?: number;
  /** Runs what opens the socket, for instance in a network namespace. */
  readonly enter?: (open: () => void) => void;
}

/** A request as the audit log has it. */
export interface Audited {
  readonly verb: string;
  readonly resource: string;
  readonly path: string;
  readonly code: number;
}

export class ApiServer {
  readonly store = new Store();
  readonly faults: Faults = { bookmarks: true, stalled: false, truncate: 0, garbage: 0 };
  readonly audit: Audited[] = [];
  readonly #options: ServerOptions;
  #server: Server | undefined;
  #port = 0;
  readonly #sockets = new Set<Socket>();
  readonly #watches = new Set<ServerResponse>();
  /** Objects never change, so they are written out once for all lists. */
  readonly #items = new WeakMap<Stored, string>();

  constructor(options: ServerOptions = {}) {
    this.#options = options;
  }

  get port(): number {
    return this.#port;
  }

  get watches(): number {
    return this.#watches.size;
  }

  get url(): string {
    return `${this.#options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${this.#port}`;
  }

  /** Begins to listen; again on the same port after `goAway`. */
  async listen(port = this.#port): Promise<void> {
    const { tls } = this.#options;
    const handler = (request: IncomingMessage, response: ServerResponse): void =>
      void this.#handle(request, response);
    const server =
      tls === undefined
        ? createServer(handler)
        : createTlsServer({ ...tls, requestCert: tls.ca !== undefined, rejectUnauthorized: false }, handler);
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    server.keepAliveTimeout = 60_000;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      const { enter = (open: () => void): void => open() } = this.#options;
      enter(() => server.listen(port, () => resolve()));
    });
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
  }

  /** The API is gone: no listener, all connections reset. */
  async goAway(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server?.close(() => resolve()) ?? resolve());
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  /** Cuts the connections of all watches. */
  cut(): void {
    for (const response of this.#watches) response.socket?.resetAndDestroy();
  }

  async close(): Promise<void> {
    await this.goAway();
  }

  put(kind: string, given: Given, options: { readonly status?: boolean } = {}): Stored {
    return this.store.put(typeOf(kind), given, options);
  }

  get(kind: string, key: string): Stored | undefined {
    return this.store.table(typeOf(kind)).objects.get(key);
  }

  list(kind: string): Stored[] {
    return [...this.store.table(typeOf(kind)).objects.values()];
  }

  /** Writes out all objects for lists, as a server has them in its cache: the first one that asks waits no longer than others. */
  prepare(): void {
    for (const table of this.store.tables) {
      void table.keys;
      for (const object of table.objects.values()) this.#itemText(object);
    }
  }

  remove(kind: string, key: string): void {
    this.store.remove(typeOf(kind), key);
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const target = targetOf(url.pathname);
    const watching = url.searchParams.get('watch') === 'true' || url.searchParams.get('watch') === '1';
    const verb = verbOf(request.method ?? 'GET', target?.name !== undefined, watching);
    response.on('error', () => undefined);
    try {
      const body = await readBody(request);
      if (target === undefined) throw new Refused(404, 'NotFound', 'the server could not find the resource');
      this.#admit(request, verb, target, url);
      const refuse = this.faults.refuse;
      if (refuse !== undefined && refuse.count > 0 && new RegExp(refuse.match).test(request.url ?? '')) {
        refuse.count--;
        if (refuse.retryAfter !== undefined) response.setHeader('retry-after', String(refuse.retryAfter));
        throw new Refused(
          refuse.code,
          refuse.code === 429 ? 'TooManyRequests' : 'InternalError',
          'as ordered',
        );
      }
      if (watching) {
        this.#watch(target, url, response);
      } else if (verb === 'list') {
        await this.#list(target, url, response);
      } else {
        await this.#send(
          response,
          JSON.stringify(this.#one(verb, target, body, request)),
          verb === 'create' ? 201 : 200,
        );
      }
      this.#note(verb, target, url, 200);
    } catch (error) {
      const refused = error instanceof Refused ? error : new Refused(500, 'InternalError', String(error));
      this.#note(verb, target, url, refused.code);
      if (response.headersSent) response.destroy();
      else {
        const { code, reason, message } = refused;
        const status = {
          kind: 'Status',
          apiVersion: 'v1',
          metadata: {},
          status: 'Failure',
          message,
          reason,
          code,
        };
        response.writeHead(code, { 'content-type': 'application/json' });
        response.end(JSON.stringify(status));
      }
    }
  }

  #note(verb: string, target: Target | undefined, url: URL, code: number): void {
    if (this.audit.length > 20_000) this.audit.splice(0, 10_000);
    const { type, subresource } = target ?? {};
    const resource =
      type === undefined ? '' : `${type.plural}${subresource === undefined ? '' : `/${subresource}`}`;
    this.audit.push({
      verb,
      resource: type?.group ? `${resource}.${type.group}` : resource,
      path: url.pathname,
      code,
    });
  }

  #admit(request: IncomingMessage, verb: string, target: Target, url: URL): void {
    const { tokens, allowed, tls } = this.#options;
    const certified = tls?.ca !== undefined && (request.socket as TLSSocket).authorized;
    const token = request.headers.authorization?.replace(/^Bearer /, '');
    if (!certified && tokens !== undefined && (token === undefined || !tokens.has(token)))
      throw new Refused(401, 'Unauthorized', 'Unauthorized');
    if (allowed !== undefined && !allowed(verb, target))
      throw new Refused(
        403,
        'Forbidden',
        `cannot ${verb} resource "${target.type.plural}" at ${url.pathname}`,
      );
  }

  #one(verb: string, target: Target, body: string, request: IncomingMessage): unknown {
    const { type, namespace, name = '', subresource } = target;
    const table = this.store.table(type);
    const key = type.namespaced ? `${namespace ?? 'default'}/${name}` : name;
    if (verb === 'create') {
      const given = JSON.parse(body) as Given;
      const place = namespace === undefined ? {} : { namespace };
      return this.store.put(type, { ...given, metadata: { ...given.metadata, ...place } }, { create: true });
    }
    const present = table.objects.get(key);
    if (present === undefined) throw new Refused(404, 'NotFound', `${type.plural} "${name}" not found`);
    switch (verb) {
      case 'get':
        return present;
      case 'delete':
        return this.store.remove(type, key);
      case 'update':
        return this.store.put(type, JSON.parse(body) as Given, { status: subresource === 'status' });
      default: {
        const patch = JSON.parse(body) as Record<string, unknown>;
        const strategic = request.headers['content-type'] === 'application/strategic-merge-patch+json';
        const version = (patch.metadata as { resourceVersion?: string } | undefined)?.resourceVersion;
        if (version !== undefined && version !== present.metadata.resourceVersion)
          throw new Refused(409, 'Conflict', 'the object has been modified');
        const merged = merge(present, patch, strategic) as Given;
        return this.store.put(type, merged, { status: subresource === 'status' });
      }
    }
  }

  async #list(target: Target, url: URL, response: ServerResponse): Promise<void> {
    const { type, namespace } = target;
    const table = this.store.table(type);
    const wanted = this.#selection(target, url);
    const limit = Number(url.searchParams.get('limit') ?? 0);
    const token = url.searchParams.get('continue');
    let version = this.store.version;
    let after = '';
    if (token !== null) {
      const given = JSON.parse(Buffer.from(token, 'base64url').toString()) as { v: number; k: string };
      [version, after] = [given.v, given.k];
      if ((this.faults.expirePages ?? 0) > 0 || version < table.compacted) {
        this.faults.expirePages = Math.max(0, (this.faults.expirePages ?? 0) - 1);
        throw new Refused(410, 'Expired', 'The provided continue parameter is too old');
      }
    }
    const { keys } = table;
    // The keys are sorted: the page begins behind the last one of the page before.
    let start = 0;
    for (let high = keys.length; start < high; ) {
      const middle = (start + high) >> 1;
      if ((keys[middle] ?? '') <= after) start = middle + 1;
      else high = middle;
    }
    const items: string[] = [];
    let last = '';
    let more = false;
    for (let i = start; i < keys.length; i++) {
      const key = keys[i] ?? '';
      const object = table.objects.get(key);
      if (object === undefined || !wanted(object)) continue;
      if (namespace !== undefined && object.metadata.namespace !== namespace) continue;
      if (limit > 0 && items.length === limit) {
        more = true;
        break;
      }
      items.push(this.#itemText(object));
      last = key;
    }
    const next = more ? Buffer.from(JSON.stringify({ v: version, k: last })).toString('base64url') : '';
    const metadata = { resourceVersion: String(version), ...(more ? { continue: next } : {}) };
    const head = JSON.stringify({ kind: `${type.kind}List`, apiVersion: apiVersionOf(type), metadata }).slice(
      0,
      -1,
    );
    await this.#send(response, `${head},"items":[${items.join(',')}]}\n`, 200);
  }

  /** As the real one: items of a list do not say what they are. */
  #itemText(object: Stored): string {
    let text = this.#items.get(object);
    if (text === undefined) {
      const { apiVersion: _a, kind: _k, ...item } = object;
      text = JSON.stringify(item);
      this.#items.set(object, text);
    }
    return text;
  }

  async #send(response: ServerResponse, text: string, code: number): Promise<void> {
    const bytes = Buffer.from(text);
    response.writeHead(code, { 'content-type': 'application/json' });
    if (this.faults.truncate > 0) {
      this.faults.truncate--;
      response.write(bytes.subarray(0, bytes.length / 2));
      setTimeout(() => response.destroy(), 5);
      return;
    }
    const { slow } = this.faults;
    if (slow === undefined) {
      response.end(bytes);
      return;
    }
    for (let at = 0; at < bytes.length; at += slow.bytes) {
      response.write(bytes.subarray(at, at + slow.bytes));
      await new Promise((resolve) => setTimeout(resolve, slow.ms));
    }
    response.end();
  }

  #selection({ type }: Target, url: URL): (object: Stored) => boolean {
    const fields = url.searchParams.get('fieldSelector') ?? '';
    const found = selection(type, fields, url.searchParams.get('labelSelector') ?? '');
    if (typeof found === 'string') throw new Refused(400, 'BadRequest', found);
    return found;
  }

  #watch(target: Target, url: URL, response: ServerResponse): void {
    const { type, namespace } = target;
    const table: Table = this.store.table(type);
    const wanted = this.#selection(target, url);
    const from = Number(url.searchParams.get('resourceVersion') ?? 0);
    let silent = false;
    const write = (event: string, object: unknown): void => {
      // A connection that has swallowed something says nothing more: what comes later would hide the gap.
      silent ||= this.faults.stalled;
      if (!silent) response.write(`${JSON.stringify({ type: event, object })}\n`);
    };
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    if (from < table.compacted) {
      // As the real one: the connection is good, the first event is the error.
      const message = `too old resource version: ${from} (${table.compacted})`;
      write('ERROR', {
        kind: 'Status',
        apiVersion: 'v1',
        status: 'Failure',
        message,
        reason: 'Expired',
        code: 410,
      });
      response.end();
      return;
    }
    const tell = (event: StoredEvent): void => {
      if (namespace !== undefined && event.object.metadata.namespace !== namespace) return;
      const is = event.type !== 'DELETED' && wanted(event.object);
      const was = event.before !== undefined && wanted(event.before);
      if (!is && !was) return;
      write(is ? (was ? 'MODIFIED' : 'ADDED') : 'DELETED', event.object);
      if (this.faults.garbage > 0) {
        this.faults.garbage--;
        response.write('{"type":"ADDED","obj\n');
      }
    };
    for (const event of table.history) if (event.version > from) tell(event);
    table.listeners.add(tell);
    this.#watches.add(response);
    const bookmarks =
      url.searchParams.get('allowWatchBookmarks') === 'true' &&
      setInterval(() => {
        const metadata = { resourceVersion: String(this.store.version), creationTimestamp: null };
        if (this.faults.bookmarks)
          write('BOOKMARK', { kind: type.kind, apiVersion: apiVersionOf(type), metadata });
      }, this.#options.bookmarkMs ?? 60_000);
    const seconds = Number(url.searchParams.get('timeoutSeconds') ?? 1800);
    const timeout = setTimeout(() => response.end(), seconds * 1000);
    response.on('close', () => {
      table.listeners.delete(tell);
      this.#watches.delete(response);
      clearTimeout(timeout);
      if (bookmarks !== false) clearInterval(bookmarks);
    });
  }
}

function typeOf(kind: string): (typeof TYPES)[number] {
  const found = TYPES.find((type) => type.kind === kind);
  if (found === undefined) throw new Error(`no kind ${kind}`);
  return found;
}

function verbOf(method: string, named: boolean, watching: boolean): string {
  if (watching) return 'watch';
  const verbs: Readonly<Record<string, string>> = {
    POST: 'create',
    PUT: 'update',
    PATCH: 'patch',
    DELETE: 'delete',
  };
  return verbs[method] ?? (named ? 'get' : 'list');
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** JSON merge patch (RFC 7386); strategic: lists of conditions are merged by their type. */
function merge(present: unknown, patch: unknown, strategic: boolean, field = ''): unknown {
  if (strategic && field === 'conditions' && Array.isArray(patch) && Array.isArray(present)) {
    const types = new Set((patch as { type: string }[]).map(({ type }) => type));
    return [...(present as { type: string }[]).filter(({ type }) => !types.has(type)), ...patch];
  }
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const base = typeof present === 'object' && present !== null && !Array.isArray(present) ? present : {};
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value, strategic, key);
  }
  return merged;
}

export { keyOf };
