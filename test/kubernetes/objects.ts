/** Objects for the stand-in, in the size and with the fields that a real API server sends. */
import type { Given } from './store.js';

export function namespace(name: string, labels: Record<string, string> = {}): Given {
  return {
    metadata: { name, labels: { 'kubernetes.io/metadata.name': name, ...labels } },
    spec: { finalizers: ['kubernetes'] },
    status: { phase: 'Active' },
  };
}

export function node(
  name: string,
  addresses: readonly string[],
  podCIDRs: readonly string[],
  labels: Record<string, string> = {},
): Given {
  return {
    metadata: { name, labels: { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux', ...labels } },
    spec: podCIDRs.length === 0 ? {} : { podCIDR: podCIDRs[0], podCIDRs },
    status: {
      addresses: [
        ...addresses.map((address) => ({ type: 'InternalIP', address })),
        { type: 'Hostname', address: name },
      ],
      conditions: [{ type: 'Ready', status: 'True', reason: 'KubeletReady' }],
      nodeInfo: { kubeletVersion: 'v1.34.1', osImage: 'Debian GNU/Linux 13 (trixie)' },
    },
  };
}

export interface PodGiven {
  readonly namespace?: string;
  readonly name: string;
  readonly node?: string;
  readonly ips?: readonly string[];
  readonly labels?: Record<string, string>;
  readonly ports?: readonly {
    readonly name: string;
    readonly containerPort: number;
    readonly protocol?: string;
  }[];
  readonly hostNetwork?: boolean;
  readonly phase?: string;
  readonly terminating?: boolean;
}

export function pod(given: PodGiven): Given {
  const {
    namespace: where = 'default',
    name,
    node: nodeName,
    ips = [],
    labels = {},
    phase = 'Running',
  } = given;
  return {
    metadata: {
      name,
      namespace: where,
      labels,
      annotations: { 'kubectl.kubernetes.io/last-applied-configuration': '{"apiVersion":"v1","kind":"Pod"}' },
      managedFields: [
        { manager: 'kubelet', operation: 'Update', apiVersion: 'v1', fieldsV1: { 'f:status': {} } },
      ],
      ...(given.terminating === true
        ? { deletionTimestamp: '2026-01-01T00:01:00Z', deletionGracePeriodSeconds: 30 }
        : {}),
    },
    spec: {
      ...(nodeName === undefined ? {} : { nodeName }),
      ...(given.hostNetwork === true ? { hostNetwork: true } : {}),
      containers: [
        {
          name: 'main',
          image: 'registry.example/app:1',
          ports: given.ports ?? [],
          resources: { requests: { cpu: '100m', memory: '64Mi' } },
          volumeMounts: [{ name: 'token', mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' }],
        },
      ],
      restartPolicy: 'Always',
      serviceAccountName: 'default',
      tolerations: [{ key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute' }],
    },
    status: {
      phase,
      conditions: [{ type: 'Ready', status: 'True' }],
      ...(ips.length === 0 ? {} : { podIP: ips[0], podIPs: ips.map((ip) => ({ ip })) }),
      qosClass: 'Burstable',
    },
  };
}

export function service(
  name: string,
  clusterIPs: readonly string[],
  ports: readonly {
    name?: string;
    port: number;
    targetPort?: number | string;
    protocol?: string;
    nodePort?: number;
  }[],
  more: Record<string, unknown> = {},
  where = 'default',
): Given {
  return {
    metadata: { name, namespace: where },
    spec: {
      type: 'ClusterIP',
      selector: { app: name },
      clusterIP: clusterIPs[0],
      clusterIPs,
      ipFamilies: clusterIPs.map((ip) => (ip.includes(':') ? 'IPv6' : 'IPv4')),
      ipFamilyPolicy: clusterIPs.length > 1 ? 'RequireDualStack' : 'SingleStack',
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: 'None',
      ports: ports.map((port) => ({ protocol: 'TCP', targetPort: port.port, ...port })),
      ...more,
    },
    status: { loadBalancer: {} },
  };
}

export function slice(
  name: string,
  of: string,
  endpoints: readonly { readonly ip: string; readonly node?: string; readonly ready?: boolean }[],
  ports: readonly { name?: string; port: number; protocol?: string }[],
  where = 'default',
): Given {
  return {
    metadata: {
      name,
      namespace: where,
      labels: {
        'kubernetes.io/service-name': of,
        'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
      },
    },
    addressType: endpoints[0]?.ip.includes(':') === true ? 'IPv6' : 'IPv4',
    ports: ports.map((port) => ({ name: '', protocol: 'TCP', ...port })),
    endpoints: endpoints.map(({ ip, node: nodeName, ready = true }) => ({
      addresses: [ip],
      conditions: { ready, serving: ready, terminating: false },
      ...(nodeName === undefined ? {} : { nodeName }),
      targetRef: { kind: 'Pod', name: `pod-${ip}`, namespace: where },
    })),
  };
}

export function networkPolicy(name: string, spec: Record<string, unknown>, where = 'default'): Given {
  return { metadata: { name, namespace: where }, spec };
}
