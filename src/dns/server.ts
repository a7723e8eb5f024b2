import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer, isIPv6, type Server, type Socket as Stream } from 'node:net';
import { canonicalAddress } from '../../policy/address.js';
import type { Forwarder, Upstream } from './forwarder.js';
import type { NameTable } from './names.js';
import type { DnsAnswer, DnsQuestion } from './watch.js';
import {
  addressesIn,
  answer,
  fitUdp,
  isTransfer,
  MAX_MESSAGE,
  type OwnRecord,
  type Query,
  RCODE,
  readQuery,
  reverseAddress,
} from './wire.js';

/** TCP: connections in all, of one client, questions under way on one, and milliseconds for a whole question. */
const MAX_STREAMS = 256;
const MAX_STREAMS_CLIENT = 32;
const MAX_PIPELINE = 32;
const IDLE = 10_000;
/** Of a zone transfer, without a byte. */
const TRANSFER_IDLE = 60_000;
const DNS_PORT = 53;

/** An address to listen at; the gateway of a network. */
export interface Listener {
  readonly address: string;
  readonly port: number;
  readonly network: string;
}

/** Instead of a network: questions come from processes of the host itself. */
export const HOST_NETWORK = '';

/** Counted since the start. */
export interface DnsCounters {
  /** Answered from the names of containers. */
  local: number;
  forwarded: number;
  /** No server answered, or too much was under way. */
  failed: number;
  /** Messages that were no question. */
  invalid: number;
}

/** How questions of some clients are answered: by the server that they asked, and when the answer has been learned. */
export interface Watch {
  readonly forwarder: Forwarder;
  readonly watches: (client: string) => boolean;
  /** Undefined: it was meant for the gateway. */
  readonly serverOf: (question: DnsQuestion) => Promise<string | undefined>;
  readonly learn: (answer: DnsAnswer) => Promise<void>;
  /** Whom to ask for a process of the host that asked this server; undefined: that is not known. */
  readonly hostServers: (asked: string | undefined) => readonly Upstream[];
}

/** A question and the name server that it came to. */
type From = DnsQuestion & { readonly network: string };

interface Open {
  readonly udp: Socket;
  readonly tcp: Server;
}

/**
 * The name service of networks: UDP and TCP at the gateways' addresses. Names of containers are answered from
 * the table, everything else by the host's name servers.
 */
export class DnsServer {
  readonly counters: DnsCounters = { local: 0, forwarded: 0, failed: 0, invalid: 0 };
  readonly #names: NameTable;
  readonly #forwarder: Forwarder;
  readonly #watch: Watch | undefined;
  readonly #open = new Map<string, Open>();
  readonly #streams = new Map<string, number>();
  #streamCount = 0;
  #turn = 0;

  constructor(names: NameTable, forwarder: Forwarder, watch?: Watch) {
    this.#names = names;
    this.#forwarder = forwarder;
    this.#watch = watch;
  }

