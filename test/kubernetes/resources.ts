/** The kinds that the stand-in serves, and the parts of a request's path. */

export interface ResourceType {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

const type = (api: string, plural: string, kind: string, namespaced: boolean): ResourceType => {
  const [group = '', version = ''] = api.includes('/') ? api.split('/') : ['', api];
  return { group, version, plural, kind, namespaced };
};

export const TYPES: readonly ResourceType[] = [
  type('v1', 'pods', 'Pod', true),
  type('v1', 'namespaces', 'Namespace', false),
  type('v1', 'nodes', 'Node', false),
  type('v1', 'services', 'Service', true),
  type('v1', 'events', 'Event', true),
  type('discovery.k8s.io/v1', 'endpointslices', 'EndpointSlice', true),
  type('networking.k8s.io/v1', 'networkpolicies', 'NetworkPolicy', true),
  type('coordination.k8s.io/v1', 'leases', 'Lease', true),
  type('policy.networking.k8s.io/v1alpha2', 'clusternetworkpolicies', 'ClusterNetworkPolicy', false),
  type('sluice.dev/v1alpha1', 'networks', 'Network', false),
  type('sluice.dev/v1alpha1', 'hostpolicies', 'HostPolicy', false),
];

export interface Target {
  readonly type: ResourceType;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

/** What a path such as `/api/v1/namespaces/shop/pods/web-0/status` names. */
export function targetOf(path: string): Target | undefined {
  const parts = path
    .split('/')
    .filter((part) => part !== '')
    .map(decodeURIComponent);
  const [root] = parts.splice(0, 1);
  const group = root === 'apis' ? parts.shift() : root === 'api' ? '' : undefined;
  const version = parts.shift();
  if (group === undefined || version === undefined) return undefined;
  let namespace: string | undefined;
  const find = (plural: string | undefined): ResourceType | undefined =>
    TYPES.find((one) => one.group === group && one.version === version && one.plural === plural);
  if (parts[0] === 'namespaces' && parts.length > 2 && find(parts[2]) !== undefined) {
    namespace = parts[1];
    parts.splice(0, 2);
  }
  const found = find(parts.shift());
  const [name, subresource] = parts;
  return found === undefined ? undefined : { type: found, namespace, name, subresource };
}

export const apiVersionOf = ({ group, version }: ResourceType): string =>
  group === '' ? version : `${group}/${version}`;

/** An object as it is stored. */
export interface Stored {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    uid: string;
    resourceVersion: string;
    generation: number;
    creationTimestamp: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  spec?: Record<string, unknown>;
  status?: Record<string, unknown>;
  [field: string]: unknown;
}

export const keyOf = (object: Stored): string =>
  object.metadata.namespace === undefined
    ? object.metadata.name
    : `${object.metadata.namespace}/${object.metadata.name}`;

const text = (value: unknown): string => (typeof value === 'string' ? value : '');

const FIELDS: Readonly<Record<string, (object: Stored) => string>> = {
  'metadata.name': ({ metadata }) => metadata.name,
  'metadata.namespace': ({ metadata }) => metadata.namespace ?? '',
  'spec.nodeName': ({ spec }) => text(spec?.nodeName),
  'status.phase': ({ status }) => text(status?.phase),
};

/** A filter for field and label selectors; a text says what is wrong with them. */
export function selection(
  { plural }: ResourceType,
  fields: string,
  labels: string,
): ((object: Stored) => boolean) | string {
  const tests: ((object: Stored) => boolean)[] = [];
  for (const part of fields.split(',').filter((one) => one !== '')) {
    const match = /^([\w.]+)(!=|==?)(.*)$/.exec(part);
    const read = FIELDS[match?.[1] ?? ''];
    const known = match?.[1]?.startsWith('metadata.') === true || plural === 'pods';
    if (match === null || read === undefined || !known) return `field label not supported: ${part}`;
    const [, , operator, value] = match;
    tests.push((object) => (read(object) === value) === (operator !== '!='));
  }
  for (const part of labels.split(',').filter((one) => one !== '')) {
    const match = /^(!?)([\w./-]+)(?:(!=|==?)(.*))?$/.exec(part);
    if (match === null) return `unable to parse requirement: ${part}`;
    const [, not, key = '', operator, value] = match;
    tests.push(({ metadata }) => {
      const has = metadata.labels?.[key];
      if (operator === undefined) return (has !== undefined) === (not === '');
      return (has === value) === (operator !== '!=');
    });
  }
  return (object) => tests.every((test) => test(object));
}
