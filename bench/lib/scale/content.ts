/** A large cluster, the same in every run: which objects it has, and how its pods come and go. */
import * as objects from '../../../test/kubernetes/objects.js';
import type { Given } from '../../../test/kubernetes/store.js';

export interface ClusterSize {
  readonly nodes: number;
  readonly pods: number;
  readonly services: number;
  readonly policies: number;
}

export const NAMESPACES = 200;
/** Addresses of one node's range: 64. */
const NODE_BITS = 6;
const TIERS = ['front', 'back', 'data'] as const;

const dotted = (value: number): string =>
  [24, 16, 8, 0].map((shift) => String((value >>> shift) & 255)).join('.');

export const nodeName = (index: number): string => `node-${index}`;
export const namespaceName = (index: number): string => `ns-${index % NAMESPACES}`;
const nodeAddress = (index: number): string => dotted(0xac10_0000 + 256 + index); // 172.16.1.0
const podRange = (index: number): string => `${dotted(0x0a80_0000 + (index << NODE_BITS))}/${32 - NODE_BITS}`; // 10.128.0.0
const podAddress = (node: number, host: number): string =>
  dotted(0x0a80_0000 + (node << NODE_BITS) + 2 + host);
const serviceAddress = (index: number): string => dotted(0x0a60_0000 + 256 + index); // 10.96.1.0

/** One pod of the cluster. */
export interface PodPlace {
  readonly app: number;
  readonly node: number;
  /** Which of the node's addresses it has. */
  readonly host: number;
  /** Counts the pods of this name's place, so that a new pod has a new name. */
  readonly round: number;
  readonly serial: number;
}

export class ClusterContent {
  readonly size: ClusterSize;

  constructor(size: ClusterSize) {
    this.size = size;
  }

  /** Replicas of an app stand together in the numbering and on different nodes. */
  place(serial: number): PodPlace {
    const { nodes, services, pods } = this.size;
    const replicas = Math.max(1, Math.floor(pods / services));
    const app = Math.min(services - 1, Math.floor(serial / replicas));
    return { app, node: serial % nodes, host: Math.floor(serial / nodes), round: 0, serial };
  }

  podName({ app, serial, round }: PodPlace): string {
    return `app-${app}-5d4f8c7b9-${serial.toString(36)}-${round}`;
  }

  address({ node, host }: PodPlace): string {
    return podAddress(node, host);
  }

  pod(place: PodPlace, more: Partial<objects.PodGiven> & { readonly version?: string } = {}): Given {
    const { app, node } = place;
    const { version = 'v1', ...given } = more;
    return objects.pod({
      namespace: namespaceName(app),
      name: this.podName(place),
      node: nodeName(node),
      ips: [this.address(place)],
      labels: {
        app: `app-${app}`,
        tier: TIERS[app % TIERS.length] ?? '',
        version,
        'pod-template-hash': '5d4f8c7b9',
      },
      ports: [{ name: 'http', containerPort: 8080 }],
      ...given,
    });
  }

  slice(app: number, places: readonly PodPlace[]): Given {
    return objects.slice(
      `app-${app}-x7k2p`,
      `app-${app}`,
      places.map((place) => ({ ip: this.address(place), node: nodeName(place.node) })),
      [{ name: 'http', port: 8080 }],
      namespaceName(app),
    );
  }

  *nodes(): IterableIterator<Given> {
    for (let i = 0; i < this.size.nodes; i++) {
      const labels = {
        'topology.kubernetes.io/zone': `z${i % 3}`,
        'node.kubernetes.io/instance-type': 'large',
      };
      yield objects.node(nodeName(i), [nodeAddress(i)], [podRange(i)], labels);
    }
  }

  *namespaces(): IterableIterator<Given> {
    for (let i = 0; i < NAMESPACES; i++)
      yield objects.namespace(namespaceName(i), { team: `t${i % 20}`, stage: `s${i % 3}` });
  }

  *services(): IterableIterator<Given> {
    for (let app = 0; app < this.size.services; app++) {
      const port = { name: 'http', port: 80, targetPort: 'http' };
      yield objects.service(`app-${app}`, [serviceAddress(app)], [port], {}, namespaceName(app));
    }
  }

  /** One for each namespace, then one for every second app. */
  *policies(): IterableIterator<Given> {
    for (let i = 0; i < this.size.policies; i++) {
      if (i < NAMESPACES) {
        const spec = {
          podSelector: {},
          policyTypes: ['Ingress'],
          ingress: [{ from: [{ podSelector: {} }] }],
        };
        yield objects.networkPolicy('same-namespace', spec, namespaceName(i));
        continue;
      }
      const app = ((i - NAMESPACES) * 2) % Math.max(1, this.size.services);
      const ports = [
        { port: 'http', protocol: 'TCP' },
        { port: 9090, endPort: 9099, protocol: 'TCP' },
      ];
      const ingress = [
        {
          from: [
            { podSelector: { matchLabels: { app: `app-${app + NAMESPACES}` } } },
            {
              namespaceSelector: { matchLabels: { team: `t${app % 20}` } },
              podSelector: { matchLabels: { tier: 'front' } },
            },
            ...(i % 5 === 0
              ? [{ ipBlock: { cidr: `192.168.${i % 256}.0/24`, except: [`192.168.${i % 256}.0/28`] } }]
              : []),
          ],
          ports,
        },
      ];
      const egress = [
        { to: [{ namespaceSelector: {}, podSelector: { matchLabels: { tier: 'data' } } }], ports },
        { ports: [{ port: 53, protocol: 'UDP' }] },
      ];
      const spec = {
        podSelector: { matchLabels: { app: `app-${app}` } },
        policyTypes: i % 4 === 0 ? ['Ingress', 'Egress'] : ['Ingress'],
        ingress,
        ...(i % 4 === 0 ? { egress } : {}),
      };
      yield objects.networkPolicy(`app-${app}-${i}`, spec, namespaceName(app));
    }
  }
}
