import { statSync } from 'node:fs';
import { FileLease } from '../../loader/file-lease.js';
import { isNamespace } from '../../loader/netns.js';
import type { Logger } from '../log.js';

/** Milliseconds between looks for a namespace. From when it is there Docker is busy in it for some 50 ms. */
const LOOK_MS = 4;
/** Docker takes a fraction of a second as a rule. When the time is over it has given the container up, or will have to. */
const GIVE_UP_MS = 120_000;
/** Milliseconds that the agent's end waits for containers that Docker has begun to start. */
const CLOSE_MS = 2000;

interface Waiting {
  /** The container's resolv.conf, which Docker opens as soon as it has the namespace: it reads it, and then writes it. */
  readonly file: string;
  /** performance.now() when it was joined. */
  readonly since: number;
  lease: FileLease | undefined;
  /** What is made of the file's text, in which case Docker waits before it reads it. */
  edit: ((text: string) => string) | undefined;
  making: boolean;
}

/**
 * Containers that were joined to a network before they have a network namespace: Docker asks a plugin for the device, and
 * then has the namespace made. It would move the device there, for which the kernel waits until all callbacks of RCU are
 * done. Instead the device is made where it belongs as soon as the namespace is there.
 *
 * Docker does not start the container's process before: it waits for a lease on a file that it has to open when the
 * namespace is there, which ends when the device is in force. If the agent dies, the lease ends with it, Docker finds no
 * way to the gateway, and the container does not start.
 */
export class Placement {
  readonly #make: (sandbox: string) => Promise<void>;
  readonly #log: Logger;
  readonly #waiting = new Map<string, Waiting>();
  #timer: NodeJS.Timeout | undefined;

  /** `make` makes the devices of a namespace (its path), which is there, and forgets it. */
  constructor(make: (sandbox: string) => Promise<void>, log: Logger) {
    this.#make = make;
    this.#log = log;
  }

  /** Waits a while for those whose containers Docker is starting, and gives the others up. */
  async close(): Promise<void> {
    const isNew = ({ since }: Waiting): boolean => performance.now() - since < CLOSE_MS;
    while ([...this.#waiting.values()].some(isNew))
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    clearTimeout(this.#timer);
    for (const sandbox of this.sandboxes) this.forget(sandbox);
  }

  /** Paths of the namespaces that are to come. */
  get sandboxes(): readonly string[] {
    return [...this.#waiting.keys()];
  }

  /** Whether the devices of a namespace are still to be made. */
  has(sandbox: string): boolean {
    return this.#waiting.has(sandbox);
  }

  /** The devices of this namespace are to be made when it is there. */
  expect(sandbox: string, file: string): void {
    this.forget(sandbox);
    const since = performance.now();
    this.#waiting.set(sandbox, { file, since, lease: undefined, edit: undefined, making: false });
    this.#timer ??= setTimeout(() => this.#look(), LOOK_MS).unref();
  }

  /**
   * Docker opens the file no more until the namespace is there: from now on it has to wait. With `edit` it finds what that
   * makes of the text.
   */
  hold(sandbox: string, edit?: (text: string) => string): void {
    const waiting = this.#waiting.get(sandbox);
    if (waiting === undefined || waiting.lease !== undefined || waiting.making) return;
    waiting.edit = edit;
    if (this.#take(waiting) || edit === undefined) return;
    waiting.edit = undefined;
    this.#log.warn(
      { file: waiting.file },
      'somebody has the file open: Docker tells the names of this container',
    );
    this.#take(waiting);
  }

  /** Whether the lease could be taken. */
  #take(waiting: Waiting): boolean {
    const { file, edit } = waiting;
    try {
      waiting.lease = FileLease.take(file, edit === undefined ? 'read' : 'write');
      if (edit !== undefined) waiting.lease.edit(edit);
      return true;
    } catch (err) {
      this.#log.debug({ err, file }, 'Docker can not be made to wait');
      waiting.lease?.end();
      waiting.lease = undefined;
      return false;
    }
  }

  /** The container will not start. */
  forget(sandbox: string): void {
    const waiting = this.#waiting.get(sandbox);
    this.#waiting.delete(sandbox);
    waiting?.lease?.end();
  }

  #look(): void {
    for (const [sandbox, waiting] of this.#waiting) {
      if (waiting.making) continue;
      // Asked first: who opens the file when there is no namespace afterwards wants something else of it.
      const wanted = waiting.lease?.wanted === true;
      if (isThere(sandbox)) void this.#place(sandbox, waiting);
      else if (performance.now() - waiting.since > GIVE_UP_MS) this.forget(sandbox);
      else if (wanted) {
        waiting.lease?.end();
        waiting.lease = undefined;
      } else if (waiting.edit !== undefined && waiting.lease === undefined) this.#take(waiting); // somebody has read it
    }
    this.#timer = this.#waiting.size === 0 ? undefined : setTimeout(() => this.#look(), LOOK_MS).unref();
  }

  async #place(sandbox: string, waiting: Waiting): Promise<void> {
    waiting.making = true;
    try {
      await this.#make(sandbox);
    } catch (err) {
      this.#log.error({ err, sandbox }, 'a container of Docker gets no network and will not start');
    }
  }
}

/** Whether there is a namespace at a path, and not just the file that Docker makes before. */
export function isThere(sandbox: string): boolean {
  try {
    return isNamespace(statSync(sandbox, { bigint: true }).dev);
  } catch {
    return false; // not there, or no path that could be
  }
}

/** Whether Docker can be made to wait for a file: we see the same files, and theirs is a file system with leases. */
export function canHold(file: string): boolean {
  try {
    FileLease.take(file, 'read').end();
    return true;
  } catch {
    return false;
  }
}
