import type { ContainerResource, Resource, ResourceKind } from '../../policy/model/resources.js';

/** Identifies an object: kind, namespace (if it has one) and name. */
export type ResourceKey = string;

export function keyOf(resource: Resource): ResourceKey {
  if (resource.kind === 'Pod' && resource.key !== undefined) return resource.key;
  // There may be very many. A text that is put together by + keeps its parts as well; by join it does not.
  return 'namespace' in resource
    ? [resource.kind, ' ', resource.namespace, '/', resource.name].join('')
    : [resource.kind, resource.name].join(' ');
}

/** The key of an object by its kind and its name as people write it. */
export function keyText(kind: string, displayed: string): ResourceKey {
  return [kind, displayed].join(' ');
}

export function namespaceOf(resource: Resource): string | undefined {
  return 'namespace' in resource ? resource.namespace : undefined;
}

/** The name as people write it: `namespace/name`, or the name alone. */
export function displayName(resource: Resource): string {
  return 'namespace' in resource ? [resource.namespace, resource.name].join('/') : resource.name;
}

/** Identifies one container in one network, in leases, aliases and the policy compiler. */
export function attachmentId(
  container: Pick<ContainerResource, 'namespace' | 'name'>,
  network: string,
): string {
  return `${container.namespace}/${container.name}:${network}`;
}

/** `namespace/name` of the container of an attachment. */
export function containerOf(attachment: string): string {
  return attachment.slice(0, attachment.lastIndexOf(':'));
}

/** Order in which objects are shown and created. */
export const KIND_ORDER: readonly ResourceKind[] = [
  'Namespace',
  'Network',
  'NetworkPolicy',
  'ClusterNetworkPolicy',
  'HostPolicy',
  'Container',
  'Service',
  'EndpointSlice',
  'Node',
  'Pod',
];
