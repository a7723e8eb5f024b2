/**
 * Schemas of the kinds that the manifests have, after the reference of the API (v1.34) and of the Prometheus operator, as
 * far as the manifests use them: a field that is not here is an error, so a misspelt one is found.
 */
import { z } from 'zod';

const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
const LABEL_NAME = /^([a-z0-9.-]+\/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$/;

const name = z.string().regex(NAME);
const portName = z.string().regex(/^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/);
const port = z.int().min(1).max(65535);
const labels = z.record(
  z.string().regex(LABEL_NAME),
  z.string().regex(/^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/),
);
const annotations = z.record(z.string().regex(LABEL_NAME), z.string());
const absolute = z.string().startsWith('/');
const quantity = z.string().regex(/^[0-9.]+(m|k|Ki|M|Mi|G|Gi)?$/);
const duration = z.string().regex(/^[0-9]+(ms|s|m|h)$/);
const selector = z.strictObject({ matchLabels: labels });

const clusterMetadata = z.strictObject({
  name,
  labels: labels.optional(),
  annotations: annotations.optional(),
});
const metadata = clusterMetadata.extend({ namespace: name });

const probe = z.strictObject({
  httpGet: z.strictObject({ path: absolute, port: z.union([port, portName]), host: z.string().optional() }),
  initialDelaySeconds: z.int().min(0).optional(),
  periodSeconds: z.int().min(1).optional(),
  timeoutSeconds: z.int().min(1).optional(),
  failureThreshold: z.int().min(1).optional(),
});

/** Names of linux/capability.h without CAP_. */
const CAPABILITIES = [
  ...['ALL', 'BPF', 'CHECKPOINT_RESTORE', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'NET_ADMIN', 'NET_BIND_SERVICE'],
  ...['NET_RAW', 'PERFMON', 'SYS_ADMIN', 'SYS_MODULE', 'SYS_PTRACE', 'SYS_RESOURCE'],
] as const;

const profile = z.strictObject({ type: z.enum(['RuntimeDefault', 'Unconfined', 'Localhost']) });

const container = z.strictObject({
  name: portName,
  image: z.string().regex(/^[a-z0-9.-]+(:[0-9]+)?(\/[a-z0-9._-]+)+(:[\w.-]+|@sha256:[0-9a-f]{64})$/),
  imagePullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']),
  args: z.array(z.string()),
  env: z.array(
    z.union([
      z.strictObject({ name: z.string().regex(/^[A-Z_]+$/), value: z.string() }),
      z.strictObject({
        name: z.string().regex(/^[A-Z_]+$/),
        valueFrom: z.strictObject({
          fieldRef: z.strictObject({ fieldPath: z.enum(['spec.nodeName', 'metadata.name', 'status.podIP']) }),
        }),
      }),
    ]),
  ),
  securityContext: z.strictObject({
    privileged: z.literal(false),
    allowPrivilegeEscalation: z.boolean(),
    readOnlyRootFilesystem: z.literal(true),
    capabilities: z.strictObject({
      drop: z.array(z.enum(CAPABILITIES)),
      add: z.array(z.enum(CAPABILITIES)),
    }),
    seccompProfile: profile,
    appArmorProfile: profile,
  }),
  ports: z.array(
    z.strictObject({
      name: portName,
      containerPort: port,
      hostPort: port,
      protocol: z.enum(['TCP', 'UDP', 'SCTP']),
    }),
  ),
  startupProbe: probe,
  livenessProbe: probe,
  readinessProbe: probe,
  resources: z.strictObject({
    requests: z.strictObject({ cpu: quantity, memory: quantity }),
    limits: z.strictObject({ cpu: quantity.optional(), memory: quantity.optional() }).optional(),
  }),
  volumeMounts: z.array(
    z.strictObject({
      name: portName,
      mountPath: absolute,
      readOnly: z.boolean().optional(),
      mountPropagation: z.enum(['None', 'HostToContainer', 'Bidirectional']).optional(),
    }),
  ),
});

const volume = z.union([
  z.strictObject({
    name: portName,
    hostPath: z.strictObject({
      path: absolute,
      type: z.enum(['Directory', 'DirectoryOrCreate', 'File', 'FileOrCreate', 'Socket']),
    }),
  }),
  z.strictObject({ name: portName, configMap: z.strictObject({ name }) }),
]);

const daemonSet = z
  .strictObject({
    apiVersion: z.literal('apps/v1'),
    kind: z.literal('DaemonSet'),
    metadata,
    spec: z.strictObject({
      selector,
      updateStrategy: z.strictObject({
        type: z.literal('RollingUpdate'),
        rollingUpdate: z.strictObject({
          maxUnavailable: z.union([z.int().min(1), z.string().regex(/^[0-9]{1,2}%$|^100%$/)]),
        }),
      }),
      template: z.strictObject({
        metadata: z.strictObject({ labels, annotations: annotations.optional() }),
        spec: z.strictObject({
          serviceAccountName: name,
          imagePullSecrets: z.array(z.strictObject({ name })).optional(),
          priorityClassName: name,
          hostNetwork: z.literal(true),
          dnsPolicy: z.enum(['Default', 'ClusterFirst', 'ClusterFirstWithHostNet', 'None']),
          terminationGracePeriodSeconds: z.int().min(0),
          nodeSelector: labels,
          tolerations: z.array(
            z.strictObject({
              key: z.string().optional(),
              operator: z.enum(['Exists', 'Equal']).optional(),
              value: z.string().optional(),
              effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
            }),
          ),
          containers: z.array(container).min(1),
          volumes: z.array(volume),
        }),
      }),
    }),
  })
  .superRefine(({ spec: { selector: chosen, template } }, ctx) => {
    const refuse = (message: string): void => ctx.addIssue({ code: 'custom', message });
    for (const [key, value] of Object.entries(chosen.matchLabels))
      if (template.metadata.labels[key] !== value) refuse(`the selector's ${key} is not the template's`);
    const volumes = template.spec.volumes.map((one) => one.name);
    for (const one of template.spec.containers) {
      const mounted = one.volumeMounts.map((mount) => mount.name);
      for (const mount of mounted) if (!volumes.includes(mount)) refuse(`no volume ${mount}`);
      for (const known of volumes) if (!mounted.includes(known)) refuse(`nobody mounts ${known}`);
      const ports = one.ports.map((entry) => entry.name);
      for (const { httpGet } of [one.startupProbe, one.livenessProbe, one.readinessProbe])
        if (typeof httpGet.port === 'string' && !ports.includes(httpGet.port))
          refuse(`no port ${httpGet.port}`);
      for (const { containerPort, hostPort } of one.ports)
        if (containerPort !== hostPort) refuse('with hostNetwork both ports are one');
    }
  });

const VERBS = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'deletecollection'] as const;

