import { randomInt } from 'node:crypto';
import { IFLA, NLM_F, NLMSG, RTM } from './constants.js';
import { decodeAcknowledgement, NetlinkError, requestError } from './errors.js';
import { encodeLinkHeader } from './link.js';
import { forEachMessage, MessageBuilder } from './message.js';
import { NetlinkSocket } from './socket.js';

/** Devices that the kernel removes at a time: it holds its lock for that long. */
const CHUNK = 128;
const RECEIVE_BUFFER = 1 << 20;
const OPERATION = 'delete links';
const ENODEV = 19;
const EPROTO = 71;

interface Waiting {
  readonly ifindex: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Removes devices without holding up the caller: the kernel waits for several grace periods (10 to 50 ms), and
 * it does so on a thread of its own. Those that are asked for while it waits go together, which costs
 * as much as one.
 */
export class LinkRemover {
  readonly #socket: NetlinkSocket;
  readonly #buffer = Buffer.from(new ArrayBuffer(64 * 1024));
  #queue: Waiting[] = [];
  #running: Promise<void> | undefined;

  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** For the network namespace that the process is in. Throws NetlinkError. */
  static open(): LinkRemover {
    try {
      return new LinkRemover(NetlinkSocket.open({ receiveBuffer: RECEIVE_BUFFER }));
    } catch (error) {
      throw NetlinkError.from('open a netlink socket', error);
    }
  }

  /** Resolves when the device is gone; it may be gone already. Rejects with NetlinkError. */
  remove(ifindex: number): Promise<void> {
    const gone = new Promise<void>((resolve, reject) => {
      this.#queue.push({ ifindex, resolve, reject });
    });
    // In the next turn, so that all that are asked for in this one go together.
    this.#running ??= new Promise<void>((resolve) => setImmediate(resolve))
      .then(() => this.#work())
      .finally(() => {
        this.#running = undefined;
      });
    return gone;
  }

  /** Resolves when nothing is under way. Never rejects. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** Closes the socket; what is under way goes on in the kernel. */
  close(): void {
    this.#socket.close();
  }

  async #work(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, CHUNK);
      try {
        await this.#delete(batch.map(({ ifindex }) => ifindex));
        for (const { resolve } of batch) resolve();
      } catch (error) {
        for (const { reject } of batch) reject(NetlinkError.from(OPERATION, error));
      }
    }
  }

  async #delete(indexes: readonly number[]): Promise<void> {
    const builder = new MessageBuilder();
    const request = (type: number, sequence: number, ifindex: number, group?: number): void => {
      builder.begin(type, NLM_F.REQUEST | NLM_F.ACK, sequence);
      encodeLinkHeader(builder, ifindex === 0 ? {} : { index: ifindex });
      if (group !== undefined) builder.attribute32(IFLA.GROUP, group);
      builder.end();
    };
    const [only] = indexes;
    if (indexes.length === 1) request(RTM.DELLINK, 0, only ?? 0);
    else {
      // A group of their own is the one way to remove several at once.
      const group = randomInt(0x10000, 0x7fffffff);
      indexes.forEach((ifindex, i) => {
        request(RTM.SETLINK, i, ifindex, group);
      });
      request(RTM.DELLINK, indexes.length, 0, group);
    }
    const requests = indexes.length === 1 ? 1 : indexes.length + 1;
    await this.#socket.sendLater(builder.bytes());
    this.#acknowledged(requests);
  }

  /** Reads the answers; all are there when the request has been carried out. */
  #acknowledged(requests: number): void {
    let failure: NetlinkError | undefined;
    for (let missing = requests; missing > 0; ) {
      const length = this.#socket.receive(this.#buffer);
      if (length < 0) throw new NetlinkError(OPERATION, EPROTO, 'the kernel did not answer');
      forEachMessage(this.#buffer, length, (type, flags, _sequence, start, end) => {
        if (type !== NLMSG.ERROR) return;
        missing--;
        const { errno, text } = decodeAcknowledgement(this.#buffer, flags, start, end);
        if (errno !== 0 && errno !== ENODEV) failure ??= requestError(OPERATION, RTM.DELLINK, errno, text);
      });
    }
    if (failure !== undefined) throw failure;
  }
}
