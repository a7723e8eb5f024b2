/** What the tests of src/kubernetes share. */
import pino from 'pino';
import { Backoff } from '../../src/kubernetes/backoff.js';
import { ApiClient } from '../../src/kubernetes/client.js';
import type { ClusterAccess } from '../../src/kubernetes/credentials.js';
import { type ApiObject, nameOf } from '../../src/kubernetes/objects.js';
import { type Collection, Reflector, type ReflectorOptions } from '../../src/kubernetes/reflector.js';
import type { ApiServer } from './api-server.js';

export const silent = pino({ level: 'silent' });

/** Access without credentials. */
export function plainAccess(server: Pick<ApiServer, 'url'>): ClusterAccess {
  return {
    server: new URL(server.url),
    tls: () => ({ insecure: false }),
    authorization: () => undefined,
  };
}

/**
 * Waits for something that happens by itself, and says what did not. The stand-in is in this process: it gets as much
 * time as the look at the condition took.
 */
export async function until(what: string, condition: () => boolean, milliseconds = 10_000): Promise<void> {
  for (const end = performance.now() + milliseconds; ; ) {
    const began = performance.now();
    if (condition()) return;
    if (performance.now() > end) throw new Error(`it did not happen: ${what}`);
    const pause = Math.min(200, Math.max(5, performance.now() - began));
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** A reflector with a copy of what it says there is: name -> value of the label `v`. */
export class Copy {
  readonly objects = new Map<string, string>();
  readonly reflector: Reflector;
  readonly client: ApiClient;
  lists = 0;
  #seen = new Set<string>();

  constructor(server: ApiServer, collection: Collection, options: Partial<ReflectorOptions> = {}) {
    this.client = new ApiClient(plainAccess(server));
    this.reflector = new Reflector({
      client: this.client,
      collection,
      log: silent,
      onSynced: () => undefined,
      backoff: new Backoff(2, 50),
      sink: {
        listing: () => this.#seen.clear(),
        put: (given) => {
          const object = given as ApiObject;
          this.#seen.add(nameOf(object));
          this.objects.set(nameOf(object), object.metadata?.labels?.v ?? '');
        },
        remove: (given) => void this.objects.delete(nameOf(given as ApiObject)),
        listed: () => {
          this.lists++;
          for (const name of [...this.objects.keys()]) if (!this.#seen.has(name)) this.objects.delete(name);
        },
      },
      ...options,
    });
    this.reflector.start();
  }

  async close(): Promise<void> {
    await this.reflector.close();
    this.client.close();
  }
}