export const clusterRole = z.strictObject({
  apiVersion: z.literal('rbac.authorization.k8s.io/v1'),
  kind: z.literal('ClusterRole'),
  metadata: clusterMetadata,
  rules: z.array(
    z.strictObject({
      apiGroups: z.array(z.string()).min(1),
      resources: z.array(z.string().regex(/^[a-z]+(\/[a-z]+)?$/)).min(1),
      verbs: z.array(z.enum(VERBS)).min(1),
    }),
  ),
});

const clusterRoleBinding = z.strictObject({
  apiVersion: z.literal('rbac.authorization.k8s.io/v1'),
  kind: z.literal('ClusterRoleBinding'),
  metadata: clusterMetadata,
  roleRef: z.strictObject({
    apiGroup: z.literal('rbac.authorization.k8s.io'),
    kind: z.literal('ClusterRole'),
    name,
  }),
  subjects: z.array(z.strictObject({ kind: z.literal('ServiceAccount'), name, namespace: name })).length(1),
});

/** A structural schema (apiextensions.k8s.io/v1): every value has its type, nothing refers to elsewhere. */
type Structural = {
  type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean';
  description?: string;
  format?: 'int32' | 'int64' | 'date-time';
  properties?: Record<string, Structural>;
  additionalProperties?: Structural;
  items?: Structural;
} & Record<string, unknown>;

