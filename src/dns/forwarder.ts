import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { HEADER_BYTES } from './wire.js';

/** Milliseconds that one server has for an answer, and how often all of them are asked. */
const TIMEOUT = 2000;
const ROUNDS = 2;
/** Queries under way: in all, and for one client. */
const LIMITS = { all: 512, client: 64 };
const MAX_TCP = 65_535;

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
  #all = 0;

  constructor(upstreams: () => readonly Upstream[], limits: Readonly<typeof LIMITS> = LIMITS) {
    this.#upstreams = upstreams;
    this.#limits = limits;
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
      for (let round = 0; round < ROUNDS; round++) {
        for (const upstream of servers) {
          const answer = await (tcp ? askTcp : askUdp)(message, upstream);
          if (answer === undefined) continue;
          message.copy(answer, 0, 0, 2);
          return answer;
        }
      }
      return undefined;
    } finally {
      this.#all--;
      const left = (this.#busy.get(client) ?? 1) - 1;
      if (left === 0) this.#busy.delete(client);
      else this.#busy.set(client, left);
    }
  }
}

/** One datagram from a port and with an id that nobody can guess; only the server's own answers are taken (connect). */
function askUdp(message: Buffer, { address, port }: Upstream): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const question = withId(message, randomInt(0x10000));
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    const finish = (answer?: Buffer): void => {
      clearTimeout(timer);
      socket.removeAllListeners();
      socket.on('error', () => undefined);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(finish, TIMEOUT);
    socket.on('error', () => finish());
    socket.on('message', (answer) => {
      if (isAnswer(question, answer)) finish(answer);
    });
    socket.connect(port, address, () => socket.send(question, (error) => void (error !== null && finish())));
  });
}

function askTcp(message: Buffer, { address, port }: Upstream): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const question = withId(message, randomInt(0x10000));
    const socket = connect({ host: address, port });
    let received = Buffer.alloc(0);
    const finish = (answer?: Buffer): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(finish, TIMEOUT);
    socket.on('error', () => finish());
    socket.on('close', () => finish());
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length > MAX_TCP + 2) return finish();
      const length = received.length < 2 ? MAX_TCP : received.readUInt16BE(0);
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
  const end = endOfName(question);
  return (
    answer.length >= end &&
    question.toString('latin1', HEADER_BYTES, end).toLowerCase() ===
      answer.toString('latin1', HEADER_BYTES, end).toLowerCase()
  );
}

/** Offset after the question (name, type, class) of a message that was read before. */
function endOfName(message: Buffer): number {
  let at = HEADER_BYTES;
  for (let length = message[at] ?? 0; length !== 0 && at < message.length; length = message[at] ?? 0)
    at += length + 1;
  return Math.min(at + 5, message.length);
}
