/** What an agent watches of a cluster. */
import { TEST_KINDS } from '../../policy/schema/kinds.js';
import type { Collection } from './reflector.js';

/** A collection whose objects become definitions. */
export interface WatchedKind extends Collection {
  readonly apiVersion: string;
  readonly kind: string;
}

/** As kube-proxy: headless services need no balancing, and some services have a proxy of their own. */
const PROXIED = {
  labelSelector: '!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name',
};

const ALL: readonly WatchedKind[] = [
  { name: 'namespaces', path: '/api/v1/namespaces', apiVersion: 'v1', kind: 'Namespace' },
  { name: 'nodes', path: '/api/v1/nodes', apiVersion: 'v1', kind: 'Node' },
  { name: 'services', path: '/api/v1/services', apiVersion: 'v1', kind: 'Service', query: PROXIED },
  {
    name: 'endpointslices',
    path: '/apis/discovery.k8s.io/v1/endpointslices',
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    query: PROXIED,
  },
  {
    name: 'networkpolicies',
    path: '/apis/networking.k8s.io/v1/networkpolicies',
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
  },
  {
    name: 'clusternetworkpolicies',
    path: '/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies',
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterNetworkPolicy',
    optional: true,
  },
  {
    name: 'networks',
    path: '/apis/sluice.dev/v1alpha1/networks',
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Network',
    optional: true,
  },
  {
    name: 'hostpolicies',
    path: '/apis/sluice.dev/v1alpha1/hostpolicies',
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'HostPolicy',
    optional: true,
  },
];

/** Kinds besides pods. */
export const WATCHED_KINDS: readonly WatchedKind[] = ALL.filter(({ apiVersion, kind }) =>
  TEST_KINDS.some((entry) => entry.apiVersion === apiVersion && entry.kind === kind),
);

/** Pods of this node, in every phase: containers that are attached get their labels from here. */
export function localPods(node: string): Collection {
  return {
    name: 'pods of this node',
    path: '/api/v1/pods',
    query: { fieldSelector: `spec.nodeName=${node}` },
  };
}

/** Pods of other nodes that may have an address. */
export function remotePods(node: string): Collection {
  const fieldSelector = [
    `spec.nodeName!=${node}`,
    'spec.nodeName!=',
    'status.phase!=Succeeded',
    'status.phase!=Failed',
  ].join(',');
  return { name: 'pods of other nodes', path: '/api/v1/pods', query: { fieldSelector } };
}
