/**
 * A cluster's worth of definitions: namespaces of ten containers each, the policies that such clusters have, and
 * the changes that happen to them. Each size has the same shape: a namespace is in a team of twenty, so one that
 * is ten times as large has ten times as many teams, and what a change touches stays the same.
 */
import type { Resource } from '../../policy/model/resources.js';
import { parseSources } from '../../policy/schema/parse.js';

export interface WorldSize {
  readonly namespaces: number;
  readonly endpoints: number;
  readonly policies: number;
}

export const NETWORK = 'cluster';

/** Containers of a namespace, in turn: four of web, three of api, two of worker, one of db. */
const APPS = ['web', 'web', 'api', 'web', 'worker', 'api', 'db', 'web', 'api', 'worker'] as const;
export type App = (typeof APPS)[number];

const PORTS: Readonly<Record<App, { readonly name: string; readonly port: number }>> = {
  web: { name: 'http', port: 8080 },
  api: { name: 'grpc', port: 9000 },
  worker: { name: 'health', port: 8081 },
  db: { name: 'sql', port: 5432 },
};

const TEAM_SIZE = 20;
/** One namespace in so many serves the pods of every namespace, and one those of production. */
const SHARED_EVERY = 5;
const ENVIRONMENTS = ['prod', 'staging', 'dev'] as const;
const DNS = 'ns-0';
const MONITORING = 'ns-1';
const GATEWAY = 'ns-2';

const PRIVATE_RANGES = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16'];

export const namespaceName = (index: number): string => `ns-${index}`;
export const containerName = (index: number): string => `c-${index}`;

export function appOf(index: number, namespaces: number): App {
  return APPS[Math.floor(index / namespaces) % APPS.length] ?? 'web';
}

export function namespaceDefinition(index: number, labels: Readonly<Record<string, string>> = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: {
      name: namespaceName(index),
      labels: {
        team: `team-${Math.floor(index / TEAM_SIZE)}`,
        env: ENVIRONMENTS[index % ENVIRONMENTS.length] ?? 'dev',
        ...labels,
      },
    },
  };
}

/** Container `index` of a world with so many namespaces; `app` and `labels` instead of what it would have. */
export function containerDefinition(
  index: number,
  namespaces: number,
  labels: Readonly<Record<string, string>> = {},
): object {
  const app = appOf(index, namespaces);
  return {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Container',
    metadata: {
      name: containerName(index),
      namespace: namespaceName(index % namespaces),
      labels: { app, tier: app === 'web' ? 'front' : 'back', ...labels },
    },
    spec: {
      netns: { name: `bench-${index}` },
      networks: [NETWORK],
      ports: [
        { name: PORTS[app].name, containerPort: PORTS[app].port },
        { name: 'metrics', containerPort: 9100 },
      ],
    },
  };
}

const pods = (app?: string): object => ({ podSelector: app === undefined ? {} : { matchLabels: { app } } });
const podsOf = (labels: Readonly<Record<string, string>>, app?: string): object => ({
  namespaceSelector: { matchLabels: labels },
  ...(app === undefined ? {} : pods(app)),
});
const named = (namespace: string): Record<string, string> => ({ 'kubernetes.io/metadata.name': namespace });

