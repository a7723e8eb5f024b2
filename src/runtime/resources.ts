import type {
  ContainerNetwork,
  ContainerPort,
  ContainerResource,
  HostPort,
  Labels,
  NamespaceRef,
  NetworkMode,
  NetworkResource,
} from '../../policy/model/resources.js';

/** What a runtime says about a container. Names are not checked: they are the runtime's own. */
export interface RuntimeContainer {
  /** Who made it, for messages: `docker`, `cni`. */
  readonly from: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly netns: NamespaceRef;
  readonly networks: readonly ContainerNetwork[];
  readonly hostPorts?: readonly HostPort[];
  readonly ports?: readonly ContainerPort[];
}

/** The object of a runtime's container; `source` reads like a definition of it. */
export function runtimeContainer(given: RuntimeContainer): ContainerResource {
  const { from, namespace, name, labels, netns, networks, hostPorts = [], ports = [] } = given;
  const { type: _, ...where } = netns;
  return {
    kind: 'Container',
    name,
    namespace,
    labels,
    netns,
    networks,
    hostPorts,
    ports,
    origin: { file: from, line: 1 },
    source: {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Container',
      metadata: { name, namespace, labels },
      spec: {
        netns: where,
        networks: networks.map(({ network, ...rest }) => ({ name: network, ...rest })),
        ...(hostPorts.length === 0 ? {} : { hostPorts }),
        ...(ports.length === 0
          ? {}
          : { ports: ports.map(({ port, ...rest }) => ({ ...rest, containerPort: port })) }),
      },
    },
  };
}

/** What a runtime says about a network. CIDRs and gateways are canonical text. */
export interface RuntimeNetwork {
  readonly from: string;
  readonly name: string;
  readonly mode: Extract<NetworkMode, 'routed' | 'bridge' | 'macvlan' | 'chained'>;
  readonly ipv4?: { readonly cidr: string; readonly gateway: string };
  readonly ipv6?: { readonly cidr: string; readonly gateway: string };
  readonly mtu?: number;
  readonly masquerade: boolean;
  readonly internal?: boolean;
  readonly parent?: string;
}

/** The object of a runtime's network. */
export function runtimeNetwork({ from, name, ...spec }: RuntimeNetwork): NetworkResource {
  return {
    kind: 'Network',
    name,
    ...spec,
    origin: { file: from, line: 1 },
    source: { apiVersion: 'sluice.dev/v1alpha1', kind: 'Network', metadata: { name }, spec },
  };
}
