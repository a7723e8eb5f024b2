import type { ContainerResource } from '../../policy/model/resources.js';
import type { LeaseBook } from '../ipam/leases.js';
import { attachmentId, displayName } from '../state/keys.js';
import type { Edit, ObjectSet } from '../state/objects.js';

/** One address pair of a container of this host. */
export interface OwnPlace {
  readonly network: string;
  /** `v1` Pod as other hosts need it; without the name of the node. */
  readonly pod: PodDocument;
}

export interface PodDocument {
  readonly apiVersion: 'v1';
  readonly kind: 'Pod';
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly labels: Readonly<Record<string, string>>;
  };
  readonly spec: { readonly containers: readonly { readonly ports: readonly object[] }[] };
  readonly status: { readonly podIPs: readonly { readonly ip: string }[] };
}

/** Containers by `namespace/name`; no places: it is gone. */
export type OwnChange = readonly (readonly [container: string, places: readonly OwnPlace[]])[];

/** Tells of the containers of this host with their labels, ports and addresses, whenever definitions change. */
export class OwnContainers {
  readonly #objects: ObjectSet;
  readonly #leases: LeaseBook;
  #listener: ((change: OwnChange) => void) | undefined;

  constructor(objects: ObjectSet, leases: LeaseBook) {
    this.#objects = objects;
    this.#leases = leases;
  }

  /** Calls the listener, of which there is one, with everything that there is, and then with each change. */
  listen(listener: (change: OwnChange) => void): void {
    this.#listener = listener;
    listener([...this.#objects.ofKind('Container')].map((one) => [displayName(one), this.#places(one)]));
  }

  /** These edits are in force. */
  changed(edits: readonly Edit[]): void {
    if (this.#listener === undefined) return;
    const change = new Map<string, readonly OwnPlace[]>();
    const networks = new Set<string>();
    for (const { before, after } of edits) {
      const resource = after ?? before;
      if (resource?.kind === 'Network') networks.add(resource.name);
      if (resource?.kind === 'Container')
        change.set(displayName(resource), after?.kind === 'Container' ? this.#places(after) : []);
    }
    if (networks.size > 0) {
      // Their containers may have other addresses now.
      for (const one of this.#objects.ofKind('Container'))
        if (one.networks.some(({ network }) => networks.has(network)))
          change.set(displayName(one), this.#places(one));
    }
    if (change.size > 0) this.#listener([...change]);
  }

  #places(container: ContainerResource): OwnPlace[] {
    const { namespace, name, labels, ports } = container;
    return container.networks.flatMap(({ network }, index) => {
      const lease = this.#leases.get(attachmentId(container, network));
      const podIPs = [lease?.ipv4, lease?.ipv6].flatMap((ip) => (ip === undefined ? [] : [{ ip }]));
      if (podIPs.length === 0) return [];
      const own = index === 0 ? name : `${name}.${network}`;
      const named = ports.map((port) => ({
        name: port.name,
        protocol: port.protocol,
        containerPort: port.port,
      }));
      const pod: PodDocument = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: own, namespace, labels: { ...labels } },
        spec: { containers: [{ ports: named }] },
        status: { podIPs },
      };
      return [{ network, pod }];
    });
  }
}
