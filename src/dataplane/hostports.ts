import type { Hostport, HostportKey } from '../../loader/abi/gen/types.gen.js';
import type { ContainerResource } from '../../policy/model/resources.js';
import { attachmentId } from '../state/keys.js';
import type { Attachments } from './attachments.js';
import { hostPortEntries } from './hostport-entries.js';
import type { NodeState } from './node.js';
import { fits } from './policy-maps.js';
import type { ReservedPorts } from './reserved-ports.js';
import type { Rollback } from './rollback.js';
import type { SyncedMap } from './synced-map.js';

/** `hostports`: each container's published ports lead to its first network that has a host side. */
export class HostPorts {
  readonly #map: SyncedMap<HostportKey, Hostport>;
  readonly #attachments: Attachments;
  readonly #keys = new Map<string, readonly HostportKey[]>();
  readonly #reserved: Pick<ReservedPorts, 'matters' | 'keep'>;
  /** How many entries have a port that is to be reserved. */
  readonly #counts = new Map<number, number>();
  /** At first: an earlier agent may have reserved some. */
  #unsettled = true;

  readonly #node: NodeState;

  constructor(
    map: SyncedMap<HostportKey, Hostport>,
    node: NodeState,
    attachments: Attachments,
    reserved: Pick<ReservedPorts, 'matters' | 'keep'>,
  ) {
    this.#map = map;
    this.#node = node;
    this.#attachments = attachments;
    this.#reserved = reserved;
  }

  get size(): number {
    return this.#map.size;
  }

  /**
   * Writes the ports of these containers (undefined: the container is gone). All new entries are written
   * before old ones are removed, so a port that moves from one container to another is never closed.
   * Returns whether anything changed.
   */
  update(containers: ReadonlyMap<string, ContainerResource | undefined>, undo: Rollback): boolean {
    const wanted = new Set<string>();
    const before = new Map([...containers.keys()].map((name) => [name, this.#keys.get(name) ?? []]));
    let changed = false;
    for (const [name, container] of containers) {
      const entries = container === undefined ? [] : this.#entriesFor(container);
      fits(
        'hostports',
        this.#map.size + entries.length,
        this.#map.capacity + (before.get(name)?.length ?? 0),
      );
      if (entries.length > 0) this.#node.published = true;
      for (const [key, value] of entries) {
        wanted.add(keyText(key));
        const present = this.#map.get(key);
        if (present === undefined || present.ifindex !== value.ifindex) changed = true;
        undo.push(this.#map.set(key, value));
      }
      this.#remember(
        name,
        entries.map(([key]) => key),
        undo,
      );
    }
    for (const key of [...before.values()].flat()) {
      if (wanted.has(keyText(key))) continue;
      changed = true;
      undo.push(this.#map.delete(key));
      undo.push(() => {
        this.#node.published = true;
      });
    }
    if (this.#map.size === 0) this.#node.published = false;
    return changed;
  }

  /** After a change, when it is in force: the host's own connections get other ports than these. */
  settle(): void {
    if (!this.#unsettled) return;
    this.#unsettled = false;
    this.#reserved.keep(new Set(this.#counts.keys()));
  }

  #entriesFor(container: ContainerResource): (readonly [HostportKey, Hostport])[] {
    if (container.hostPorts.length === 0) return [];
    for (const entry of container.networks) {
      const live = this.#attachments.get(attachmentId(container, entry.network));
      if (live === undefined || live.spec.mode === 'macvlan') continue;
      const { ipv4, ipv6 } = live.spec;
      return hostPortEntries(container, {
        ifindex: live.ifindex,
        ...(ipv4 === undefined ? {} : { ipv4: ipv4.address }),
        ...(ipv6 === undefined ? {} : { ipv6: ipv6.address }),
      });
    }
    return [];
  }

  #remember(name: string, keys: readonly HostportKey[], undo: Rollback): void {
    const before = this.#keys.get(name);
    undo.push(() => this.#put(name, before));
    this.#put(name, keys);
  }

  #put(name: string, keys: readonly HostportKey[] | undefined): void {
    this.#count(keys ?? [], 1);
    this.#count(this.#keys.get(name) ?? [], -1);
    if (keys === undefined || keys.length === 0) this.#keys.delete(name);
    else this.#keys.set(name, keys);
  }

  #count(keys: readonly HostportKey[], by: number): void {
    for (const { port } of keys) {
      if (!this.#reserved.matters(port)) continue;
      const count = (this.#counts.get(port) ?? 0) + by;
      if (count === 0) this.#counts.delete(port);
      else this.#counts.set(port, count);
      this.#unsettled = true;
    }
  }
}

function keyText(key: HostportKey): string {
  return `${key.proto} ${key.port} ${Buffer.from(key.addr).toString('hex')}`;
}
