/** `v1` Namespace: schema and lowering. */
import { z } from 'zod';
import type { NamespaceResource } from '../model/resources.js';
import { clusterMetadata, mapping, optional } from './fields.js';
import type { Lowering } from './lowering.js';

/** Label that the API server puts on every namespace: its name. */
export const NAMESPACE_NAME_LABEL = 'kubernetes.io/metadata.name';

export const namespaceSchema = mapping({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: clusterMetadata('Namespace'),
  spec: optional(mapping({ finalizers: optional(z.array(z.string())) })),
  status: z.unknown().optional(),
});

export function lowerNamespace(
  document: z.output<typeof namespaceSchema>,
  lowering: Lowering,
): NamespaceResource {
  const { name, labels } = document.metadata;
  return {
    kind: 'Namespace',
    name,
    labels: { ...labels, [NAMESPACE_NAME_LABEL]: name },
    origin: lowering.origin(),
    source: lowering.source,
  };
}
