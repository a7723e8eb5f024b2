import { NetlinkError } from '../../loader/netlink/errors.js';
import type { LaterVeth } from '../../loader/netlink/links.js';
import { awaitLater, type MadeDevice } from './devices.js';

const EPROTO = 71;
/**
 * So long the end is looked for before the thread goes to sleep: waking it takes longer than what is left, as a rule, and
 * much longer in a virtual machine.
 */
const LOOK_MS = 0.2;

/** A container's device that the kernel makes on another thread while the change goes on. */
export class LaterDevice {
  readonly ifindex: number;
  readonly #later: LaterVeth;
  readonly #remove: (ifindex: number) => void;
  #made: MadeDevice | undefined;
  #failure: unknown;
  #taken = false;

  /** `remove` takes the device away when the change fails before anybody has taken it. */
  constructor(ifindex: number, later: LaterVeth, remove: (ifindex: number) => void) {
    this.ifindex = ifindex;
    this.#later = later;
    this.#remove = remove;
  }

  /** Whether the kernel is done with it, and nobody has to wait. */
  get ready(): boolean {
    if (this.#made !== undefined || this.#failure !== undefined) return true;
    try {
      const pair = this.#later.result();
      if (pair !== undefined) this.#made = { ifindex: pair.ifindex, inside: pair.peerIfindex };
    } catch (error) {
      this.#failure = error;
    }
    return this.#made !== undefined || this.#failure !== undefined;
  }

  /** Resolves when the kernel is done. Never rejects. */
  async settle(): Promise<void> {
    for (const end = performance.now() + LOOK_MS; performance.now() < end; ) if (this.ready) return;
    try {
      await this.#later.settled;
    } catch (error) {
      this.#failure = error;
    }
    if (!this.ready) this.#failure = new NetlinkError('make a device', EPROTO, 'the kernel did not answer');
  }

  /** The device, which is the caller's from now on. To be called once, when it is ready. Throws NetlinkError. */
  take(): MadeDevice {
    this.#taken = true;
    if (this.#made === undefined) throw this.#failure;
    return this.#made;
  }

  /** The change failed: removes the device unless somebody has taken it. Throws NetlinkError. */
  abandon(): void {
    if (this.#taken) return;
    this.#taken = true;
    awaitLater(`make link ${this.ifindex}`, () => this.ready);
    if (this.#made !== undefined) this.#remove(this.ifindex);
  }
}
