import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { HEADER_BYTES, MAX_MESSAGE, questionEnd, RCODE } from './wire.js';

/** How often each server is asked. */
const ROUNDS = 2;
/**
 * Milliseconds for a question: less than the five seconds after which the C library asks again. `dead`: of servers that let
 * a whole question pass, for as long as `lasts` (not longer: they may be slow, and would never be found alive).
 */
const TIMES = { question: 4000, dead: 1000, lasts: 5000 };
/** Queries under way: in all, and for one client. */
const LIMITS = { all: 512, client: 64 };
/** Answers after which the next server is asked, as the C library does: this one can't or won't. */
const UNHELPFUL: ReadonlySet<number> = new Set([RCODE.failure, RCODE.notImplemented, RCODE.refused]);
/** Milliseconds for which a server that did not answer in time is asked after the others. */
const LATE_MS = 30_000;
/** With more queries under way nobody listens to a slow server any more when the next one is asked: sockets are few. */
const PATIENT = 128;

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
  readonly #times: Readonly<typeof TIMES>;
  /** performance.now() until which a server is one that did not answer in time. */
  readonly #late = new Map<string, number>();
  /** The same for a server that let a whole question pass. */
  readonly #dead = new Map<string, number>();
  #all = 0;

  constructor(
    upstreams: () => readonly Upstream[],
    limits: Readonly<typeof LIMITS> = LIMITS,
    times: Readonly<typeof TIMES> = TIMES,
  ) {
    this.#upstreams = upstreams;
    this.#limits = limits;
    this.#times = times;
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
      const answer = await this.#first(message, this.#inOrder(servers, tcp), tcp);
      if (answer !== undefined) message.copy(answer, 0, 0, 2);
      return answer;
    } finally {
      this.#all--;
      const left = (this.#busy.get(client) ?? 1) - 1;
      if (left === 0) this.#busy.delete(client);
      else this.#busy.set(client, left);
    }
  }

  /**
   * The first answer that helps. The servers are asked one after the other, the next one when it is time or as soon as one
   * fails, and those asked before may still answer.
   */
  #first(message: Buffer, servers: readonly Upstream[], tcp: boolean): Promise<Buffer | undefined> {
    if (servers.length === 0) return Promise.resolve(undefined);
    const now = performance.now();
    const isDead = servers.every((server) => (this.#dead.get(keyOf(server, tcp)) ?? 0) > now);
    const time = isDead ? this.#times.dead : this.#times.question;
    const turns = servers.length * ROUNDS;
    return new Promise((resolve) => {
      /** By the server's place: its socket, or undefined if it is known what it says. */
      const asked: (Asked | undefined)[] = [];
      let unhelpful: Buffer | undefined;
      let turn = 0;
      let timer: NodeJS.Timeout | undefined;
      const finish = (answer?: Buffer): void => {
        clearTimeout(timer);
        clearTimeout(end);
        for (const one of asked) one?.stop();
        resolve(answer);
      };
      const take = (at: number, server: Upstream, answer: Buffer | undefined): void => {
        asked[at] = undefined;
        if (answer !== undefined) {
          for (const slow of [this.#late, this.#dead]) slow.delete(keyOf(server, tcp));
          if (!UNHELPFUL.has((answer[3] ?? 0) & 0xf)) {
            finish(answer);
            return;
          }
          unhelpful ??= answer;
        }
        if (turn >= turns && asked.every((one) => one === undefined)) finish(unhelpful);
        else if (at === (turn - 1) % servers.length) next();
      };
      const next = (): void => {
        clearTimeout(timer);
        const at = turn % servers.length;
        const server = servers[at];
        if (server === undefined || turn >= turns) return;
        // What one of them said is the answer if no other one knows better.
        if (turn >= servers.length && unhelpful !== undefined) {
          finish(unhelpful);
          return;
        }
        turn++;
        timer = setTimeout(() => {
          note(this.#late, keyOf(server, tcp), LATE_MS);
          if (this.#all > PATIENT) {
            asked[at]?.stop();
            asked[at] = undefined;
          }
          next();
        }, time / turns);
        const open = asked[at];
        if (open !== undefined) open.again();
        else asked[at] = (tcp ? askTcp : askUdp)(message, server, (answer) => take(at, server, answer));
      };
      const end = setTimeout(() => {
        if (!isDead)
          servers.forEach((server, at) => {
            if (asked[at] !== undefined) note(this.#dead, keyOf(server, tcp), this.#times.lasts);
          });
        finish(unhelpful);
      }, time);
      next();
    });
  }

  /** Servers that did not answer lately come last. */
  #inOrder(servers: readonly Upstream[], tcp: boolean): readonly Upstream[] {
    if (this.#late.size === 0) return servers;
    const now = performance.now();
    const isLate = (server: Upstream): boolean => (this.#late.get(keyOf(server, tcp)) ?? 0) > now;
    return [...servers.filter((server) => !isLate(server)), ...servers.filter(isLate)];
  }
}

/** Notes a server for some milliseconds, and forgets those whose time is over. */
function note(slow: Map<string, number>, key: string, milliseconds: number): void {
  const now = performance.now();
  for (const [other, until] of slow) if (until <= now) slow.delete(other);
  slow.set(key, now + milliseconds);
}

function keyOf({ address, port }: Upstream, tcp: boolean): string {
  return `${tcp ? 'tcp' : 'udp'} ${address} ${port}`;
}

/** A question to one server. */
interface Asked {
  /** It may have been lost. */
  readonly again: () => void;
  readonly stop: () => void;
}

/** What a server answers, once, and not before `ask` has returned; undefined: nothing will come. */
type Take = (answer: Buffer | undefined) => void;

/** One datagram from a port and with an id that nobody can guess; only the server's own answers are taken (connect). */
function askUdp(message: Buffer, { address, port }: Upstream, take: Take): Asked {
  const question = withId(message, randomInt(0x10000));
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  let isConnected = false;
  const stop = (): void => {
    isConnected = false;
    socket.removeAllListeners();
    socket.on('error', () => undefined);
    socket.close();
  };
  const finish = (answer?: Buffer): void => {
    stop();
    take(answer);
  };
  const again = (): void => {
    if (isConnected) socket.send(question, (error) => void (error !== null && isConnected && finish()));
  };
  socket.on('error', () => finish());
  socket.on('message', (answer) => {
    if (isAnswer(question, answer)) finish(answer);
  });
  socket.connect(port, address, () => {
    isConnected = true;
    again();
  });
  return { again, stop };
}

function askTcp(message: Buffer, { address, port }: Upstream, take: Take): Asked {
  const question = withId(message, randomInt(0x10000));
  const socket = connect({ host: address, port });
  let received = Buffer.alloc(0);
  const stop = (): void => {
    socket.removeAllListeners();
    socket.on('error', () => undefined);
    socket.destroy();
  };
  const finish = (answer?: Buffer): void => {
    stop();
    take(answer);
  };
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
  // A stream needs no second question.
  return { again: () => undefined, stop };
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
