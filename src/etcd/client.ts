/** Requests to etcd through its JSON gateway (etcd.io/docs, "API: grpc gateway"; from 3.4 on below /v3). */
import { readFileSync } from 'node:fs';
import { Agent, type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest, Agent as TlsAgent } from 'node:https';
import { SluiceError } from '../../policy/errors.js';
import type { EtcdConfig } from '../config.js';
import { reasonOf } from '../http/api.js';

export interface KeyValue {
  readonly key: string;
  readonly value: string;
}

export interface Listed {
  readonly values: readonly KeyValue[];
  /** Of the store when it was read. */
  readonly revision: bigint;
}

export type Operation = { readonly put: KeyValue; readonly lease?: string } | { readonly remove: string };

/** What a watch brings: keys that were written (value) or removed (no value), in order. */
export interface WatchEvents {
  readonly revision: bigint;
  readonly events: readonly { readonly key: string; readonly value?: string }[];
}

/** etcd refuses transactions of more operations (--max-txn-ops). */
export const MAX_OPERATIONS = 128;

const TIMEOUT_MS = 5000;
const MAX_BODY = 64 * 1024 * 1024;
const PAGE = '1000';

/** The revision to watch from is not there any more: only a new list helps. */
export class Compacted extends Error {
  override readonly name = 'Compacted';
}

interface Header {
  readonly header?: { readonly revision?: string };
}
interface RawPair {
  readonly key?: string;
  readonly value?: string;
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');
const plain = (text = ''): string => Buffer.from(text, 'base64').toString();

/** The first key behind all those that begin with the prefix. */
export function rangeEnd(prefix: string): string {
  const bytes = Buffer.from(prefix);
  bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) + 1;
  return bytes.toString('latin1');
}

/** A client of one etcd cluster. Methods throw SLU6101 (no answer) and SLU6102 (an answer that is an error). */
export class EtcdClient {
  readonly #endpoints: readonly URL[];
  readonly #settings: EtcdConfig;
  readonly #plain = new Agent({ keepAlive: true, maxSockets: 16 });
  #tls: TlsAgent | undefined;
  #current = 0;

  constructor(settings: EtcdConfig) {
    this.#settings = settings;
    this.#endpoints = settings.endpoints.map((text) => new URL(text));
  }

  /** The endpoint in use; after a failure it is the next one. */
  get endpoint(): string {
    return this.#endpoint.origin;
  }

  close(): void {
    this.#plain.destroy();
    this.#tls?.destroy();
  }