/** What a namespace's policies say, in turn; `extra` is a port that a change adds. */
const POLICIES: readonly ((
  namespace: number,
  extra: readonly object[],
) => {
  readonly name: string;
  readonly spec: object;
})[] = [
  () => ({ name: 'default-deny', spec: { podSelector: {}, policyTypes: ['Ingress', 'Egress'] } }),
  (_, extra) => ({
    name: 'dns',
    spec: {
      podSelector: {},
      policyTypes: ['Egress'],
      egress: [{ to: [podsOf(named(DNS))], ports: [{ protocol: 'UDP', port: 53 }, { port: 53 }, ...extra] }],
    },
  }),
  (namespace, extra) => ({
    name: 'web',
    spec: {
      podSelector: { matchLabels: { app: 'web' } },
      policyTypes: ['Ingress', 'Egress'],
      ingress: [
        { from: [podsOf(named(GATEWAY)), pods()], ports: [{ port: 'http' }, ...extra] },
        ...(namespace % SHARED_EVERY === 2
          ? [{ from: [{ namespaceSelector: {} }], ports: [{ port: 'http' }] }]
          : []),
      ],
      egress: [{ to: [pods('api')], ports: [{ port: 'grpc' }] }],
    },
  }),
  (namespace, extra) => ({
    name: 'api',
    spec: {
      podSelector: { matchLabels: { app: 'api' } },
      policyTypes: ['Ingress', 'Egress'],
      ingress: [
        {
          from: [pods('web'), podsOf({ team: `team-${Math.floor(namespace / TEAM_SIZE)}` }, 'web')],
          ports: [{ port: 9000 }, { port: 9443 }, ...extra],
        },
        ...(namespace % SHARED_EVERY === 4
          ? [{ from: [podsOf({ env: 'prod' }, 'api')], ports: [{ port: 9000 }] }]
          : []),
      ],
      egress: [
        { to: [pods('db')], ports: [{ port: 'sql' }] },
        {
          to: [
            {
              ipBlock: {
                cidr: `203.0.${namespace % 20}.0/24`,
                except: [`203.0.${namespace % 20}.64/28`, `203.0.${namespace % 20}.192/28`],
              },
            },
          ],
          ports: [{ port: 443 }, { port: 30000, endPort: 30999 }],
        },
      ],
    },
  }),
  (namespace, extra) =>
    namespace % 2 === 0
      ? {
          name: 'metrics',
          spec: {
            podSelector: {},
            policyTypes: ['Ingress'],
            ingress: [{ from: [podsOf(named(MONITORING))], ports: [{ port: 'metrics' }, ...extra] }],
          },
        }
      : {
          name: 'worker',
          spec: {
            podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['worker', 'db'] }] },
            policyTypes: ['Ingress', 'Egress'],
            ingress: [{ from: [pods('api'), pods('worker')], ports: [{ port: 5432 }, ...extra] }],
            egress: [
              { to: [{ ipBlock: { cidr: '0.0.0.0/0', except: PRIVATE_RANGES } }], ports: [{ port: 443 }] },
              { to: [pods('db')], ports: [{ port: 5432 }] },
            ],
          },
        },
];

/** Kinds of policies that a namespace has, by the position to give to `policyDefinition`. */
export const POLICY_KINDS = ['default-deny', 'dns', 'web', 'api', 'metrics or worker'] as const;

/** Policy `kind` of a namespace; with `extraPort`, its rule allows one port more. */
export function policyDefinition(namespace: number, kind: number, extraPort?: number): object {
  const make = POLICIES[kind % POLICIES.length];
  if (make === undefined) throw new RangeError('no policies');
  const { name, spec } = make(namespace, extraPort === undefined ? [] : [{ port: extraPort }]);
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: `${name}-${Math.floor(kind / POLICIES.length)}`, namespace: namespaceName(namespace) },
    spec,
  };
}

/** What the administrators of such a cluster say before and after all others. */
function clusterPolicies(): object[] {
  const policy = (name: string, tier: 'Admin' | 'Baseline', priority: number, spec: object): object => ({
    apiVersion: 'policy.networking.k8s.io/v1alpha2',
    kind: 'ClusterNetworkPolicy',
    metadata: { name },
    spec: { tier, priority, ...spec },
  });
  const all = { namespaces: {} };
  const env = (value: string): object => ({ namespaces: { matchLabels: { env: value } } });
  return [
    policy('monitoring', 'Admin', 10, {
      subject: all,
      ingress: [{ action: 'Accept', from: [{ namespaces: { matchLabels: named(MONITORING) } }] }],
    }),
    policy('metadata-service', 'Admin', 20, {
      subject: all,
      egress: [{ action: 'Deny', to: [{ networks: ['169.254.169.254/32'] }] }],
    }),
    policy('environments', 'Admin', 30, {
      subject: env('prod'),
      ingress: [{ action: 'Deny', from: [env('dev')] }],
    }),
    policy('default', 'Baseline', 10, { subject: all, ingress: [{ action: 'Deny', from: [all] }] }),
  ];
}

/** Every definition of a world; `policies` are those of namespaces. */
export function world({ namespaces, endpoints, policies }: WorldSize): object[] {
  return [
    {
      apiVersion: 'sluice.dev/v1alpha1',
      kind: 'Network',
      metadata: { name: NETWORK },
      spec: { ipv4: { cidr: '10.128.0.0/12' } },
    },
    ...clusterPolicies(),
    ...Array.from({ length: namespaces }, (_, i) => namespaceDefinition(i)),
    ...Array.from({ length: policies }, (_, i) =>
      policyDefinition(i % namespaces, Math.floor(i / namespaces)),
    ),
    ...Array.from({ length: endpoints }, (_, i) => containerDefinition(i, namespaces)),
  ];
}

/** Definitions as text, one document each. */
export function textOf(definitions: readonly object[]): string {
  return definitions.map((definition) => JSON.stringify(definition)).join('\n---\n');
}

/** The resources that definitions are; throws the first error. */
export function parse(text: string): Resource[] {
  const { resources, errors } = parseSources([{ file: 'world.yaml', text }]);
  if (errors[0] !== undefined) throw errors[0];
  return resources;
}
