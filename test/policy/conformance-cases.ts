/** The conformance suites in their own format, and what a case is as a PolicyTest. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Labels } from '../../policy/model/resources.js';

const FOLDER = fileURLToPath(new URL('../../../shared/conformance/', import.meta.url));

/** The suites that are here, as `netpol/NAME.json` and `cnp/NAME.json`; says so if there are none. */
export function conformanceSuites(): string[] {
  const found = ['netpol', 'cnp']
    .filter((group) => existsSync(`${FOLDER}${group}`))
    .flatMap((group) => readdirSync(`${FOLDER}${group}`).map((name) => `${group}/${name}`))
    .filter((path) => path.endsWith('.json'));
  if (found.length === 0) console.warn(`conformance suites are not here, skipped: ${FOLDER}`);
  return found;
}

export function readSuite(path: string): readonly Case[] {
  return (JSON.parse(readFileSync(`${FOLDER}${path}`, 'utf8')) as { readonly cases: readonly Case[] }).cases;
}

export interface CasePod {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly ips: readonly string[];
  readonly ports: readonly {
    readonly port: number;
    readonly protocol: 'TCP' | 'UDP' | 'SCTP';
    /** Absent: no policy can name it. */
    readonly name?: string;
  }[];
  readonly node?: string;
  /** Its addresses are those of its node. */
  readonly hostNetwork?: boolean;
}

export interface CaseNode {
  readonly name: string;
  readonly labels: Labels;
  readonly ips: readonly string[];
}

export interface CaseProbe {
  readonly from: string;
  readonly to: string;
  readonly port: number;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly family?: 'ipv4' | 'ipv6';
  readonly expect: 'allow' | 'deny';
}

export type Action =
  | { readonly op: 'createPolicy' | 'updatePolicy'; readonly policy: unknown }
  | {
      readonly op: 'deletePolicy';
      readonly kind?: string;
      readonly namespace?: string;
      readonly name: string;
    }
  | { readonly op: 'deletePod'; readonly namespace: string; readonly name: string }
  | {
      readonly op: 'createNamespace' | 'setNamespaceLabels';
      readonly namespace: string;
      readonly labels: Labels;
    }
  | { readonly op: 'deleteNamespace'; readonly namespace: string }
  | ({ readonly op: 'createPod' } & CasePod)
  | {
      readonly op: 'setPodLabels';
      readonly namespace: string;
      readonly name: string;
      readonly labels: Labels;
    };

export interface Case {
  readonly name: string;
  readonly namespaces: readonly { readonly name: string; readonly labels: Labels }[];
  readonly pods: readonly CasePod[];
  readonly nodes?: readonly CaseNode[];
  readonly policies: readonly unknown[];
  readonly probes?: readonly CaseProbe[];
  readonly steps?: readonly { readonly actions: readonly Action[]; readonly probes: readonly CaseProbe[] }[];
}

/**
 * One suite consists of unit tests with policies that an API server refuses: an endPort above 65535,
 * meant as "to the end", and names with capitals.
 */
export function validPolicy(document: unknown): unknown {
  const text = JSON.stringify(document)
    .replaceAll('"endPort":65537', '"endPort":65535')
    .replace(/"metadata":\{"name":"[^"]*"/, (name) => name.toLowerCase());
  return JSON.parse(text);
}

function podDocument(pod: CasePod): unknown {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { namespace: pod.namespace, name: pod.name, labels: pod.labels },
    spec: {
      ...(pod.node === undefined ? {} : { nodeName: pod.node }),
      ...(pod.hostNetwork === undefined ? {} : { hostNetwork: pod.hostNetwork }),
      containers: [{ ports: pod.ports.map(({ port, ...rest }) => ({ ...rest, containerPort: port })) }],
    },
    status: { podIPs: pod.ips.map((ip) => ({ ip })) },
  };
}

const namespaceDocument = (name: string, labels: Labels): unknown => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name, labels },
});

function probeDocument({ from, to, port, protocol, family, expect }: CaseProbe): unknown {
  return { from, to, port, protocol, ...(family === undefined ? {} : { family }), expect };
}

/** The case as a document of kind PolicyTest. */
export function policyTestOf(one: Case): unknown {
  const pods = new Map(one.pods.map((pod) => [`${pod.namespace}/${pod.name}`, pod]));
  const steps = (one.steps ?? []).map(({ actions, probes }) => {
    const apply = new Map<string, unknown>();
    const gone: unknown[] = [];
    const setPod = (pod: CasePod): void => {
      pods.set(`${pod.namespace}/${pod.name}`, pod);
      apply.set(`Pod ${pod.namespace}/${pod.name}`, podDocument(pod));
    };
    for (const action of actions) {
      switch (action.op) {
        case 'createPolicy':
        case 'updatePolicy':
          apply.set(JSON.stringify(action.policy), validPolicy(action.policy));
          break;
        case 'createNamespace':
        case 'setNamespaceLabels':
          apply.set(`Namespace ${action.namespace}`, namespaceDocument(action.namespace, action.labels));
          break;
        case 'createPod':
          setPod(action);
          break;
        case 'setPodLabels': {
          const pod = pods.get(`${action.namespace}/${action.name}`);
          if (pod === undefined) throw new Error(`no pod ${action.namespace}/${action.name}`);
          setPod({ ...pod, labels: action.labels });
          break;
        }
        case 'deleteNamespace':
          gone.push({ kind: 'Namespace', name: action.namespace });
          break;
        case 'deletePod':
          gone.push({ kind: 'Pod', namespace: action.namespace, name: action.name });
          break;
        case 'deletePolicy': {
          const { namespace, name } = action;
          const { kind = 'NetworkPolicy' } = action;
          gone.push({ kind, ...(namespace === undefined ? {} : { namespace }), name });
        }
      }
    }
    return { apply: [...apply.values()], delete: gone, probes: probes.map(probeDocument) };
  });
  return {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'PolicyTest',
    metadata: { name: one.name },
    spec: {
      resources: [
        ...one.namespaces.map(({ name, labels }) => namespaceDocument(name, labels)),
        ...(one.nodes ?? []).map(({ name, labels, ips }) => ({
          apiVersion: 'v1',
          kind: 'Node',
          metadata: { name, labels },
          status: { addresses: ips.map((address) => ({ type: 'InternalIP', address })) },
        })),
        ...one.pods.map(podDocument),
        ...one.policies.map(validPolicy),
      ],
      probes: (one.probes ?? []).map(probeDocument),
      steps,
    },
  };
}