  /** Addresses that it listens at. */
  listeners(): readonly string[] {
    return [...this.#open.keys()];
  }

  /** Starts to listen; rejects with the system's error, and listens at neither then. */
  async listen({ address, port, network }: Listener): Promise<void> {
    if (this.#open.has(address)) return;
    const udp = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4', ipv6Only: isIPv6(address) });
    const tcp = createServer((stream) => this.#stream(stream, network, address));
    tcp.maxConnections = MAX_STREAMS;
    const open = { udp, tcp };
    this.#open.set(address, open);
    try {
      await new Promise<void>((resolve, reject) => {
        udp.once('error', reject);
        udp.bind({ port, address, exclusive: true }, resolve);
      });
      await new Promise<void>((resolve, reject) => {
        tcp.once('error', reject);
        tcp.listen({ port: port === 0 ? udp.address().port : port, host: address, exclusive: true }, resolve);
      });
    } catch (error) {
      this.#open.delete(address);
      udp.close();
      tcp.close();
      throw error;
    }
    // Errors of single datagrams (no route back) are not the server's end.
    udp.on('error', () => undefined);
    tcp.on('error', () => undefined);
    udp.on('message', (message, from) => {
      const client = clientText(from.address);
      const reply = this.#answer(message, { network, gateway: address, client, port: from.port, tcp: false });
      const send = (bytes: Buffer | undefined): void => {
        if (bytes !== undefined && this.#open.get(address) === open) udp.send(bytes, from.port, from.address);
      };
      if (reply instanceof Promise) void reply.then(send);
      else send(reply);
    });
  }

  /** Port of a listener, for those that asked for any. */
  portOf(address: string): number | undefined {
    return this.#open.get(address)?.udp.address().port;
  }

  async unlisten(address: string): Promise<void> {
    const open = this.#open.get(address);
    if (open === undefined) return;
    this.#open.delete(address);
    open.udp.close();
    await new Promise<void>((resolve) => open.tcp.close(() => resolve()));
  }

  async close(): Promise<void> {
    await Promise.all(this.listeners().map((address) => this.unlisten(address)));
  }

  /** The answer to a message; undefined: none is given. Local names are answered in this turn. */
  #answer(message: Buffer, from: From): Buffer | undefined | Promise<Buffer> {
    const { network, client, tcp } = from;
    const read = readQuery(message);
    if (!('query' in read)) {
      if (network === HOST_NETWORK && 'reply' in read && this.#watch !== undefined)
        return this.#asIs(message, from, read.reply, this.#watch);
      this.counters.invalid++;
      return 'reply' in read ? read.reply : undefined;
    }
    const { query } = read;
    if (this.#watch !== undefined && (network === HOST_NETWORK || this.#watch.watches(client)))
      return this.#watched(message, query, from, this.#watch);
    const local = this.#local(query, from);
    if (local !== undefined) {
      this.counters.local++;
      return local;
    }
    return this.#forwarder.ask(message, client, tcp).then((reply) => {
      if (reply === undefined) this.counters.failed++;
      else this.counters.forwarded++;
      if (reply === undefined) return answer(query, RCODE.failure);
      return tcp ? reply : fitUdp(reply, query);
    });
  }

  async #watched(message: Buffer, query: Query, from: From, watch: Watch): Promise<Buffer> {
    const { network, client, tcp, gateway, port } = from;
    const isHost = network === HOST_NETWORK;
    const server = await watch.serverOf({ gateway, client, port, tcp });
    const local = isHost || server !== undefined ? undefined : this.#local(query, from);
    if (local !== undefined) {
      this.counters.local++;
      return local;
    }
    const asked = server === undefined ? undefined : [{ address: server, port: DNS_PORT }];
    const servers = isHost ? watch.hostServers(server) : asked;
    const reply = await watch.forwarder.ask(message, client, tcp, servers);
    if (reply === undefined) {
      this.counters.failed++;
      return answer(query, RCODE.failure);
    }
    this.counters.forwarded++;
    const found = addressesIn(reply, query.name);
    if (found.addresses.length > 0) await watch.learn(found);
    return tcp ? reply : fitUdp(reply, query);
  }

  /** What a process of the host sends a server and is no plain question: an update, a notification, another class. */
  async #asIs(
    message: Buffer,
    { client, tcp, gateway, port }: From,
    failed: Buffer,
    watch: Watch,
  ): Promise<Buffer> {
    const servers = watch.hostServers(await watch.serverOf({ gateway, client, port, tcp }));
    const reply = await watch.forwarder.ask(message, client, tcp, servers);
    if (reply === undefined) this.counters.failed++;
    else this.counters.forwarded++;
    return reply ?? failed;
  }

  /** A zone transfer has many answers: from here on the connection is one to the server that was asked. */
  async #relay(stream: Stream, pending: Buffer, question: DnsQuestion, watch: Watch): Promise<void> {
    const [server] = watch.hostServers(await watch.serverOf(question));
    if (server === undefined || stream.destroyed) return void stream.destroy();
    const to = connect({ host: server.address, port: server.port });
    to.on('error', () => stream.destroy());
    to.once('close', () => stream.end());
    stream.once('close', () => to.destroy());
    to.write(pending);
    stream.pipe(to);
    to.pipe(stream);
  }

