/** What a cluster's control plane tells every node: the nodes with their ranges, and the pods on them. */
import type { Cluster, NodeOfCluster, Pod } from '../services/cluster.js';

/** A `v1` Node; `ipv4`, `ipv6`: its addresses, '' for none. */
export function nodeObject(
  node: Pick<NodeOfCluster, 'name' | 'index' | 'ipv4' | 'ipv6'>,
  labels: Readonly<Record<string, string>> = {},
): object {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: node.name, labels },
    spec: { podCIDRs: [`10.8${node.index}.0.0/24`, `fd8${node.index}::/64`] },
    status: {
      addresses: [node.ipv4, node.ipv6]
        .filter((address) => address !== '')
        .map((address) => ({ type: 'InternalIP', address })),
    },
  };
}

/** The `v1` Pod of a container. */
export function podObject(pod: Pod, labels: Readonly<Record<string, string>> = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: pod.name, labels },
    spec: { nodeName: pod.node, containers: [{ ports: [{ name: 'web', containerPort: 80 }] }] },
    status: { podIP: pod.ipv4, podIPs: [{ ip: pod.ipv4 }, { ip: pod.ipv6 }] },
  };
}

/** A cluster in which each node has one pod with a server on ports 80 and 9000, and all know of all. `known`: what they know of a node. */
export async function populated(
  cluster: Cluster,
  known: (node: NodeOfCluster) => NodeOfCluster = (node) => node,
): Promise<Pod[]> {
  await cluster.start();
  await cluster.apply(...cluster.nodes.map((node) => nodeObject(known(node), { rack: `r${node.index}` })));
  const pods: Pod[] = [];
  for (const node of cluster.nodes) {
    const labels = { app: `web${node.index}` };
    const pod = await cluster.pod(node, `pod${node.index}`, [80, 9000], labels);
    pods.push(pod);
    await cluster.apply(podObject(pod, labels));
  }
  return pods;
}

/** A NetworkPolicy for pods with `app`; `ingress` as in the API. */
export function ingressPolicy(name: string, app: string, ingress: readonly unknown[]): object {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name },
    spec: { podSelector: { matchLabels: { app } }, policyTypes: ['Ingress'], ingress },
  };
}

/** A NetworkPolicy that lets pods with `app` open connections to pods with `to` alone. */
export function egressPolicy(name: string, app: string, to: readonly string[]): object {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name },
    spec: {
      podSelector: { matchLabels: { app } },
      policyTypes: ['Egress'],
      egress: to.map((other) => ({ to: [{ podSelector: { matchLabels: { app: other } } }] })),
    },
  };
}
