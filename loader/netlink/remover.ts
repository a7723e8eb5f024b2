import { IFLA, NLM_F, NLMSG, RTM } from './constants.js';
import { decodeAcknowledgement, NetlinkError, requestError } from './errors.js';
import { unusedGroup } from './groups.js';
import { encodeLinkHeader } from './link.js';
import { forEachMessage, MessageBuilder } from './message.js';
import { NetlinkSocket } from './socket.js';

/** Devices that the kernel removes at a time: it holds its lock for that long. */
const CHUNK = 128;
const RECEIVE_BUFFER = 1 << 20;
const OPERATION = 'delete links';
const ENODEV = 19;
const EPROTO = 71;

/** Removals under way at once: each takes a thread of libuv's pool, which has four. */
const MAX_RUNNING = 3;
/** Milliseconds between two looks whether devices are gone, and before them for which it is looked in every turn. */
const LOOK_MS = 1;
const EVERY_TURN_MS = 2;

interface Waiting {
  readonly ifindex: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  readonly finished: () => void;
}

/** The removal of one device. */
export interface Removal {
  /** Resolves when nobody can see the device any more. Rejects with NetlinkError. */
  readonly gone: Promise<void>;
  /** Resolves when the kernel is done with it, whatever came of it. */
  readonly finished: Promise<void>;
}

/**
 * Removes devices of the network namespace that the process is in, without holding up the caller. The kernel takes a
 * device away at once and then waits for several grace periods (10 to 50 ms); it does that on a thread of its own.
 * Those that are asked for in one turn go together, which costs as much as one.
 */
export class LinkRemover {
  readonly #idle: NetlinkSocket[] = [];
  readonly #buffer = Buffer.from(new ArrayBuffer(64 * 1024));
  readonly #running = new Set<Promise<void>>();
  #queue: Waiting[] = [];
  #scheduled = false;

  /** Whether devices are being removed. */
  get busy(): boolean {
    return this.#running.size > 0 || this.#queue.length > 0;
  }

  /** The device may be gone already. */
  remove(ifindex: number): Removal {
    let finished: () => void = () => {};
    const end = new Promise<void>((resolve) => {
      finished = resolve;
    });
    const gone = new Promise<void>((resolve, reject) => {
      this.#queue.push({ ifindex, resolve, reject, finished });
    });
    if (!this.#scheduled) {
      this.#scheduled = true;
      // In the next turn, so that all that are asked for in this one go together.
      setImmediate(() => {
        this.#scheduled = false;
        this.#start();
      });
    }
    return { gone, finished: end };
  }

  /** Resolves when nothing is under way. Never rejects. */
  async idle(): Promise<void> {
    while (this.#running.size > 0 || this.#scheduled || this.#queue.length > 0) {
      await Promise.all(this.#running);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Closes the sockets; what is under way goes on in the kernel. */
  close(): void {
    for (const socket of this.#idle.splice(0)) socket.close();
  }

  #start(): void {
    while (this.#queue.length > 0 && this.#running.size < MAX_RUNNING) {
      const batch = this.#queue.splice(0, CHUNK);
      const run = this.#delete(batch).finally(() => {
        this.#running.delete(run);
        for (const { finished } of batch) finished();
        this.#start();
      });
      this.#running.add(run);
    }
  }

  /** Never rejects. */
  async #delete(batch: readonly Waiting[]): Promise<void> {
    const state = { done: false };
    try {
      const socket = this.#idle.pop() ?? NetlinkSocket.open({ receiveBuffer: RECEIVE_BUFFER });
      const sent = this.#send(socket, batch).finally(() => {
        state.done = true;
        this.#idle.push(socket);
      });
      await Promise.race([sent, vanished(socket, batch, state)]);
      for (const { resolve } of batch) resolve();
      await sent;
    } catch (error) {
      for (const { reject } of batch) reject(NetlinkError.from(OPERATION, error));
    }
  }

  async #send(socket: NetlinkSocket, batch: readonly Waiting[]): Promise<void> {
    const indexes = batch.map(({ ifindex }) => ifindex);
    const builder = new MessageBuilder();
    const last = indexes.length === 1 ? 0 : indexes.length;
    const request = (type: number, sequence: number, ifindex: number, group?: number): void => {
      builder.begin(type, NLM_F.REQUEST | (sequence === last ? NLM_F.ACK : 0), sequence);
      encodeLinkHeader(builder, ifindex === 0 ? {} : { index: ifindex });
      if (group !== undefined) builder.attribute32(IFLA.GROUP, group);
      builder.end();
    };
    const [only] = indexes;
    if (indexes.length === 1) request(RTM.DELLINK, 0, only ?? 0);
    else {
      // A group of their own is the one way to remove several at once.
      const group = unusedGroup();
      indexes.forEach((ifindex, i) => {
        request(RTM.SETLINK, i, ifindex, group);
      });
      request(RTM.DELLINK, last, 0, group);
    }
    await socket.sendLater(builder.bytes());
    this.#acknowledged(socket, last);
  }

  /** Reads the answers, to requests that failed and to the last one. All are there when it has been carried out. */
  #acknowledged(socket: NetlinkSocket, last: number): void {
    let failure: NetlinkError | undefined;
    for (let done = false; !done; ) {
      const length = socket.receive(this.#buffer);
      if (length < 0) throw new NetlinkError(OPERATION, EPROTO, 'the kernel did not answer');
      forEachMessage(this.#buffer, length, (type, flags, sequence, start, end) => {
        if (type !== NLMSG.ERROR) return;
        done ||= sequence === last;
        const { errno, text } = decodeAcknowledgement(this.#buffer, flags, start, end);
        if (errno !== 0 && errno !== ENODEV) failure ??= requestError(OPERATION, RTM.DELLINK, errno, text);
      });
    }
    if (failure !== undefined) throw failure;
  }
}

/** The kernel unlists all devices of a request before it waits for the first. */
async function vanished(
  socket: NetlinkSocket,
  batch: readonly Waiting[],
  state: { readonly done: boolean },
): Promise<void> {
  const last = batch.at(-1)?.ifindex ?? 0;
  const soon = performance.now() + EVERY_TURN_MS;
  do {
    await new Promise((resolve) =>
      performance.now() < soon ? setImmediate(resolve) : setTimeout(resolve, LOOK_MS),
    );
  } while (!state.done && socket.hasLink(last));
}