  #local(query: Query, { network, client, tcp }: From): Buffer | undefined {
    const limit = tcp ? MAX_MESSAGE : query.maxUdp;
    const address = reverseAddress(query.name);
    if (address !== undefined) return this.#reverse(query, network, client, canonical(address), limit);
    const found = this.#names.lookup(network, client, query.name);
    if (found === undefined) return undefined;
    const wanted = query.type === 'ANY' ? ['A', 'AAAA'] : [query.type];
    const record =
      (type: 'A' | 'AAAA') =>
      (data: string): OwnRecord => ({ type, data });
    const records = [
      ...(wanted.includes('A') ? this.#rotated(found.ipv4).map(record('A')) : []),
      ...(wanted.includes('AAAA') ? this.#rotated(found.ipv6).map(record('AAAA')) : []),
    ];
    return answer(query, RCODE.ok, records, limit);
  }

  #reverse(
    query: Query,
    network: string,
    client: string,
    address: string | undefined,
    limit: number,
  ): Buffer | undefined {
    const name = address === undefined ? undefined : this.#names.nameOf(network, client, address);
    if (name === undefined) return undefined;
    if (name === null) return answer(query, RCODE.noName);
    const isPtr = query.type === 'PTR' || query.type === 'ANY';
    return answer(query, RCODE.ok, isPtr ? [{ type: 'PTR', data: name }] : [], limit);
  }

  /** Several containers with one name take turns in being the first. */
  #rotated(addresses: readonly string[]): readonly string[] {
    if (addresses.length < 2) return addresses;
    const at = this.#turn++ % addresses.length;
    return [...addresses.slice(at), ...addresses.slice(0, at)];
  }

  /** Questions over TCP (RFC 7766): two bytes of length before each, several on one connection. */
  #stream(stream: Stream, network: string, gateway: string): void {
    const port = stream.remotePort ?? 0;
    const client = clientText(stream.remoteAddress ?? '');
    const count = this.#streams.get(client) ?? 0;
    if (count >= MAX_STREAMS_CLIENT || this.#streamCount >= MAX_STREAMS) {
      stream.destroy();
      return;
    }
    this.#streams.set(client, count + 1);
    this.#streamCount++;
    // Time for a whole question, not for its next byte.
    const timer = setTimeout(() => stream.destroy(), IDLE);
    stream.on('error', () => stream.destroy());
    stream.once('close', () => {
      clearTimeout(timer);
      this.#streamCount--;
      const left = (this.#streams.get(client) ?? 1) - 1;
      if (left === 0) this.#streams.delete(client);
      else this.#streams.set(client, left);
    });
    let pending: Buffer = Buffer.alloc(0);
    let busy = 0;
    const send = (reply: Buffer | undefined): void => {
      if (reply === undefined || stream.destroyed) return;
      const head = Buffer.alloc(2);
      head.writeUInt16BE(reply.length);
      stream.write(Buffer.concat([head, reply]));
    };
    const work = (): void => {
      while (pending.length >= 2 && busy < MAX_PIPELINE && stream.writableLength < MAX_MESSAGE) {
        const length = pending.readUInt16BE(0);
        if (pending.length < length + 2) break;
        const message = Buffer.from(pending.subarray(2, length + 2));
        if (network === HOST_NETWORK && this.#watch !== undefined && isTransfer(message)) {
          clearTimeout(timer);
          stream.pause();
          stream.setTimeout(TRANSFER_IDLE, () => stream.destroy());
          stream.removeAllListeners('data').removeAllListeners('drain');
          void this.#relay(stream, pending, { gateway, client, port, tcp: true }, this.#watch);
          return;
        }
        pending = pending.subarray(length + 2);
        timer.refresh();
        const reply = this.#answer(message, { network, gateway, client, port, tcp: true });
        if (!(reply instanceof Promise)) send(reply);
        else {
          busy++;
          void reply.then((bytes) => {
            busy--;
            send(bytes);
            work();
          });
        }
      }
      if (pending.length > MAX_MESSAGE + 2) stream.pause();
      else if (stream.isPaused()) stream.resume();
    };
    stream.on('data', (chunk: Buffer) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      work();
    });
    stream.on('drain', work);
  }
}

/** IPv4 clients of a dual-stack socket look like ::ffff:a.b.c.d; zones are not part of an address. */
function clientText(address: string): string {
  const [text = ''] = address.split('%');
  return text.startsWith('::ffff:') && text.includes('.') ? text.slice(7) : text;
}

function canonical(address: string): string | undefined {
  try {
    return canonicalAddress(address);
  } catch {
    return undefined;
  }
}
