import { NLM_F, NLMSG } from './constants.js';
import { decodeAcknowledgement, decodeDone, NetlinkError, requestError } from './errors.js';
import { forEachMessage, MessageBuilder, type MessageVisitor } from './message.js';
import { type NetlinkSocket, RECEIVE_SIZE } from './socket.js';

/** Reads the payload buffer[start, end) of an answer. */
export type Reply = (buffer: Buffer, start: number, end: number, type: number) => void;

interface Pending {
  readonly operation: string;
  readonly type: number;
  readonly reply: Reply | undefined;
}

/** Requests that the kernel carries out while the caller goes on. */
export interface LaterAnswers {
  /** The errors of the requests; undefined: not all of them have been carried out yet. */
  errors(): readonly NetlinkError[] | undefined;
  /** Resolves when `errors` knows. Rejects with NetlinkError when the requests could not be sent. */
  readonly settled: Promise<void>;
}

/** So many requests go out at once at most: their answers must fit the receive buffer. */
const MAX_REQUESTS = 128;
const MAX_BYTES = 32 * 1024;
const MAX_DUMP_ATTEMPTS = 20;

const EINTR = 4;
const EPROTO = 71;

// Requests are synchronous and never nested, so all channels share one buffer.
const receiveBuffer = Buffer.from(new ArrayBuffer(RECEIVE_SIZE));

/**
 * Requests and their answers on one socket. Requests are queued, sent together in one system call
 * and carried out by the kernel in order, each on its own: one that fails does not stop the others. It answers those
 * that fail and the last one, which is the only one that asks for it.
 */
export class NetlinkChannel {
  readonly #socket: NetlinkSocket;
  readonly #builder = new MessageBuilder();
  readonly #errors: NetlinkError[] = [];
  #pending: Pending[] = [];
  /** Where the last request begins. */
  #last = 0;
  #sequence = 1;

  constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** Queues a request. What `encode` throws leaves the queue as it was. */
  add(
    operation: string,
    type: number,
    flags: number,
    encode: (message: MessageBuilder) => void,
    reply?: Reply,
  ): void {
    if (this.#pending.length >= MAX_REQUESTS || this.#builder.length >= MAX_BYTES) this.#send();
    const sequence = (this.#sequence + this.#pending.length) >>> 0;
    const start = this.#builder.length;
    this.#builder.begin(type, flags | NLM_F.REQUEST, sequence);
    try {
      encode(this.#builder);
    } catch (error) {
      this.#builder.abandon();
      throw error;
    }
    this.#builder.end();
    this.#last = start;
    this.#pending.push({ operation, type, reply });
  }

  /**
   * Sends what is queued, then runs `fill`, which adds requests, and sends those. Returns the errors of the
   * requests in `fill`; the errors of those before stay for the call around. What `fill` throws comes
   * through, and what it had added and was not sent is forgotten.
   */
  transact(fill: () => void): NetlinkError[] {
    this.#send();
    const before = this.#errors.length;
    try {
      fill();
      this.#send();
    } catch (error) {
      this.#builder.reset();
      this.#pending = [];
      this.#errors.length = before;
      throw error;
    }
    return this.#errors.splice(before);
  }

  /**
   * Sends what `fill` adds on another thread, in one system call. Nothing else may be asked for on this channel until the
   * answers are there.
   */
  later(fill: () => void): LaterAnswers {
    this.#send();
    try {
      fill();
    } catch (error) {
      this.#builder.reset();
      this.#pending = [];
      throw error;
    }
    const awaited = this.#await();
    if (awaited === undefined) return { errors: () => [], settled: Promise.resolve() };
    const { operation, take } = awaited;
    // The memory stays as it is until the answers are there.
    const settled = this.#socket.sendLater(this.#builder.bytes()).catch((error: unknown) => {
      throw NetlinkError.from(operation, error);
    });
    settled.catch(() => undefined); // for who waits
    let errors: readonly NetlinkError[] | undefined;
    return {
      errors: () => {
        if (errors !== undefined) return errors;
        while (!take.done) if (this.#receive(operation, take.answer) < 0) return undefined;
        this.#builder.reset();
        errors = this.#errors.splice(0);
        return errors;
      },
      settled,
    };
  }

  #send(): void {
    const awaited = this.#await();
    if (awaited === undefined) return;
    const { operation, take } = awaited;
    try {
      this.#socket.send(this.#builder.bytes());
    } catch (error) {
      throw NetlinkError.from(operation, error);
    } finally {
      this.#builder.reset();
    }
    // Answers are queued before send returns.
    while (!take.done) if (this.#receive(operation, take.answer) < 0) throw unanswered(operation);
  }

  /** Makes what is queued ready to be sent; `take` notes the answers. Undefined: nothing is queued. */
  #await():
    | { readonly operation: string; readonly take: { done: boolean; readonly answer: MessageVisitor } }
    | undefined {
    const pending = this.#pending;
    const [head] = pending;
    if (head === undefined) return undefined;
    const first = this.#sequence;
    const last = pending.length - 1;
    this.#sequence = (first + pending.length) >>> 0;
    this.#pending = [];
    this.#builder.addFlags(this.#last, NLM_F.ACK);
    const answer: MessageVisitor = (type, flags, sequence, start, end) => {
      const index = (sequence - first) >>> 0;
      const request = pending[index];
      if (request === undefined) return; // a late answer to an earlier request
      if (type !== NLMSG.ERROR) {
        request.reply?.(receiveBuffer, start, end, type);
        return;
      }
      take.done ||= index === last;
      const { errno, text } = decodeAcknowledgement(receiveBuffer, flags, start, end);
      if (errno !== 0) this.#errors.push(requestError(request.operation, request.type, errno, text));
    };
    const take = { done: false, answer };
    return { operation: head.operation, take };
  }

  /**
   * Asks for a list. `decode` returns undefined for what is to be left out. A list that changed while the
   * kernel wrote it (NLM_F_DUMP_INTR) is read again.
   */
  dump<T>(
    operation: string,
    type: number,
    encode: (message: MessageBuilder) => void,
    decode: (buffer: Buffer, start: number, end: number) => T | undefined,
  ): T[] {
    for (let attempt = 0; attempt < MAX_DUMP_ATTEMPTS; attempt++) {
      const list = this.#dumpOnce(operation, type, encode, decode);
      if (list !== undefined) return list;
    }
    throw new NetlinkError(operation, EINTR, `the list changed during each of ${MAX_DUMP_ATTEMPTS} readings`);
  }

  #dumpOnce<T>(
    operation: string,
    type: number,
    encode: (message: MessageBuilder) => void,
    decode: (buffer: Buffer, start: number, end: number) => T | undefined,
  ): T[] | undefined {
    this.#send();
    const sequence = this.#sequence;
    this.#sequence = (sequence + 1) >>> 0;
    this.#builder.begin(type, NLM_F.REQUEST | NLM_F.DUMP, sequence);
    try {
      encode(this.#builder);
      this.#builder.end();
      this.#socket.send(this.#builder.bytes());
    } catch (error) {
      throw NetlinkError.from(operation, error);
    } finally {
      this.#builder.reset();
    }
    const list: T[] = [];
    let done = false;
    let interrupted = false;
    let failure: NetlinkError | undefined;
    while (!done) {
      const length = this.#receive(operation, (kind, flags, of, start, end) => {
        if (of !== sequence) return;
        if ((flags & NLM_F.DUMP_INTR) !== 0 && kind !== NLMSG.ERROR) interrupted = true;
        if (kind === NLMSG.DONE || kind === NLMSG.ERROR) {
          done = true;
          const read = kind === NLMSG.DONE ? decodeDone : decodeAcknowledgement;
          const { errno, text } = read(receiveBuffer, flags, start, end);
          if (errno !== 0) failure = new NetlinkError(operation, errno, text);
          return;
        }
        const item = decode(receiveBuffer, start, end);
        if (item !== undefined) list.push(item);
      });
      // The rest of a dump is queued when the part before it is read.
      if (length < 0) throw unanswered(operation);
    }
    if (failure !== undefined) {
      if (failure.errno !== EINTR) throw failure;
      interrupted = true;
    }
    return interrupted ? undefined : list;
  }

  /** Reads one datagram without waiting. Returns its length, or -1 if there is none. */
  #receive(operation: string, visit: MessageVisitor): number {
    let length: number;
    try {
      length = this.#socket.receive(receiveBuffer);
    } catch (error) {
      throw NetlinkError.from(operation, error);
    }
    if (length >= 0) forEachMessage(receiveBuffer, length, visit);
    return length;
  }
}

function unanswered(operation: string): NetlinkError {
  return new NetlinkError(operation, EPROTO, 'the kernel did not answer');
}