  /** Every key with the prefix, all as of one revision. */
  async list(prefix: string, signal?: AbortSignal): Promise<Listed> {
    const values: KeyValue[] = [];
    let revision: string | undefined;
    for (let from = prefix; ; ) {
      const answer = await this.#call<Header & { kvs?: RawPair[]; more?: boolean }>(
        '/v3/kv/range',
        {
          key: base64(from),
          range_end: base64(rangeEnd(prefix)),
          limit: PAGE,
          ...(revision === undefined ? {} : { revision }),
        },
        signal,
      );
      revision ??= answer.header?.revision ?? '0';
      for (const { key, value } of answer.kvs ?? []) values.push({ key: plain(key), value: plain(value) });
      const last = values.at(-1);
      if (answer.more !== true || last === undefined) return { values, revision: BigInt(revision) };
      from = `${last.key}\0`;
    }
  }

  /** Carries out all operations at once. Returns the revision that has them. */
  async write(operations: readonly Operation[], signal?: AbortSignal): Promise<bigint> {
    const success = operations.map(toRequest);
    const { header } = await this.#call<Header>('/v3/kv/txn', { success }, signal);
    return BigInt(header?.revision ?? '0');
  }

  /** Writes the key if nobody has. Returns the value that it has then: an earlier attempt may have had no answer. */
  async claim(pair: KeyValue, signal?: AbortSignal): Promise<string> {
    const answer = await this.#call<{
      succeeded?: boolean;
      responses?: readonly { readonly response_range?: { readonly kvs?: readonly RawPair[] } }[];
    }>(
      '/v3/kv/txn',
      {
        compare: [{ key: base64(pair.key), target: 'VERSION', result: 'EQUAL', version: '0' }],
        success: [toRequest({ put: pair })],
        failure: [{ requestRange: { key: base64(pair.key) } }],
      },
      signal,
    );
    return answer.succeeded === true
      ? pair.value
      : plain(answer.responses?.[0]?.response_range?.kvs?.[0]?.value);
  }

  /** A lease of so many seconds. Returns its number. */
  async grant(seconds: number, signal?: AbortSignal): Promise<string> {
    const { ID } = await this.#call<{ ID?: string }>('/v3/lease/grant', { TTL: String(seconds) }, signal);
    if (ID === undefined) throw this.#failed(this.#current, '/v3/lease/grant', 200, 'no lease');
    return ID;
  }

  /** Renews a lease. False: it has ended. */
  async keepAlive(lease: string, signal?: AbortSignal): Promise<boolean> {
    const { result } = await this.#call<{ result?: { TTL?: string } }>(
      '/v3/lease/keepalive',
      { ID: lease },
      signal,
    );
    return Number(result?.TTL ?? 0) > 0;
  }

  /**
   * Hands over what happens to the keys from a revision on, until the connection ends or `signal` is aborted: it never
   * resolves. Throws Compacted, SLU6101, SLU6102.
   */
  watch(
    prefix: string,
    revision: bigint,
    onEvents: (events: WatchEvents) => void,
    signal: AbortSignal,
  ): Promise<never> {
    const body = {
      create_request: {
        key: base64(prefix),
        range_end: base64(rangeEnd(prefix)),
        start_revision: String(revision),
      },
    };
    return new Promise<never>((_, reject) => {
      this.#open('/v3/watch', body, signal, reject, (response, asked) => {
        const lines = new Lines((line) => {
          const { result, error } = JSON.parse(line) as WatchMessage;
          if (error !== undefined) throw this.#failed(asked, '/v3/watch', 503, error.message ?? 'unknown');
          if (result?.canceled === true)
            throw result.compact_revision === undefined
              ? this.#failed(asked, '/v3/watch', 503, result.cancel_reason ?? 'it was cancelled')
              : new Compacted('the revision is compacted');
          onEvents({
            revision: BigInt(result?.header?.revision ?? '0'),
            events: (result?.events ?? []).map(({ type, kv }) =>
              type === 'DELETE' ? { key: plain(kv?.key) } : { key: plain(kv?.key), value: plain(kv?.value) },
            ),
          });
        });
        response.on('data', (chunk: Buffer) => {
          try {
            lines.add(chunk);
          } catch (error) {
            reject(error instanceof Error ? error : new Error(String(error)));
            response.destroy();
          }
        });
        response.on('end', () => reject(this.#unreachable(asked, new Error('the watch ended'))));
      });
    });
  }

  get #endpoint(): URL {
    return this.#endpoints[this.#current] as URL;
  }

  #call<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const outgoing = this.#open(path, body, signal, reject, (response, asked) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          if (size <= MAX_BODY) chunks.push(chunk);
          else response.destroy(new Error('the answer is too large'));
        });
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          try {
            const value = JSON.parse(text) as T & { error?: string | { message?: string } };
            const { statusCode = 0 } = response;
            if (statusCode === 200) resolve(value);
            else
              reject(
                this.#failed(asked, path, statusCode, typeof value.error === 'string' ? value.error : text),
              );
          } catch {
            reject(this.#failed(asked, path, response.statusCode ?? 0, text.slice(0, 200)));
          }
        });
      });
      outgoing.setTimeout(TIMEOUT_MS, () =>
        outgoing.destroy(new Error(`no answer for ${TIMEOUT_MS / 1000} s`)),
      );
    });
  }

  #open(
    path: string,
    body: unknown,
    signal: AbortSignal | undefined,
    reject: (error: Error) => void,
    onResponse: (response: IncomingMessage, asked: number) => void,
  ): ClientRequest {
    const asked = this.#current;
    const { protocol, hostname, port } = this.#endpoint;
    const payload = Buffer.from(JSON.stringify(body));
    const fail = (error: Error): void => {
      if (signal?.aborted === true) reject(error);
      else reject(this.#unreachable(asked, error));
    };
    const options = {
      method: 'POST',
      hostname: hostname.replace(/^\[|\]$/g, ''),
      port,
      path,
      headers: { 'content-type': 'application/json', 'content-length': payload.length },
      ...(signal === undefined ? {} : { signal }),
    };
    const outgoing =
      protocol === 'https:'
        ? httpsRequest({ ...options, agent: this.#tlsAgent() })
        : httpRequest({ ...options, agent: this.#plain });
    outgoing.on('error', fail);
    // A host that vanished without a word is noticed.
    outgoing.on('socket', (socket) => socket.setKeepAlive(true, 2000));
    outgoing.on('response', (response) => {
      response.on('error', fail);
      if (path === '/v3/watch' && response.statusCode !== 200) {
        reject(this.#failed(asked, path, response.statusCode ?? 0, response.statusMessage ?? ''));
        response.destroy();
        return;
      }
      onResponse(response, asked);
    });
    outgoing.end(payload);
    return outgoing;
  }

  #tlsAgent(): TlsAgent {
    if (this.#tls !== undefined) return this.#tls;
    const { ca, cert, key } = this.#settings;
    const content = (file: string): { readonly content?: Buffer } => {
      if (file === '') return {};
      try {
        return { content: readFileSync(file) };
      } catch (error) {
        throw SluiceError.of('SLU6101', { endpoint: this.endpoint, reason: `${file}: ${reasonOf(error)}` });
      }
    };
    const [authority, own, secret] = [content(ca), content(cert), content(key)];
    this.#tls = new TlsAgent({
      keepAlive: true,
      maxSockets: 16,
      ...(authority.content === undefined ? {} : { ca: authority.content }),
      ...(own.content === undefined ? {} : { cert: own.content }),
      ...(secret.content === undefined ? {} : { key: secret.content }),
    });
    return this.#tls;
  }

  #unreachable(asked: number, error: Error): SluiceError {
    this.#leave(asked);
    return SluiceError.of('SLU6101', { endpoint: this.#nameOf(asked), reason: reasonOf(error) });
  }

  #failed(asked: number, what: string, status: number, reason: string): SluiceError {
    // A member without its cluster answers so; anything else the others would say as well.
    if (status >= 500) this.#leave(asked);
    return SluiceError.of('SLU6102', { endpoint: this.#nameOf(asked), status, what, reason });
  }

  #nameOf(index: number): string {
    return (this.#endpoints[index] as URL).origin;
  }

  /** The next attempt goes to the next endpoint; several requests that fail at one count once. */
  #leave(asked: number): void {
    if (asked === this.#current) this.#current = (asked + 1) % this.#endpoints.length;
  }
}

interface WatchMessage {
  readonly result?: Header & {
    readonly canceled?: boolean;
    readonly cancel_reason?: string;
    readonly compact_revision?: string;
    readonly events?: readonly { readonly type?: string; readonly kv?: RawPair }[];
  };
  readonly error?: { readonly message?: string };
}

function toRequest(operation: Operation): unknown {
  if ('remove' in operation) return { requestDeleteRange: { key: base64(operation.remove) } };
  const { put, lease } = operation;
  return {
    requestPut: {
      key: base64(put.key),
      value: base64(put.value),
      ...(lease === undefined ? {} : { lease }),
    },
  };
}

/** Cuts a stream into lines. */
export class Lines {
  readonly #onLine: (line: string) => void;
  #parts: Buffer[] = [];

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  add(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      this.#parts.push(rest.subarray(0, end));
      const line = Buffer.concat(this.#parts).toString();
      this.#parts = [];
      rest = rest.subarray(end + 1);
      if (line.trim() !== '') this.#onLine(line);
    }
    if (rest.length > 0) this.#parts.push(rest);
  }
}
