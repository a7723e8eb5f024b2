import { netnsPath } from '../../loader/netns.js';
import type { ContainerResource, NetworkResource } from '../../policy/model/resources.js';
import type { ServiceResource } from '../../policy/model/service.js';
import type { LeaseBook } from '../ipam/leases.js';
import { attachmentId, displayName } from '../state/keys.js';
import type { Edit, ObjectSet } from '../state/objects.js';
import type { NameChange, NamedNetwork, NamedObject, NamedPlace, NamedService } from './names.js';

/** What it returns resolves when the names of the change are known to who asks. */
export type NameListener = (change: NameChange) => Promise<void>;

/** Tells of names and addresses whenever definitions change: what the name service answers from. */
export class NameFeed {
  readonly #objects: ObjectSet;
  readonly #leases: LeaseBook;
  readonly #clusterIps: (service: string) => readonly string[];
  readonly #listeners: NameListener[] = [];

  /** `clusterIps`: addresses of a service (`namespace/name`), with those that were chosen for it. */
  constructor(objects: ObjectSet, leases: LeaseBook, clusterIps: (service: string) => readonly string[]) {
    this.#objects = objects;
    this.#leases = leases;
    this.#clusterIps = clusterIps;
  }

  /** Calls the listener with everything that there is, and then with each change. */
  listen(listener: NameListener): Promise<void> {
    this.#listeners.push(listener);
    const networks = [...this.#objects.ofKind('Network')];
    const containers = [...this.#objects.ofKind('Container')];
    const services = [...this.#objects.ofKind('Service')];
    return listener({
      networks: networks.map((network) => [network.name, named(network)]),
      objects: containers.map((container) => [displayName(container), this.#object(container)]),
      services: services.map((service) => [displayName(service), this.#service(service)]),
    });
  }

  /** These edits are in force. Resolves when names of new networks are answered. */
  async changed(edits: readonly Edit[]): Promise<void> {
    if (this.#listeners.length === 0) return;
    const networks = new Map<string, NamedNetwork | undefined>();
    const objects = new Map<string, NamedObject | undefined>();
    const services = new Map<string, NamedService | undefined>();
    for (const { before, after } of edits) {
      const resource = after ?? before;
      if (resource?.kind === 'Network')
        networks.set(resource.name, after?.kind === 'Network' ? named(after) : undefined);
      if (resource?.kind === 'Service')
        services.set(displayName(resource), after?.kind === 'Service' ? this.#service(after) : undefined);
      if (resource?.kind === 'Container')
        objects.set(displayName(resource), after?.kind === 'Container' ? this.#object(after) : undefined);
    }
    if (networks.size > 0) {
      // Their containers may have other addresses now.
      for (const container of this.#objects.ofKind('Container'))
        if (container.networks.some(({ network }) => networks.has(network)))
          objects.set(displayName(container), this.#object(container));
    }
    if (networks.size + objects.size + services.size === 0) return;
    const change = { networks: [...networks], objects: [...objects], services: [...services] };
    await Promise.all(this.#listeners.map((listener) => listener(change)));
  }

  /** A service without an address of its own has no name here. */
  #service(service: ServiceResource): NamedService | undefined {
    const { type, clusterIps } = service;
    if (type === 'ExternalName' || clusterIps === 'None') return undefined;
    const addresses = this.#clusterIps(displayName(service));
    return addresses.length === 0 ? undefined : addresses;
  }

  #object(container: ContainerResource): NamedObject {
    const places = container.networks.map(({ network, aliases }): NamedPlace => {
      const lease = this.#leases.get(attachmentId(container, network));
      return {
        network,
        ...(lease?.ipv4 === undefined ? {} : { ipv4: lease.ipv4 }),
        ...(lease?.ipv6 === undefined ? {} : { ipv6: lease.ipv6 }),
        ...(aliases === undefined ? {} : { aliases }),
      };
    });
    const { namespace, name, netns } = container;
    return {
      key: displayName(container),
      namespace,
      name,
      ...(netns === undefined ? {} : { netns: netnsPath(netns) }),
      places,
    };
  }
}

/** Networks whose gateway is this host. */
function named({ name, mode, ipv4, ipv6 }: NetworkResource): NamedNetwork | undefined {
  if (mode !== 'routed' && mode !== 'bridge') return undefined;
  return { name, ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) };
}