const structural: z.ZodType<Structural> = z.lazy(() =>
  z
    .strictObject({
      type: z.enum(['object', 'array', 'string', 'integer', 'number', 'boolean']).optional(),
      description: z.string().optional(),
      format: z.enum(['int32', 'int64', 'date-time']).optional(),
      enum: z.array(z.string()).optional(),
      default: z.union([z.string(), z.number(), z.boolean()]).optional(),
      pattern: z
        .string()
        .refine((text) => new RegExp(text) instanceof RegExp)
        .optional(),
      minLength: z.int().min(0).optional(),
      maxLength: z.int().min(0).optional(),
      minimum: z.number().optional(),
      maximum: z.number().optional(),
      minItems: z.int().min(0).optional(),
      maxItems: z.int().min(0).optional(),
      minProperties: z.int().min(0).optional(),
      maxProperties: z.int().min(0).optional(),
      required: z.array(z.string()).optional(),
      properties: z.record(z.string(), structural).optional(),
      additionalProperties: structural.optional(),
      items: structural.optional(),
      'x-kubernetes-int-or-string': z.literal(true).optional(),
      'x-kubernetes-list-type': z.enum(['map', 'set', 'atomic']).optional(),
      'x-kubernetes-list-map-keys': z.array(z.string()).optional(),
    })
    .superRefine((value, ctx) => {
      const { type, properties, additionalProperties, items, required = [] } = value;
      const refuse = (message: string): void => ctx.addIssue({ code: 'custom', message });
      const either = value['x-kubernetes-int-or-string'] === true;
      if ((type === undefined) !== either) refuse('needs a type, or int-or-string');
      if (properties !== undefined && additionalProperties !== undefined)
        refuse('has properties and additionalProperties');
      if ((properties ?? additionalProperties) !== undefined && type !== 'object') refuse('is no object');
      if ((items !== undefined) !== (type === 'array')) refuse('a list, and nothing else, has items');
      for (const field of required)
        if (properties?.[field] === undefined) refuse(`requires ${field}, which it does not have`);
      for (const key of value['x-kubernetes-list-map-keys'] ?? [])
        if (Array.isArray(items?.required) && !items.required.includes(key))
          refuse(`the key ${key} must be required`);
    }),
) as z.ZodType<Structural>;

export const customResourceDefinition = z
  .strictObject({
    apiVersion: z.literal('apiextensions.k8s.io/v1'),
    kind: z.literal('CustomResourceDefinition'),
    metadata: clusterMetadata,
    spec: z.strictObject({
      group: name,
      scope: z.enum(['Cluster', 'Namespaced']),
      names: z.strictObject({
        plural: name,
        singular: name,
        kind: z.string().regex(/^[A-Z][A-Za-z]+$/),
        listKind: z.string(),
        categories: z.array(name),
      }),
      versions: z
        .array(
          z.strictObject({
            name: z.string().regex(/^v[0-9]+((alpha|beta)[0-9]+)?$/),
            served: z.boolean(),
            storage: z.boolean(),
            subresources: z.strictObject({ status: z.strictObject({}) }),
            additionalPrinterColumns: z.array(
              z.strictObject({
                name: z.string(),
                type: z.enum(['string', 'integer', 'number', 'boolean', 'date']),
                jsonPath: z.string().regex(/^\.(metadata|spec|status)\./),
              }),
            ),
            schema: z.strictObject({ openAPIV3Schema: structural }),
          }),
        )
        .min(1),
    }),
  })
  .superRefine(({ metadata: { name: own }, spec }, ctx) => {
    if (own !== `${spec.names.plural}.${spec.group}`)
      ctx.addIssue({ code: 'custom', message: 'the name is not PLURAL.GROUP' });
    if (spec.versions.filter(({ storage }) => storage).length !== 1)
      ctx.addIssue({ code: 'custom', message: 'one version is stored' });
  });

const relabeling = z.strictObject({ sourceLabels: z.array(z.string()), targetLabel: z.string() });
const endpoint = z.strictObject({
  port: portName,
  path: absolute,
  interval: duration,
  relabelings: z.array(relabeling),
});

/** By kind. */
export const SCHEMAS: Readonly<Record<string, z.ZodType>> = {
  ServiceAccount: z.strictObject({
    apiVersion: z.literal('v1'),
    kind: z.literal('ServiceAccount'),
    metadata,
  }),
  ConfigMap: z.strictObject({
    apiVersion: z.literal('v1'),
    kind: z.literal('ConfigMap'),
    metadata,
    data: z.record(z.string(), z.string()),
  }),
  Service: z.strictObject({
    apiVersion: z.literal('v1'),
    kind: z.literal('Service'),
    metadata,
    spec: z.strictObject({
      clusterIP: z.literal('None'),
      selector: labels,
      ports: z.array(
        z.strictObject({
          name: portName,
          port,
          targetPort: z.union([port, portName]),
          protocol: z.enum(['TCP', 'UDP', 'SCTP']),
        }),
      ),
    }),
  }),
  DaemonSet: daemonSet,
  ClusterRole: clusterRole,
  ClusterRoleBinding: clusterRoleBinding,
  CustomResourceDefinition: customResourceDefinition,
  PodMonitor: z.strictObject({
    apiVersion: z.literal('monitoring.coreos.com/v1'),
    kind: z.literal('PodMonitor'),
    metadata,
    spec: z.strictObject({ selector, podMetricsEndpoints: z.array(endpoint) }),
  }),
  ServiceMonitor: z.strictObject({
    apiVersion: z.literal('monitoring.coreos.com/v1'),
    kind: z.literal('ServiceMonitor'),
    metadata,
    spec: z.strictObject({ selector, endpoints: z.array(endpoint) }),
  }),
};
