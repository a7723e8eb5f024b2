import type { Netns } from '../netns.js';
import { type LaterAnswers, NetlinkChannel, type Reply } from './channel.js';
import { NetlinkError } from './errors.js';
import type { MessageBuilder } from './message.js';
import { NetlinkSocket } from './socket.js';

/** Room for the answers to 128 requests at once, and for the datagrams of a dump. */
const RECEIVE_BUFFER = 1 << 20;

export type Encode = (message: MessageBuilder) => void;

/** A socket of one namespace and the ways to send requests on it, for the classes that know the requests. */
export class Requests {
  readonly #socket: NetlinkSocket;
  readonly #channel: NetlinkChannel;
  #batching = false;

  /** Opens a socket in a namespace; default: the one that the process is in. `protocol`: netlink family. */
  protected constructor(ns?: Netns, protocol?: number) {
    try {
      this.#socket = NetlinkSocket.open({
        netns: ns,
        receiveBuffer: RECEIVE_BUFFER,
        ...(protocol === undefined ? {} : { protocol }),
      });
    } catch (error) {
      throw NetlinkError.from(`open a netlink socket${ns === undefined ? '' : ` in ${ns.path}`}`, error);
    }
    this.#channel = new NetlinkChannel(this.#socket);
  }

  /** Whether there is a device of this name or index; cheaper than asking what it is like. */
  hasLink(nameOrIndex: string | number): boolean {
    return this.#socket.hasLink(nameOrIndex);
  }

  /** Number of the namespace, as BPF programs see it; never reused. */
  netnsCookie(): bigint {
    return this.#socket.netnsCookie();
  }

  /** Closes the socket; closing twice does nothing. */
  close(): void {
    this.#socket.close();
  }

  /**
   * Runs the changes that `fill` asks for in one system call (or a few, when there are many). The
   * kernel carries them out in order, and goes on after one that fails: the first error is thrown
   * at the end, or each is given to `onError`. Questions and new devices inside `fill` send what is
   * queued first. When `fill` throws, what is not sent is forgotten. A batch inside a batch joins it.
   */
  batch(fill: () => void, onError?: (error: NetlinkError) => void): void {
    if (this.#batching) fill();
    else this.together(fill, onError);
  }

  /** Like batch, but also inside a batch it is carried out when it returns. */
  protected together(fill: () => void, onError?: (error: NetlinkError) => void): void {
    const before = this.#batching;
    this.#batching = true;
    let errors: NetlinkError[];
    try {
      errors = this.#channel.transact(fill);
    } finally {
      this.#batching = before;
    }
    if (onError !== undefined) for (const error of errors) onError(error);
    else if (errors[0] !== undefined) throw errors[0];
  }

  /** Runs the changes that `fill` asks for on another thread: see NetlinkChannel. */
  protected later(fill: () => void): LaterAnswers {
    this.#batching = true;
    try {
      return this.#channel.later(fill);
    } finally {
      this.#batching = false;
    }
  }

  /** A change, or with `reply` a question: queued in a batch, else carried out at once. */
  protected change(operation: string, type: number, flags: number, encode: Encode, reply?: Reply): void {
    if (this.#batching) this.#channel.add(operation, type, flags, encode, reply);
    else this.request(operation, type, flags, encode, reply);
  }

  /** A request that is carried out at once, also in a batch. */
  protected request(operation: string, type: number, flags: number, encode: Encode, reply?: Reply): void {
    const [error] = this.#channel.transact(() => this.#channel.add(operation, type, flags, encode, reply));
    if (error !== undefined) throw error;
  }

  /** A list. What is queued is sent first. */
  protected dump<T>(
    operation: string,
    type: number,
    encode: Encode,
    decode: (buffer: Buffer, start: number, end: number) => T | undefined,
  ): T[] {
    return this.#channel.dump(operation, type, encode, decode);
  }
}
