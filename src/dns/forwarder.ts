import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { HEADER_BYTES, MAX_MESSAGE, questionEnd, RCODE } from './wire.js';

/** Milliseconds that one server has for an answer, and how often all of them are asked. */
const TIMEOUT = 2000;
const ROUNDS = 2;
/** Queries under way: in all, and for one client. */
const LIMITS = { all: 512, client: 64 };
/** Answers after which the next server is asked, as the C library does: this one can't or won't. */
const UNHELPFUL: ReadonlySet<number> = new Set([RCODE.failure, RCODE.notImplemented, RCODE.refused]);
/** Milliseconds for which a server that did not answer in time is asked after the others. */
const LATE_MS = 30_000;

/** Where a server listens; the port is 53 outside of tests. */
export interface Upstream {
  readonly address: string;
  readonly port: number;
}

/** Asks the host's name servers, with a bounded number of questions under way. */
export class Forwarder {
  readonly #upstreams: () => readonly Upstream[];
  readonly #busy = new Map<string, number>();
  readonly #limits: Readonly<typeof LIMITS>;
  readonly #timeout: number;
  /** performance.now() until which a server is one that did not answer in time. */
  readonly #late = new Map<string, number>();
  #all = 0;

  /** `timeout`: milliseconds that one server has for an answer. */
  constructor(
    upstreams: () => readonly Upstream[],
    limits: Readonly<typeof LIMITS> = LIMITS,
    timeout = TIMEOUT,
  ) {
    this.#upstreams = upstreams;
    this.#limits = limits;
    this.#timeout = timeout;
  }

  /** Queries that wait for an answer. */
  get waiting(): number {
    return this.#all;
  }

  /** The answer to a client's message, with the client's id; undefined if nobody answered or too much is under way. */
  async ask(
    message: Buffer,
    client: string,
    tcp: boolean,
    servers = this.#upstreams(),
  ): Promise<Buffer | undefined> {
    const busy = this.#busy.get(client) ?? 0;
    if (this.#all >= this.#limits.all || busy >= this.#limits.client) return undefined;
    this.#all++;
    this.#busy.set(client, busy + 1);
    try {
      let unhelpful: Buffer | undefined;
      for (let round = 0; round < ROUNDS && unhelpful === undefined; round++) {
        for (const upstream of this.#inOrder(servers, tcp)) {
          const answer = await (tcp ? askTcp : askUdp)(message, upstream, this.#timeout);
          if (answer === 'late') this.#noteLate(upstream, tcp);
          if (answer === undefined || answer === 'late') continue;
          message.copy(answer, 0, 0, 2);
          if (!UNHELPFUL.has((answer[3] ?? 0) & 0xf)) return answer;
          unhelpful ??= answer;
        }
      }
      return unhelpful;
    } finally {
      this.#all--;
      const left = (this.#busy.get(client) ?? 1) - 1;
      if (left === 0) this.#busy.delete(client);
      else this.#busy.set(client, left);
    }
  }

  /** Servers that did not answer lately come last. */
  #inOrder(servers: readonly Upstream[], tcp: boolean): readonly Upstream[] {
    if (this.#late.size === 0) return servers;
    const now = performance.now();
    const isLate = (server: Upstream): boolean => (this.#late.get(keyOf(server, tcp)) ?? 0) > now;
    return [...servers.filter((server) => !isLate(server)), ...servers.filter(isLate)];
  }

  #noteLate(server: Upstream, tcp: boolean): void {
    const now = performance.now();
    for (const [other, until] of this.#late) if (until <= now) this.#late.delete(other);
    this.#late.set(keyOf(server, tcp), now + LATE_MS);
  }
}

function keyOf({ address, port }: Upstream, tcp: boolean): string {
  return `${tcp ? 'tcp' : 'udp'} ${address} ${port}`;
}

/** An answer; `late` if none came in time, undefined if none will come. */
type Reply = Buffer | 'late' | undefined;

/** One datagram from a port and with an id that nobody can guess; only the server's own answers are taken (connect). */
function askUdp(message: Buffer, { address, port }: Upstream, timeout: number): Promise<Reply> {
  return new Promise((resolve) => {
    const question = withId(message, randomInt(0x10000));
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    const finish = (answer?: Reply): void => {
      clearTimeout(timer);
      socket.removeAllListeners();
      socket.on('error', () => undefined);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => finish('late'), timeout);
    socket.on('error', () => finish());
    socket.on('message', (answer) => {
      if (isAnswer(question, answer)) finish(answer);
    });
    socket.connect(port, address, () => socket.send(question, (error) => void (error !== null && finish())));
  });
}

function askTcp(message: Buffer, { address, port }: Upstream, timeout: number): Promise<Reply> {
  return new Promise((resolve) => {
    const question = withId(message, randomInt(0x10000));
    const socket = connect({ host: address, port });
    let received = Buffer.alloc(0);
    const finish = (answer?: Reply): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => finish('late'), timeout);
    socket.on('error', () => finish());
    socket.on('close', () => finish());
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length > MAX_MESSAGE + 2) return finish();
      const length = received.length < 2 ? MAX_MESSAGE : received.readUInt16BE(0);
      if (received.length < length + 2) return;
      const answer = received.subarray(2, length + 2);
      finish(isAnswer(question, answer) ? answer : undefined);
    });
    const head = Buffer.alloc(2);
    head.writeUInt16BE(question.length);
    socket.write(Buffer.concat([head, question]));
  });
}

function withId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}

/** Whether a message answers the question: id, the response bit, and (if it has one) the question's own bytes. */
function isAnswer(question: Buffer, answer: Buffer): boolean {
  if (answer.length < HEADER_BYTES || answer.readUInt16BE(0) !== question.readUInt16BE(0)) return false;
  if (((answer[2] ?? 0) & 0x80) === 0) return false;
  if (answer.readUInt16BE(4) === 0) return true; // an error without the question
  const end = questionEnd(question);
  return (
    answer.length >= end &&
    question.toString('latin1', HEADER_BYTES, end).toLowerCase() ===
      answer.toString('latin1', HEADER_BYTES, end).toLowerCase()
  );
}
