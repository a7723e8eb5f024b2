import type { Logger } from '../log.js';
import type { DockerApi } from './api.js';
import type { DockerState } from './state.js';

/** Milliseconds between the looks, after a start. */
const LOOK_MS = 5000;

interface Parts {
  readonly state: DockerState;
  readonly api: DockerApi;
  readonly log: Logger;
}

/** What removes what is found. */
interface Remover {
  deleteEndpoint(endpoint: { readonly NetworkID: string; readonly EndpointID: string }): Promise<void>;
  deleteNetwork(id: string): Promise<void>;
}

/**
 * After a start: finds the networks and endpoints that Docker does not have any more, once it can be asked, and has them
 * removed. What Docker mentions meanwhile stays, and so does what is missing only once.
 */
export class Forgotten {
  readonly #parts: Parts;
  readonly #remover: Remover;
  readonly #mentioned = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #running = true;

  constructor(parts: Parts, remover: Remover) {
    this.#parts = parts;
    this.#remover = remover;
  }

  /** Docker makes an endpoint of this id. */
  mentioned(id: string): void {
    if (this.#running) this.#mentioned.add(id);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#end();
  }

  /** `driver`: the name by which Docker knows it. */
  start(driver: string): void {
    const { state } = this.#parts;
    const known = { networks: new Set(state.networks.keys()), endpoints: new Set(state.endpoints.keys()) };
    const addresses = new Set([...state.addresses].filter(([, row]) => row.chosen).map(([key]) => key));
    if (known.networks.size + known.endpoints.size + addresses.size === 0) {
      this.#end();
      return;
    }
    let missing: ReadonlySet<string> | undefined;
    const look = async (): Promise<void> => {
      try {
        const present = await this.#listed(driver);
        const gone = [...known.networks, ...known.endpoints].filter(
          (id) => !present.has(id) && !this.#mentioned.has(id),
        );
        if (missing !== undefined) {
          await this.#drop(new Set(gone.filter((id) => missing?.has(id) === true)), addresses);
          this.#end();
          return;
        }
        missing = new Set(gone);
      } catch {
        // Docker does not run, or not yet.
      }
      if (this.#running) this.#timer = setTimeout(() => void look(), LOOK_MS).unref();
    };
    void look();
  }

  #end(): void {
    this.#running = false;
    this.#mentioned.clear();
  }

  async #listed(driver: string): Promise<Set<string>> {
    const { api } = this.#parts;
    const present = new Set<string>();
    for (const { Id } of await api.networksOf(driver)) {
      present.add(Id);
      const endpoints = Object.values((await api.network(Id))?.Containers ?? {});
      for (const { EndpointID } of endpoints) present.add(EndpointID);
    }
    return present;
  }

  async #drop(gone: ReadonlySet<string>, addresses: ReadonlySet<string>): Promise<void> {
    const { state, log } = this.#parts;
    for (const endpoint of [...state.endpoints.values()]) {
      if (!gone.has(endpoint.id) && !gone.has(endpoint.networkId)) continue;
      await this.#remover.deleteEndpoint({ NetworkID: endpoint.networkId, EndpointID: endpoint.id });
      log.warn(
        { endpoint: endpoint.id, container: endpoint.joined?.name },
        'Docker has no such endpoint; removed',
      );
    }
    for (const { id, network } of [...state.networks.values()]) {
      if (!gone.has(id)) continue;
      await this.#remover.deleteNetwork(id);
      log.warn({ network }, 'Docker has no such network; removed');
    }
    const used = new Set([...state.endpoints.values()].flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6]));
    for (const [key, { address }] of [...state.addresses])
      if (addresses.has(key) && !used.has(address)) state.put('address', key, undefined);
  }
}
